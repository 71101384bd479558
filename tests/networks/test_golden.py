"""The peers' networks, through our importer: the same weights give the same logits and gradients.

`python -m tests.golden.make` writes the fixtures; here neither torchvision nor timm is needed.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.golden.weights import LABELS, images, weight
from torch import nn

from taxonet.networks import create_model
from taxonet.networks.registry import find, list_models
from taxonet.sheets import load_sheet
from taxonet.weights.importers import convert

GOLDEN = Path(__file__).parents[1] / "golden"
PORTS = [(name, port) for name in list_models() for port in load_sheet(find(name).family).variants[name].ports]
LARGE = 60e6  # parameters; making and running them takes seconds


def fixture(port):
    return np.load(GOLDEN / f"{port.library}-{port.name}.npz", allow_pickle=False)


def imported(name, port, golden):
    shapes = json.loads(str(golden["shapes"]))
    state = {key: weight(key, tuple(shape)) for key, shape in shapes.items()}
    with torch.device("meta"):
        network = create_model(name, **port.options)
    layout, renamed = convert(state, network, find(name).family)
    assert layout != "taxonet"
    network.load_state_dict(renamed, strict=True, assign=True)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "rate"):  # stochastic depth
            module.rate = 0.0
    return network, state, renamed


def relative_error(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def marked(name, port):
    large = load_sheet(find(name).family).variants[name].params > LARGE
    return pytest.param(name, port, id=f"{name}-{port.library}", marks=[pytest.mark.slow] if large else [])


@pytest.mark.parametrize(("name", "port"), [marked(*pair) for pair in PORTS])
def test_logits_and_training_step_equal_the_peers(name, port):
    golden = fixture(port)
    network, state, renamed = imported(name, port, golden)
    x = images(int(golden["size"]))
    with torch.no_grad():
        assert relative_error(network.eval()(x).numpy(), golden["logits"]) <= 1e-5
    theirs = [key for key in golden.files if key.startswith("grad ")]
    if not theirs:
        return
    places = {value.data_ptr(): key for key, value in renamed.items()}
    network.double().train()  # statistics of two images amplify rounding
    logits, auxiliary = network.forward_with_auxiliary(x.double())
    loss = F.cross_entropy(logits, torch.tensor(LABELS))
    for other in auxiliary:
        loss = loss + network.auxiliary_weight * F.cross_entropy(other, torch.tensor(LABELS))
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    parameters = dict(network.named_parameters())
    for key in theirs:
        parameter = parameters[places[state[key.removeprefix("grad ")].data_ptr()]]
        ours = parameter.grad.flatten()[: len(golden[key])].numpy()
        assert relative_error(ours, golden[key]) <= 1e-6, key


def test_every_fixture_belongs_to_a_port():
    assert {path.stem for path in GOLDEN.glob("*.npz")} == {f"{port.library}-{port.name}" for _, port in PORTS}

"""The peers' networks, through our importer: the same weights give the same logits and gradients.

`python -m tests.golden.make` writes the fixtures; here neither torchvision nor timm is needed.
"""

import pytest
import torch
import torch.nn.functional as F
from tests.golden.compare import GOLDEN, PORTS, fixture, imported, logits_error, relative_error
from tests.golden.weights import LABELS, images

from taxonet.networks.registry import find
from taxonet.sheets import load_sheet

LARGE = 60e6  # parameters; making and running them takes seconds


def marked(name, port):
    large = load_sheet(find(name).family).variants[name].params > LARGE
    return pytest.param(name, port, id=f"{name}-{port.library}", marks=[pytest.mark.slow] if large else [])


@pytest.mark.parametrize(("name", "port"), [marked(*pair) for pair in PORTS])
def test_logits_and_training_step_equal_the_peers(name, port):
    golden = fixture(port)
    network, state, renamed = imported(name, port, golden)
    assert logits_error(network, golden) <= 1e-5
    theirs = [key for key in golden.files if key.startswith("grad ")]
    if not theirs:
        return
    places = {value.data_ptr(): key for key, value in renamed.items()}
    network.double().train()  # statistics of two images amplify rounding
    logits, auxiliary = network.forward_with_auxiliary(images(int(golden["size"])).double())
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

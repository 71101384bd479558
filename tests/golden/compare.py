"""Our networks with the peers' weights, through our importer, against the peers' logits.

    python -m tests.golden.compare [NAME-PATTERN]

prints the relative error of every comparison and the largest: |ours − theirs|∞ / |theirs|∞ in float32.
"""

import fnmatch
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tests.golden.weights import images, weight
from torch import nn

from taxonet.networks import create_model
from taxonet.networks.registry import find, list_models
from taxonet.sheets import load_sheet
from taxonet.weights.conversion import convert

GOLDEN = Path(__file__).parent
PORTS = [(name, port) for name in list_models() for port in load_sheet(find(name).family).variants[name].ports]


def fixture(port):
    return np.load(GOLDEN / f"{port.library}-{port.name}.npz", allow_pickle=False)


def imported(name, port, golden):
    """Our network with the port's deterministic weights; the weights by the port's names and by ours."""
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


def logits_error(network, golden):
    with torch.no_grad():
        ours = network.eval()(images(int(golden["size"]))).numpy()
    return relative_error(ours, golden["logits"])


def main(pattern: str = "*") -> None:
    errors = {}
    for name, port in PORTS:
        if fnmatch.fnmatch(name, pattern):
            golden = fixture(port)
            network, *_ = imported(name, port, golden)
            errors[f"{name} = {port.library} {port.name}"] = logits_error(network, golden)
            print(f"{list(errors.values())[-1]:.1e}  {list(errors)[-1]}", flush=True)
    worst = max(errors, key=errors.__getitem__)
    print(f"{len(errors)} comparisons; the largest relative error is {errors[worst]:.2e}, of {worst}")


if __name__ == "__main__":
    main(*sys.argv[1:])

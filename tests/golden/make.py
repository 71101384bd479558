"""Write the golden fixtures: what torchvision's and timm's networks answer with the weights of `weights.py`.

    pip install --no-deps --target PEERS timm==1.0.31 'torchvision==0.28.*'
    PYTHONPATH=PEERS python -m tests.golden.make [NAME-PATTERN]

The networks are the `ports` of the sheets. One file a port: the peer's keys and shapes, its logits in evaluation mode,
and, for the first port of a family, loss and gradients of one training step. Only this script needs the peers.
"""

import fnmatch
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# torchvision's compiled operators, which CPU torch here has no build of, are not used by its classifiers
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

from tests.golden.weights import LABELS, images, weight  # noqa: E402

from taxonet.networks.registry import list_models  # noqa: E402
from taxonet.sheets import families, load_sheet  # noqa: E402

HERE = Path(__file__).parent
SIZE = 96  # a small picture costs less and shows as much
SIZES = {"nfnet": 64}


def build(library: str, name: str) -> nn.Module:
    """The peer, without dropout anywhere."""
    if library == "timm":
        import timm

        network = timm.create_model(name, pretrained=False)
    else:
        import torchvision

        options = {"init_weights": False} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, weights=None, **options)
    if hasattr(network, "drop_rate"):  # timm's dropout as a function
        network.drop_rate = 0.0
    for module in network.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    return network


def golden(library: str, name: str, size: int, with_step: bool) -> dict[str, np.ndarray]:
    """What the fixture of one port holds."""
    network = build(library, name)
    state = network.state_dict()  # its values are the network's own memory
    for key, value in state.items():
        value.copy_(weight(key, tuple(value.shape)))
    x = images(size)
    with torch.no_grad():
        logits = network.eval()(x)
    shapes = json.dumps({key: list(value.shape) for key, value in state.items()})
    found = {"shapes": np.array(shapes), "logits": logits.numpy(), "size": np.array(size)}
    if with_step:
        found |= training_step(network, x)
    return found


def training_step(network: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Loss and the gradients of the first, the middle and the last weight and of auxiliary heads, in float64:
    statistics of two images amplify rounding."""
    network.double().train().zero_grad()
    outputs = network(x.double())
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = F.cross_entropy(logits, torch.tensor(LABELS))
    for other in auxiliary:  # GoogLeNet's, with the paper's weight
        loss = loss + 0.3 * F.cross_entropy(other, torch.tensor(LABELS))
    loss.backward()
    weights = [(key, p) for key, p in network.named_parameters() if p.ndim > 1]
    heads = [pair for pair in weights if pair[0].startswith("aux") and ".conv." in pair[0]]
    chosen = (weights[0], weights[len(weights) // 2], weights[-1], *heads)
    gradients = {f"grad {key}": p.grad.numpy().ravel()[:256] for key, p in chosen if p.grad is not None}
    return {"loss": np.array(loss.item()), **gradients}


def main(pattern: str = "*") -> None:
    """Write the fixtures of the ports whose own name fits `pattern`."""
    assert list_models()
    for family in families():
        stepped = False
        for facts in load_sheet(family).variants.values():
            for port in facts.ports:
                if fnmatch.fnmatch(facts.name, pattern):
                    found = golden(port.library, port.name, SIZES.get(family, SIZE), with_step=not stepped)
                    path = HERE / f"{port.library}-{port.name}.npz"
                    np.savez_compressed(path, **found)
                    print(f"{path.name}: {path.stat().st_size:,} bytes, largest logit {abs(found['logits']).max():.3g}")
                stepped = True


if __name__ == "__main__":
    main(*sys.argv[1:])

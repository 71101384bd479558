"""Weights from elsewhere: every known file layout is a list of module names in the order of our own modules.

Names are matched one to one and shapes are checked, so the order of a file never matters and nothing is guessed.
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from taxonet.errors import BundleError
from taxonet.networks.layers import Network
from taxonet.weights.layouts import Naming, layouts_of

COUNTER = "num_batches_tracked"  # not a weight; files from before Torch 0.4.1 lack it


def own_modules(network: nn.Module) -> list[str]:
    """Names of the modules that hold weights or statistics of their own, in order."""
    return [name for name, m in network.named_modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]


def own_layout(network: Network) -> Iterator[str]:
    """Taxonet's own names."""
    yield from own_modules(network)


def convert(state: Mapping[str, Tensor], network: Network, family: str) -> tuple[str, dict[str, Tensor]]:
    """Rename a foreign state to the names of `network`.

    The classifier may have another number of outputs than the network's: its tensors keep their own shape.

    Returns:
        The layout that fits ("taxonet", "torchvision", …) and the renamed state, complete for `load_state_dict`.

    Raises:
        BundleError: no known layout of the family fits the names, or a tensor has another shape than the network's.
    """
    state = {_without_dots(key): tensor for key, tensor in state.items()}
    layouts = {"taxonet": own_layout, **layouts_of(family)}
    ours = network.state_dict()
    scores: dict[str, int] = {}
    for layout, naming in layouts.items():
        renamed, missing = _rename(state, network, naming)
        if not missing and len(renamed) == sum(COUNTER not in key for key in state):
            _check_shapes(renamed, ours)
            return layout, {key: renamed.get(key, value) for key, value in ours.items()}
        scores[layout] = len(renamed)
    tried = ", ".join(layouts)
    best = max(scores, key=lambda layout: scores[layout])
    raise BundleError(
        f"the weights are not those of {network.variant}: of {len(state)} names "
        f"{scores[best]} fit the nearest known layout ({best}; tried: {tried})"
    )


def _without_dots(key: str) -> str:
    """torchvision's oldest DenseNet files write `norm.1` where the network has `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)


def _rename(state: Mapping[str, Tensor], network: Network, naming: Naming) -> tuple[dict[str, Tensor], list[str]]:
    theirs = dict(zip(own_modules(network), naming(network), strict=False))
    renamed, missing = {}, []
    for key, ours in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        source = f"{theirs.get(module, '?')}.{leaf}"
        if source in state:
            renamed[key] = _as_linear(state[source], ours)
        elif leaf != COUNTER:
            missing.append(source)
    return {k: v for k, v in renamed.items() if COUNTER not in k}, missing


def _as_linear(theirs: Tensor, ours: Tensor) -> Tensor:
    """A convolution that covers its whole input, as timm writes some linear layers, as a linear layer's weight."""
    return theirs.flatten(1) if theirs.ndim == 4 and ours.ndim == 2 else theirs


def _check_shapes(renamed: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    for key, tensor in renamed.items():
        theirs, expected = tuple(tensor.shape), tuple(ours[key].shape)
        head = key.startswith("classifier.")
        if theirs != expected and not (head and theirs[1:] == expected[1:]):
            raise BundleError(f"the weight {key} has the shape {theirs}, the network needs {expected}")

"""Weights from elsewhere: every known file layout is a list of module names in the order of our own modules.

Names are matched one to one and shapes are checked, so the order of a file never matters and nothing is guessed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from taxonet.errors import BundleError
from taxonet.networks.layers import Network
from taxonet.weights.layouts import Naming, layouts_of, spare_of

COUNTER = "num_batches_tracked"  # not a weight; files from before Torch 0.4.1 lack it


def own_modules(network: nn.Module) -> list[str]:
    """Names of the modules that hold weights or statistics of their own, in order."""
    return [name for name, m in network.named_modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]


def own_layout(network: Network) -> Iterator[str]:
    """Taxonet's own names."""
    yield from own_modules(network)


def convert(
    state: Mapping[str, Tensor], network: Network, family: str, sources: Sequence[str] | None = None
) -> tuple[str, dict[str, Tensor]]:
    """Rename a foreign state to the names of `network`; `sources` names the layouts to try, None tries all.

    The classifier may have another number of outputs than the network's: its tensors keep their own shape.
    Counters that the state lacks are zero. Auxiliary heads that the network was built without are left out.

    Returns:
        The layout that fits ("taxonet", "torchvision", …) and the renamed state, complete for `load_state_dict`.

    Raises:
        BundleError: no known layout of the family fits the names, or a tensor has another shape than the network's.
    """
    state = {_without_dots(key): tensor for key, tensor in state.items()}
    layouts = {"taxonet": own_layout, **layouts_of(family)}
    if sources is not None:
        layouts = {source: layouts[source] for source in sources}
    ours = network.state_dict()
    tried: dict[str, tuple[int, list[str], list[str]]] = {}
    for layout, naming in layouts.items():
        renamed, missing, surplus = _rename(state, network, naming)
        surplus = [key for key in surplus if not key.startswith(spare_of(family, layout))]
        if not missing and not surplus:
            _check_shapes(renamed, ours, tuple(network.classifiers()))
            return layout, {key: _placed(key, renamed, value) for key, value in ours.items()}
        tried[layout] = len(renamed), missing, surplus
    best = max(tried, key=lambda layout: tried[layout][0])
    fitting, missing, surplus = tried[best]
    odd = f"{missing[0]} is missing" if missing else f"{surplus[0]} is left over"
    raise BundleError(
        f"the weights are not those of {network.variant}: of {len(state)} names {fitting} fit the nearest known layout "
        f"({best}; tried: {', '.join(layouts)}), {odd}"
    )


def _placed(key: str, renamed: Mapping[str, Tensor], ours: Tensor) -> Tensor:
    return renamed[key] if key in renamed else torch.zeros(ours.shape, dtype=ours.dtype)


def dotted(key: str) -> bool:
    """Whether a name is of torchvision's oldest DenseNet files."""
    return _without_dots(key) != key


def _without_dots(key: str) -> str:
    """torchvision's oldest DenseNet files write `norm.1` where the network has `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)


def _rename(
    state: Mapping[str, Tensor], network: Network, naming: Naming
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The state under our names, counters left out; the names that it lacks; the names that it has beyond ours."""
    theirs = dict(zip(own_modules(network), naming(network), strict=False))
    renamed, missing, used = {}, [], set()
    for key, ours in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        source = f"{theirs.get(module, '?')}.{leaf}"
        if leaf == COUNTER:
            continue
        if source in state:
            renamed[key] = _as_linear(state[source], ours)
            used.add(source)
        else:
            missing.append(source)
    return renamed, missing, [key for key in state if key not in used and COUNTER not in key]


def _as_linear(theirs: Tensor, ours: Tensor) -> Tensor:
    """A convolution that covers its whole input, as timm writes some linear layers, as a linear layer's weight."""
    return theirs.flatten(1) if theirs.ndim == 4 and ours.ndim == 2 else theirs


def _check_shapes(renamed: Mapping[str, Tensor], ours: Mapping[str, Tensor], classifiers: tuple[str, ...]) -> None:
    for key, tensor in renamed.items():
        theirs, expected = tuple(tensor.shape), tuple(ours[key].shape)
        head = key.startswith(tuple(f"{name}." for name in classifiers))
        if theirs != expected and not (head and theirs[1:] == expected[1:]):
            raise BundleError(f"the weight {key} has the shape {theirs}, the network needs {expected}")

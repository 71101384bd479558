"""The file layouts of other libraries, one module a family with a table `LAYOUTS`.

A layout is a function that names the source's modules in the order of our own modules with weights
(`importers.own_modules`); nothing else is needed to rename a whole state.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator

from taxonet.networks.layers import InvertedResidual, Network

Naming = Callable[[Network], Iterator[str]]


def layouts_of(family: str) -> dict[str, Naming]:
    """The foreign layouts of a family by name ("torchvision", "timm", …); none where nobody else has the networks."""
    name = f"{__name__}.{family}"
    if importlib.util.find_spec(name) is None:
        return {}
    layouts: dict[str, Naming] = importlib.import_module(name).LAYOUTS
    return layouts


def inverted_residuals(network: Network) -> Iterator[tuple[int, list[str]]]:
    """The inverted residuals, counted from 0, each with the names of its parts."""
    blocks = [m for m in network.modules() if isinstance(m, InvertedResidual)]
    for number, block in enumerate(blocks):
        yield number, [name for name, _ in block.layers.named_children() if name != "act"]

"""The file layouts of other libraries, one module a family with a table `LAYOUTS`.

A layout is a function that names the source's modules in the order of our own modules with weights
(`importers.own_modules`); nothing else is needed to rename a whole state.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence

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


TIMM_EXPANDED = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
TIMM_SEPARABLE = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
TIMM_SQUEEZE = ("se.conv_reduce", "se.conv_expand")


def timm_inverted_residuals(network: Network, repeats: Sequence[int]) -> Iterator[str]:
    """timm's `blocks.S.B.conv_pw`; `repeats` are the blocks of each of its stages, the rows of the paper's table."""
    places = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    for number, parts in inverted_residuals(network):
        stage, block = places[number]
        names = TIMM_EXPANDED if "expand" in parts else TIMM_SEPARABLE
        for part in parts:
            yield from (f"blocks.{stage}.{block}.{name}" for name in names.get(part, TIMM_SQUEEZE))

"""The file layouts of other libraries, one module a family with a table `LAYOUTS`
(and, where the family needs them, `PREPROCESSING`, `BGR` and `SPARE`, by layout).

A layout is a function that names the source's modules in the order of our own modules with weights
(`importers.own_modules`); nothing else is needed to rename a whole state.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from taxonet.networks.layers import InvertedResidual, Network
from taxonet.sheets import Port

Naming = Callable[[Network], Iterator[str]]


def layouts_of(family: str) -> dict[str, Naming]:
    """The foreign layouts of a family by name ("torchvision", "timm", …); none where nobody else has the networks."""
    layouts: dict[str, Naming] = _table(family, "LAYOUTS")
    return layouts


def layout_of(family: str, port: Port) -> str:
    """The layout in which a port's own files are: its library's, torchvision's where timm has taken that over."""
    layouts = layouts_of(family)
    if port.name.startswith("legacy_") and "cadene" in layouts:  # timm's adopted conversions keep their names
        return "cadene"
    return port.library if port.library in layouts else "torchvision"


def preprocessing_of(family: str, layout: str) -> str | None:
    """How pictures are prepared for the weights of a layout, where this family differs from the layout's habit."""
    found: str | None = _table(family, "PREPROCESSING").get(layout)
    return found


def takes_bgr(family: str, layout: str) -> bool:
    """Whether the weights of a layout were trained on BGR pictures."""
    return bool(_table(family, "BGR").get(layout))


def caffe_preprocessing(mean: tuple[float, float, float], size: int = 224) -> str:
    """Pictures from 0 to 255 less a mean colour, given in the order RGB."""
    means = ", ".join(f"{value / 255:.6f}" for value in mean)
    deviation = f"{1 / 255:.8f}"
    stats = f"({means}), ({', '.join([deviation] * 3)})"
    return f"exif | rgb | resize(256, bilinear) | center_crop({size}) | normalize({stats})"


def spare_of(family: str, layout: str) -> tuple[str, ...]:
    """How names begin that a file of this layout may have beyond the network's: its auxiliary heads."""
    own: dict[str, tuple[str, ...]] = {"taxonet": ("auxiliary.",)} | _table(family, "SPARE")
    return own.get(layout, ())


def _table(family: str, name: str) -> dict[str, Any]:
    module = f"{__name__}.{family}"
    if importlib.util.find_spec(module) is None:
        return {}
    table: dict[str, Any] = getattr(importlib.import_module(module), name, {})
    return table


def inverted_residuals(network: nn.Module) -> Iterator[tuple[int, list[str]]]:
    """The inverted residuals, counted from 0, each with the names of its parts that have weights."""
    blocks = [m for m in network.modules() if isinstance(m, InvertedResidual)]
    for number, block in enumerate(blocks):
        yield number, [name for name, part in block.layers.named_children() if list(part.parameters())]


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


def staged_inverted_residuals(network: Network) -> Iterator[tuple[int, int, list[str]]]:
    """The inverted residuals by stage (counted from 1) and block (from 0), each with the names of its parts."""
    for stage, blocks in enumerate(list(network.body.children())[1:-1], start=1):
        for number, parts in inverted_residuals(blocks):
            yield stage, number, parts


def timm(network: Network) -> Iterator[str]:
    """timm's EfficientNets and MnasNets: `blocks.STAGE.BLOCK.conv_dw`, a stage for each row of the table."""
    yield from ("conv_stem", "bn1")
    stages = list(network.body.children())[1:-1]
    yield from timm_inverted_residuals(network, [len(list(stage.children())) for stage in stages])
    yield from ("conv_head", "bn2", "classifier")

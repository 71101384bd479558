"""How EfficientNet-Lite weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import inverted_residuals, timm


def lukemelas(network: Network) -> Iterator[str]:
    """EfficientNet-PyTorch's layout: `_blocks.N._expand_conv`."""
    names = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    yield from ("_conv_stem", "_bn0")
    for number, parts in inverted_residuals(network):
        for part in parts:
            yield from (f"_blocks.{number}.{name}" for name in names.get(part, ("_project_conv", "_bn2")))
    yield from ("_conv_head", "_bn1", "_fc")


LAYOUTS = {"lukemelas": lukemelas, "timm": timm}

"""How EfficientNet weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import inverted_residuals, staged_inverted_residuals, timm

LUKEMELAS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "se": ("_se_reduce", "_se_expand"),
    "project": ("_project_conv", "_bn2"),
}


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `efficientnet_b*`: `features.STAGE.BLOCK.block.M`, squeeze-excite as `fc1`, `fc2`."""
    yield from ("features.0.0", "features.0.1")
    for stage, number, parts in staged_inverted_residuals(network):
        for position, part in enumerate(parts):
            inner = ("fc1", "fc2") if part == "se" else ("0", "1")
            yield from (f"features.{stage}.{number}.block.{position}.{name}" for name in inner)
    yield from ("features.8.0", "features.8.1", "classifier.1")


def lukemelas(network: Network) -> Iterator[str]:
    """EfficientNet-PyTorch's layout: `_blocks.N._expand_conv`."""
    yield from ("_conv_stem", "_bn0")
    for number, parts in inverted_residuals(network):
        for part in parts:
            yield from (f"_blocks.{number}.{name}" for name in LUKEMELAS[part])
    yield from ("_conv_head", "_bn1", "_fc")


LAYOUTS = {"torchvision": torchvision, "lukemelas": lukemelas, "timm": timm}

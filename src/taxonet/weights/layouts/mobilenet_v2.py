"""How MobileNet v2 weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.networks.mobilenet_v2 import TABLE
from taxonet.weights.layouts import inverted_residuals, timm_inverted_residuals


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `mobilenet_v2`: `features.N.conv.M`."""
    yield from ("features.0.0", "features.0.1")
    number = 0
    for number, parts in inverted_residuals(network):
        prefix = f"features.{number + 1}.conv"
        for position, part in enumerate(parts):
            last = part == "project"
            yield f"{prefix}.{position}" if last else f"{prefix}.{position}.0"
            yield f"{prefix}.{position + 1}" if last else f"{prefix}.{position}.1"
    yield from (f"features.{number + 2}.0", f"features.{number + 2}.1", "classifier.1")


def timm(network: Network) -> Iterator[str]:
    """timm's `mobilenetv2_*`: `blocks.S.B.conv_pwl`."""
    yield from ("conv_stem", "bn1")
    yield from timm_inverted_residuals(network, [repeats for _, _, repeats, _ in TABLE])
    yield from ("conv_head", "bn2", "classifier")


LAYOUTS = {"torchvision": torchvision, "timm": timm}

"""How MobileNet v3 weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import inverted_residuals, timm_inverted_residuals


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `mobilenet_v3_*`: `features.N.block.M`, squeeze-excite as `fc1`, `fc2`."""
    yield from ("features.0.0", "features.0.1")
    number = 0
    for number, parts in inverted_residuals(network):
        for position, part in enumerate(parts):
            inner = ("fc1", "fc2") if part == "se" else ("0", "1")
            yield from (f"features.{number + 1}.block.{position}.{name}" for name in inner)
    yield from (f"features.{number + 2}.0", f"features.{number + 2}.1", "classifier.0", "classifier.3")


TIMM_LARGE, TIMM_SMALL = (1, 2, 3, 4, 2, 3), (1, 2, 3, 2, 3)  # blocks with the same output maps


def timm(network: Network) -> Iterator[str]:
    """timm's `mobilenetv3_*` and `tf_mobilenetv3_*`; the layer after pooling is a 1×1 convolution there."""
    repeats = TIMM_LARGE if len(list(inverted_residuals(network))) == sum(TIMM_LARGE) else TIMM_SMALL
    yield from ("conv_stem", "bn1")
    yield from timm_inverted_residuals(network, repeats)
    yield from (f"blocks.{len(repeats)}.0.conv", f"blocks.{len(repeats)}.0.bn1", "conv_head", "classifier")


LAYOUTS = {"torchvision": torchvision, "timm": timm}

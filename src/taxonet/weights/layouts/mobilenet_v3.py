"""How MobileNet v3 weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import inverted_residuals


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `mobilenet_v3_*`: `features.N.block.M`, squeeze-excite as `fc1`, `fc2`."""
    yield from ("features.0.0", "features.0.1")
    number = 0
    for number, parts in inverted_residuals(network):
        for position, part in enumerate(parts):
            inner = ("fc1", "fc2") if part == "se" else ("0", "1")
            yield from (f"features.{number + 1}.block.{position}.{name}" for name in inner)
    yield from (f"features.{number + 2}.0", f"features.{number + 2}.1", "classifier.0", "classifier.3")


LAYOUTS = {"torchvision": torchvision}

"""How DenseNet weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.densenet import DenseBlock, DenseLayer
from taxonet.networks.layers import Network


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's and timm's DenseNets: `features.denseblockN.denselayerM.conv1`."""
    yield "features.conv0"
    if hasattr(network.body.stem, "norm"):  # the CIFAR nets have a bare convolution
        yield "features.norm0"
    blocks = [m for m in network.body.children() if isinstance(m, DenseBlock)]
    for b, block in enumerate(blocks, start=1):
        for number, layer in enumerate((m for m in block.modules() if isinstance(m, DenseLayer)), start=1):
            parts = ("norm1", "conv1", "norm2", "conv2") if len(layer.tail) else ("norm1", "conv1")
            yield from (f"features.denseblock{b}.denselayer{number}.{part}" for part in parts)
        if b < len(blocks):
            yield from (f"features.transition{b}.norm", f"features.transition{b}.conv")
    yield from ("features.norm5", "classifier")


LAYOUTS = {"torchvision": torchvision}

"""How VGG weights of other libraries are named."""

from collections.abc import Iterator

from torch import nn

from taxonet.networks.layers import Network, SqueezeExcite
from taxonet.weights.layouts import caffe_preprocessing


def _features(network: Network) -> Iterator[str]:
    """`features.N`, where N counts ReLUs and poolings too; nothing for the nets that no port has."""
    position = 0
    for module in network.body.modules():
        if isinstance(module, SqueezeExcite | nn.LocalResponseNorm):
            return
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            yield f"features.{position}"
        position += not isinstance(module, nn.Sequential)


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `vgg*`."""
    yield from _features(network)
    yield from (f"classifier.{i}" for i in (0, 3, 6))


def timm(network: Network) -> Iterator[str]:
    """timm's `vgg*`, whose hidden layers are written as convolutions."""
    yield from _features(network)
    yield from ("pre_logits.fc1", "pre_logits.fc2", "head.fc")


def caffe(network: Network) -> Iterator[str]:
    """The layers of the authors' Caffe model files, which have no norms."""
    for number, group in enumerate(network.body.children(), start=1):
        names = [name for name, _ in group.named_children() if name.startswith("conv")]
        yield from (f"conv{number}_{place}" for place, _ in enumerate(names, start=1))
    yield from ("fc6", "fc7", "fc8")


LAYOUTS = {"torchvision": torchvision, "timm": timm, "caffe": caffe}

PREPROCESSING = {"caffe": caffe_preprocessing((123.68, 116.779, 103.939))}
BGR = {"caffe": True}

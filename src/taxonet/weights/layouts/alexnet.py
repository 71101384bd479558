"""How AlexNet weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import caffe_preprocessing


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `alexnet`; nothing for the nets with response normalisation, which it does not have."""
    if network.variant in ("alexnet", "alexnet_conv4_384"):
        yield from (f"features.{i}" for i in (0, 3, 6, 8, 10))
        yield from (f"classifier.{i}" for i in (1, 4, 6))


def caffe(network: Network) -> Iterator[str]:
    """The layers of Caffe's model files; nothing for the nets that Caffe does not have."""
    if network.variant not in ("alexnet_bvlc", "alexnet_caffenet"):
        return
    yield from (f"conv{number}" for number in range(1, 6))
    yield from ("fc6", "fc7", "fc8")


LAYOUTS = {"torchvision": torchvision, "caffe": caffe}

PREPROCESSING = {"caffe": caffe_preprocessing((123.0, 117.0, 104.0), 227)}
BGR = {"caffe": True}

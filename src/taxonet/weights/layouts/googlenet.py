"""How GoogLeNet weights of other libraries are named."""

from collections.abc import Iterator

from torch import nn

from taxonet.networks.googlenet import MODULES
from taxonet.networks.layers import Network
from taxonet.weights.layouts import caffe_preprocessing


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `googlenet`; nothing for the paper's form, which it does not have."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return
    units = [f"conv{number}" for number in (1, 2, 3)]
    for name in MODULES:
        branches = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
        units += [f"inception{name}.{branch}" for branch in branches]
    for unit in units:
        yield from (f"{unit}.conv", f"{unit}.bn")
    yield "fc"
    for number, _ in enumerate(network.auxiliary, start=1):
        yield from (f"aux{number}.{part}" for part in ("conv.conv", "conv.bn", "fc1", "fc2"))


def caffe(network: Network) -> Iterator[str]:
    """The layers of Caffe's `bvlc_googlenet`."""
    yield from ("conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3")
    for name in MODULES:
        branches = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
        yield from (f"inception_{name}/{branch}" for branch in branches)
    yield "loss3/classifier"
    for number, _ in enumerate(network.auxiliary, start=1):
        yield from (f"loss{number}/{part}" for part in ("conv", "fc", "classifier"))


LAYOUTS = {"torchvision": torchvision, "caffe": caffe}

# torchvision's weights come from TensorFlow, whose input is (x / 255 - 0.5) / 0.5; its network undoes ImageNet's
# normalisation for them (`transform_input`)
PREPROCESSING = {
    "torchvision": "exif | rgb | resize(256, bilinear) | center_crop(224) | normalize(half)",
    "caffe": caffe_preprocessing((123.0, 117.0, 104.0)),
}

SPARE = {"torchvision": ("aux1.", "aux2."), "caffe": ("loss1/", "loss2/")}
BGR = {"caffe": True}

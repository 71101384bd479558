"""AlexNet: the deep convolutional network that won ILSVRC 2012 (Krizhevsky, Sutskever, Hinton, NIPS 2012).

The paper's network lives on two GPUs: half of the maps on each, which see one another in conv3 and in the hidden
layers only, so conv2, conv4 and conv5 are grouped by two (`alexnet_two_group`). `alexnet` is the single tower of "One
weird trick" (arXiv 1404.5997) as torchvision ships it: other widths, no groups, no response normalisation, dropout
before the hidden layers. Caffe's replications normalise with k = 1, and CaffeNet after pooling.
"""

from collections import OrderedDict
from typing import Any, Literal

from torch import Tensor, nn

from taxonet.networks.layers import (
    Network,
    hidden_layers,
    imagenet_preprocessing,
    init_fan_out,
    init_linear_normal,
)
from taxonet.networks.registry import register

Normalization = Literal["none", "before_pool", "after_pool"]
NUMBERS = (1, 2, 3, 4, 5)
POOLED = (1, 2, 5)
RESPONSE_NORMALIZED = (1, 2)
SEEN_BY_BOTH = (1, 3)  # convolutions that see all maps even where the network has two halves


def convolution(number: int, c_in: int, c_out: int, groups: int) -> nn.Conv2d:
    """Convolution `number` of the five; padding 2 at 224 pixels gives the paper's 55×55 maps."""
    if number == 1:
        return nn.Conv2d(c_in, c_out, 11, stride=4, padding=2)
    kernel = 5 if number == 2 else 3
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=1 if number in SEEN_BY_BOTH else groups)


class AlexNet(Network):
    """Five convolutions of the given `widths` and three linear layers; `k` is the constant of the normalisation."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        widths: tuple[int, ...],
        groups: int,
        normalization: Normalization,
        k: float,
        dropout_first: bool,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        c_in = in_channels
        for number, c_out in zip(NUMBERS, widths, strict=True):
            layers: OrderedDict[str, nn.Module] = OrderedDict(conv=convolution(number, c_in, c_out, groups))
            layers["act"] = nn.ReLU(inplace=True)
            # Torch and Caffe divide alpha by the size of the window
            norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=k)
            if number in RESPONSE_NORMALIZED and normalization == "before_pool":
                layers["norm"] = norm
            if number in POOLED:
                layers["pool"] = nn.MaxPool2d(3, 2)
            if number in RESPONSE_NORMALIZED and normalization == "after_pool":
                layers["norm"] = norm
            body[f"conv{number}"] = nn.Sequential(layers)
            c_in = c_out
        self.body = nn.Sequential(body)
        self.hidden = hidden_layers(c_in, 6, dropout, dropout_first)
        self.set_head(4096, num_classes, 0.0 if dropout_first else dropout)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_out(self)
        init_linear_normal(self)

    def pooled(self, features: Tensor) -> Tensor:
        """The hidden layers fc6 and fc7, (N, 4096); maps of other sizes than 6×6 are pooled to it first."""
        hidden: Tensor = self.hidden(features)
        return hidden


def original(groups: int = 2, normalization: Normalization = "before_pool", k: float = 2.0) -> dict[str, Any]:
    """The row of a network with the paper's widths."""
    widths = (96, 256, 384, 384, 256)
    return {"widths": widths, "groups": groups, "normalization": normalization, "k": k, "dropout_first": False}


def tower(*widths: int) -> dict[str, Any]:
    """The row of a single tower, as torchvision writes it."""
    return {"widths": widths, "groups": 1, "normalization": "none", "k": 1.0, "dropout_first": True}


VARIANTS: dict[str, dict[str, Any]] = {
    "alexnet": tower(64, 192, 384, 256, 256),
    "alexnet_two_group": original(),
    "alexnet_ungrouped": original(groups=1),
    "alexnet_conv4_384": tower(64, 192, 384, 384, 256),
    "alexnet_bvlc": original(k=1.0),
    "alexnet_caffenet": original(normalization="after_pool", k=1.0),
}

ALIASES = {"alexnet_owt": "alexnet", "bvlc_alexnet": "alexnet_bvlc", "caffenet": "alexnet_caffenet"}

register("alexnet", AlexNet, VARIANTS, ALIASES)

"""AlexNet: the deep convolutional network that won ILSVRC 2012 (Krizhevsky, Sutskever, Hinton, NIPS 2012).

The paper's network lives on two GPUs: half of the maps on each, which see one another in conv3 and in the hidden
layers only, so conv2, conv4 and conv5 are grouped by two (`alexnet_two_group`). `alexnet` is the single tower of "One
weird trick" (arXiv 1404.5997) as torchvision ships it: other widths, no groups, no response normalisation, dropout
before the hidden layers. Caffe's replications take 227 pixels without padding, which gives the same 55×55 maps, and
normalise with k = 1, CaffeNet after pooling.
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


def convolution(number: int, c_in: int, c_out: int, groups: int, padding: int) -> nn.Conv2d:
    """Convolution `number` of the five; `padding` is that of the first."""
    if number == 1:
        return nn.Conv2d(c_in, c_out, 11, stride=4, padding=padding)
    kernel = 5 if number == 2 else 3
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=1 if number in SEEN_BY_BOTH else groups)


class AlexNet(Network):
    """Five convolutions of the given `widths` and three linear layers; `k` is the constant of the normalisation.

    Without `padding` of the picture the poolings round up, as Caffe's; at 227 pixels nothing is left to round.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        widths: tuple[int, ...],
        groups: int,
        normalization: Normalization,
        k: float,
        padding: int,
        dropout_first: bool,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        c_in = in_channels
        for number, c_out in zip(NUMBERS, widths, strict=True):
            layers: OrderedDict[str, nn.Module] = OrderedDict(conv=convolution(number, c_in, c_out, groups, padding))
            layers["act"] = nn.ReLU(inplace=True)
            # Torch and Caffe divide alpha by the size of the window
            norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=k)
            if number in RESPONSE_NORMALIZED and normalization == "before_pool":
                layers["norm"] = norm
            if number in POOLED:
                layers["pool"] = nn.MaxPool2d(3, 2, ceil_mode=padding == 0)
            if number in RESPONSE_NORMALIZED and normalization == "after_pool":
                layers["norm"] = norm
            body[f"conv{number}"] = nn.Sequential(layers)
            c_in = c_out
        self.body = nn.Sequential(body)
        self.hidden = hidden_layers(c_in, 6, dropout, dropout_first)
        self.set_head(4096, num_classes, 0.0 if dropout_first else dropout)
        self.default_preprocessing = imagenet_preprocessing(224 if padding else 227)
        init_fan_out(self)
        init_linear_normal(self)

    def pooled(self, features: Tensor) -> Tensor:
        """The hidden layers fc6 and fc7, (N, 4096); maps of other sizes than 6×6 are pooled to it first."""
        hidden: Tensor = self.hidden(features)
        return hidden


def original(groups: int = 2, normalization: Normalization = "before_pool", **more: Any) -> dict[str, Any]:
    """The row of a network with the paper's widths."""
    form = {"widths": (96, 256, 384, 384, 256), "groups": groups, "normalization": normalization}
    return {**form, "k": 2.0, "padding": 2, "dropout_first": False, **more}


def tower(*widths: int) -> dict[str, Any]:
    """The row of a single tower, as torchvision writes it."""
    return {"widths": widths, "groups": 1, "normalization": "none", "k": 1.0, "padding": 2, "dropout_first": True}


VARIANTS: dict[str, dict[str, Any]] = {
    "alexnet": tower(64, 192, 384, 256, 256),
    "alexnet_two_group": original(),
    "alexnet_ungrouped": original(groups=1),
    "alexnet_conv4_384": tower(64, 192, 384, 384, 256),
    "alexnet_bvlc": original(k=1.0, padding=0),
    "alexnet_caffenet": original(normalization="after_pool", k=1.0, padding=0),
}

ALIASES = {"alexnet_owt": "alexnet", "bvlc_alexnet": "alexnet_bvlc", "caffenet": "alexnet_caffenet"}

register("alexnet", AlexNet, VARIANTS, ALIASES)

"""BN-Inception: GoogLeNet with batch norm and two 3×3 for every 5×5 (Ioffe and Szegedy, 2015, arXiv 1502.03167).

Two of the ten modules halve the map: they have no 1×1 branch, and their pooling passes the input's maps on. The table
is that of the SENet authors' Caffe file, whose excitations on every module's output are `se_bn_inception` (arXiv
1709.01507, Figure 2). Cadene's port has useless biases before the batch norms: `conv_bias=True`.
"""

from collections import OrderedDict
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.inception import Inception, chain, inception_stem
from taxonet.networks.layers import Network, SqueezeExcite, Style, imagenet_preprocessing, init_fan_out
from taxonet.networks.registry import register

Pooling = Literal["avg", "max", "pass"]
REDUCTION = 16  # of the squeeze-and-excitation

Row = tuple[int, tuple[int, int], tuple[int, int, int], Pooling, int]
MODULES: dict[str, Row] = {  # 1×1 | 3×3 reduce, 3×3 | double 3×3 reduce, a, b | pooling, its projection
    "3a": (64, (64, 64), (64, 96, 96), "avg", 32),
    "3b": (64, (64, 96), (64, 96, 96), "avg", 64),
    "3c": (0, (128, 160), (64, 96, 96), "pass", 0),
    "4a": (224, (64, 96), (96, 128, 128), "avg", 128),
    "4b": (192, (96, 128), (96, 128, 128), "avg", 128),
    "4c": (160, (128, 160), (128, 160, 160), "avg", 128),
    "4d": (96, (128, 192), (160, 192, 192), "avg", 128),
    "4e": (0, (128, 192), (192, 256, 256), "pass", 0),
    "5a": (352, (192, 320), (160, 224, 224), "avg", 128),
    "5b": (352, (192, 320), (192, 224, 224), "max", 128),
}


class HalvingPool(nn.Module):
    """Max pooling 3×3/2 whose windows start at the first pixel and may reach beyond the last.

    Odd maps get one window more than Caffe's rounding gives them, as many as a padded convolution; maps are of a ReLU,
    so zeros beyond the edge never win.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return F.max_pool2d(F.pad(x, (0, 2, 0, 2)), 3, 2)


def inception(c_in: int, row: Row, style: Style, squeeze: bool) -> tuple[Inception, int]:
    """A module and the number of its maps."""
    one, (reduce, three), (double_reduce, double_a, double_b), pooling, projection = row
    stride = 2 if pooling == "pass" else 1
    branches: OrderedDict[str, nn.Module] = OrderedDict()
    if one:
        branches["1x1"] = chain(c_in, [(1, one, 1)], style)
    branches["3x3"] = chain(c_in, [(1, reduce, 1), (3, three, stride)], style)
    double = [(1, double_reduce, 1), (3, double_a, 1), (3, double_b, stride)]
    branches["double3x3"] = chain(c_in, double, style)
    if pooling == "pass":
        branches["pool"] = HalvingPool()
    else:
        pool = nn.AvgPool2d(3, 1, padding=1) if pooling == "avg" else nn.MaxPool2d(3, 1, padding=1)
        branches["pool"] = chain(c_in, [(1, projection, 1)], style, pool)
    c_out = one + three + double_b + (projection or c_in)
    return Inception(branches, SqueezeExcite(c_out, c_out // REDUCTION) if squeeze else None), c_out


class BNInception(Network):
    """BN-Inception, with an excitation on every module's output where `squeeze` is set."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        squeeze: bool,
        dropout: float = 0.0,
        conv_bias: bool = False,
    ) -> None:
        super().__init__()
        style = Style(bias=conv_bias)
        body: OrderedDict[str, nn.Module] = OrderedDict(stem=inception_stem(in_channels, style))
        c_in = 192
        for name, row in MODULES.items():
            body[f"inception{name}"], c_in = inception(c_in, row, style, squeeze)
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_out(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "bn_inception": {"squeeze": False},
    "se_bn_inception": {"squeeze": True},
}

ALIASES = {"bninception": "bn_inception", "se_bninception": "se_bn_inception"}

register("bn_inception", BNInception, VARIANTS, ALIASES)

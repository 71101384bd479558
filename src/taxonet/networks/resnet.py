"""ResNet: a unit learns what to add to its input (He et al., CVPR 2016, arXiv 1512.03385; ECCV 2016, 1603.05027).

v1.5, which everybody ships, halves the map in the 3×3 of a bottleneck; the authors' Caffe nets (`_v1`) in the first
1×1, with a max pooling that does not pad but counts the last half window. The pre-activation nets put norm and ReLU
before the convolutions. CIFAR nets have three stages of 16, 32 and 64 maps and shortcuts without parameters (A).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from taxonet.networks.layers import CIFAR_PREPROCESSING, Network, Style, imagenet_preprocessing, init_fan_out
from taxonet.networks.registry import register
from taxonet.networks.residual import BasicBlock, Bottleneck, PreActivationUnit, Shortcut, StrideAt, make_shortcut

EXPANSION = 4  # a bottleneck's output is four times its width


def imagenet_stem(in_channels: int, style: Style, caffe_pool: bool = False, norm: bool = True) -> nn.Sequential:
    """Conv7×7/2 (64 maps)-BN-ReLU-max pooling 3×3/2: the map is a quarter."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False))
    if norm:
        layers |= OrderedDict(norm=style.norm(64), act=nn.ReLU(inplace=True))
    layers["pool"] = nn.MaxPool2d(3, 2, ceil_mode=True) if caffe_pool else nn.MaxPool2d(3, 2, padding=1)
    return nn.Sequential(layers)


class ResNet(Network):
    """A ResNet of `blocks` units a stage; `width` maps in the first stage; `large` for ImageNet's stem."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        width: int,
        bottleneck: bool,
        large: bool,
        stride_at: StrideAt = "3x3",
        shortcut: Shortcut = "B",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        small_stem = style.conv_norm(in_channels, width, 3, act="relu")
        body["stem"] = imagenet_stem(in_channels, style, stride_at == "1x1") if large else small_stem
        c_in = width
        for number, depth in enumerate(blocks):
            units: list[nn.Module] = []
            inner = width * 2**number
            c_out = inner * EXPANSION if bottleneck else inner
            for i in range(depth):
                stride = 2 if number and i == 0 else 1
                way = make_shortcut(c_in, c_out, stride, style, shortcut)
                units.append(
                    Bottleneck(c_in, c_out, width=inner, stride=stride, style=style, shortcut=way, stride_at=stride_at)
                    if bottleneck
                    else BasicBlock(c_in, c_out, stride=stride, style=style, shortcut=way)
                )
                c_in = c_out
            body[f"stage{number + 1}"] = nn.Sequential(*units)
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing() if large else CIFAR_PREPROCESSING
        init_fan_out(self)


class PreResNet(Network):
    """A pre-activation ResNet: BN and ReLU come once more after the last unit. A wide one keeps the narrow stem."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        width: int,
        bottleneck: bool,
        large: bool,
        stride_at: StrideAt = "3x3",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        small_stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)))
        body["stem"] = imagenet_stem(in_channels, style, norm=False) if large else small_stem
        c_in = 64 if large else 16
        for number, depth in enumerate(blocks):
            inner = width * 2**number
            widths = (inner, inner, inner * EXPANSION) if bottleneck else (inner, inner)
            units: list[nn.Module] = []
            for i in range(depth):
                stride = 2 if number and i == 0 else 1
                units.append(PreActivationUnit(c_in, widths, stride=stride, style=style, stride_at=stride_at))
                c_in = widths[-1]
            body[f"stage{number + 1}"] = nn.Sequential(*units)
        body["norm"] = nn.Sequential(OrderedDict(norm=style.norm(c_in), act=nn.ReLU(inplace=True)))
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing() if large else CIFAR_PREPROCESSING
        init_fan_out(self)


def imagenet(*blocks: int, bottleneck: bool = True, **more: Any) -> dict[str, Any]:
    """The row of an ImageNet net (Table 1)."""
    return {"blocks": blocks, "width": 64, "bottleneck": bottleneck, "large": True, **more}


def cifar(depth: int, bottleneck: bool = False, **more: Any) -> dict[str, Any]:
    """The row of a CIFAR net: three stages of (depth − 2)/6 units, /9 with bottlenecks (§4.2)."""
    units = (depth - 2) // (9 if bottleneck else 6)
    return {"blocks": (units,) * 3, "width": 16, "bottleneck": bottleneck, "large": False, **more}


VARIANTS: dict[str, dict[str, Any]] = {
    "resnet18": imagenet(2, 2, 2, 2, bottleneck=False),
    "resnet34": imagenet(3, 4, 6, 3, bottleneck=False),
    "resnet50": imagenet(3, 4, 6, 3),
    "resnet101": imagenet(3, 4, 23, 3),
    "resnet152": imagenet(3, 8, 36, 3),
    # the authors' Caffe form
    "resnet50_v1": imagenet(3, 4, 6, 3, stride_at="1x1"),
    "resnet101_v1": imagenet(3, 4, 23, 3, stride_at="1x1"),
    "resnet152_v1": imagenet(3, 8, 36, 3, stride_at="1x1"),
    **{f"resnet{depth}_cifar": cifar(depth, shortcut="A") for depth in (20, 32, 44, 56, 110, 1202)},
}

PRE_ACTIVATION: dict[str, dict[str, Any]] = {
    "preresnet50": imagenet(3, 4, 6, 3),
    "preresnet101": imagenet(3, 4, 23, 3),
    "preresnet152": imagenet(3, 8, 36, 3),
    "preresnet200": imagenet(3, 24, 36, 3),
    "preresnet110_cifar": cifar(110),
    # the authors' CIFAR bottlenecks stride in the first 1×1
    "preresnet164_cifar": cifar(164, bottleneck=True, stride_at="1x1"),
    "preresnet1001_cifar": cifar(1001, bottleneck=True, stride_at="1x1"),
    # of depth 16, eight times as wide (Zagoruyko and Komodakis 2016, arXiv 1605.07146)
    "wrn16_8_cifar": {"blocks": (2, 2, 2), "width": 128, "bottleneck": False, "large": False},
}

ALIASES = {
    **{f"resnetv2_{depth}": f"preresnet{depth}" for depth in (50, 101, 152)},
    **{f"preresnet{depth}": f"preresnet{depth}_cifar" for depth in (110, 164, 1001)},  # depths of CIFAR nets alone
    "wrn16_8": "wrn16_8_cifar",
}
CIFAR_ALIASES = {f"resnet{depth}": f"resnet{depth}_cifar" for depth in (20, 32, 44, 56, 110, 1202)}


def _classes(row: Any) -> int:
    return 1000 if row["large"] else 10


register("resnet", ResNet, VARIANTS, CIFAR_ALIASES, default_classes=_classes)
register("resnet", PreResNet, PRE_ACTIVATION, ALIASES, default_classes=_classes)

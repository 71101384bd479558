"""SENet: a small network weighs the maps of every unit (Hu et al., CVPR 2018, arXiv 1709.01507).

Squeeze-and-excitation ends the residual branch; both of its layers have biases, as in the authors' Caffe nets (the
ablations of the paper's section 6 have none: `squeeze_bias=False`). The ResNets are the authors': stride in the first
1×1 and a max pooling that counts the last half window (timm's own pad instead: `caffe_pool=False`); `_v15` strides
in the 3×3. `placement` moves the excitation before the branch, after the addition, onto the shortcut or behind the
3×3 (Table 14).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from taxonet.networks.layers import (
    CIFAR_PREPROCESSING,
    Network,
    SqueezeExcite,
    Style,
    imagenet_preprocessing,
    init_fan_out,
)
from taxonet.networks.registry import register
from taxonet.networks.residual import BasicBlock, Bottleneck, PreActivationUnit, StrideAt, make_shortcut
from taxonet.networks.resnet import EXPANSION, imagenet_stem

Placement = Literal["standard", "pre", "post", "identity", "3x3"]
Reduction = Literal[2, 4, 8, 16, 32]


def deep_stem(in_channels: int, style: Style, caffe_pool: bool) -> nn.Sequential:
    """SENet-154's three 3×3 in place of the 7×7 (appendix), then max pooling."""
    return nn.Sequential(
        OrderedDict(
            conv1=style.conv_norm(in_channels, 64, 3, 2, act="relu"),
            conv2=style.conv_norm(64, 64, 3, act="relu"),
            conv3=style.conv_norm(64, 128, 3, act="relu"),
            pool=nn.MaxPool2d(3, 2, ceil_mode=True) if caffe_pool else nn.MaxPool2d(3, 2, padding=1),
        )
    )


def place(unit: Bottleneck, squeeze: SqueezeExcite, placement: Placement) -> nn.Module:
    """The unit with its excitation where the ablation has it (Figure 5)."""
    if placement == "pre":
        unit.conv1 = nn.Sequential(OrderedDict(squeeze=squeeze, **dict(unit.conv1.named_children())))
    elif placement == "3x3":
        unit.conv2.add_module("squeeze", squeeze)
    elif placement == "identity":
        unit.shortcut = nn.Sequential(OrderedDict(way=unit.shortcut, squeeze=squeeze))
    elif placement == "post":
        return nn.Sequential(OrderedDict(unit=unit, squeeze=squeeze))
    else:
        unit.squeeze = squeeze
    return unit


class SENet(Network):
    """A residual network of bottlenecks with squeeze-and-excitation.

    `base_width` maps for each of `groups` groups in the first stage; `deep` is SENet-154's stem, projections by 3×3 and
    halved 1×1 reductions.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        groups: int,
        base_width: int,
        stride_at: StrideAt,
        deep: bool,
        dropout: float = 0.0,
        reduction: Reduction = 16,
        squeeze_bias: bool = True,
        placement: Placement = "standard",
        caffe_pool: bool = True,
    ) -> None:
        super().__init__()
        style = Style()
        stem = (deep_stem if deep else imagenet_stem)(in_channels, style, caffe_pool)
        body: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        c_in = 128 if deep else 64
        for number, depth in enumerate(blocks):
            width, c_out = groups * base_width * 2**number, 64 * 2**number * EXPANSION
            units: list[nn.Module] = []
            for i in range(depth):
                stride = 2 if number and i == 0 else 1
                unit = Bottleneck(
                    c_in,
                    c_out,
                    width=width,
                    reduced=width // 2 if deep else None,
                    stride=stride,
                    style=style,
                    shortcut=make_shortcut(c_in, c_out, stride, style, kernel=3 if deep and number else 1),
                    groups=groups,
                    stride_at=stride_at,
                )
                channels = {"pre": c_in, "3x3": width}.get(placement, c_out)
                squeeze = SqueezeExcite(channels, channels // reduction, bias=squeeze_bias)
                units.append(place(unit, squeeze, placement))
                c_in = c_out
            body[f"stage{number + 1}"] = nn.Sequential(*units)
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_out(self)


class SECifarNet(Network):
    """The CIFAR nets of Tables 4 and 5: ResNet-110, the pre-activation ResNet-164, the wide ResNet-16-8."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        units: int,
        width: int,
        form: Literal["basic", "pre", "pre_bottleneck"],
        dropout: float = 0.0,
        squeeze_bias: bool = True,
    ) -> None:
        super().__init__()
        style = Style()
        pre = form != "basic"
        stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)))
        body: OrderedDict[str, nn.Module] = OrderedDict(
            stem=stem if pre else style.conv_norm(in_channels, 16, 3, act="relu")
        )
        c_in = 16
        for number in range(3):
            inner = width * 2**number
            widths = (inner, inner, EXPANSION * inner) if form == "pre_bottleneck" else (inner, inner)
            c_out, blocks = widths[-1], list[nn.Module]()
            for i in range(units):
                stride = 2 if number and i == 0 else 1
                squeeze = SqueezeExcite(c_out, c_out // 16, bias=squeeze_bias)
                way = make_shortcut(c_in, c_out, stride, style, "A")
                blocks.append(
                    PreActivationUnit(c_in, widths, stride=stride, style=style, stride_at="1x1", squeeze=squeeze)
                    if pre
                    else BasicBlock(c_in, c_out, stride=stride, style=style, shortcut=way, squeeze=squeeze)
                )
                c_in = c_out
            body[f"stage{number + 1}"] = nn.Sequential(*blocks)
        if pre:
            body["norm"] = nn.Sequential(OrderedDict(norm=style.norm(c_in), act=nn.ReLU(inplace=True)))
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = CIFAR_PREPROCESSING
        init_fan_out(self)


BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def row(
    depth: int, groups: int = 1, base_width: int = 64, stride_at: str = "1x1", deep: bool = False, **more: Any
) -> dict[str, Any]:
    """The row of an ImageNet net (Tables 1 and 2)."""
    shape = {"blocks": BLOCKS[depth], "groups": groups, "base_width": base_width}
    return {**shape, "stride_at": stride_at, "deep": deep, **more}


VARIANTS: dict[str, dict[str, Any]] = {
    "seresnet50": row(50),
    "seresnet101": row(101),
    "seresnet152": row(152),
    **{f"seresnet{depth}_v15": row(depth, stride_at="3x3") for depth in BLOCKS},
    "seresnext50_32x4d": row(50, 32, 4, "3x3"),
    "seresnext101_32x4d": row(101, 32, 4, "3x3"),
    "senet154": row(152, 64, 4, "3x3", deep=True, dropout=0.2),
}

CIFAR: dict[str, dict[str, Any]] = {
    "seresnet110_cifar": {"units": 18, "width": 16, "form": "basic"},
    "sepreresnet164_cifar": {"units": 18, "width": 16, "form": "pre_bottleneck"},
    "sewrn16_8_cifar": {"units": 2, "width": 128, "form": "pre"},
}

ALIASES = {
    **{f"legacy_{name}": name for name in VARIANTS if not name.endswith("v15")},
    **{f"se_resnet{depth}": f"seresnet{depth}" for depth in BLOCKS},
    **{f"se_resnext{depth}_32x4d": f"seresnext{depth}_32x4d" for depth in (50, 101)},
}

register("senet", SENet, VARIANTS, ALIASES)
register("senet", SECifarNet, CIFAR, default_classes=lambda row: 10)

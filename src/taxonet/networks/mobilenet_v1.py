"""MobileNet v1: a depthwise 3×3 and a pointwise 1×1 in place of every convolution (Howard et al., arXiv 1704.04861).

Thirteen such units after a 3×3/2 stem; the width multiplier scales every layer by truncation. The last depthwise
convolution has stride 1: the "s2" of the paper's Table 1 does not fit its own map sizes. TF-slim's released nets use
ReLU6, SAME padding and eps 1e-3: `activation="relu6", padding="same", norm_eps=1e-3`. The `se_` net of SENet's paper
excites the output of every pointwise convolution. `_full` and `_shallow` are the paper's comparison nets (Tables 4, 5).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from taxonet.networks.layers import (
    Network,
    Padding,
    SqueezeExcite,
    Style,
    blocks_by_stage,
    imagenet_preprocessing,
    init_fan_out,
    split_at_strides,
)
from taxonet.networks.registry import register

Unit = tuple[int, int]
FIRST: tuple[Unit, ...] = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
LAST: tuple[Unit, ...] = ((1024, 2), (1024, 1))
UNITS = (*FIRST, *((512, 1),) * 5, *LAST)  # output maps, stride of the depthwise convolution (Table 1)
SHALLOW = (*FIRST, *LAST)
SE_RATIO = 16


def scaled(channels: int, width: float) -> int:
    """TF-slim's rule: truncation, at least 8 maps."""
    return max(int(channels * width), 8)


def separable_unit(c_in: int, c_out: int, stride: int, act: str, style: Style, squeeze: bool) -> nn.Sequential:
    """Depthwise 3×3-BN-act, pointwise 1×1-BN-act (Figure 3), then squeeze-and-excite where it is wanted."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        depthwise=style.conv_norm(c_in, c_in, 3, stride, groups=c_in, act=act),
        pointwise=style.conv_norm(c_in, c_out, act=act),
    )
    if squeeze:
        layers["se"] = SqueezeExcite(c_out, c_out // SE_RATIO, bias=False)
    return nn.Sequential(layers)


class MobileNetV1(Network):
    """MobileNet v1 of the given `width` multiplier; full 3×3 convolutions where the units are not `separable`."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
        units: Sequence[Unit],
        separable: bool,
        squeeze: bool,
        dropout: float = 0.0,
        activation: Literal["relu", "relu6"] = "relu",
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps)
        c_in = scaled(32, width)
        stem = style.conv_norm(in_channels, c_in, 3, stride=2, act=activation)
        blocks: list[nn.Module] = []
        for channels, stride in units:
            c_out = scaled(channels, width)
            blocks.append(
                separable_unit(c_in, c_out, stride, activation, style, squeeze)
                if separable
                else style.conv_norm(c_in, c_out, 3, stride, act=activation)
            )
            c_in = c_out
        self.body = blocks_by_stage(stem, split_at_strides(blocks, [stride for _, stride in units]))
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing(normalize="half")
        init_fan_out(self)


def row(
    width: float = 1.0, units: Sequence[Unit] = UNITS, separable: bool = True, squeeze: bool = False
) -> dict[str, Any]:
    """One row of the table of variants."""
    return {"width": width, "units": units, "separable": separable, "squeeze": squeeze}


VARIANTS: dict[str, dict[str, Any]] = {
    "mobilenet_v1": row(),
    "mobilenet_v1_075": row(0.75),
    "mobilenet_v1_050": row(0.5),
    "mobilenet_v1_025": row(0.25),
    "mobilenet_v1_full": row(separable=False),
    "mobilenet_v1_shallow": row(units=SHALLOW),
    "se_mobilenet_v1": row(squeeze=True),
}

ALIASES = {"mobilenetv1_100": "mobilenet_v1", "mobilenet_v1_100": "mobilenet_v1"}

register("mobilenet_v1", MobileNetV1, VARIANTS, ALIASES)

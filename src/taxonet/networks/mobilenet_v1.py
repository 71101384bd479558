"""MobileNet v1: a depthwise 3×3 and a pointwise 1×1 in place of every convolution (Howard et al., arXiv 1704.04861).

Thirteen such units after a 3×3/2 stem; the width multiplier scales every layer by truncation. The last depthwise
convolution has stride 1: the "s2" of the paper's Table 1 does not fit its own map sizes. TF-slim's released nets use
ReLU6, SAME padding and eps 1e-3: `activation="relu6", padding="same", norm_eps=1e-3`.
"""

from collections import OrderedDict
from typing import Any, Literal

from torch import nn

from taxonet.networks.layers import (
    Network,
    Padding,
    Style,
    blocks_by_stage,
    imagenet_preprocessing,
    init_fan_out,
    split_at_strides,
)
from taxonet.networks.registry import register

UNITS = (  # output maps, stride of the depthwise convolution (Table 1)
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def scaled(channels: int, width: float) -> int:
    """TF-slim's rule: truncation, at least 8 maps."""
    return max(int(channels * width), 8)


def separable_unit(c_in: int, c_out: int, stride: int, act: str, style: Style) -> nn.Sequential:
    """Depthwise 3×3-BN-act, pointwise 1×1-BN-act (Figure 3)."""
    return nn.Sequential(
        OrderedDict(
            depthwise=style.conv_norm(c_in, c_in, 3, stride, groups=c_in, act=act),
            pointwise=style.conv_norm(c_in, c_out, act=act),
        )
    )


class MobileNetV1(Network):
    """MobileNet v1 of the given `width` multiplier."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
        dropout: float = 0.0,
        activation: Literal["relu", "relu6"] = "relu",
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps)
        c_in = scaled(32, width)
        stem = style.conv_norm(in_channels, c_in, 3, stride=2, act=activation)
        units: list[nn.Module] = []
        for channels, stride in UNITS:
            c_out = scaled(channels, width)
            units.append(separable_unit(c_in, c_out, stride, activation, style))
            c_in = c_out
        self.body = blocks_by_stage(stem, split_at_strides(units, [stride for _, stride in UNITS]))
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing(normalize="half")
        init_fan_out(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {"width": 1.0},
    "mobilenet_v1_075": {"width": 0.75},
    "mobilenet_v1_050": {"width": 0.5},
    "mobilenet_v1_025": {"width": 0.25},
}

ALIASES = {"mobilenetv1_100": "mobilenet_v1", "mobilenet_v1_100": "mobilenet_v1"}

register("mobilenet_v1", MobileNetV1, VARIANTS, ALIASES)

"""MobileNet v1: a depthwise 3×3 and a pointwise 1×1 in place of every convolution (Howard et al., arXiv 1704.04861).

Thirteen such units after a 3×3/2 stem; the width multiplier scales every layer by truncation. The last depthwise
convolution has stride 1: the "s2" of the paper's Table 1 does not fit its own map sizes. TF-slim's released nets use
ReLU6, SAME padding and eps 1e-3: `activation="relu6", padding="same", norm_eps=1e-3`. The `se_` net of SENet's paper
excites the output of every pointwise convolution.
"""

from collections import OrderedDict
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

UNITS = (  # output maps, stride of the depthwise convolution (Table 1)
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
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
    """MobileNet v1 of the given `width` multiplier."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
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
        units: list[nn.Module] = []
        for channels, stride in UNITS:
            c_out = scaled(channels, width)
            units.append(separable_unit(c_in, c_out, stride, activation, style, squeeze))
            c_in = c_out
        self.body = blocks_by_stage(stem, split_at_strides(units, [stride for _, stride in UNITS]))
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing(normalize="half")
        init_fan_out(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {"width": 1.0, "squeeze": False},
    "mobilenet_v1_075": {"width": 0.75, "squeeze": False},
    "mobilenet_v1_050": {"width": 0.5, "squeeze": False},
    "mobilenet_v1_025": {"width": 0.25, "squeeze": False},
    "se_mobilenet_v1": {"width": 1.0, "squeeze": True},
}

ALIASES = {"mobilenetv1_100": "mobilenet_v1", "mobilenet_v1_100": "mobilenet_v1"}

register("mobilenet_v1", MobileNetV1, VARIANTS, ALIASES)

"""MobileNet v2: inverted residuals with a linear bottleneck (Sandler et al., CVPR 2018, arXiv 1801.04381).

The paper leaves padding and eps open; the default is PyTorch's (symmetric, 1e-5), TF-slim's is `padding="same",
norm_eps=1e-3`. Every width is rounded to a multiple of 8; the last 1280 maps grow with the width but never shrink.
"""

from typing import Any

from torch import nn

from taxonet.networks.layers import (
    CIFAR_PREPROCESSING,
    InvertedResidual,
    Network,
    Padding,
    Style,
    blocks_by_stage,
    imagenet_preprocessing,
    init_fan_out,
    make_divisible,
    split_at_strides,
)
from taxonet.networks.registry import register

TABLE = (  # expansion t, output maps c, repeats n, stride s of the first (Table 2)
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
ROWS = [(t, c, s if i == 0 else 1) for t, c, n, s in TABLE for i in range(n)]


class MobileNetV2(Network):
    """MobileNet v2 of the given `width` multiplier; `small`: the stem and the next stage keep the map (CIFAR)."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
        small: bool = False,
        dropout: float = 0.2,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps)
        c_in = make_divisible(32 * width)
        stem = style.conv_norm(in_channels, c_in, 3, stride=1 if small else 2, act="relu6")
        blocks: list[nn.Module] = []
        rows = [(t, c, 1 if small and c == TABLE[1][1] else s) for t, c, s in ROWS]
        for expansion, channels, stride in rows:
            c_out = make_divisible(channels * width)
            blocks.append(InvertedResidual(c_in, c_out, hidden=expansion * c_in, stride=stride, style=style))
            c_in = c_out
        last = make_divisible(1280 * max(1.0, width))
        self.body = blocks_by_stage(
            stem, split_at_strides(blocks, [s for *_, s in rows]), style.conv_norm(c_in, last, act="relu6")
        )
        self.set_head(last, num_classes, dropout)
        self.default_preprocessing = CIFAR_PREPROCESSING if small else imagenet_preprocessing()
        init_fan_out(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "mobilenet_v2_035": {"width": 0.35},
    "mobilenet_v2_050": {"width": 0.5},
    "mobilenet_v2_075": {"width": 0.75},
    "mobilenet_v2": {"width": 1.0},
    "mobilenet_v2_130": {"width": 1.3},
    "mobilenet_v2_140": {"width": 1.4},
    # not in the paper: the form that IGCV3's paper compares with on CIFAR
    "mobilenet_v2_cifar": {"width": 1.0, "small": True},
}

ALIASES = {
    "mobilenetv2_035": "mobilenet_v2_035",
    "mobilenetv2_050": "mobilenet_v2_050",
    "mobilenetv2_075": "mobilenet_v2_075",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv2_140": "mobilenet_v2_140",
    "mobilenet_v2_100": "mobilenet_v2",
    "mobilenetv2": "mobilenet_v2",
}

register("mobilenet_v2", MobileNetV2, VARIANTS, ALIASES, default_classes=lambda row: 10 if row.get("small") else 1000)

"""MobileNet v3: searched inverted residuals with squeeze-excite and h-swish (Howard et al., ICCV 2019, 1905.02244).

Squeeze-excite sits after the depthwise convolution's activation, as in the authors' code; one PyTorch port puts it
before (`se_before_activation=True`). The layer after pooling keeps its width when the net is narrowed, as in the
published 0.75 nets; torchvision narrows it and rounds the table's expansions instead (the `_torchvision` variants).
Small has 1024 maps there in the released code and 1280 in the arXiv text (`_1280`). TensorFlow pads SAME
(`padding="same"`).
"""

from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.layers import (
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

Row = tuple[int, int, int, bool, str, int]
RE, HS = "relu", "hardswish"
LARGE: tuple[Row, ...] = (  # kernel, expansion, output maps, squeeze-excite, activation, stride (Table 1)
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)
SMALL: tuple[Row, ...] = (  # Table 2
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2),
    (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2),
    (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1),
    (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2),
    (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1),
)


def minimalistic(table: tuple[Row, ...]) -> tuple[Row, ...]:
    """The authors' minimalistic form: kernels of 3, no squeeze-excite, ReLU everywhere."""
    return tuple((3, hidden, out, False, RE, stride) for _, hidden, out, _, _, stride in table)


class MobileNetV3(Network):
    """MobileNet v3 from a `table` of blocks, with `head` maps between pooling and classifier."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        table: tuple[Row, ...],
        width: float,
        head: int,
        torchvision_widths: bool,
        dropout: float = 0.2,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-3,
        se_before_activation: bool = False,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps, norm_momentum=0.01)
        act = RE if all(row[4] == RE for row in table) else HS
        c_in = make_divisible(16 * width)
        stem = style.conv_norm(in_channels, c_in, 3, stride=2, act=act)
        blocks: list[nn.Module] = []
        table_in = 16
        for kernel, expansion, channels, se, block_act, stride in table:
            c_out = make_divisible(channels * width)
            # the authors store the expansion as a factor of the input's maps
            hidden = make_divisible(expansion * width if torchvision_widths else expansion / table_in * c_in)
            blocks.append(
                InvertedResidual(
                    c_in,
                    c_out,
                    hidden=hidden,
                    kernel=kernel,
                    stride=stride,
                    act=block_act,
                    style=style,
                    squeeze=make_divisible(hidden / 4) if se else 0,
                    se_before_activation=se_before_activation and hidden != c_in,
                )
            )
            c_in, table_in = c_out, channels
        last = 6 * c_in if torchvision_widths else make_divisible(6 * table_in * width)
        self.body = blocks_by_stage(
            stem, split_at_strides(blocks, [row[5] for row in table]), style.conv_norm(c_in, last, act=act)
        )
        wide = make_divisible(head * width) if torchvision_widths else head
        self.head = nn.Sequential(
            OrderedDict(linear=nn.Linear(last, wide), act=nn.Hardswish() if act == HS else nn.ReLU())
        )
        self.set_head(wide, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing(normalize="half")
        init_fan_out(self)

    def pooled(self, features: Tensor) -> Tensor:
        """Global pooling, then the head's linear layer and activation (no norm): (N, num_features)."""
        out: Tensor = self.head(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return out


WIDTHS = {"_035": 0.35, "_050": 0.5, "_075": 0.75, "": 1.0, "_125": 1.25}


def row(table: tuple[Row, ...], head: int, width: float = 1.0, torchvision_widths: bool = False) -> dict[str, Any]:
    """One row of the table of variants."""
    return {"table": table, "head": head, "width": width, "torchvision_widths": torchvision_widths}


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"mobilenet_v3_large{suffix}": row(LARGE, 1280, width) for suffix, width in WIDTHS.items()},
    "mobilenet_v3_large_minimal": row(minimalistic(LARGE), 1280),
    "mobilenet_v3_large_075_torchvision": row(LARGE, 1280, 0.75, torchvision_widths=True),
    **{f"mobilenet_v3_small{suffix}": row(SMALL, 1024, width) for suffix, width in WIDTHS.items()},
    **{f"mobilenet_v3_small{suffix}_1280": row(SMALL, 1280, width) for suffix, width in WIDTHS.items()},
    "mobilenet_v3_small_minimal": row(minimalistic(SMALL), 1024),
    "mobilenet_v3_small_075_torchvision": row(SMALL, 1024, 0.75, torchvision_widths=True),
}

ALIASES = {
    f"{prefix}mobilenetv3_{size}_{timm}": f"mobilenet_v3_{size}{ours}"
    for prefix in ("", "tf_")
    for size in ("large", "small")
    for timm, ours in (
        ("035", "_035"),
        ("050", "_050"),
        ("075", "_075"),
        ("100", ""),
        ("125", "_125"),
        ("minimal_100", "_minimal"),
    )
    if (size, timm) != ("small", "050")  # timm keeps the stem of 16 maps there
}

register("mobilenet_v3", MobileNetV3, VARIANTS, ALIASES)

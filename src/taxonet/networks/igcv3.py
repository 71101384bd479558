"""IGCV3: inverted residuals whose two 1×1 convolutions are grouped and interleaved (Sun et al., BMVC 2018, 1806.00178).

For the same cost the grouped blocks of MobileNet v2 (2 groups, a shuffle after the expansion) allow twice the depth,
hence D. The expansion has no activation; that of the first block stays though it does not widen. Widths are rounded and
made even; above width 1 the authors' last convolution has one map more. In their code a stage's first block expands a
width that was multiplied twice (`scaling="authors"`). On CIFAR the authors multiply parameters, not widths.
"""

from typing import Any, Literal

from torch import nn

from taxonet.networks.layers import (
    CIFAR_PREPROCESSING,
    InvertedResidual,
    Network,
    Style,
    blocks_by_stage,
    imagenet_preprocessing,
    init_fan_out,
    split_at_strides,
)
from taxonet.networks.registry import register

TABLE = (  # expansion t, output maps c, repeats n, stride s of the first: MobileNet v2's with the repeats doubled
    (1, 16, 1, 1),
    (6, 24, 4, 2),
    (6, 32, 6, 2),
    (6, 64, 8, 2),
    (6, 96, 6, 1),
    (6, 160, 6, 2),
    (6, 320, 1, 1),
)
GROUPS = 2


def scaled(channels: int, width: float) -> int:
    """The authors' rule: rounded, and one more if that is odd, for the two groups."""
    rounded = round(channels * width)
    return rounded + rounded % 2


def expanded_width(c_in: int, width: float) -> int:
    """The authors' code: the width already scaled is scaled again, and an odd result is c_in + 1."""
    again = round(c_in * width)
    return c_in + 1 if again % 2 else again


class IGCV3(Network):
    """IGCV3-D of the given `width` multiplier; `small` keeps the map through the stem and the next stage (CIFAR)."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
        small: bool,
        scaling: Literal["paper", "authors"] = "paper",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style()
        authors = scaling == "authors"
        c_in = scaled(32, width)
        stem = style.conv_norm(in_channels, c_in, 3, stride=1 if small else 2, act="relu6")
        blocks: list[nn.Module] = []
        strides: list[int] = []
        for row, (expansion, channels, repeats, first) in enumerate(TABLE):
            c_out = scaled(channels, width)
            for i in range(repeats):
                base = expanded_width(c_in, width) if authors and row > 0 and i == 0 else c_in
                strides.append(first if i == 0 and not (small and row == 1) else 1)
                block = InvertedResidual(
                    c_in, c_out, hidden=expansion * base, stride=strides[-1], groups=GROUPS, style=style
                )
                blocks.append(block)
                c_in = c_out
        last = scaled(1280, max(1.0, width)) + (width > 1)  # the one more is the authors'
        self.body = blocks_by_stage(stem, split_at_strides(blocks, strides), style.conv_norm(c_in, last, act="relu6"))
        self.set_head(last, num_classes, dropout)
        self.default_preprocessing = CIFAR_PREPROCESSING if small else imagenet_preprocessing()
        init_fan_out(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "igcv3_d": {"width": 1.0, "small": False},
    "igcv3_d_070": {"width": 0.7, "small": False},
    "igcv3_d_140": {"width": 1.4, "small": False},
    # not the paper's: the other widths of pytorchcv
    "igcv3_d_025": {"width": 0.25, "small": False},
    "igcv3_d_050": {"width": 0.5, "small": False},
    "igcv3_d_075": {"width": 0.75, "small": False},
    "igcv3_d_cifar": {"width": 1.0, "small": True},
}

ALIASES = {
    "igcv3_w1": "igcv3_d",
    "igcv3_w3d4": "igcv3_d_075",
    "igcv3_wd2": "igcv3_d_050",
    "igcv3_wd4": "igcv3_d_025",
}

register("igcv3", IGCV3, VARIANTS, ALIASES, default_classes=lambda row: 10 if row["small"] else 1000)

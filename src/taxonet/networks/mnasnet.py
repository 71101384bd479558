"""MnasNet: inverted residuals found by a search that weighs accuracy against a phone's latency (Tan et al., CVPR 2019).

arXiv 1807.11626. Layers may differ from stage to stage, in kernel, expansion and squeeze-excite, but not within one.
A1 has squeeze-excite (a quarter of the block's *input* maps, ReLU), B1 has none: it is torchvision's `mnasnet1_0`.
Widths are rounded to multiples of 8 where a multiplier is given; the last 1280 maps stay. The paper leaves padding and
eps open; the default is PyTorch's (symmetric, 1e-5), the authors' TensorFlow code is `padding="same", norm_eps=1e-3`.
"""

from typing import Any

from torch import nn

from taxonet.networks.layers import (
    InvertedResidual,
    Network,
    Padding,
    Style,
    blocks_by_stage,
    imagenet_preprocessing,
    init_classifier,
    init_fan_out,
    make_divisible,
)
from taxonet.networks.registry import register

Stage = tuple[int, int, int, int, int, bool]
A1: tuple[Stage, ...] = (  # repeats, kernel, stride of the first, expansion, output maps, squeeze-excite (Figure 7)
    (1, 3, 1, 1, 16, False),
    (2, 3, 2, 6, 24, False),
    (3, 5, 2, 3, 40, True),
    (4, 3, 2, 6, 80, False),
    (2, 3, 1, 6, 112, True),
    (3, 5, 2, 6, 160, True),
    (1, 3, 1, 6, 320, False),
)
B1: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16, False),
    (3, 3, 2, 3, 24, False),
    (3, 5, 2, 3, 40, False),
    (3, 5, 2, 6, 80, False),
    (2, 3, 1, 6, 96, False),
    (4, 5, 2, 6, 192, False),
    (1, 3, 1, 6, 320, False),
)
SMALL: tuple[Stage, ...] = (
    (1, 3, 1, 1, 8, False),
    (1, 3, 2, 3, 16, False),
    (2, 3, 2, 6, 16, False),
    (4, 5, 2, 6, 32, True),
    (3, 3, 1, 6, 32, True),
    (3, 5, 2, 6, 88, True),
    (1, 3, 1, 6, 144, False),
)
D1: tuple[Stage, ...] = (  # the backbone of MnasFPN, in the authors' code only
    (1, 3, 1, 9, 24, False),
    (3, 3, 2, 9, 36, False),
    (5, 3, 2, 9, 48, False),
    (4, 5, 2, 9, 96, False),
    (5, 7, 1, 3, 96, False),
    (3, 3, 2, 9, 80, False),
    (1, 7, 1, 6, 320, False),
)
D1_320: tuple[Stage, ...] = (  # the same, searched at 320 pixels
    (3, 5, 1, 6, 24, False),
    (4, 7, 2, 9, 36, False),
    (5, 5, 2, 9, 48, False),
    (5, 7, 2, 6, 96, False),
    (5, 3, 1, 9, 144, False),
    (5, 5, 2, 6, 160, False),
    (1, 7, 1, 9, 320, False),
)


def scaled(channels: int, width: float) -> int:
    """The authors' rule: at width 1 the table's number as it stands (D1 has 36 maps), else a multiple of 8."""
    return channels if width == 1 else make_divisible(channels * width)


class MnasNet(Network):
    """MnasNet from a `table` of stages, of the given `width` multiplier, with `stem` maps after the stem.

    `first_skip` lets the first block add its input where the shape does not change.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        table: tuple[Stage, ...],
        width: float,
        stem: int,
        first_skip: bool,
        dropout: float = 0.2,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps, norm_momentum=0.01)
        c_in = scaled(stem, width)
        first = style.conv_norm(in_channels, c_in, 3, stride=2, act="relu")
        stages: list[list[nn.Module]] = []
        for repeats, kernel, stride, expansion, channels, se in table:
            c_out = scaled(channels, width)
            stages.append([])
            for i in range(repeats):
                block = InvertedResidual(
                    c_in,
                    c_out,
                    hidden=expansion * c_in,
                    kernel=kernel,
                    stride=stride if i == 0 else 1,
                    act="relu",
                    style=style,
                    squeeze=max(1, c_in // 4) if se else 0,
                    gate=nn.Sigmoid,
                    skip=first_skip or len(stages) > 1 or i > 0,
                )
                stages[-1].append(block)
                c_in = c_out
        self.body = blocks_by_stage(first, stages, style.conv_norm(c_in, 1280, act="relu"))
        self.set_head(1280, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_out(self)
        init_classifier(self.classifier)


def row(table: tuple[Stage, ...], width: float = 1.0, stem: int = 32, first_skip: bool = False) -> dict[str, Any]:
    """One row of the table of variants."""
    return {"table": table, "width": width, "stem": stem, "first_skip": first_skip}


SMALL_ROW = {**row(SMALL, stem=8), "dropout": 0.0}
WIDTHS = {"0_35": 0.35, "0_5": 0.5, "0_75": 0.75, "1_0": 1.0, "1_3": 1.3, "1_4": 1.4}

VARIANTS: dict[str, dict[str, Any]] = {
    "mnasnet_a1_035": row(A1, 0.35),
    "mnasnet_a1_050": row(A1, 0.5),
    "mnasnet_a1_075": row(A1, 0.75),
    "mnasnet_a1": row(A1),
    "mnasnet_a1_140": row(A1, 1.4),
    **{f"mnasnet{name}": row(B1, width) for name, width in WIDTHS.items()},  # B1
    "mnasnet_small": SMALL_ROW,
    "mnasnet_small_timm": {**SMALL_ROW, "first_skip": True},
    "mnasnet_d1": row(D1),
    "mnasnet_d1_320": row(D1_320),
}

ALIASES = {
    "mnasnet_b1": "mnasnet1_0",
    "mnasnet_050": "mnasnet0_5",
    "mnasnet_075": "mnasnet0_75",
    "mnasnet_100": "mnasnet1_0",
    "mnasnet_140": "mnasnet1_4",
    "semnasnet_050": "mnasnet_a1_050",
    "semnasnet_075": "mnasnet_a1_075",
    "semnasnet_100": "mnasnet_a1",
    "semnasnet_140": "mnasnet_a1_140",
}

register("mnasnet", MnasNet, VARIANTS, ALIASES)

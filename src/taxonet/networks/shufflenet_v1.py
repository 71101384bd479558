"""ShuffleNet v1: grouped 1×1 convolutions with a shuffle of channels between (Zhang et al., CVPR 2018, 1707.01083).

Without the shuffle (`shuffle=False`, the paper's Table 3) a group would only ever see itself. More groups give more
maps for the same cost. The downsampling unit of a stage concatenates its average-pooled input, so its branch makes the
missing maps. The very first 1×1 convolution is not grouped (§3.2). The scaled nets scale the stem too, rounded up where
groups need it; at 1.5 the authors keep 24. The `se_` nets excite the branch before it is added or concatenated.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.layers import (
    Network,
    SqueezeExcite,
    Style,
    blocks_by_stage,
    channel_shuffle,
    imagenet_preprocessing,
    init_fan_in,
)
from taxonet.networks.registry import register

REPEATS = (4, 8, 4)  # Table 1, the downsampling unit included
WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # maps of the first stage by groups (Table 1)
SE_RATIO = 16


def multiple(value: float, divisor: int) -> int:
    """The smallest multiple of `divisor` that is not below `value`."""
    return int(-(-value // divisor)) * divisor


class ShuffleUnit(nn.Module):
    """Units b and c of Figure 2: grouped 1×1 → shuffle → depthwise 3×3 → grouped 1×1, added or concatenated."""

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, groups: int, first: bool, squeeze: bool, shuffle: bool
    ) -> None:
        super().__init__()
        style = Style()
        width = multiple(c_out / 4, groups)
        branch = c_out - c_in if stride > 1 else c_out
        self.reduce = style.conv_norm(c_in, width, groups=1 if first else groups, act="relu")
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            depthwise=style.conv_norm(width, width, 3, stride, groups=width),  # no ReLU (§3.2)
            expand=style.conv_norm(width, branch, groups=groups),
        )
        if squeeze:
            layers["se"] = SqueezeExcite(branch, branch // SE_RATIO, bias=False)
        self.layers = nn.Sequential(layers)
        self.downsamples, self.groups = stride > 1, groups if shuffle else 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out = self.reduce(x)
        if self.groups > 1:
            out = channel_shuffle(out, self.groups)
        out = self.layers(out)
        if self.downsamples:
            return torch.cat((F.avg_pool2d(x, 3, 2, padding=1), torch.relu(out)), 1)
        return torch.relu(x + out)


class ShuffleNetV1(Network):
    """ShuffleNet v1 of `groups` groups; the table's widths are multiplied by `scale`, the stem has `stem` maps."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        groups: int,
        scale: float,
        stem: int,
        squeeze: bool,
        dropout: float = 0.0,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        first = Style().conv_norm(in_channels, stem, 3, stride=2, act="relu")
        first.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
        c_in, stages = stem, []
        for number, repeats in enumerate(REPEATS):
            c_out = round(WIDTHS[groups] * scale) * 2**number
            units: list[nn.Module] = []
            for i in range(repeats):
                unit = ShuffleUnit(
                    c_in,
                    c_out,
                    stride=2 if i == 0 else 1,
                    groups=groups,
                    first=number == i == 0,
                    squeeze=squeeze,
                    shuffle=shuffle,
                )
                units.append(unit)
                c_in = c_out
            stages.append(units)
        self.body = blocks_by_stage(first, stages)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_in(self)


def row(groups: int, scale: float = 1.0, squeeze: bool = False) -> dict[str, Any]:
    """One row of the table of variants."""
    stem = 24 if scale == 1.5 else multiple(24 * scale, groups)
    return {"groups": groups, "scale": scale, "stem": stem, "squeeze": squeeze}


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"shufflenet_v1_g{groups}_x1_0": row(groups) for groups in WIDTHS},
    **{f"shufflenet_v1_g{groups}_x0_5": row(groups, 0.5) for groups in WIDTHS},
    **{f"shufflenet_v1_g{groups}_x0_25": row(groups, 0.25) for groups in WIDTHS},
    **{f"shufflenet_v1_g{groups}_x1_5": row(groups, 1.5) for groups in (3, 8)},
    **{f"shufflenet_v1_g{groups}_x2_0": row(groups, 2.0) for groups in (3, 8)},
    "se_shufflenet_v1_g3_x1_0": row(3, squeeze=True),
    "se_shufflenet_v1_g3_x2_0": row(3, 2.0, squeeze=True),
}

register("shufflenet_v1", ShuffleNetV1, VARIANTS)

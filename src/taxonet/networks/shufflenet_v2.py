"""ShuffleNet v2: half of the maps pass untouched, the others are convolved (Ma et al., ECCV 2018, arXiv 1807.11164).

Equal widths, no grouped 1×1 convolutions, few branches and no addition: what is fast, not what has few FLOPs. The plain
variants are torchvision's: both halves of a downsampling unit have half of the maps, and a unit shuffles its output.
The `_megvii` variants are the authors' code, which alone reproduces the paper's FLOPs: the shortcut keeps its input's
maps, a unit splits its input into even and odd maps instead, and the classifier has no bias.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from taxonet.networks.layers import (
    Network,
    Style,
    blocks_by_stage,
    channel_shuffle,
    imagenet_preprocessing,
    init_fan_in,
)
from taxonet.networks.registry import register

REPEATS = (4, 8, 4)  # Table 5, the downsampling unit included
STEM = 24


class ShuffleUnit(nn.Module):
    """Units c and d of Figure 3: shortcut and branch side by side; the shortcut is convolved when downsampling."""

    def __init__(self, c_in: int, c_out: int, stride: int, authors: bool) -> None:
        super().__init__()
        style, width = Style(), c_out // 2
        if stride > 1:
            kept, c_branch = c_in if authors else width, c_in
            self.shortcut = nn.Sequential(
                OrderedDict(
                    depthwise=style.conv_norm(c_in, c_in, 3, stride, groups=c_in),
                    pointwise=style.conv_norm(c_in, kept, act="relu"),
                )
            )
        else:
            kept = c_branch = width
        self.branch = nn.Sequential(
            OrderedDict(
                reduce=style.conv_norm(c_branch, width, act="relu"),
                depthwise=style.conv_norm(width, width, 3, stride, groups=width),
                expand=style.conv_norm(width, c_out - kept, act="relu"),
            )
        )
        self.downsamples, self.authors = stride > 1, authors

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        if self.downsamples:
            kept, rest = self.shortcut(x), x
        elif self.authors:
            kept, rest = x[:, 0::2], x[:, 1::2]
        else:
            kept, rest = x.chunk(2, 1)
        out = torch.cat((kept, self.branch(rest)), 1)
        return out if self.authors else channel_shuffle(out, 2)


class ShuffleNetV2(Network):
    """ShuffleNet v2 whose first stage has `width` maps, and `last` before pooling; `authors` is megvii's form."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: int,
        last: int,
        authors: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        stem = Style().conv_norm(in_channels, STEM, 3, stride=2, act="relu")
        stem.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
        c_in, stages = STEM, []
        for number, repeats in enumerate(REPEATS):
            c_out = width * 2**number
            units: list[nn.Module] = [ShuffleUnit(c_in, c_out, 2, authors)]
            units += [ShuffleUnit(c_out, c_out, 1, authors) for _ in range(repeats - 1)]
            stages.append(units)
            c_in = c_out
        self.body = blocks_by_stage(stem, stages, Style().conv_norm(c_in, last, act="relu"))
        self.set_head(last, num_classes, dropout, bias=not authors)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_in(self)


def row(width: int, last: int = 1024, authors: bool = False, dropout: float = 0.0) -> dict[str, Any]:
    """One row of the table of variants."""
    return {"width": width, "last": last, "authors": authors, "dropout": dropout}


VARIANTS: dict[str, dict[str, Any]] = {
    "shufflenet_v2_x0_5": row(48),
    "shufflenet_v2_x1_0": row(116),
    "shufflenet_v2_x1_5": row(176),
    "shufflenet_v2_x2_0": row(244, 2048),
    "shufflenet_v2_x0_5_megvii": row(48, authors=True),
    "shufflenet_v2_x1_0_megvii": row(116, authors=True),
    "shufflenet_v2_x1_5_megvii": row(176, authors=True),
    "shufflenet_v2_x2_0_megvii": row(244, 2048, authors=True, dropout=0.2),
}

register("shufflenet_v2", ShuffleNetV2, VARIANTS)

"""EfficientNet: one baseline, scaled in width, depth and resolution at once (Tan & Le, ICML 2019, arXiv 1905.11946).

B0 is a searched stack of inverted residuals with squeeze-excite and swish; widths are rounded to multiples of 8 (stem
and head too), repeats up. The squeeze has a quarter of the block's *input* maps, before expansion. Residual branches
are dropped in training, later ones more often (`stochastic_depth`). SAME padding and eps 1e-3 are the authors';
torchvision's form is `padding="symmetric"`, with `norm_eps=1e-5` for B0 to B4. B8 and L2 come from later papers.
"""

import math
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

TABLE = (  # expansion, kernel, stride of the first, output maps, repeats (Table 1)
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def mbconv(
    c_in: int, c_out: int, expansion: int, kernel: int, stride: int, style: Style, drop_path: float
) -> InvertedResidual:
    """MBConv of the paper: an inverted residual with swish, squeeze-excite and a sigmoid gate."""
    return InvertedResidual(
        c_in,
        c_out,
        hidden=expansion * c_in,
        kernel=kernel,
        stride=stride,
        act="silu",
        style=style,
        squeeze=max(1, c_in // 4),
        gate=nn.Sigmoid,
        squeeze_act=nn.SiLU,
        drop_path=drop_path,
    )


class EfficientNet(Network):
    """EfficientNet of the given `width` and `depth` coefficients, made for `size` × `size` pixels.

    `stochastic_depth` is r in the rate r·i/N at which block i (from 0) of N is dropped.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
        depth: float,
        size: int,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        padding: Padding = "same",
        norm_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps, norm_momentum=0.01)
        c_in = make_divisible(32 * width)
        stem = style.conv_norm(in_channels, c_in, 3, stride=2, act="silu")
        repeats = [math.ceil(row[-1] * depth) for row in TABLE]
        stages: list[list[nn.Module]] = []
        built = 0
        for (expansion, kernel, stride, channels, _), repeat in zip(TABLE, repeats, strict=True):
            c_out = make_divisible(channels * width)
            stages.append([])
            for i in range(repeat):
                rate = stochastic_depth * built / sum(repeats)
                stages[-1].append(mbconv(c_in, c_out, expansion, kernel, stride if i == 0 else 1, style, rate))
                c_in, built = c_out, built + 1
        last = make_divisible(1280 * width)
        self.body = blocks_by_stage(stem, stages, style.conv_norm(c_in, last, act="silu"))
        self.set_head(last, num_classes, dropout)
        # the authors' central crop: size / (size + 32) of the short side
        self.default_preprocessing = imagenet_preprocessing(size, size + 32)
        init_fan_out(self)
        init_classifier(self.classifier)


def row(width: float, depth: float, size: int, dropout: float) -> dict[str, Any]:
    """One row of the table of variants."""
    return {"width": width, "depth": depth, "size": size, "dropout": dropout}


VARIANTS: dict[str, dict[str, Any]] = {
    "efficientnet_b0": row(1.0, 1.0, 224, 0.2),
    "efficientnet_b1": row(1.0, 1.1, 240, 0.2),
    "efficientnet_b2": row(1.1, 1.2, 260, 0.3),
    "efficientnet_b3": row(1.2, 1.4, 300, 0.3),
    "efficientnet_b4": row(1.4, 1.8, 380, 0.4),
    "efficientnet_b5": row(1.6, 2.2, 456, 0.4),
    "efficientnet_b6": row(1.8, 2.6, 528, 0.5),
    "efficientnet_b7": row(2.0, 3.1, 600, 0.5),
    # not in the paper: AdvProp's and Noisy Student's
    "efficientnet_b8": row(2.2, 3.6, 672, 0.5),
    "efficientnet_l2": row(4.3, 5.3, 800, 0.5),
}

ALIASES = {f"tf_{name}": name for name in VARIANTS}

register("efficientnet", EfficientNet, VARIANTS, ALIASES)

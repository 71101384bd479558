"""ResNeXt: many narrow roads side by side, as one grouped 3×3 (Xie et al., CVPR 2017, arXiv 1611.05431).

A ResNet whose bottlenecks have `groups` groups of `base_width` maps in the first stage (form C of Figure 3), twice as
wide in each next one; the stride is in the grouped convolution. CIFAR nets have three stages after a 3×3 stem of 64
maps and write D = ⌊n · base_width / 64⌋ for n = 64, 128, 256.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from taxonet.networks.layers import CIFAR_PREPROCESSING, Network, Style, imagenet_preprocessing, init_fan_out
from taxonet.networks.registry import register
from taxonet.networks.residual import Bottleneck, make_shortcut
from taxonet.networks.resnet import EXPANSION, imagenet_stem

WIDTH = 64  # n of the paper: maps of the first stage's unit before its expansion


class ResNeXt(Network):
    """A ResNeXt of `blocks` units a stage, `groups` roads of `base_width` maps."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        groups: int,
        base_width: int,
        large: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        small_stem = style.conv_norm(in_channels, WIDTH, 3, act="relu")
        body["stem"] = imagenet_stem(in_channels, style) if large else small_stem
        c_in = WIDTH
        for number, depth in enumerate(blocks):
            planes = WIDTH * 2**number
            width, c_out = planes * base_width // 64 * groups, planes * EXPANSION
            units: list[nn.Module] = []
            for i in range(depth):
                stride = 2 if number and i == 0 else 1
                way = make_shortcut(c_in, c_out, stride, style)
                units.append(
                    Bottleneck(c_in, c_out, width=width, stride=stride, style=style, shortcut=way, groups=groups)
                )
                c_in = c_out
            body[f"stage{number + 1}"] = nn.Sequential(*units)
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing() if large else CIFAR_PREPROCESSING
        init_fan_out(self)


def imagenet(depth: int, groups: int, base_width: int) -> dict[str, Any]:
    """The row of an ImageNet net (Table 1)."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    return {"blocks": blocks, "groups": groups, "base_width": base_width, "large": True}


def cifar(groups: int, base_width: int) -> dict[str, Any]:
    """The row of a CIFAR net: 29 layers, three stages of three units (§5.2)."""
    return {"blocks": (3, 3, 3), "groups": groups, "base_width": base_width, "large": False}


FORMS = {50: ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4)), 101: ((1, 64), (32, 4), (2, 64), (64, 4), (32, 8))}

VARIANTS: dict[str, dict[str, Any]] = {
    **{f"resnext{d}_{g}x{w}d": imagenet(d, g, w) for d, forms in FORMS.items() for g, w in forms},
    **{f"resnext29_{g}x{w}d_cifar": cifar(g, w) for g, w in ((8, 64), (16, 64), (1, 64), (32, 4))},
}

register("resnext", ResNeXt, VARIANTS, default_classes=lambda row: 1000 if row["large"] else 10)

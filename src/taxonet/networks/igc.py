"""IGC: a primary group convolution and a secondary one across its groups (Zhang et al., ICCV 2017, arXiv 1707.02725).

L groups of M maps give a wider layer than a regular convolution of the same cost (`interleaving.width_rule`). A net
keeps L and doubles M from stage to stage; L100M2 does the reverse and starts with half of its first stage's maps. The
plain nets stack blocks; those of +Ident. add the input after two, as ResNet does, with a grouped projection where the
shape changes. RegConv nets have regular convolutions in the same places. The authors' CIFAR code gives the first block
of a widening unit the secondary groups of its narrower input (`secondary="authors"`): as many parameters more.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.interleaving import InterleavedGroupConv
from taxonet.networks.layers import CIFAR_PREPROCESSING, Network, Style, blocks_by_stage, imagenet_preprocessing
from taxonet.networks.registry import register

Secondary = Literal["paper", "authors"]


def layer(
    c_in: int, c_out: int, primary: int, *, secondary: int = 0, stride: int = 1, style: Style, act: bool = True
) -> nn.Module:
    """An IGC block of `primary` groups, or a regular 3×3 for 0; M follows from the width unless `secondary` says it."""
    if primary == 0:
        return style.conv_norm(c_in, c_out, 3, stride, act="relu" if act else None)
    groups = (primary, secondary or c_out // primary)
    return InterleavedGroupConv(c_in, c_out, groups, stride=stride, style=style, act=act)


class IdentityUnit(nn.Module):
    """Two layers and their input, ReLU after the addition (+Ident.)."""

    def __init__(self, c_in: int, c_out: int, primary: int, *, secondary: Secondary, stride: int, style: Style) -> None:
        super().__init__()
        narrow = c_in // primary if primary and secondary == "authors" else 0
        self.conv1 = layer(c_in, c_out, primary, secondary=narrow, stride=stride, style=style)
        self.conv2 = layer(c_out, c_out, primary, style=style, act=False)
        self.shortcut: nn.Module = nn.Identity()
        if c_in != c_out:
            self.shortcut = style.conv_norm(c_in, c_out, 1, stride, groups=max(1, primary))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class IGCNet(Network):
    """`depth` layers in stages of the given `widths` and `primary` groups after `stem` maps; `identity` for +Ident."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        stem: int,
        widths: Sequence[int],
        primary: Sequence[int],
        depth: int,
        identity: bool,
        large: bool,
        secondary: Secondary,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style(norm_eps=2e-5, norm_momentum=0.1 if identity else 0.01)
        first = style.conv_norm(in_channels, stem, 7 if large else 3, 2 if large else 1, act="relu")
        if large:
            first.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
        repeats = (depth - 2) // (len(widths) * (2 if identity else 1))
        c_in, stages = stem, list[list[nn.Module]]()
        for c_out, groups in zip(widths, primary, strict=True):
            stages.append([])
            for i in range(repeats):
                stride = 2 if i == 0 and len(stages) > 1 else 1
                stages[-1].append(
                    IdentityUnit(c_in, c_out, groups, secondary=secondary, stride=stride, style=style)
                    if identity
                    else layer(c_in, c_out, groups, stride=stride, style=style)
                )
                c_in = c_out
        self.body = blocks_by_stage(first, stages)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing() if large else CIFAR_PREPROCESSING
        self.init_as_the_authors()

    def init_as_the_authors(self) -> None:
        """Convolutions N(0, √(2/fan-in)), fan-in within one group; the classifier ±1/√fan-in with bias 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # drawing there would load torch._dynamo
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / math.prod(module.weight.shape[1:])))
        nn.init.zeros_(self.classifier.bias)  # its weight has Torch's uniform ±1/√fan-in


class IGCIdentNet(IGCNet):
    """A CIFAR net of +Ident., where paper and authors' code count the secondary groups differently."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        secondary: Secondary = "authors",
        dropout: float = 0.0,
        **shape: Any,
    ) -> None:
        super().__init__(num_classes, in_channels, secondary=secondary, dropout=dropout, **shape)


def cifar(primary: int, maps: int, depth: int, identity: bool = False, **more: Any) -> dict[str, Any]:
    """The row of a CIFAR net: L = `primary` groups of M = `maps`, which double; no groups (0) for RegConv."""
    width = max(1, primary) * maps
    widths = (width, 2 * width, 4 * width)
    shape = {"stem": width, "widths": widths, "primary": (primary,) * 3, "depth": depth}
    return {**shape, "identity": identity, "large": False, **more}


def imagenet(stem: int, width: int, *primary: int) -> dict[str, Any]:
    """The row of an ImageNet net, ResNet-18's layout."""
    widths = tuple(width * 2**i for i in range(4))
    shape = {"stem": stem, "widths": widths, "primary": primary, "depth": 18}
    return {**shape, "identity": True, "large": True, "secondary": "paper"}


DEPTHS = (8, 20, 38, 62)
SMALL = {"igc_l4m8": (4, 8), "igc_l24m2": (24, 2)}
REGULAR = {"regconv_w16": (0, 16), "regconv_w18": (0, 18)}
LARGE = {"igc_l16m32": (16, 32), "igc_l450m2": (450, 2), "igc_l32m26": (32, 26)}

VARIANTS: dict[str, dict[str, Any]] = {
    **{f"{n}_{d}": cifar(*lm, d, secondary="paper") for n, lm in (SMALL | REGULAR).items() for d in DEPTHS},
    **{
        f"{name}_{depth}_ident": cifar(*lm, depth, identity=True, secondary="paper")
        for name, lm in REGULAR.items()
        for depth in (*DEPTHS[:3], 50, 62, 74, 98)
    },
    "igc_l4m32_imagenet": imagenet(128, 128, 4, 4, 4, 4),
    "igc_l16m16_imagenet": imagenet(256, 256, 16, 16, 16, 16),
    "igc_l100m2_imagenet": imagenet(100, 200, 100, 200, 400, 800),
    "regconv_c69_imagenet": imagenet(69, 69, 0, 0, 0, 0),
}

IDENT: dict[str, dict[str, Any]] = {
    **{
        f"{name}_{depth}_ident": cifar(*lm, depth, identity=True)
        for name, lm in SMALL.items()
        for depth in (*DEPTHS[:3], 50, 62, 74, 98)
    },
    # their published sizes are those of the paper's groups
    **{f"{name}_20_ident": cifar(*lm, 20, identity=True, secondary="paper") for name, lm in LARGE.items()},
}


def _classes(row: Any) -> int:
    return 1000 if row["large"] else 10


register("igc", IGCNet, VARIANTS, default_classes=_classes)
register("igc", IGCIdentNet, IDENT, default_classes=_classes)

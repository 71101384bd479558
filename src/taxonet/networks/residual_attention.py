"""Residual Attention Network: a module learns where and what to look at (Wang et al., CVPR 2017, arXiv 1704.06904).

An attention module runs a trunk of residual units beside a mask, an hourglass that pools, looks at the whole map and
comes back to its size. The mask M, between 0 and 1, weighs the trunk's T as (1 + M) · T, so that a closed mask is still
an identity. As in the authors' prototxts the mask starts behind the shared first unit, its poolings count the last half
window, and interpolation keeps the corners. The CIFAR nets' layout was never published: ours fits their depths.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.layers import CIFAR_PREPROCESSING, Network, Style, imagenet_preprocessing, init_fan_out
from taxonet.networks.registry import register
from taxonet.networks.residual import Bottleneck, PreActivationUnit, make_shortcut
from taxonet.networks.resnet import EXPANSION, imagenet_stem

Attention = Literal["residual", "naive"]
MaskActivation = Literal["mixed", "channel", "spatial"]
Form = Literal["preactivation", "resnext"]

GROUPS = 32  # of the ResNeXt units, with 4 maps each in the first stage


def residual_unit(c_in: int, c_out: int, form: Form, stride: int = 1) -> nn.Module:
    """One unit of trunk or mask: a pre-activation bottleneck, or a ResNeXt unit of twice its width."""
    style = Style()
    if form == "resnext":
        way = make_shortcut(c_in, c_out, stride, style)
        return Bottleneck(c_in, c_out, width=c_out // 2, stride=stride, style=style, shortcut=way, groups=GROUPS)
    inner = c_out // EXPANSION
    return PreActivationUnit(c_in, (inner, inner, c_out), stride=stride, style=style)


class Hourglass(nn.Module):
    """Max pooling → `count` units → a deeper hourglass beside a skip unit → `count` units → back to the input's size.

    The innermost one has neither hourglass nor skip (§3.2, Figure 3).
    """

    def __init__(self, unit: Callable[[], nn.Module], levels: int, count: int) -> None:
        super().__init__()
        self.down = nn.Sequential(*(unit() for _ in range(count)))
        self.skip = unit() if levels > 1 else None
        self.inner = Hourglass(unit, levels - 1, count) if levels > 1 else None
        self.up = nn.Sequential(*(unit() for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        pooled = self.down(F.max_pool2d(x, 3, 2, ceil_mode=True))  # N, C, ⌈(H−1)/2⌉, ⌈(W−1)/2⌉
        if self.skip is not None and self.inner is not None:
            pooled = self.skip(pooled) + self.inner(pooled)
        return F.interpolate(self.up(pooled), x.shape[2:], mode="bilinear", align_corners=True)


class MaskHead(nn.Sequential):
    """(Norm and ReLU before pre-activation units) → 1×1 → norm-ReLU → 1×1 → the activation (§3.2, Equations 4 to 6)."""

    def __init__(self, channels: int, form: Form, activation: MaskActivation) -> None:
        style = Style()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if form == "preactivation":
            layers |= OrderedDict(norm=style.norm(channels), act=nn.ReLU(inplace=True))
        layers["linear1"] = style.conv_norm(channels, channels, act="relu")
        layers["linear2"] = nn.Conv2d(channels, channels, 1, bias=False)
        super().__init__(layers)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the mask, of the same shape."""
        for layer in self:
            x = layer(x)
        if self.activation == "channel":  # unit length at every pixel
            return F.normalize(x, dim=1)
        return torch.sigmoid(F.instance_norm(x) if self.activation == "spatial" else x)


class AttentionModule(nn.Module):
    """`pre` shared units → trunk and mask → (1 + M) · T → `pre` units; M · T when attention is naive (§3.1)."""

    def __init__(
        self,
        channels: int,
        *,
        levels: int,
        pre: int,
        trunk: int,
        mask: int,
        form: Form,
        attention: Attention,
        activation: MaskActivation,
    ) -> None:
        super().__init__()

        def unit() -> nn.Module:
            return residual_unit(channels, channels, form)

        self.pre = nn.Sequential(*(unit() for _ in range(pre)))
        self.trunk = nn.Sequential(*(unit() for _ in range(trunk)))
        self.mask = nn.Sequential(
            OrderedDict(hourglass=Hourglass(unit, levels, mask), head=MaskHead(channels, form, activation))
        )
        self.post = nn.Sequential(*(unit() for _ in range(pre)))
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        x = self.pre(x)
        trunk: Tensor = self.trunk(x)
        weighed = self.mask(x) * trunk
        out: Tensor = self.post(weighed if self.attention == "naive" else weighed + trunk)
        return out


class ResidualAttentionNet(Network):
    """A network of `modules` attention modules a stage, with `pre`, `trunk` and `mask` units (the paper's p, t, r)."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        modules: Sequence[int],
        large: bool,
        form: Form,
        pre: int,
        trunk: int,
        mask: int,
        dropout: float = 0.0,
        attention: Attention = "residual",
        activation: MaskActivation = "mixed",
    ) -> None:
        super().__init__()
        style = Style()
        body: OrderedDict[str, nn.Module] = OrderedDict()
        small_stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)))
        body["stem"] = imagenet_stem(in_channels, style, caffe_pool=True) if large else small_stem
        c_in, width = (64, 256) if large else (16, 64)
        for number, count in enumerate(modules):
            c_out = width * 2**number
            stage = OrderedDict[str, nn.Module](transition=residual_unit(c_in, c_out, form, 2 if number else 1))
            for i in range(1, count + 1):
                stage[f"attention{i}"] = AttentionModule(
                    c_out,
                    levels=3 - number,
                    pre=pre,
                    trunk=trunk,
                    mask=mask,
                    form=form,
                    attention=attention,
                    activation=activation,
                )
            if not large:
                stage["unit"] = residual_unit(c_out, c_out, form)
            body[f"stage{number + 1}"] = nn.Sequential(stage)
            c_in = c_out
        if large:
            units = (residual_unit(c_in if i == 0 else 2 * c_in, 2 * c_in, form, 1 if i else 2) for i in range(3))
            body["stage4"] = nn.Sequential(*units)
            c_in *= 2
        if form == "preactivation":
            body["norm"] = nn.Sequential(OrderedDict(norm=style.norm(c_in), act=nn.ReLU(inplace=True)))
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing() if large else CIFAR_PREPROCESSING
        init_fan_out(self)


def imagenet(*modules: int, form: Form = "preactivation") -> dict[str, Any]:
    """The row of an ImageNet net (Table 2)."""
    return {"modules": modules, "large": True, "form": form, "pre": 1, "trunk": 2, "mask": 1}


def cifar(count: int, pre: int = 1, trunk: int = 2, mask: int = 1) -> dict[str, Any]:
    """The row of a CIFAR net: `count` modules a stage."""
    return {
        "modules": (count,) * 3,
        "large": False,
        "form": "preactivation",
        "pre": pre,
        "trunk": trunk,
        "mask": mask,
    }


EQUAL = {128: 3, 164: 4, 236: 6}  # depth is 36 m + 20 for m modules in every stage

VARIANTS: dict[str, dict[str, Any]] = {
    "attention56": imagenet(1, 1, 1),
    "attention92": imagenet(1, 2, 3),
    **{f"attention{depth}": imagenet(count, count, count) for depth, count in EQUAL.items()},
    "attentionnext56": imagenet(1, 1, 1, form="resnext"),
    "attentionnext92": imagenet(1, 2, 3, form="resnext"),
    "attention56_cifar": cifar(1),
    "attention92_cifar": cifar(2),
    **{f"attention{depth}_cifar": cifar(count) for depth, count in EQUAL.items()},
    "attention452_cifar": cifar(6, pre=2, trunk=4, mask=3),
    "attention452_r2_cifar": cifar(6, pre=2, trunk=4, mask=2),
}

register("residual_attention", ResidualAttentionNet, VARIANTS, default_classes=lambda row: 1000 if row["large"] else 10)

"""The residual units that ResNet, ResNeXt and SENet share.

A unit is given its squeeze-and-excitation, which sits at the end of the residual branch (arXiv 1709.01507, Figure 3).
"""

from collections import OrderedDict
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.layers import Style

Shortcut = Literal["A", "A_end", "B"]
StrideAt = Literal["1x1", "3x3"]


class SubsampleAndPad(nn.Module):
    """Shortcut A: every `stride`-th pixel, the new maps are zero (arXiv 1512.03385, §3.3); no parameters.

    The paper does not say where the zero maps go: on both sides here, after the others with `at_end`.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, at_end: bool) -> None:
        super().__init__()
        before = 0 if at_end else (c_out - c_in) // 2
        self.padding = (0, 0, 0, 0, before, c_out - c_in - before)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def make_shortcut(c_in: int, c_out: int, stride: int, style: Style, kind: Shortcut = "B", kernel: int = 1) -> nn.Module:
    """The identity where the shape stays, else shortcut A or the projection B, a convolution with norm."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    if kind == "B":
        return style.conv_norm(c_in, c_out, kernel, stride)
    return SubsampleAndPad(c_in, c_out, stride, at_end=kind == "A_end")


class BasicBlock(nn.Module):
    """3×3-3×3, ReLU after the addition (arXiv 1512.03385, Figure 5 left)."""

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, style: Style, shortcut: nn.Module, squeeze: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = style.conv_norm(c_in, c_out, 3, stride, act="relu")
        self.conv2 = style.conv_norm(c_out, c_out, 3)
        self.squeeze = squeeze or nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        branch: Tensor = self.squeeze(self.conv2(self.conv1(x)))
        return F.relu(branch + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1-3×3-1×1, ReLU after the addition (arXiv 1512.03385, Figure 5 right; grouped: 1611.05431, Figure 3c)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        width: int,
        stride: int,
        style: Style,
        shortcut: nn.Module,
        groups: int = 1,
        stride_at: StrideAt = "3x3",
        reduced: int | None = None,
        squeeze: nn.Module | None = None,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_at == "1x1" else (1, stride)
        reduced = reduced or width
        self.conv1 = style.conv_norm(c_in, reduced, 1, first, act="relu")
        self.conv2 = style.conv_norm(reduced, width, 3, second, groups, act="relu")
        self.conv3 = style.conv_norm(width, c_out)
        self.squeeze = squeeze or nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        branch: Tensor = self.squeeze(self.conv3(self.conv2(self.conv1(x))))
        return F.relu(branch + self.shortcut(x))


class PreActivationUnit(nn.Module):
    """Norm and ReLU before each convolution, nothing after the addition (arXiv 1603.05027, Figure 1b).

    `widths` are the maps after each convolution: two 3×3, or 1×1, 3×3, 1×1. A projection sees the activated input.
    """

    def __init__(
        self,
        c_in: int,
        widths: tuple[int, ...],
        *,
        stride: int,
        style: Style,
        stride_at: StrideAt = "3x3",
        squeeze: nn.Module | None = None,
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        strides = [1] * len(kernels)
        strides[0 if stride_at == "1x1" else kernels.index(3)] = stride
        self.norm1 = style.norm(c_in)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = c_in
        for i, (width, kernel, step) in enumerate(zip(widths, kernels, strides, strict=True), start=1):
            if i > 1:
                layers[f"norm{i}"] = style.norm(channels)
                layers[f"act{i}"] = nn.ReLU(inplace=True)
            layers[f"conv{i}"] = nn.Conv2d(channels, width, kernel, step, padding=kernel // 2, bias=False)
            channels = width
        self.layers = nn.Sequential(layers)
        self.squeeze = squeeze or nn.Identity()
        same = stride == 1 and c_in == channels
        self.project = None if same else nn.Conv2d(c_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, widths[-1], ⌈H/stride⌉, ⌈W/stride⌉)."""
        activated = F.relu(self.norm1(x))
        branch: Tensor = self.squeeze(self.layers(activated))
        return branch + (x if self.project is None else self.project(activated))

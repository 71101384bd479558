"""NFNet: residual networks that need no normalisation (Brock, De, Smith & Simonyan 2021, arXiv 2102.06171).

Scaled weight standardisation, activations of unit gain and residual branches of known variance keep the signal's scale
instead: a block divides its input by the deviation that the blocks before it should have built up (β) and adds a fifth
of its branch (α = 0.2). The branch starts at zero (SkipInit). Shortcuts with a convolution see the activated input.
GELU is JAX's, the tanh approximation, and a weight's deviation is kept above a floor; timm's `dm_nfnet_*` compute
`gelu="exact", std_eps="added"`. SAME padding; stochastic depth does not rescale, as in the authors' code.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.layers import Network, SqueezeExcite, StochasticDepth, blocks_by_stage, pad_same
from taxonet.networks.registry import register

Gelu = Literal["tanh", "exact"]
StdEps = Literal["floor", "added"]

GELU_GAIN = 1.7015043497085571  # one over the deviation of gelu(x) for normal x
ALPHA = 0.2
STEM = (16, 32, 64, 128)
WIDTHS = (256, 512, 1536, 1536)
GROUP_WIDTH = 128
LAST = 2 * WIDTHS[-1]


class ScaledGelu(nn.Module):
    """GELU times a constant, so that normal inputs of variance 1 leave with variance 1."""

    def __init__(self, form: Gelu) -> None:
        super().__init__()
        self.approximate = "tanh" if form == "tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        """(N, …) → the same shape."""
        return F.gelu(x, approximate=self.approximate) * GELU_GAIN


class StandardizedConv2d(nn.Conv2d):
    """A SAME convolution whose kernels are brought to mean 0 and variance 1/fan-in, then multiplied by a gain (§2).

    `std_eps` is how a kernel without variance is kept finite: "floor" is max(variance · fan-in, 1e-4), the authors';
    "added" is (variance + 1e-5) · fan-in, timm's.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, std_eps: StdEps
    ) -> None:
        # at stride 1 and odd kernels SAME is the symmetric padding
        super().__init__(c_in, c_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        self.gain = nn.Parameter(torch.ones(c_out, 1, 1, 1))
        self.std_eps = std_eps

    def standardized(self) -> Tensor:
        """The kernels that the convolution uses: (c_out, c_in / groups, k, k)."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        square = (variance + 1e-5) * fan_in if self.std_eps == "added" else (variance * fan_in).clamp(min=1e-4)
        return (self.weight - mean) * (self.gain * square.rsqrt())

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        if self.stride[0] > 1:
            x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.standardized(), self.bias, self.stride, self.padding, groups=self.groups)


class NFBlock(nn.Module):
    """1×1 → grouped 3×3 → grouped 3×3 → 1×1 → squeeze-excite, pre-activated (Figure 3).

    `expected_std` is the deviation of the input at initialisation, `drop_path` the rate of stochastic depth.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, expected_std: float, drop_path: float, gelu: Gelu, std_eps: StdEps
    ) -> None:
        super().__init__()
        width = c_out // 2
        groups = width // GROUP_WIDTH
        self.beta = 1 / expected_std
        self.act = ScaledGelu(gelu)
        self.reduce = StandardizedConv2d(c_in, width, 1, std_eps=std_eps)
        self.grouped1 = StandardizedConv2d(width, width, 3, stride, groups, std_eps=std_eps)
        self.grouped2 = StandardizedConv2d(width, width, 3, 1, groups, std_eps=std_eps)
        self.expand = StandardizedConv2d(width, c_out, 1, std_eps=std_eps)
        self.squeeze = SqueezeExcite(c_out, c_out // 2)
        self.drop_path = StochasticDepth(drop_path, rescale=False)
        self.skipinit_gain = nn.Parameter(torch.zeros(()))
        self.project: nn.Sequential | None = None
        if stride > 1 or c_in != c_out:
            self.project = nn.Sequential(OrderedDict(conv=StandardizedConv2d(c_in, c_out, 1, std_eps=std_eps)))
        self.stride = stride

    def shortcut(self, x: Tensor, activated: Tensor) -> Tensor:
        """The input itself where the shape stays, else a projection of the activated input, averaged if it strides."""
        if self.project is None:
            return x
        if self.stride > 1:  # SAME: a window over the edge averages what it has
            activated = F.avg_pool2d(activated, 2, 2, ceil_mode=True, count_include_pad=False)
        projected: Tensor = self.project(activated)
        return projected

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        activated = self.act(x) * self.beta
        branch = self.grouped1(self.act(self.reduce(activated)))
        branch = self.expand(self.act(self.grouped2(self.act(branch))))
        branch = self.drop_path(2 * self.squeeze(branch))  # the gate halves on average
        out: Tensor = ALPHA * self.skipinit_gain * branch + self.shortcut(x, activated)
        return out


class NFNet(Network):
    """NFNet-F of `depths` blocks a stage, tested at `size` × `size` pixels.

    `stochastic_depth` is r in the rate r·i/N at which block i (from 0) of N is dropped.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        depths: Sequence[int],
        size: int,
        dropout: float = 0.2,
        stochastic_depth: float = 0.25,
        gelu: Gelu = "tanh",
        std_eps: StdEps = "floor",
    ) -> None:
        super().__init__()
        stem: OrderedDict[str, nn.Module] = OrderedDict()
        c_in = in_channels
        for number, (c_out, stride) in enumerate(zip(STEM, (2, 1, 1, 2), strict=True), start=1):
            stem[f"conv{number}"] = StandardizedConv2d(c_in, c_out, 3, stride, std_eps=std_eps)
            if number < len(STEM):
                stem[f"act{number}"] = ScaledGelu(gelu)
            c_in = c_out
        stages: list[list[nn.Module]] = []
        expected_std, built = 1.0, 0
        for number, (depth, c_out) in enumerate(zip(depths, WIDTHS, strict=True)):
            stages.append([])
            for i in range(depth):
                stride = 2 if number and i == 0 else 1
                rate = stochastic_depth * built / sum(depths)
                block = NFBlock(
                    c_in, c_out, stride, expected_std=expected_std, drop_path=rate, gelu=gelu, std_eps=std_eps
                )
                stages[-1].append(block)
                start = 1.0 if i == 0 else expected_std  # a projection has brought the variance back to 1
                expected_std = math.sqrt(start**2 + ALPHA**2)
                c_in, built = c_out, built + 1
        last = nn.Sequential(OrderedDict(conv=StandardizedConv2d(c_in, LAST, 1, std_eps=std_eps), act=ScaledGelu(gelu)))
        self.body = blocks_by_stage(nn.Sequential(stem), stages, last)
        self.set_head(LAST, num_classes, dropout)
        # the authors' `resize_crop_32`: both sides to size + 32, whatever the aspect ratio
        resized = f"squash({size + 32}, {size + 32}, bicubic)"
        self.default_preprocessing = f"exif | rgb | {resized} | center_crop({size}) | normalize(imagenet)"
        _init(self)


def _init(network: NFNet) -> None:
    """As the authors: kernels N(0, 1/fan-in), excitations the same cut at two deviations, classifier N(0, 0.01)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if module.weight.is_meta:
                continue
            std = module.weight[0].numel() ** -0.5
            if isinstance(module, StandardizedConv2d):
                nn.init.normal_(module.weight, 0.0, std)
            elif isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std)
            else:
                nn.init.normal_(module.weight, 0.0, 0.01)


def row(factor: int, size: int, dropout: float) -> dict[str, Any]:
    """One row of Table 1 of the paper: F0's depths times `factor`, and the test resolution."""
    return {"depths": tuple(factor * depth for depth in (1, 2, 6, 3)), "size": size, "dropout": dropout}


VARIANTS: dict[str, dict[str, Any]] = {
    "nfnet_f0": row(1, 256, 0.2),
    "nfnet_f1": row(2, 320, 0.3),
    "nfnet_f2": row(3, 352, 0.4),
    "nfnet_f3": row(4, 416, 0.4),
    "nfnet_f4": row(5, 512, 0.5),
    "nfnet_f5": row(6, 544, 0.5),
    "nfnet_f6": row(7, 576, 0.5),
}

ALIASES = {f"dm_{name}": name for name in VARIANTS}

register("nfnet", NFNet, VARIANTS, ALIASES)

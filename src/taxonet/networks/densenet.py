"""DenseNet: every layer of a block sees the maps of all layers before it (Huang et al., CVPR 2017, arXiv 1608.06993).

A layer adds `growth` (k) maps. B puts a 1×1 convolution to 4k maps before the 3×3; C lets a transition keep ⌊θ·m⌋ of
m maps, θ = 0.5. CIFAR nets have three blocks and a bare 3×3 stem of 16 maps (2k for BC); ImageNet nets have four
blocks, are always BC, and start with 7×7/2 of 2k maps. Dropout follows every convolution but the stem, as in the
authors' code. `memory_efficient` recomputes concatenation, norm and ReLU in the backward pass (arXiv 1707.06990).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from taxonet.networks.layers import CIFAR_PREPROCESSING, Network, imagenet_preprocessing, init_fan_out
from taxonet.networks.registry import register

BOTTLENECK = 4  # a B layer's 1×1 convolution makes 4k maps (§3)


class DenseLayer(nn.Module):
    """H of the paper: BN-ReLU-Conv3×3 (k maps), in the B form BN-ReLU-Conv1×1 (4k maps) first."""

    def __init__(self, c_in: int, growth: int, bottleneck: bool, dropout: float, memory_efficient: bool) -> None:
        super().__init__()
        width = BOTTLENECK * growth if bottleneck else growth
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = (
            nn.Conv2d(c_in, width, 1, bias=False) if bottleneck else nn.Conv2d(c_in, width, 3, padding=1, bias=False)
        )
        self.tail = nn.Sequential()
        if bottleneck:
            self.tail = nn.Sequential(
                OrderedDict(
                    norm=nn.BatchNorm2d(width),
                    relu=nn.ReLU(inplace=True),
                    conv=nn.Conv2d(width, growth, 3, padding=1, bias=False),
                )
            )
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout if bottleneck else 0.0)
        self.memory_efficient = memory_efficient

    def first_convolution(self, *maps: Tensor) -> Tensor:
        """Concatenation → norm1 → ReLU → conv1: all that grows with the square of the depth."""
        out: Tensor = self.conv1(torch.relu(self.norm1(torch.cat(maps, 1))))
        return out

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, cᵢ, H, W) whose channels sum to c_in → (N, k, H, W)."""
        if self.memory_efficient and torch.is_grad_enabled():
            first = checkpoint(self.first_convolution, *maps, use_reentrant=False, context_fn=self._recomputation)
        else:
            first = self.first_convolution(*maps)
        return cast(Tensor, self.drop2(self.tail(self.drop1(first))))

    def _recomputation(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_not_updated(self.norm1)


@contextmanager
def _statistics_not_updated(norm: nn.BatchNorm2d) -> Iterator[None]:
    """Batch norm on batch statistics without touching the running ones: the forward pass has updated them already."""
    momentum, counter = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        norm.momentum, norm.num_batches_tracked = momentum, counter


class DenseBlock(nn.Module):
    """`depth` dense layers; the output is the input with depth·k maps appended."""

    def __init__(
        self, depth: int, c_in: int, growth: int, bottleneck: bool, dropout: float, memory_efficient: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(c_in + i * growth, growth, bottleneck, dropout, memory_efficient) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_in + depth·k, H, W)."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


def transition(c_in: int, c_out: int, dropout: float) -> nn.Sequential:
    """BN-ReLU-Conv1×1 (c_out maps)-dropout-average pooling 2×2: the map is halved."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(c_in),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(c_in, c_out, 1, bias=False),
            drop=nn.Dropout(dropout),
            pool=nn.AvgPool2d(2),
        )
    )


def imagenet_stem(in_channels: int, width: int) -> nn.Sequential:
    """Conv7×7/2-BN-ReLU-max pooling 3×3/2: the map is a quarter."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False),
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(3, 2, padding=1),
        )
    )


class DenseNet(Network):
    """A DenseNet of `blocks` layers a block; `stem` maps after the stem, which is 7×7/2 when `large`."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: Sequence[int],
        growth: int,
        stem: int,
        bottleneck: bool,
        compression: float,
        large: bool,
        dropout: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        small_stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)))
        body: OrderedDict[str, nn.Module] = OrderedDict(stem=imagenet_stem(in_channels, stem) if large else small_stem)
        channels = stem
        for number, depth in enumerate(blocks, start=1):
            body[f"block{number}"] = DenseBlock(depth, channels, growth, bottleneck, dropout, memory_efficient)
            channels += depth * growth
            if number < len(blocks):
                kept = int(channels * compression)  # ⌊θ·m⌋
                body[f"transition{number}"] = transition(channels, kept, dropout)
                channels = kept
        body["norm"] = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
        self.body = nn.Sequential(body)
        self.set_head(channels, num_classes, dropout=0.0)
        self.default_preprocessing = imagenet_preprocessing() if large else CIFAR_PREPROCESSING
        init_fan_out(self)


def cifar(depth: int, growth: int, form: str = "") -> dict[str, Any]:
    """The row of a CIFAR net; `form` is "", "b", "c" or "bc"; a B layer counts as two of `depth` (§3)."""
    bottleneck, compression = "b" in form, 0.5 if "c" in form else 1.0
    layers = (depth - 4) // (6 if bottleneck else 3)
    stem = 2 * growth if form == "bc" else 16
    return {
        "blocks": (layers,) * 3,
        "growth": growth,
        "stem": stem,
        "bottleneck": bottleneck,
        "compression": compression,
        "large": False,
    }


def imagenet(blocks: Sequence[int], growth: int = 32) -> dict[str, Any]:
    """The row of an ImageNet net (Table 1): always BC, stem 2k."""
    return {
        "blocks": tuple(blocks),
        "growth": growth,
        "stem": 2 * growth,
        "bottleneck": True,
        "compression": 0.5,
        "large": True,
    }


VARIANTS: dict[str, dict[str, Any]] = {
    # CIFAR and SVHN, Table 2
    "densenet_40_12": cifar(40, 12),
    "densenet_100_12": cifar(100, 12),
    "densenet_100_24": cifar(100, 24),
    "densenet_bc_100_12": cifar(100, 12, "bc"),
    "densenet_bc_250_24": cifar(250, 24, "bc"),
    "densenet_bc_190_40": cifar(190, 40, "bc"),
    # the forms of Figure 4
    "densenet_b_100_12": cifar(100, 12, "b"),
    "densenet_c_40_12": cifar(40, 12, "c"),
    # the wide nets of the authors' README
    "densenet_bc_40_36": cifar(40, 36, "bc"),
    "densenet_bc_40_48": cifar(40, 48, "bc"),
    "densenet_bc_40_60": cifar(40, 60, "bc"),
    # not in the paper: small members of the BC family
    "densenet_bc_40_12": cifar(40, 12, "bc"),
    "densenet_bc_22_12": cifar(22, 12, "bc"),
    # ImageNet, Table 1; 161 from the first version of the paper
    "densenet121": imagenet((6, 12, 24, 16)),
    "densenet169": imagenet((6, 12, 32, 32)),
    "densenet201": imagenet((6, 12, 48, 32)),
    "densenet264": imagenet((6, 12, 64, 48)),
    "densenet161": imagenet((6, 12, 36, 24), growth=48),
    # the technical report on memory; the cosine nets differ by their learning rate
    "densenet232_48": imagenet((6, 12, 48, 48), growth=48),
    "densenet_cosine_264": imagenet((6, 12, 64, 48)),
    "densenet_cosine_264_48": imagenet((6, 12, 64, 48), growth=48),
}

ALIASES = {
    "densenet_cosine_264_32": "densenet_cosine_264",
    "densenet264_cosine": "densenet_cosine_264",
    "densenet264_48_cosine": "densenet_cosine_264_48",
    "densenet264_48": "densenet_cosine_264_48",
}

register("densenet", DenseNet, VARIANTS, ALIASES, default_classes=lambda row: 1000 if row["large"] else 10)

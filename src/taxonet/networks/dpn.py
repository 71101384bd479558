"""DPN: a residual and a densely connected path through the same units (Chen et al., NIPS 2017, arXiv 1707.01629).

A unit's input is both paths, one after the other. Of its output the first `residual` maps are added to the residual
path, as in ResNeXt, and the last `growth` are appended to the dense path, as in DenseNet; everything is pre-activated.
The first unit of a stage projects its input to fresh paths of `residual` and 2·`growth` maps. DPN-68 has a 3×3 stem of
10 maps; `dpn68b` writes the last convolution as two, the same function. Batch norm has MXNet's eps of 1e-3. At test
sizes above the training's, `test_pooling="mean_max"` averages mean and maximum of the logits of all 7×7 windows.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.layers import Network, Style, blocks_by_stage, conv2d, init_fan_out
from taxonet.networks.registry import register

TestPooling = Literal["mean", "mean_max"]

STYLE = Style(norm_eps=1e-3)
WINDOW = 7  # the last map of a training crop of 224 pixels
# the authors' (x − (124, 117, 104)) · 0.0167 on values from 0 to 255
MEAN, STD = tuple(round(m / 255, 6) for m in (124, 117, 104)), (round(1 / (0.0167 * 255), 6),) * 3


def preactivated(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """BN-ReLU-Conv."""
    return nn.Sequential(
        OrderedDict(norm=STYLE.norm(c_in), act=nn.ReLU(inplace=True), conv=conv2d(c_in, c_out, kernel, stride, groups))
    )


class TwoConvolutions(nn.Module):
    """BN-ReLU, then one 1×1 convolution for the residual path and one for the dense path."""

    def __init__(self, c_in: int, residual: int, growth: int) -> None:
        super().__init__()
        self.norm = STYLE.norm(c_in)
        self.residual = conv2d(c_in, residual, 1)
        self.dense = conv2d(c_in, growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, residual + growth, H, W)."""
        x = torch.relu(self.norm(x))
        return torch.cat((self.residual(x), self.dense(x)), 1)


class DualPathUnit(nn.Module):
    """1×1 (`width` maps) → grouped 3×3 → 1×1; the last maps lengthen the dense path (Figure 2e)."""

    def __init__(
        self,
        c_in: int,
        *,
        residual: int,
        growth: int,
        width: int,
        groups: int,
        stride: int = 1,
        first: bool = False,
        two_convolutions: bool = False,
    ) -> None:
        super().__init__()
        self.split = residual
        self.project = preactivated(c_in, residual + 2 * growth, stride=stride) if first else None
        self.reduce = preactivated(c_in, width)
        self.grouped = preactivated(width, width, 3, stride, groups)
        self.expand = (
            TwoConvolutions(width, residual, growth) if two_convolutions else preactivated(width, residual + growth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, residual + d, H, W) → (N, residual + d + growth, H, W); the first of a stage starts with d = 2·growth."""
        paths = x if self.project is None else self.project(x)
        out = self.expand(self.grouped(self.reduce(x)))
        added = paths[:, : self.split] + out[:, : self.split]
        return torch.cat((added, paths[:, self.split :], out[:, self.split :]), 1)


class DPN(Network):
    """A dual path network of `units` a stage; `width` maps of the grouped 3×3 and `residual` maps in the first stage
    double with every stage, `growth` is given for each."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        stem: int,
        stem_kernel: int,
        units: Sequence[int],
        residual: int,
        growth: Sequence[int],
        width: int,
        groups: int,
        two_convolutions: bool,
        dropout: float = 0.0,
        test_pooling: TestPooling = "mean",
    ) -> None:
        super().__init__()
        first = STYLE.conv_norm(in_channels, stem, stem_kernel, stride=2, act="relu")
        first.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
        c_in, stages = stem, []
        for number, (depth, k) in enumerate(zip(units, growth, strict=True)):
            kept, blocks = residual * 2**number, list[nn.Module]()
            for i in range(depth):
                unit = DualPathUnit(
                    c_in,
                    residual=kept,
                    growth=k,
                    width=width * 2**number,
                    groups=groups,
                    stride=2 if number and i == 0 else 1,
                    first=i == 0,
                    two_convolutions=two_convolutions,
                )
                c_in = kept + (3 + i) * k
                blocks.append(unit)
            stages.append(blocks)
        last = nn.Sequential(OrderedDict(norm=STYLE.norm(c_in), act=nn.ReLU(inplace=True)))
        self.body = blocks_by_stage(first, stages, last)
        self.set_head(c_in, num_classes, dropout)
        self.test_pooling = test_pooling
        self.default_preprocessing = f"exif | rgb | resize(256, bicubic) | center_crop(224) | normalize({MEAN}, {STD})"
        init_fan_out(self)

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of a last feature map; mean-max pooling only in evaluation and beyond one window."""
        height, width = features.shape[2:]
        larger = min(height, width) >= WINDOW and max(height, width) > WINDOW
        if self.training or self.test_pooling == "mean" or not larger:
            return super().forward_head(features)
        windows = F.avg_pool2d(features, WINDOW, stride=1).flatten(2).transpose(1, 2)  # N, windows, features
        logits: Tensor = self.classifier(windows)
        return 0.5 * (logits.mean(1) + logits.amax(1))


def row(stem: int, units: Sequence[int], growth: Sequence[int], width: int, groups: int, **more: Any) -> dict[str, Any]:
    """One row of Table 1."""
    shape = {"stem": stem, "stem_kernel": 7, "units": units, "residual": 256, "growth": growth}
    return {**shape, "width": width, "groups": groups, "two_convolutions": False, **more}


SMALL: dict[str, Any] = {"stem_kernel": 3, "residual": 64}

VARIANTS: dict[str, dict[str, Any]] = {
    "dpn68": row(10, (3, 4, 12, 3), (16, 32, 32, 64), 128, 32, **SMALL),
    "dpn68b": row(10, (3, 4, 12, 3), (16, 32, 32, 64), 128, 32, **SMALL, two_convolutions=True),
    "dpn92": row(64, (3, 4, 20, 3), (16, 32, 24, 128), 96, 32),
    "dpn98": row(96, (3, 6, 20, 3), (16, 32, 32, 128), 160, 40),
    "dpn131": row(128, (4, 8, 28, 3), (16, 32, 32, 128), 160, 40),
    "dpn107": row(128, (4, 8, 20, 3), (20, 64, 64, 128), 200, 50),
}

register("dpn", DPN, VARIANTS)

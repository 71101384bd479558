"""What GoogLeNet and BN-Inception share: the stem, and branches side by side whose maps are concatenated."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from taxonet.networks.layers import Style

Step = tuple[int, int, int]  # kernel, output maps, stride


def chain(c_in: int, steps: list[Step], style: Style, pool: nn.Module | None = None) -> nn.Sequential:
    """Convolutions with ReLU one after the other, behind `pool` where there is one."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if pool is not None:
        layers["pool"] = pool
    for number, (kernel, c_out, stride) in enumerate(steps, start=1):
        layers[f"conv{number}"] = style.conv_norm(c_in, c_out, kernel, stride, act="relu")
        c_in = c_out
    return nn.Sequential(layers)


class Inception(nn.Module):
    """Branches that see the same maps, their own concatenated in order, then weighed where there is a `squeeze`."""

    def __init__(self, branches: Mapping[str, nn.Module], squeeze: nn.Module | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.squeeze = squeeze or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, ΣCᵢ, ⌈H/stride⌉, ⌈W/stride⌉)."""
        maps: Tensor = self.squeeze(torch.cat([branch(x) for branch in self.branches.values()], 1))
        return maps


def inception_stem(in_channels: int, style: Style, response_norm: bool = False) -> nn.Sequential:
    """7×7/2 (64 maps), pool, 1×1 (64), 3×3 (192), pool: an eighth of the picture; the last half windows count.

    The response is normalised after the first pool and before the second, with Caffe's k = 1.
    """

    def norm() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0) if response_norm else nn.Identity()

    return nn.Sequential(
        OrderedDict(
            conv1=style.conv_norm(in_channels, 64, 7, 2, act="relu"),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm1=norm(),
            conv2=style.conv_norm(64, 64, act="relu"),
            conv3=style.conv_norm(64, 192, 3, act="relu"),
            norm2=norm(),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
        )
    )

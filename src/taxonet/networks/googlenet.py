"""GoogLeNet: modules of 1×1, 3×3 and 5×5 convolutions side by side (Szegedy et al., CVPR 2015, arXiv 1409.4842).

`googlenet` is the paper's network as Caffe's replication writes it: biases, no batch norm, response normalisation in
the stem. `googlenet_torchvision` is what torchvision's weights are of: batch norm, no biases, 3×3 where the paper has
5×5, and a 2×2 last pooling. `aux_heads=True` adds the paper's two classifiers on earlier maps (§5), which the loss of a
training step counts with 0.3 (`forward_with_auxiliary`) and which cost nothing elsewhere.
"""

import math
from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.networks.inception import Inception, chain, inception_stem
from taxonet.networks.layers import Network, Style, imagenet_preprocessing, init_fan_out, init_linear_normal
from taxonet.networks.registry import register

MODULES = {  # 1×1 | 3×3 reduce, 3×3 | 5×5 reduce, 5×5 | pool projection (Table 1)
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {"4a": "pool3", "5a": "pool4"}
AUXILIARY = ("4a", "4d")  # modules whose maps an auxiliary head sees


def inception(c_in: int, row: tuple[int, ...], wide: int, style: Style) -> Inception:
    """The module of Figure 2b; `wide` is the kernel of its third branch."""
    one, reduce3, three, reduce5, five, projection = row
    return Inception(
        {
            "1x1": chain(c_in, [(1, one, 1)], style),
            "3x3": chain(c_in, [(1, reduce3, 1), (3, three, 1)], style),
            "5x5": chain(c_in, [(1, reduce5, 1), (wide, five, 1)], style),
            "pool": chain(c_in, [(1, projection, 1)], style, nn.MaxPool2d(3, 1, padding=1)),
        }
    )


class AuxiliaryHead(nn.Module):
    """Average pooling to 4×4 → 1×1 to 128 maps → linear 1024 → dropout 0.7 → classifier (§5).

    The pooling is 5×5/3, which gives 4×4 at 224 pixels; other sizes, and torchvision always, pool adaptively.
    """

    def __init__(self, c_in: int, num_classes: int, style: Style, adaptive: bool) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.conv = style.conv_norm(c_in, 128, act="relu")
        self.hidden = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → logits (N, classes)."""
        if not self.adaptive and min(x.shape[2:]) >= 5:
            x = F.avg_pool2d(x, 5, 3)
        x = self.conv(F.adaptive_avg_pool2d(x, 4))  # N, 128, 4, 4
        logits: Tensor = self.classifier(self.dropout(F.relu(self.hidden(x.flatten(1)))))
        return logits


class GoogLeNet(Network):
    """GoogLeNet in the paper's form or in torchvision's."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        torchvision: bool,
        dropout: float = 0.4,
        aux_heads: bool = False,
    ) -> None:
        super().__init__()
        style = Style(norm_eps=1e-3) if torchvision else Style(bias=True, normalized=False)
        body: OrderedDict[str, nn.Module] = OrderedDict(
            stem=inception_stem(in_channels, style, response_norm=not torchvision)
        )
        heads: dict[str, nn.Module] = {}
        c_in = 192
        for name, row in MODULES.items():
            if name in POOL_BEFORE:
                window = 2 if torchvision and name == "5a" else 3
                body[POOL_BEFORE[name]] = nn.MaxPool2d(window, 2, ceil_mode=True)
            body[f"inception{name}"] = inception(c_in, row, 3 if torchvision else 5, style)
            c_in = row[0] + row[2] + row[4] + row[5]
            if aux_heads and name in AUXILIARY:
                heads[f"inception{name}"] = AuxiliaryHead(c_in, num_classes, style, adaptive=torchvision)
        self.body = nn.Sequential(body)
        self.set_head(c_in, num_classes, dropout, auxiliary=heads)
        self.default_preprocessing = imagenet_preprocessing()
        if torchvision:
            init_fan_out(self)
            init_linear_normal(self)
        else:
            init_xavier(self)


def init_xavier(network: Network) -> None:
    """Uniform with variance 1/fan-in and biases 0.2, those of the classifiers 0, as in Caffe's replication."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if not module.weight.is_meta:
                bound = math.sqrt(3 / module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound)
            assert module.bias is not None
            nn.init.constant_(module.bias, 0.2)
    for classifier in network.classifiers().values():
        nn.init.zeros_(classifier.bias)


VARIANTS: dict[str, dict[str, Any]] = {
    "googlenet": {"torchvision": False},
    "googlenet_torchvision": {"torchvision": True, "dropout": 0.2},
}

ALIASES = {"inception_v1": "googlenet", "bvlc_googlenet": "googlenet"}

register("googlenet", GoogLeNet, VARIANTS, ALIASES)

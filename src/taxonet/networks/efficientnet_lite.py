"""EfficientNet-Lite: EfficientNet without squeeze-excite, with ReLU6, for integer hardware (tensorflow/tpu, 2020).

The body is EfficientNet-B0's (Tan & Le, ICML 2019, arXiv 1905.11946), scaled in width and depth; stem, head and the
repeats of the first and the last stage stay fixed. SAME padding and batch norm with eps 1e-3 as in the authors' code;
PyTorch's habit is `padding="symmetric", norm_eps=1e-5`.
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
    init_fan_out,
    make_divisible,
)
from taxonet.networks.registry import register

TABLE = (  # expansion, kernel, stride of the first, output maps, repeats (EfficientNet Table 1)
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNetLite(Network):
    """EfficientNet-Lite of the given `width` and `depth` coefficients, made for `size` × `size` pixels."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        width: float,
        depth: float,
        size: int,
        dropout: float = 0.2,
        padding: Padding = "same",
        norm_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        style = Style(padding, norm_eps, norm_momentum=0.01)
        stem = style.conv_norm(in_channels, 32, 3, stride=2, act="relu6")
        c_in, stages = 32, []
        for number, (expansion, kernel, stride, channels, repeats) in enumerate(TABLE):
            c_out = make_divisible(channels * width)
            ends = number in (0, len(TABLE) - 1)
            blocks: list[nn.Module] = []
            for i in range(repeats if ends else math.ceil(repeats * depth)):
                first_stride = stride if i == 0 else 1
                block = InvertedResidual(
                    c_in, c_out, hidden=expansion * c_in, kernel=kernel, stride=first_stride, style=style
                )
                blocks.append(block)
                c_in = c_out
            stages.append(blocks)
        self.body = blocks_by_stage(stem, stages, style.conv_norm(c_in, 1280, act="relu6"))
        self.set_head(1280, num_classes, dropout)
        # the authors' central crop: size / (size + 32) of the short side
        self.default_preprocessing = imagenet_preprocessing(size, size + 32, "half")
        init_fan_out(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": {"width": 1.0, "depth": 1.0, "size": 224, "dropout": 0.2},
    "efficientnet_lite1": {"width": 1.0, "depth": 1.1, "size": 240, "dropout": 0.2},
    "efficientnet_lite2": {"width": 1.1, "depth": 1.2, "size": 260, "dropout": 0.3},
    "efficientnet_lite3": {"width": 1.2, "depth": 1.4, "size": 280, "dropout": 0.3},
    "efficientnet_lite4": {"width": 1.4, "depth": 1.8, "size": 300, "dropout": 0.3},
}

ALIASES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}" for i in range(5)}

register("efficientnet_lite", EfficientNetLite, VARIANTS, ALIASES)

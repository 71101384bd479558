"""VGG: nothing but 3×3 convolutions, up to sixteen of them (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556).

Five groups of convolutions with biases, each group ended by 2×2 max pooling, then linear layers of 4096, 4096 and the
classes. The paper's configurations A to E are `vgg11` (A; `vgg11_lrn` normalises the response of its first layer),
`vgg13` (B), `vgg16_c` (C, whose last convolution in groups 3 to 5 is 1×1), `vgg16` (D) and `vgg19` (E). `_bn` puts
batch norm after every convolution, whose bias stays. `se_vgg16_bn` is of the SENet paper (arXiv 1709.01507).
"""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from taxonet.networks.layers import (
    Network,
    SqueezeExcite,
    Style,
    hidden_layers,
    imagenet_preprocessing,
    init_fan_out,
    init_linear_normal,
)
from taxonet.networks.registry import register

WIDTHS = (64, 128, 256, 512, 512)
REDUCTION = 16  # of the squeeze-and-excitation


def group(c_in: int, c_out: int, kernels: list[int], style: Style, response_norm: bool, squeeze: bool) -> nn.Sequential:
    """Convolutions with ReLU, each with its excitation where there is one, then max pooling 2×2/2."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, kernel in enumerate(kernels, start=1):
        layers[f"conv{number}"] = style.conv_norm(c_in, c_out, kernel, act="relu")
        if response_norm:
            layers["norm"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
        if squeeze:
            layers[f"squeeze{number}"] = SqueezeExcite(c_out, c_out // REDUCTION)
        c_in = c_out
    layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


class VGG(Network):
    """A VGG of `depths` convolutions a group; `pointwise` makes the last of groups 3 to 5 a 1×1."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        depths: tuple[int, ...],
        normalized: bool,
        pointwise: bool,
        response_norm: bool,
        squeeze: bool,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        style = Style(bias=True, normalized=normalized)
        body: OrderedDict[str, nn.Module] = OrderedDict()
        c_in = in_channels
        for number, (depth, c_out) in enumerate(zip(depths, WIDTHS, strict=True), start=1):
            kernels = [3] * (depth - 1) + [1 if pointwise and number >= 3 else 3]
            body[f"group{number}"] = group(c_in, c_out, kernels, style, response_norm and number == 1, squeeze)
            c_in = c_out
        self.body = nn.Sequential(body)
        self.hidden = hidden_layers(c_in, 7, dropout)
        self.set_head(4096, num_classes, dropout)
        self.default_preprocessing = imagenet_preprocessing()
        init_fan_out(self)
        init_linear_normal(self)

    def pooled(self, features: Tensor) -> Tensor:
        """The two hidden layers, (N, 4096); maps of other sizes than 7×7 are pooled to it first."""
        hidden: Tensor = self.hidden(features)
        return hidden


DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def row(depth: int, *features: str) -> dict[str, Any]:
    """The row of a network of `depth` layers with weights; `features` are those that it has beyond the plain form."""
    known = ("normalized", "pointwise", "response_norm", "squeeze")
    return {"depths": DEPTHS[depth], **{name: name in features for name in known}}


VARIANTS: dict[str, dict[str, Any]] = {
    # Table 1
    "vgg11": row(11),
    "vgg11_lrn": row(11, "response_norm"),
    "vgg13": row(13),
    "vgg16_c": row(16, "pointwise"),
    "vgg16": row(16),
    "vgg19": row(19),
    **{f"vgg{depth}_bn": row(depth, "normalized") for depth in DEPTHS},
    "se_vgg16_bn": row(16, "normalized", "squeeze"),
}

ALIASES = {
    "vgg_a": "vgg11",
    "vgg_a_lrn": "vgg11_lrn",
    "vgg_b": "vgg13",
    "vgg_c": "vgg16_c",
    "vgg_d": "vgg16",
    "vgg_e": "vgg19",
    "sevgg16_bn": "se_vgg16_bn",
}

register("vgg", VGG, VARIANTS, ALIASES)

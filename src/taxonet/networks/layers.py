"""The small vocabulary that the family files share: one surface for every network, convolutions, squeeze-and-excite.

Shapes are (N, C, H, W). A `Style` says how a family pads and normalises, so that a block is written once for the
papers' form, for TensorFlow's and for PyTorch's.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.errors import UsageError

Padding = Literal["symmetric", "same"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}

CIFAR_PREPROCESSING = "exif | rgb | resize(32, bicubic) | center_crop(32) | normalize(cifar10)"


def imagenet_preprocessing(size: int = 224, resize: int = 256, normalize: str = "imagenet") -> str:
    """The usual evaluation form: short side to `resize`, the central `size` × `size` pixels."""
    return f"exif | rgb | resize({resize}, bicubic) | center_crop({size}) | normalize({normalize})"


class Network(nn.Module):
    """The one surface of every network: named stages, then pooling, dropout and a linear classifier.

    A family's constructor fills `body` (one child a stage, run in order) and calls `set_head`.
    """

    body: nn.Sequential
    dropout: nn.Dropout
    classifier: nn.Linear
    auxiliary: nn.ModuleDict  # classifiers on earlier maps, by the stage they look at; of use in training only
    auxiliary_weight: float = 0.3  # of the loss of each of them
    num_features: int
    default_preprocessing: str
    variant: str = ""  # set by the registry, with the arguments that rebuild this network
    options: Mapping[str, Any] = {}

    def set_head(
        self,
        num_features: int,
        num_classes: int,
        dropout: float,
        bias: bool = True,
        auxiliary: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """Give the network its classifier over `num_features` pooled values.

        `auxiliary` are heads by the stage whose map they see; each has a `classifier` of its own.
        """
        self.num_features = num_features
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(num_features, num_classes, bias)
        self.auxiliary = nn.ModuleDict(auxiliary)

    def classifiers(self) -> dict[str, nn.Linear]:
        """The layers that give logits by their names: the classifier, then those of the auxiliary heads."""
        names = ("classifier", *(f"auxiliary.{stage}.classifier" for stage in self.auxiliary))
        return {name: cast(nn.Linear, self.get_submodule(name)) for name in names}

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one of `num_classes` outputs, on the same device and of the same type;
        those of the auxiliary heads too."""
        if num_classes < 1:
            raise UsageError(f"num_classes is {num_classes}, it must be at least 1")
        for name, old in self.classifiers().items():
            weight, bias = old.weight, old.bias is not None
            fresh = nn.Linear(old.in_features, num_classes, bias, device=weight.device, dtype=weight.dtype)
            if bias:
                nn.init.zeros_(fresh.bias)  # the weight keeps Torch's uniform ±1/√fan-in
            self.set_submodule(name, fresh)
        self.options = {**self.options, "num_classes": num_classes}

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Every named intermediate map of `x` (N, C, H, W), in order; the last is `forward_features(x)`."""
        maps = {}
        for name, stage in self.body.named_children():
            x = maps[name] = stage(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, before pooling: (N, C, H/r, W/r)."""
        features: Tensor = self.body(x)
        return features

    def pooled(self, features: Tensor) -> Tensor:
        """The vector that the classifier sees, before dropout: (N, num_features)."""
        return F.adaptive_avg_pool2d(features, 1).flatten(1)

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of a last feature map."""
        logits: Tensor = self.classifier(self.dropout(self.pooled(features)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        return self.forward_head(self.forward_features(x))

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and those of the auxiliary heads (most networks have none), for the loss of a training step."""
        if not self.auxiliary:
            return self(x), []
        maps = self.stages(x)
        features = maps[next(reversed(maps))]
        return self.forward_head(features), [head(maps[stage]) for stage, head in self.auxiliary.items()]


class Conv2dSame(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: output ⌈size/stride⌉, the odd pixel goes to the bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """A map (N, C, H, W) with the zeros around it that SAME gives a square kernel."""
    height = _same_padding(x.shape[2], kernel, stride)
    width = _same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def _same_padding(size: int, kernel: int, stride: int) -> int:
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


def conv2d(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution that keeps the map size at stride 1."""
    if padding == "same" and stride > 1:  # at stride 1 and odd kernels SAME is the symmetric padding
        return Conv2dSame(c_in, c_out, kernel, stride, groups=groups, bias=bias)
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


@dataclass(frozen=True)
class Style:
    """How a network pads and normalises: the part in which papers, TensorFlow and PyTorch differ."""

    padding: Padding = "symmetric"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    bias: bool = False  # of the convolutions
    normalized: bool = True  # networks from before batch norm have none

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Batch normalisation in this style."""
        return nn.BatchNorm2d(channels, eps=self.norm_eps, momentum=self.norm_momentum)

    def conv_norm(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str | None = None
    ) -> nn.Sequential:
        """Convolution → batch norm → activation (none when `act` is None)."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=conv2d(c_in, c_out, kernel, stride, groups, self.padding, self.bias)
        )
        if self.normalized:
            layers["norm"] = self.norm(c_out)
        if act is not None:
            layers["act"] = ACTIVATIONS[act](inplace=True)
        return nn.Sequential(layers)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: global pool → 1×1 → ReLU → 1×1 → gate, multiplied onto the map (arXiv 1709.01507, §3)."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        gate: type[nn.Module] = nn.Sigmoid,
        act: type[nn.Module] = nn.ReLU,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.act = act()
        self.expand = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        squeezed = F.adaptive_avg_pool2d(x, 1)  # N, C, 1, 1
        scale: Tensor = self.gate(self.expand(self.act(self.reduce(squeezed))))
        return x * scale


class StochasticDepth(nn.Module):
    """Drop a sample's whole branch with probability `rate` in training, and scale the others by 1/(1 − rate) unless
    `rescale` is False (Huang et al. 2016, arXiv 1603.09382)."""

    def __init__(self, rate: float, rescale: bool = True) -> None:
        super().__init__()
        self.rate, self.rescale = rate, rescale

    def forward(self, x: Tensor) -> Tensor:
        """(N, …) → the same shape."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= self.rate
        x = x * kept.to(x.dtype)
        return x / (1 - self.rate) if self.rescale else x


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels seen as (groups, C/groups) and transposed: a group gets one of each (arXiv 1707.01083, §3.1)."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ChannelShuffle(nn.Module):
    """`channel_shuffle` as a layer."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return channel_shuffle(x, self.groups)


class InvertedResidual(nn.Module):
    """1×1 expansion → depthwise k×k → (squeeze-excite) → linear 1×1 projection (arXiv 1801.04381, §3; 1905.02244, §5).

    The expansion is left out when `hidden` equals `c_in`; the input is added when the shape does not change and `skip`
    is not False. Squeeze-and-excitation, where `squeeze` is its hidden width, sits on the depthwise maps. With `groups`
    it is IGCV3's (arXiv 1806.00178): both 1×1 are grouped, the expansion is always there, linear and then shuffled.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        hidden: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: str = "relu6",
        style: Style,
        squeeze: int = 0,
        gate: type[nn.Module] = nn.Hardsigmoid,
        squeeze_act: type[nn.Module] = nn.ReLU,
        se_before_activation: bool = False,
        skip: bool = True,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if groups > 1:
            layers["expand"] = style.conv_norm(c_in, hidden, groups=groups)
            layers["shuffle"] = ChannelShuffle(groups)
        elif hidden != c_in:
            layers["expand"] = style.conv_norm(c_in, hidden, act=act)
        late_act = bool(squeeze) and se_before_activation
        layers["depthwise"] = style.conv_norm(
            hidden, hidden, kernel, stride, groups=hidden, act=None if late_act else act
        )
        if squeeze:
            layers["se"] = SqueezeExcite(hidden, squeeze, gate, squeeze_act)
        if late_act:
            layers["act"] = ACTIVATIONS[act](inplace=True)
        layers["project"] = style.conv_norm(hidden, c_out, groups=groups)
        self.layers = nn.Sequential(layers)
        self.residual = skip and stride == 1 and c_in == c_out
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out: Tensor = self.layers(x)
        return x + self.drop_path(out) if self.residual else out


def hidden_layers(c_in: int, side: int, dropout: float, dropout_first: bool = False) -> nn.Sequential:
    """The two hidden linear layers of 4096 of AlexNet and VGG over a map that is pooled to `side` × `side`.

    Dropout follows the first; that of the second is the network's own, before its classifier. With `dropout_first` it
    comes before each of the two instead (torchvision's AlexNet).
    """
    return nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(side),  # changes nothing at 224 pixels
            flatten=nn.Flatten(),
            drop5=nn.Dropout(dropout if dropout_first else 0.0),
            fc6=nn.Linear(c_in * side * side, 4096),
            act6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(dropout),
            fc7=nn.Linear(4096, 4096),
            act7=nn.ReLU(inplace=True),
        )
    )


def make_divisible(value: float, divisor: int = 8) -> int:
    """`value` rounded to a multiple of `divisor`, never below 0.9 of it (TF-slim `nets/mobilenet`)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def init_fan_out(network: nn.Module) -> None:
    """Convolutions N(0, √(2/fan-out)), fan-out within one group; norms 1 and 0; linear biases 0 (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # drawing there would load torch._dynamo
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def init_linear_normal(network: nn.Module, std: float = 0.01) -> None:
    """Linear layers N(0, `std`), biases 0, as AlexNet and VGG have them."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            if not module.weight.is_meta:
                nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_classifier(classifier: nn.Linear) -> None:
    """The classifier's weights uniform in ±1/√classes, as in the authors' code of MnasNet and EfficientNet."""
    if not classifier.weight.is_meta:
        bound = 1 / math.sqrt(classifier.out_features)
        nn.init.uniform_(classifier.weight, -bound, bound)


def init_fan_in(network: Network) -> None:
    """Convolutions N(0, 1/fan-in channels), the first N(0, 0.01); classifier N(0, 0.01) with bias 0; norm biases 1e-4
    (the ShuffleNet authors' code)."""
    first = True
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.normal_(module.weight, 0.0, 0.01 if first else 1 / module.weight.shape[1])
            first = False
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 1e-4)
    if not network.classifier.weight.is_meta:
        nn.init.normal_(network.classifier.weight, 0.0, 0.01)
    if network.classifier.bias is not None:
        nn.init.zeros_(network.classifier.bias)


def blocks_by_stage(stem: nn.Module, stages: list[list[nn.Module]], last: nn.Module | None = None) -> nn.Sequential:
    """`stem`, `stage1` … `stageN` and, where there is one, `last` as one ordered body."""
    body: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for number, blocks in enumerate(stages, start=1):
        body[f"stage{number}"] = nn.Sequential(*blocks)
    if last is not None:
        body["last"] = last
    return nn.Sequential(body)


def split_at_strides(blocks: list[nn.Module], strides: list[int]) -> list[list[nn.Module]]:
    """Blocks grouped into stages: a block that halves the map opens a new stage."""
    groups: list[list[nn.Module]] = [[]]
    for block, stride in zip(blocks, strides, strict=True):
        if stride > 1 and groups[-1]:
            groups.append([])
        groups[-1].append(block)
    return groups


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Every batch norm of a network, in order."""
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]

"""Weights from elsewhere: every known file layout is a list of module names in the order of our own modules.

Names are matched one to one and shapes are checked, so the order of a file never matters and nothing is guessed.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from taxonet.errors import BundleError
from taxonet.networks.densenet import DenseBlock, DenseLayer
from taxonet.networks.layers import InvertedResidual, Network

Naming = Callable[[Network], Iterator[str]]
COUNTER = "num_batches_tracked"  # not a weight; files from before Torch 0.4.1 lack it


def own_modules(network: nn.Module) -> list[str]:
    """Names of the modules that hold weights or statistics of their own, in order."""
    return [name for name, m in network.named_modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]


def _blocks(network: Network) -> Iterator[tuple[int, list[str]]]:
    """The inverted residuals, counted from 0, each with the names of its parts."""
    blocks = [m for m in network.modules() if isinstance(m, InvertedResidual)]
    for number, block in enumerate(blocks):
        yield number, [name for name, _ in block.layers.named_children() if name != "act"]


def torchvision_mobilenet_v2(network: Network) -> Iterator[str]:
    """torchvision's `mobilenet_v2`: `features.N.conv.M`."""
    yield from ("features.0.0", "features.0.1")
    number = 0
    for number, parts in _blocks(network):
        prefix = f"features.{number + 1}.conv"
        for position, part in enumerate(parts):
            last = part == "project"
            yield f"{prefix}.{position}" if last else f"{prefix}.{position}.0"
            yield f"{prefix}.{position + 1}" if last else f"{prefix}.{position}.1"
    yield from (f"features.{number + 2}.0", f"features.{number + 2}.1", "classifier.1")


def torchvision_mobilenet_v3(network: Network) -> Iterator[str]:
    """torchvision's `mobilenet_v3_*`: `features.N.block.M`, squeeze-excite as `fc1`, `fc2`."""
    yield from ("features.0.0", "features.0.1")
    number = 0
    for number, parts in _blocks(network):
        for position, part in enumerate(parts):
            inner = ("fc1", "fc2") if part == "se" else ("0", "1")
            yield from (f"features.{number + 1}.block.{position}.{name}" for name in inner)
    yield from (f"features.{number + 2}.0", f"features.{number + 2}.1", "classifier.0", "classifier.3")


def torchvision_densenet(network: Network) -> Iterator[str]:
    """torchvision's and timm's DenseNets: `features.denseblockN.denselayerM.conv1`."""
    yield "features.conv0"
    if hasattr(network.body.stem, "norm"):  # the CIFAR nets have a bare convolution
        yield "features.norm0"
    blocks = [m for m in network.body.children() if isinstance(m, DenseBlock)]
    for b, block in enumerate(blocks, start=1):
        for number, layer in enumerate((m for m in block.modules() if isinstance(m, DenseLayer)), start=1):
            parts = ("norm1", "conv1", "norm2", "conv2") if len(layer.tail) else ("norm1", "conv1")
            yield from (f"features.denseblock{b}.denselayer{number}.{part}" for part in parts)
        if b < len(blocks):
            yield from (f"features.transition{b}.norm", f"features.transition{b}.conv")
    yield from ("features.norm5", "classifier")


def lukemelas_efficientnet(network: Network) -> Iterator[str]:
    """EfficientNet-PyTorch's layout: `_blocks.N._expand_conv`."""
    names = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    yield from ("_conv_stem", "_bn0")
    for number, parts in _blocks(network):
        for part in parts:
            yield from (f"_blocks.{number}.{name}" for name in names.get(part, ("_project_conv", "_bn2")))
    yield from ("_conv_head", "_bn1", "_fc")


def own_layout(network: Network) -> Iterator[str]:
    """Taxonet's own names."""
    yield from own_modules(network)


LAYOUTS: dict[str, dict[str, Naming]] = {
    "densenet": {"torchvision": torchvision_densenet},
    "mobilenet_v2": {"torchvision": torchvision_mobilenet_v2},
    "mobilenet_v3": {"torchvision": torchvision_mobilenet_v3},
    "efficientnet_lite": {"lukemelas": lukemelas_efficientnet},
}


def convert(state: Mapping[str, Tensor], network: Network, family: str) -> tuple[str, dict[str, Tensor]]:
    """Rename a foreign state to the names of `network`.

    The classifier may have another number of outputs than the network's: its tensors keep their own shape.

    Returns:
        The layout that fits ("taxonet", "torchvision", …) and the renamed state, complete for `load_state_dict`.

    Raises:
        BundleError: no known layout of the family fits the names, or a tensor has another shape than the network's.
    """
    state = {_without_dots(key): tensor for key, tensor in state.items()}
    layouts = {"taxonet": own_layout, **LAYOUTS.get(family, {})}
    ours = network.state_dict()
    scores: dict[str, int] = {}
    for layout, naming in layouts.items():
        renamed, missing = _rename(state, network, naming)
        if not missing and len(renamed) == sum(COUNTER not in key for key in state):
            _check_shapes(renamed, ours)
            return layout, {key: renamed.get(key, value) for key, value in ours.items()}
        scores[layout] = len(renamed)
    tried = ", ".join(layouts)
    best = max(scores, key=lambda layout: scores[layout])
    raise BundleError(
        f"the weights are not those of {network.variant}: of {len(state)} names "
        f"{scores[best]} fit the nearest known layout ({best}; tried: {tried})"
    )


def _without_dots(key: str) -> str:
    """torchvision's oldest DenseNet files write `norm.1` where the network has `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)


def _rename(state: Mapping[str, Tensor], network: Network, naming: Naming) -> tuple[dict[str, Tensor], list[str]]:
    theirs = dict(zip(own_modules(network), naming(network), strict=False))
    renamed, missing = {}, []
    for key in network.state_dict():
        module, _, leaf = key.rpartition(".")
        source = f"{theirs.get(module, '?')}.{leaf}"
        if source in state:
            renamed[key] = state[source]
        elif leaf != COUNTER:
            missing.append(source)
    return {k: v for k, v in renamed.items() if COUNTER not in k}, missing


def _check_shapes(renamed: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    for key, tensor in renamed.items():
        theirs, expected = tuple(tensor.shape), tuple(ours[key].shape)
        head = key.startswith("classifier.")
        if theirs != expected and not (head and theirs[1:] == expected[1:]):
            raise BundleError(f"the weight {key} has the shape {theirs}, the network needs {expected}")

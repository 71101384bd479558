"""What a module is called in a drawing: `3×3 conv, 64` for a convolution, `4 × Bottleneck` for a stage of four."""

from collections.abc import Iterator
from itertools import groupby

from torch import nn

NAMES = {
    "BatchNorm2d": "BN",
    "LocalResponseNorm": "LRN",
    "Hardswish": "h-swish",
    "Hardsigmoid": "h-sigmoid",
    "Sigmoid": "sigmoid",
}


def kernel(size: int | tuple[int, ...]) -> str:
    """3 or (3, 3) → 3×3."""
    height, width = (size, size) if isinstance(size, int) else size[:2]
    return f"{height}×{width}"


def stride(step: int | tuple[int, ...]) -> str:
    """Nothing for 1, else /2."""
    step = step if isinstance(step, int) else step[0]
    return f" /{step}" if step > 1 else ""


def convolution(conv: nn.Conv2d) -> str:
    """`3×3 conv /2, 64, 32 groups`."""
    kind = "depthwise conv" if _depthwise(conv) else "conv"
    groups = f", {conv.groups} groups" if conv.groups > 1 and not _depthwise(conv) else ""
    return f"{kernel(conv.kernel_size)} {kind}{stride(conv.stride)}, {conv.out_channels}{groups}"


def short_convolution(conv: nn.Conv2d) -> str:
    """`3×3`, `dw 3×3` or `3×3 g32`."""
    if _depthwise(conv):
        return f"dw {kernel(conv.kernel_size)}"
    return kernel(conv.kernel_size) + (f" g{conv.groups}" if conv.groups > 1 else "")


def _depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1


def leaf(module: nn.Module) -> str:
    """The words for a module that is one step."""
    if isinstance(module, nn.Conv2d):
        return convolution(module)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(module, nn.MaxPool2d) else "average"
        return f"{kernel(module.kernel_size)} {kind} pool{stride(module.stride)}"
    if isinstance(module, nn.Linear):
        return f"linear, {module.out_features}"
    if isinstance(module, nn.Dropout):
        return f"dropout {module.p:g}"
    name = type(module).__name__
    return NAMES.get(name, name)


def summary(module: nn.Module) -> str:
    """A stage in a few words: its repeated blocks, or its convolutions and poolings where it has none."""
    found = list(_steps(module)) or [leaf(m) for m in module.modules() if not list(m.children())]
    steps = [(words, len(list(run))) for words, run in groupby(found)]
    return ", ".join(words if count == 1 else f"{count} × {words}" for words, count in steps) or "–"


def _steps(module: nn.Module) -> Iterator[str]:
    """The blocks of a stage in order: named after their class, or after their convolutions."""
    if isinstance(module, nn.Conv2d):
        yield f"{short_convolution(module)}{stride(module.stride)}"
    elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        yield leaf(module)
    elif isinstance(module, nn.Sequential | nn.ModuleList):
        blocks = list(module.children())
        if len(blocks) > 1 and all(isinstance(block, nn.Sequential) and not _is_layer(block) for block in blocks):
            for block in blocks:  # units made of convolutions alone
                yield "(" + " – ".join(_convolutions(block)) + ")"
        else:
            for block in blocks:
                yield from _steps(block)
    elif not type(module).__module__.startswith("torch.nn") and list(module.parameters()):
        lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
        if len(lists) == 1 and len(list(module.children())) == 1:
            yield from _steps(lists[0])
        else:
            yield type(module).__name__


def _is_layer(block: nn.Module) -> bool:
    """One convolution with what belongs to it."""
    return sum(isinstance(m, nn.Conv2d) for m in block.modules()) <= 1


def _convolutions(block: nn.Module) -> Iterator[str]:
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            yield short_convolution(module)
        elif type(module).__name__ == "SqueezeExcite":
            yield "SE"

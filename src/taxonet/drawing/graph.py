"""A block as a graph of steps, traced with torch.fx: layers in a row are one step, additions and the like are joins."""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from taxonet.drawing import words
from taxonet.errors import UsageError
from taxonet.networks.layers import InvertedResidual, SqueezeExcite, StochasticDepth, channel_shuffle
from taxonet.networks.residual import BasicBlock, Bottleneck, PreActivationUnit

ADD, MULTIPLY, CONCATENATE = "+", "×", "concat"
JOINS: dict[Any, str] = {
    operator.add: ADD, operator.iadd: ADD, torch.add: ADD, "add": ADD, "add_": ADD,
    operator.mul: MULTIPLY, operator.imul: MULTIPLY, torch.mul: MULTIPLY, "mul": MULTIPLY, "mul_": MULTIPLY,
    torch.cat: CONCATENATE, torch.concat: CONCATENATE,
}  # fmt: skip
FUNCTIONS: dict[Any, tuple[str, str]] = {
    torch.relu: ("plain", "ReLU"), F.relu: ("plain", "ReLU"), "relu": ("plain", "ReLU"),
    torch.sigmoid: ("plain", "sigmoid"), F.sigmoid: ("plain", "sigmoid"), "sigmoid": ("plain", "sigmoid"),
    F.gelu: ("plain", "GELU"),
    F.adaptive_avg_pool2d: ("pool", "global average"), "mean": ("pool", "global average"),
}  # fmt: skip
UNITS = (BasicBlock, Bottleneck, PreActivationUnit, InvertedResidual)
INVISIBLE = (nn.Identity, nn.Dropout, StochasticDepth)  # where they do nothing in evaluation


@dataclass
class Step:
    """One box of the drawing: what it says line by line, and the steps it takes its input from."""

    kind: str
    lines: list[str]
    inputs: list["Step"] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    users: int = 0

    @property
    def round(self) -> bool:
        """An addition or a multiplication, drawn as a circle."""
        return self.lines in ([ADD], [MULTIPLY])

    @property
    def join(self) -> bool:
        """A step that brings roads together."""
        return self.round or self.lines == [CONCATENATE]


class _Tracer(fx.Tracer):
    """Sees single layers, squeeze-and-excitation, and whole units inside something larger as one step."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(channel_shuffle,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, (SqueezeExcite, StochasticDepth, nn.Conv2d, *UNITS))
        return known or super().is_leaf_module(m, module_qualified_name)


def trace(block: nn.Module, shape: tuple[int, ...]) -> list[Step]:
    """The steps of a block (on the meta device) for an input of `shape` (C, H, W), inputs before users; the first is
    the input, the last the output.

    Raises:
        UsageError: the block's road depends on its input in a way that cannot be traced.
    """
    block = block.eval()
    try:
        graph = fx.GraphModule(block, _Tracer().trace(block))
        with torch.no_grad():
            ShapeProp(graph).propagate(torch.zeros(1, *shape, device="meta"))
    except Exception as error:  # fx says in many ways that it cannot follow
        raise UsageError(f"a {type(block).__name__} cannot be drawn: {error}") from error
    modules = dict(graph.named_modules())
    steps: dict[fx.Node, Step] = {}
    made: list[Step] = []
    first = next((n for n in graph.graph.nodes if n.op == "call_module"), None)
    norm_first = first is not None and isinstance(modules[str(first.target)], nn.BatchNorm2d)
    for node in graph.graph.nodes:
        meta = node.meta.get("tensor_meta")
        if node.op == "output" or not hasattr(meta, "shape"):
            _pass_through(node, steps)
            continue
        sources = [steps[n] for n in node.all_input_nodes if n in steps]
        if not sources and node.op != "placeholder":
            continue  # a parameter, or what is made of parameters alone
        module = modules[str(node.target)] if node.op == "call_module" else None
        out = tuple(meta.shape[1:])
        if sources and _does_nothing(module):
            steps[node] = sources[0]
            continue
        kind, said = _described(node, module, out)
        users = [len(n.users) for n in node.all_input_nodes if n in steps]
        step = _joined(sources, kind, said, norm_first, users[0] if users else 0)
        if step is None:
            step = Step(kind, [said], sources)
            for source in sources:
                source.users += 1
            made.append(step)
        step.shape = out
        steps[node] = step
    return made


def _pass_through(node: fx.Node, steps: dict[fx.Node, Step]) -> None:
    """A node that gives sizes or tuples, such as a chunk: who takes from it takes from its source."""
    sources = [n for n in node.all_input_nodes if n in steps]
    if sources and node.target in ("chunk", "split", torch.chunk, torch.split):
        steps[node] = steps[sources[0]]


def _does_nothing(module: nn.Module | None) -> bool:
    return isinstance(module, INVISIBLE) and not (isinstance(module, nn.Dropout) and module.p > 0)


def _described(node: fx.Node, module: nn.Module | None, shape: tuple[int, ...]) -> tuple[str, str]:
    """The kind and the words of a step."""
    target: Any = node.target
    if node.op == "placeholder":
        described = "plain", "input"
    elif module is not None:
        described = _of_module(module)
    elif target in JOINS:
        described = _of_join(node)
    elif target in (F.max_pool2d, F.avg_pool2d):
        kind = "max" if target is F.max_pool2d else "average"
        size: Any = node.args[1]
        step: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("stride", 1)
        described = "pool", f"{words.kernel(size)} {kind} pool{words.stride(step)}"
    elif target is F.interpolate:
        described = "pool", f"bilinear to {shape[1]}×{shape[2]}"
    elif target is F.pad:
        described = "plain", f"pad to {'×'.join(map(str, shape))}"
    elif target is operator.getitem:
        described = "plain", f"{shape[0]} of the maps"
    elif target is channel_shuffle:
        described = "join", f"channel shuffle, {node.args[1]} groups"
    else:
        name = target if isinstance(target, str) else getattr(target, "__name__", "step")
        described = FUNCTIONS.get(target, ("plain", name.strip("_").replace("_", " ")))
    return described


def _of_join(node: fx.Node) -> tuple[str, str]:
    """Roads that meet; a number or a parameter added or multiplied is a step of its own."""
    joint: Any = JOINS[node.target]
    if joint != CONCATENATE:
        for argument in node.args:
            if isinstance(argument, int | float):
                return "plain", f"{joint} {argument:.4g}"
            if isinstance(argument, fx.Node) and (parameter := _parameter(argument)):
                return "plain", f"{joint} {parameter}"
    return "join", joint


def _parameter(node: fx.Node) -> str | None:
    """The name of the only parameter that a node is made of; None where an input of the block is in it."""
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[2].replace("_", " ")
    names = [_parameter(n) for n in node.all_input_nodes]
    if node.op != "call_function" or len(names) != 1 or names[0] is None:
        return None
    factors = [f"{a:.4g} · " for a in node.args if isinstance(a, int | float) and node.target in JOINS]
    return "".join(factors) + names[0]


def _of_module(module: nn.Module) -> tuple[str, str]:
    if isinstance(module, nn.Conv2d):
        return "grouped" if module.groups > 1 else "conv", words.convolution(module)
    if isinstance(module, SqueezeExcite):
        return "attention", f"squeeze-excite, {module.reduce.out_channels} hidden"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return "pool", words.leaf(module)
    if isinstance(module, UNITS):
        return "unit", type(module).__name__
    return "plain", words.leaf(module)


def _joined(sources: list[Step], kind: str, said: str, norm_first: bool, users: int) -> Step | None:
    """The step before, when this one only continues it: norm and activation after a convolution, or a convolution
    after norm and activation where norms come first."""
    if len(sources) != 1 or users != 1 or sources[0].users or sources[0].lines == ["input"]:
        return None
    before = sources[0]
    has_convolution = before.kind in ("conv", "grouped")
    if kind in ("conv", "grouped"):
        if not norm_first or has_convolution or before.kind != "plain":
            return None
        before.kind = kind
    elif kind != "plain" or before.kind not in ("conv", "grouped", "plain") or (norm_first and has_convolution):
        return None
    before.lines.append(said)
    return before

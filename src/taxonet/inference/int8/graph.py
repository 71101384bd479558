"""What a quantised graph says of itself: which layers with weights compute in int8, and which stayed float."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines.libraries import import_openvino

Model: TypeAlias = Any  # an openvino.Model, whose package brings no types

ROUNDING = "FakeQuantize"
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
# what moves values without changing them: a rounding before it holds after it
MOVING = frozenset(
    {
        "Reshape",
        "Transpose",
        "Pad",
        "Squeeze",
        "Unsqueeze",
        "MaxPool",
        "Split",
        "VariadicSplit",
        "Slice",
        "StridedSlice",
        "Gather",
        "Concat",
        "ShuffleChannels",
        "Relu",
        "Clamp",
    }
)
INTEGER = ("i8", "u8")
SCALED = "/DequantizationMultiply"  # what an int8 matrix product is called when it runs
MODULE = "__module."  # what the converter puts before a module's path


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name in the network, the graph's operation, and whether its input is rounded."""

    name: str
    node: str  # the name of the graph's node
    operation: str
    int8: bool


def layers(model: Model) -> tuple[Layer, ...]:
    """The convolutions and linear layers of a graph in the order of computation."""
    found = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in WEIGHTED and _is_constant(node.input_value(1).get_node()):
            found.append(Layer(_name(node), node.get_friendly_name(), kind, bool(roundings(node))))
    return tuple(found)


def roundings(node: Any) -> list[Any]:
    """The roundings (FakeQuantize) that all of a layer's input passes through; empty where some of it is float."""
    found, waiting = [], [node.input_value(0).get_node()]
    while waiting:
        source = waiting.pop()
        kind = source.get_type_name()
        if kind == ROUNDING:
            found.append(source)
        elif kind == "Concat":
            waiting += [value.get_node() for value in source.input_values()]
        elif kind in MOVING:
            waiting.append(source.input_value(0).get_node())
        else:
            return []
    return found


def _is_constant(node: Any) -> bool:
    """Whether a value is weights: a constant behind nothing but roundings, conversions and changes of shape."""
    while node.get_type_name() in {ROUNDING, "Convert", "Subtract", "Multiply", "Reshape", "Transpose"}:
        node = node.input_value(0).get_node()
    return str(node.get_type_name()) == "Constant"


def _name(node: Any) -> str:
    """`stage1.0.conv` of the node `__module.network.stage1.0.conv/aten::_convolution/Convolution`.

    A convolution that took in its norm has lost its name; the addition behind it has the norm's.
    """
    for operation in (node, *(target.get_node() for target in node.output(0).get_target_inputs())):
        name = str(operation.get_friendly_name())
        if name.startswith(MODULE):
            return name.removeprefix(MODULE).removeprefix("network.").split("/aten", 1)[0]
    return str(node.get_friendly_name())


def executed(runtime: Model) -> Mapping[str, str]:
    """The name of a layer's node → the precision in which this machine computes it (`u8`, `i8`, `f32`).

    Args:
        runtime: what `CompiledModel.get_runtime_model()` gives.
    """
    found: dict[str, str] = {}
    for node in runtime.get_ordered_ops():
        facts = node.get_rt_info()
        if _text(facts, "layerType") in {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}:
            names = _text(facts, "originalLayersNames").split(",")
            found |= {name.removesuffix(SCALED): _text(facts, "runtimePrecision") for name in names}
    return found


def _text(facts: Any, key: str) -> str:
    return str(facts[key].astype(str)) if key in facts else ""


def losses(model: Model, batches: Iterable[NDArray[np.uint8]]) -> dict[str, float]:
    """How much of each layer's input its rounding loses: the squared error relative to the squared values.

    Args:
        model: a quantised graph.
        batches: prepared photos, (N, H, W, C) each.

    Returns:
        The node's name of every int8 layer → its loss; the larger, the more the layer gains by staying float.
    """
    openvino = import_openvino()
    watched = model.clone()
    points: dict[str, tuple[int, int]] = {}
    for node in watched.get_ordered_ops():
        if node.get_type_name() == ROUNDING and not _is_constant(node.input_value(0).get_node()):
            watched.add_outputs([node.input_value(0), node.output(0)])
            points[node.get_friendly_name()] = (len(watched.outputs) - 2, len(watched.outputs) - 1)
    compiled = openvino.Core().compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    error = dict.fromkeys(points, 0.0)
    energy = dict.fromkeys(points, 0.0)
    for batch in batches:
        values = compiled(batch)
        for name, (before, after) in points.items():
            error[name] += float(np.square(values[after] - values[before], dtype=np.float64).sum())
            energy[name] += float(np.square(values[before], dtype=np.float64).sum())
    share = {name: error[name] / max(energy[name], 1e-30) for name in points}
    lost = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in WEIGHTED and (rounded := roundings(node)):
            lost[node.get_friendly_name()] = max(share.get(r.get_friendly_name(), 0.0) for r in rounded)
    return lost

"""What a quantised graph says of itself: which layers with weights compute in int8, and which stayed float."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines.libraries import import_openvino

Model: TypeAlias = Any  # an openvino.Model, whose package brings no types

TINY = 1e-12  # the squares of an output that is always 0
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


def with_feeders(model: Model, names: Iterable[str]) -> tuple[str, ...]:
    """Layers of a float graph and what lies between each and the layer before it: pooling, norms, activations, all of
    which would be rounded by themselves and lose there what the layer is to keep."""
    nodes, found = {node.get_friendly_name(): node for node in model.get_ordered_ops()}, dict.fromkeys(names)
    for name in tuple(found):
        source = nodes[name].input_value(0).get_node()
        while source.get_type_name() not in (*WEIGHTED, "Parameter"):
            inputs = [value for value in source.input_values() if not _is_constant(value.get_node())]
            if len(inputs) != 1:  # what is joined here has other users, whose rounding NNCF then places badly
                break
            found[str(source.get_friendly_name())] = None
            source = inputs[0].get_node()
    return tuple(found)


def _is_constant(node: Any) -> bool:
    """Whether a value is weights: a constant behind nothing but roundings, conversions and changes of shape."""
    while node.get_type_name() in {ROUNDING, "Convert", "Subtract", "Multiply", "Reshape", "Transpose", "Unsqueeze"}:
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


def losses(model: Model, quantised: Model, batches: Iterable[NDArray[np.uint8]]) -> dict[str, float]:
    """What rounding does to each int8 layer alone: the squared error of its output, relative to the squared output,
    where its input is that of the float network.

    Args:
        model: the float graph.
        quantised: what was made of it.
        batches: prepared photos, (N, H, W, C) each.

    Returns:
        The node's name of every int8 layer → its loss; the larger, the more the layer gains by staying float.
    """
    core, config = import_openvino().Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    names, sources, alone = _cut(quantised.clone())
    watched = model.clone()
    nodes = {node.get_friendly_name(): node for node in watched.get_ordered_ops()}
    points = [*sources, *((name, 0) for name in names)]
    if not all(name in nodes for name, _ in points):
        return {}  # NNCF has renamed what it found
    watched.add_outputs([nodes[name].output(port) for name, port in points])
    place = {_point(result.input_value(0)): i for i, result in enumerate(watched.get_results())}  # each point once
    requests = [core.compile_model(graph, "CPU", config).create_infer_request() for graph in (watched, alone)]
    error, own = np.zeros(len(names)), np.zeros(len(names))
    for batch in batches:
        values = _outputs(requests[0], [batch])
        found = _outputs(requests[1], [values[place[source]] for source in sources])
        for i, name in enumerate(names):
            expected = values[place[name, 0]]
            error[i] += np.square(found[i] - expected, dtype=np.float64).sum()
            own[i] += np.square(expected, dtype=np.float64).sum()
    return dict(zip(names, (error / np.maximum(own, TINY)).tolist(), strict=True))


def _point(value: Any) -> tuple[str, int]:
    """A node's name and which of its outputs a value is."""
    return str(value.get_node().get_friendly_name()), int(value.get_index())


def _outputs(request: Any, inputs: list[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """All outputs of a graph by their place."""
    request.infer(inputs)
    return [np.array(request.get_output_tensor(i).data) for i in range(len(request.model_outputs))]


def _cut(quantised: Model) -> tuple[list[str], list[tuple[str, int]], Model]:
    """The int8 layers of a graph, each for itself: their names, what they take in (a node and its port), and the graph
    from these to the layers' outputs. The given graph is used up."""
    openvino = import_openvino()
    found = [(node, roundings(node)) for node in quantised.get_ordered_ops() if node.get_type_name() in WEIGHTED]
    inner = {rounding.get_friendly_name(): rounding for _, parts in found for rounding in parts}
    sources, parameters = [], []
    for rounding in inner.values():
        source = rounding.input_value(0)
        sources.append(_point(source))
        parameters.append(openvino.op.Parameter(source.get_element_type(), source.get_partial_shape()))
    for rounding, parameter in zip(inner.values(), parameters, strict=True):
        rounding.input(0).replace_source_output(parameter.output(0))
    layers_ = [node for node, parts in found if parts]
    results = [openvino.opset13.result(node.output(0)) for node in layers_]
    return [str(n.get_friendly_name()) for n in layers_], sources, openvino.Model(results, parameters, "layers")

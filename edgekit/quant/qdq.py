"""The TensorRT emitter: FP32 ONNX and a quantized model to INT8 ONNX with explicit Q/DQ.

Placement (NVIDIA TensorRT documentation, "Working with quantized types"; TensorRT 8.5's parser):
1. Conv and Gemm: Q/DQ on the data input; the weight is an int8 initializer with a
   DequantizeLinear, one scale per output channel (axis 0); the bias stays float.
2. Convolutions with fewer than 16 input or output channels stay float, unless both counts are
   multiples of 8. A depthwise convolution needs a multiple of 8.
3. A depthwise convolution that reads what a float convolution writes (the second layer of MobileNet
   and EfficientNet) stays float: no tensor is more sensitive to rounding than the one between them
   (EfficientNet-Lite0: 20.9 dB at the logits if it alone is rounded, all others together 23.1 dB).
4. No Q/DQ between a Conv and its activation, and none on graph outputs.
5. A residual Add has Q/DQ on its shortcut only; the other side is fused into the Conv that writes
   it. The shortcut is the input that no Conv writes; where both come from a Conv, the one that
   something else reads too (MobileNetV2), else the second (a ResNet's downsampling Conv).
6. Squeeze-and-excitation: Q/DQ on the input of the average pool that feeds a Conv, and on both
   inputs of the Mul that scales the channels.
7. A layer that the quantized model keeps in floating point has neither a pair nor an int8 weight.
8. All readers of a tensor share one Q/DQ pair. Every scale is float32, every zero point is 0 and
   written out: TensorRT 8.5 reads scales as float32 and insists on three inputs.
9. Where biases can stand for a zero point, they do (`quant.shift`).

``--parity strict`` has instead a pair on all that a node reads, but for what its activation is fused with:
LiteRT holds integers everywhere, and both must round the same tensors. Layers that rule 2 keeps float then
read and write rounded values. ONNX Runtime 1.31 computes such a file wrongly with its optimizer on (12 dB
from what it gives without).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from edgekit.errors import EdgekitError
from edgekit.quant import affine
from edgekit.quant.naming import Naming
from edgekit.quant.placement import conv_runs_in_int8, is_depthwise
from edgekit.quantization import TENSORRT_SCHEME, LayerWeights, QuantizedModel, Range

_WEIGHTED = ("Conv", "Gemm")
_FUSED = ("Relu", "Clip")  # into the operator before them, by LiteRT
_ACTIVATIONS = ("Relu", "Clip", "HardSwish", "Sigmoid", "Mul", "Pad")


def quantize(model: ir.Model, quantized: QuantizedModel, naming: Naming, everywhere: bool = False) -> list[str]:
    """Insert Q/DQ pairs and the quantized model's weights and biases in place.

    Args:
        everywhere: a pair on all that a node reads, as LiteRT holds it, instead of the rules 2 to 6.

    Returns:
        The names of the Conv and Gemm nodes that now run in INT8.
    Raises:
        EdgekitError: a tensor that needs a range has none, or a layer no weights; the message names it.
    """
    graph, scheme = model.graph, quantized.scheme(TENSORRT_SCHEME)
    layers = {node: _layer_of(node, quantized, naming) for node in graph if _is_layer(node)}
    wanted = _all_inputs(graph, naming, quantized) if everywhere else _plan(graph)
    plan = [(node, index) for node, index in wanted if node not in layers or layers[node].scales is not None]
    in_int8 = [node for node, _ in plan if node in layers and (node.op_type != "Conv" or _suits(node))]
    with_bias = [node for node in in_int8 if layers[node].bias is not None]
    shifted = shift_candidates(plan, with_bias) if scheme.shifted else []
    pairs: dict[ir.Value, ir.Value] = {}
    biases: dict[ir.Node, np.ndarray] = {}
    for value in dict.fromkeys(node.inputs[index] for node, index in plan):
        assert value is not None
        grid = affine.tensor_grid(_range_of(value, quantized, naming), scheme.symmetric, value in shifted)
        source = value
        if grid.zero_point and scheme.symmetric:
            source, added = shift_tensors(graph, value, grid, layers, functools.partial(constant, graph))
            biases.update({node: biases.get(node, 0.0) + each for node, each in added.items()})
        pairs[value] = _insert_pair(graph, source, str(value.name), grid.scale)
    for node, layer in layers.items():
        _set_weights(graph, node, layer, node in in_int8, biases.get(node))
    for node, index in plan:
        value = node.inputs[index]
        assert value is not None
        node.replace_input_with(index, pairs[value])
    _remove_unread(graph)
    graph.sort()
    return [str(node.name) for node in in_int8]


def _range_of(value: ir.Value, quantized: QuantizedModel, naming: Naming) -> Range:
    known = naming.tensors.get(str(value.name))
    if known not in quantized.table.ranges:
        raise EdgekitError(f"the ONNX tensor {value.name!r} has no counterpart in the calibration table")
    return quantized.table.ranges[known]


def _remove_unread(graph: ir.Graph) -> None:
    """Take out activations that nothing reads any more."""
    for node in list(graph):
        if node.op_type in _FUSED and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in _WEIGHTED and _has_constant(node, 1)


def _layer_of(node: ir.Node, quantized: QuantizedModel, naming: Naming) -> LayerWeights:
    name = naming.layers.get(str(node.outputs[0].name))
    if name not in quantized.layers:
        raise EdgekitError(f"the ONNX node {node.name!r} has no counterpart among the layers of the network")
    return quantized.layers[name]


def _plan(graph: ir.Graph) -> Iterator[tuple[ir.Node, int]]:
    """Every (node, input index) that gets a Q/DQ pair."""
    rules: dict[str, Callable[[ir.Node], list[int]]] = {
        "Conv": lambda node: [0] if _conv_runs_in_int8(node) else [],
        "Gemm": lambda node: [0] if _has_constant(node, 1) else [],
        "Add": lambda node: _shortcut(node),
        "GlobalAveragePool": lambda node: [0] if any(u.op_type == "Conv" for u in _readers(node)) else [],
        "Mul": lambda node: [0, 1] if _scales_channels(node) else [],
    }
    for node in graph:
        for index in rules.get(node.op_type, lambda _: [])(node):
            yield node, index


def _all_inputs(graph: ir.Graph, naming: Naming, quantized: QuantizedModel) -> list[tuple[ir.Node, int]]:
    """Every (node, input index) that reads what LiteRT holds as integers."""
    return [
        (node, index)
        for node in graph
        for index, value in enumerate(node.inputs)
        if value is not None and naming.tensors.get(str(value.name)) in quantized.table.ranges and not _is_fused(value)
    ]


def _is_fused(value: ir.Value) -> bool:
    """Whether an activation that LiteRT fuses is all that reads a tensor."""
    readers = [use.node.op_type for use in value.uses()]
    return value.producer() is not None and len(readers) == 1 and readers[0] in _FUSED


def _readers(node: ir.Node) -> list[ir.Node]:
    return [use.node for use in node.outputs[0].uses()]


def _has_constant(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    return value is not None and value.const_value is not None


def _conv_runs_in_int8(node: ir.Node) -> bool:
    """Rules 2 and 3."""
    if not _suits(node):
        return False
    _, inputs, groups = _channels(node)
    writer = _writer(node.inputs[0])
    follows_float = writer is not None and not _conv_runs_in_int8(writer)
    return not (follows_float and is_depthwise(inputs, groups))


def _suits(node: ir.Node) -> bool:
    """Rule 2."""
    return _has_constant(node, 1) and conv_runs_in_int8(*_channels(node))


def _channels(node: ir.Node) -> tuple[int, int, int]:
    """Outputs, inputs and groups of a Conv with a constant weight."""
    shape = node.inputs[1].const_value.shape.numpy()
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return shape[0], shape[1] * groups, groups


def _writer(value: ir.Value | None) -> ir.Node | None:
    """The Conv that writes a tensor, by itself or through its activation."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type != "Conv":
        source = node.inputs[0] if node.op_type in _ACTIVATIONS else None
        node = source.producer() if source is not None else None
    return node


def _shortcut(node: ir.Node) -> list[int]:
    """Rule 5."""
    producers = [value.producer() if value is not None else None for value in node.inputs]
    convs = [producer is not None and producer.op_type == "Conv" for producer in producers]
    if not any(convs) or any(_has_constant(node, i) for i in (0, 1)):
        return []
    if not all(convs):
        return [convs.index(False)]
    shared = [value is not None and len(value.uses()) > 1 for value in node.inputs]
    return [shared.index(True)] if any(shared) else [1]


def _scales_channels(node: ir.Node) -> bool:
    """Rule 6: one side is a gate (Sigmoid or HardSigmoid of a Conv over pooled values)."""
    for value in node.inputs:
        gate = value.producer() if value is not None else None
        if gate is None or gate.op_type not in ("Sigmoid", "HardSigmoid"):
            continue
        source = gate.inputs[0]
        if source is not None and all(v is not source for v in node.inputs):  # x * sigmoid(x) is SiLU
            return True
    return False


def _insert_pair(graph: ir.Graph, value: ir.Value, name: str, scale: float) -> ir.Value:
    """Add QuantizeLinear and DequantizeLinear behind `value`; returns the dequantized value."""
    factor = constant(graph, f"{name}_scale", np.array(scale, np.float32))
    zero = constant(graph, f"{name}_zero_point", np.array(0, np.int8))
    quantized = ir.node("QuantizeLinear", [value, factor, zero], name=f"{name}_quantize")
    quantized.outputs[0].name = f"{name}_int8"
    restored = ir.node("DequantizeLinear", [quantized.outputs[0], factor, zero], name=f"{name}_dequantize")
    restored.outputs[0].name = f"{name}_dequantized"
    graph.extend([quantized, restored])
    return restored.outputs[0]


def _set_weights(graph: ir.Graph, node: ir.Node, layer: LayerWeights, in_int8: bool, added: np.ndarray | None) -> None:
    """Rule 1, for the weight (input 1) of a Conv or of a Gemm with transB=1, and the bias (input 2) with `added`."""
    value = node.inputs[1]
    assert value is not None
    if node.op_type == "Gemm" and not (node.attributes.get("transB") and node.attributes["transB"].as_int()):
        raise EdgekitError(f"{node.name}: a Gemm whose weight is not (outputs, inputs)")
    bias = layer.bias if added is None or layer.bias is None else (layer.bias + added).astype(np.float32)
    if bias is not None and _has_constant(node, 2):
        _replace(graph, node, 2, bias)
    elif bias is not None and bias.any():  # a bias of zeros is left out where the network is exported
        node.resize_inputs(3)
        node.replace_input_with(2, constant(graph, f"{node.name}_bias", bias))
    if not in_int8:
        _replace(graph, node, 1, layer.weight)
        return
    assert layer.scales is not None
    integers = constant(graph, f"{value.name}_int8", layer.integers)
    factor = constant(graph, f"{value.name}_scale", layer.scales)
    zero = constant(graph, f"{value.name}_zero_point", np.zeros(len(layer.scales), np.int8))
    restored = ir.node("DequantizeLinear", [integers, factor, zero], {"axis": 0}, name=f"{value.name}_dequantize")
    restored.outputs[0].name = f"{value.name}_dequantized"
    graph.insert_before(node, restored)
    node.replace_input_with(1, restored.outputs[0])
    if not value.uses():
        del graph.initializers[str(value.name)]


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give a node another constant, under the old one's name where nothing else reads that."""
    old = node.inputs[index]
    assert old is not None
    name = str(old.name)
    if len(old.uses()) > 1:
        name = f"{node.name}_{name}"
    else:
        node.replace_input_with(index, None)
        del graph.initializers[name]
    node.replace_input_with(index, constant(graph, name, np.ascontiguousarray(array)))


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of the graph."""
    value = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


# Zero points that TensorRT does not have, moved into biases.

_POINTWISE = ("Conv", "Gemm", "Relu", "Clip", "HardSwish", "Gelu", "Add", "Mul")
_WRITERS = (*_POINTWISE, "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten")
_CLIPS = ("Relu", "Clip")


def shift_candidates(plan: list[tuple[ir.Node, int]], with_bias: list[ir.Node]) -> list[ir.Value]:
    """The tensors of a plan of Q/DQ pairs that rules 1 and 3 allow; `with_bias` are the INT8 layers that have one."""
    values = {node.inputs[index]: None for node, index in plan}
    return [
        v for v in values if v is not None and _is_written(v) and all(_takes_it(use, with_bias) for use in v.uses())
    ]


def _is_written(value: ir.Value) -> bool:
    writer = value.producer()
    return writer is not None and writer.op_type in _WRITERS and not value.is_graph_output()


def _takes_it(use: ir.Usage, with_bias: list[ir.Node]) -> bool:
    pads = use.node.attributes.get("pads")
    return use.idx == 0 and use.node in with_bias and not (pads is not None and any(pads.as_ints()))


def shift_tensors(
    graph: ir.Graph,
    value: ir.Value,
    grid: affine.Grid,
    layers: dict[ir.Node, LayerWeights],
    constant: Callable[[str, np.ndarray], ir.Value],
) -> tuple[ir.Value, dict[ir.Node, np.ndarray]]:
    """Where the shifted tensor is, and what must be added to the bias of each Conv and Gemm, float64 (outputs,).

    Args:
        grid: of `value`. layers: what every Conv and Gemm carries. constant: makes an initializer of the graph.
    """
    offset = grid.scale * grid.zero_point
    biases = {use.node: -offset * _sum_of_weights(layers[use.node]) for use in value.uses()}
    writer = _layer_that_writes(value, grid, layers)
    if writer is not None:
        biases[writer] = np.full(len(layers[writer].weight), offset)
        return writer.outputs[0], biases
    shift = constant(f"{value.name}_shift", np.array(offset, np.float32))
    added = ir.node("Add", [value, shift], name=f"{value.name}_shifted")
    added.outputs[0].name = f"{value.name}_shifted"
    graph.append(added)
    return added.outputs[0], biases


def _sum_of_weights(layer: LayerWeights) -> np.ndarray:
    """What a layer makes of an input of ones, as its integers have it."""
    assert layer.scales is not None
    return layer.integers.astype(np.int64).reshape(len(layer.scales), -1).sum(1) * layer.scales.astype(np.float64)


def _layer_that_writes(value: ir.Value, grid: affine.Grid, layers: dict[ir.Node, LayerWeights]) -> ir.Node | None:
    """The Conv or Gemm whose bias can take the constant: nothing but a clip that the grid makes lies between."""
    node = value.producer()
    if node is not None and node.op_type in _CLIPS and _is_saturation(node, grid):
        source = node.inputs[0]
        node = source.producer() if source is not None and len(source.uses()) == 1 else None
    return node if node in layers and layers[node].bias is not None else None


def _is_saturation(node: ir.Node, grid: affine.Grid) -> bool:
    """Rule 2: whether integers from -128 to 127 are clipped as this node clips."""
    ends: list[float | None] = [0.0, None]
    if node.op_type == "Clip":
        given = [value.const_value if value is not None else None for value in node.inputs[1:3]]
        ends = [None if end is None else float(end.numpy()) for end in given]
    low, high = [*ends, None, None][:2]
    return low == 0.0 and grid.low == 0.0 and (high is None or grid.high <= high * (1 + 1e-6))

"""Typed FP16 ONNX: float16 tensors inside, float32 at input and output and where float16 is not enough.

Rules:
1. Inputs and outputs stay float32.
2. A node stays in float32 (all its float inputs and outputs) where
   a. an initializer holds more than 65,504, or would become all zeros;
   b. the weights of a channel vanish: float16 rounds off more than 1 % of them, which happens far below
      its smallest normal number (6.1e-5). A dead channel does not count: one whose bias is so large that
      float16 rounds off as much of it, or whose weights and bias are a millionth of the layer's largest;
   c. the calibration table has an input or an output beyond 32,752, half of float16's largest number (images
      outside the calibration set may give more), or a nonzero one entirely below 6.1e-5;
   d. it reads a DequantizeLinear whose scale float16 cannot hold (below 6e-8 or above 65,504);
   e. it is an INT8 layer with a bias, or an activation behind it, and nothing but activations lies between the layer
      and a QuantizeLinear. Compilers run such a layer in INT8, whatever its float type is. ONNX Runtime's optimizer
      (WeightBiasQuantization, 1.20 to 1.31) makes its bias int32, in steps of input scale times weight scale, which
      it multiplies in the type of the scales: in float16 the product vanishes, and the answers are wrong.
3. QuantizeLinear has the type of what it quantizes, DequantizeLinear that of its readers: a Conv and its
   Q/DQ never have a Cast between them. Readers of both types get a DequantizeLinear each.
4. Everything else is float16. Where types meet there is one Cast, shared by all readers of that type.
5. Float16 scales of Q/DQ nodes need opset 19, where ReduceMean has its axes as an input.

Tensors without a counterpart in the table are assumed to fit. Sums inside a node are not checked: TensorRT's
convolutions and matrix products accumulate in float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.errors import DataError
from edgekit.quantization import CalibrationTable, Range

_HALF = np.finfo(np.float16)
LARGEST, SMALLEST_NORMAL = float(_HALF.max), float(_HALF.smallest_normal)
LEAST_SCALE = float(_HALF.smallest_subnormal)
HEADROOM = 2.0
_LOST_SHARE = 0.01  # of a channel's weights
_NOISE = 2.0**-11  # relative rounding error of float16
_DEAD = 1e-6
_TYPED_OPSET, _TYPED_IR = 19, 9  # QuantizeLinear takes float16 from opset 19 on
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
# Operators whose input 1 is a weight and input 2 a bias -> the weight's axis of outputs.
_WEIGHTED = {"Conv": 0, "Gemm": 0, "MatMul": -1}
_BIASED, _ACTIVATIONS = ("Conv", "Gemm"), ("Relu", "Clip")


def to_fp16(model: ir.Model, table: CalibrationTable | None = None, names: dict[str, str] | None = None) -> list[str]:
    """Make every float32 tensor between input and output float16, in place, by the rules above.

    Args:
        table: observed ranges of the tensors; without it only the initializers are checked.
        names: ONNX tensor name -> name in `table` (`naming.Naming.tensors`).
    Returns:
        The names of the nodes that stay in float32, in the order of the graph.
    Raises:
        DataError: an initializer holds NaN or infinite values; names it.
    """
    known = {} if table is None else table.seen or table.ranges  # values that the observer clips must fit too
    ranges = {n: known[t] for n, t in (names or {}).items() if t in known}
    graph = model.graph
    kept = _kept(graph, ranges)
    _split_dequantizers(graph, kept)
    staying = [str(node.name) for node in graph if node in kept]
    _convert(graph, kept)
    if any(node.op_type in (_Q, _DQ) for node in graph):
        _raise_opset(model)
    return staying


def _raise_opset(model: ir.Model) -> None:
    """Apply rule 5. The other operators of `convert.onnx` mean the same in opset 17 and 19."""
    graph = model.graph
    for node in graph:
        if node.op_type == "ReduceMean" and "axes" in node.attributes:
            name = f"{node.name}_axes"
            axes = ir.tensor(np.array(node.attributes.pop("axes").as_ints(), np.int64), name=name)
            value = ir.Value(name=name, shape=axes.shape, type=ir.TensorType(axes.dtype), const_value=axes)
            graph.register_initializer(value)
            node.resize_inputs(2)
            node.replace_input_with(1, value)
    graph.opset_imports[""] = _TYPED_OPSET
    model.ir_version = _TYPED_IR


def _kept(graph: ir.Graph, ranges: dict[str, Range]) -> set[ir.Node]:
    """Return the nodes that stay in float32 by rules 2 and 3, without split DequantizeLinears."""
    kept = {node for node in graph if _needs_float32(node, ranges)}
    for node in graph:
        if node.op_type in _BIASED and all(map(_is_dequantized, node.inputs[:2])):
            kept |= _until_quantized(node)
    for node in graph:
        if node.op_type == _DQ and node in kept:
            kept |= {use.node for use in node.outputs[0].uses()}
    for node in graph:
        source = node.inputs[0].producer() if node.op_type == _Q and node.inputs[0] is not None else None
        if source is not None and source in kept:
            kept.add(node)
    return kept


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == _DQ


def _until_quantized(layer: ir.Node) -> set[ir.Node]:
    """Return a layer with a bias and the activations that alone lie between it and a QuantizeLinear (rule 2e)."""
    if len(layer.inputs) < 3 or layer.inputs[2] is None:
        return set()
    chain = {layer}
    node = layer
    while len(uses := node.outputs[0].uses()) == 1 and not node.outputs[0].is_graph_output():
        (node,) = (use.node for use in uses)
        if node.op_type == _Q:
            return chain
        if node.op_type not in _ACTIVATIONS:
            break
        chain.add(node)
    return set()


def _needs_float32(node: ir.Node, ranges: dict[str, Range]) -> bool:
    """Return whether a node stays in float32: by rules 2a to 2c, a Resize, or one with a scale beyond float16."""
    if node.op_type == "Resize":  # its scales are float32 in any case
        return True
    for index, value in enumerate(node.inputs):
        if value is None or not _is_float_constant(value):
            continue
        array = _array(value)
        if np.abs(array).max(initial=0) > LARGEST:
            return True
        if node.op_type in (_Q, _DQ):
            if index == 1 and array.min() < LEAST_SCALE:
                return True
        elif not _is_bias(node, index) and array.any() and not array.astype(np.float16).any():
            return True
    return _weights_vanish(node, ranges) or any(
        _does_not_fit(span) for value in (*node.inputs, *node.outputs) if (span := _span(value, ranges)) is not None
    )


def _is_bias(node: ir.Node, index: int) -> bool:
    return node.op_type in _WEIGHTED and index > 1


def _does_not_fit(span: Range) -> bool:
    """Return whether rule 2c holds for a range."""
    largest = max(-span.low, span.high)
    return largest > LARGEST / HEADROOM or 0 < largest < SMALLEST_NORMAL


def _span(value: ir.Value | None, ranges: dict[str, Range]) -> Range | None:
    """Return the observed range of a tensor; of a dequantized one, the range of what was quantized."""
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type in (_Q, _DQ):
        return _span(producer.inputs[0], ranges)
    return ranges.get(str(value.name)) if value is not None else None


def _weights_vanish(node: ir.Node, ranges: dict[str, Range]) -> bool:
    """Return whether rule 2b holds for a weight that is a float initializer."""
    weight = node.inputs[1] if node.op_type in _WEIGHTED and len(node.inputs) > 1 else None
    if weight is None or not _is_float_constant(weight) or _array(weight).ndim < 2:
        return False
    axis = _WEIGHTED[node.op_type]
    if node.op_type == "Gemm" and not ("transB" in node.attributes and node.attributes["transB"].as_int()):
        axis = -1
    channels = np.moveaxis(_array(weight).astype(np.float64), axis, 0)
    channels = channels.reshape(len(channels), -1)
    total = np.abs(channels).sum(1)
    lost = np.abs(channels - channels.astype(np.float16)).sum(1)
    bias = np.zeros(len(channels))
    if len(node.inputs) > 2 and node.inputs[2] is not None and _is_float_constant(node.inputs[2]):
        bias = np.abs(np.broadcast_to(_array(node.inputs[2]), bias.shape)).astype(np.float64)
    seen = _span(node.inputs[0], ranges)
    largest = max(-seen.low, seen.high) if seen is not None else 1.0
    reach = total * largest + bias
    drowned = lost * largest <= _NOISE * bias
    return bool(((lost > _LOST_SHARE * total) & ~drowned & (reach > _DEAD * reach.max())).any())


def _is_float_constant(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT


def _array(value: ir.Value) -> np.ndarray:
    """Return the values of a float32 initializer.

    Raises:
        DataError: NaN or infinite values.
    """
    assert value.const_value is not None
    array = value.const_value.numpy()
    if not np.isfinite(array).all():
        raise DataError(f"{value.name!r} holds NaN or infinite values", "train again with a lower --lr")
    return array


def _split_dequantizers(graph: ir.Graph, kept: set[ir.Node]) -> None:
    """Apply rule 3: split DequantizeLinears with readers of both types; those for float32 are added to `kept`."""
    for node in list(graph):
        if node.op_type != _DQ or node in kept:
            continue
        uses = list(node.outputs[0].uses())
        staying = [use for use in uses if use.node in kept]
        if len(staying) == len(uses):
            kept.add(node)
        elif staying:
            twin = ir.node(
                _DQ, node.inputs, {a.name: a.value for a in node.attributes.values()}, name=f"{node.name}_fp32"
            )
            twin.outputs[0].name = f"{node.outputs[0].name}_fp32"
            graph.insert_after(node, twin)
            kept.add(twin)
            for use in staying:
                use.node.replace_input_with(use.idx, twin.outputs[0])


def _convert(graph: ir.Graph, kept: set[ir.Node]) -> None:
    """Apply rules 1 and 4."""
    nodes = list(graph)
    for value in list(graph.initializers.values()):
        if _is_float_constant(value):
            _convert_initializer(graph, value, kept)
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in nodes:
        wanted = _type_of(node, kept)
        for index, value in enumerate(node.inputs):
            if value is None or _activation_type(value, kept) in (None, wanted):
                continue
            if (value, wanted) not in casts:
                casts[value, wanted] = _cast(graph, value, wanted)
            node.replace_input_with(index, casts[value, wanted])
    for index, value in enumerate(list(graph.outputs)):
        if _activation_type(value, kept) == ir.DataType.FLOAT16:
            name, value.name = value.name, f"{value.name}_fp16"
            graph.outputs[index] = result = _cast(graph, value, ir.DataType.FLOAT)
            result.name, result.shape, result.dtype = name, value.shape, ir.DataType.FLOAT
            value.shape, value.type = None, None


def _type_of(node: ir.Node, kept: set[ir.Node]) -> ir.DataType:
    return ir.DataType.FLOAT if node in kept else ir.DataType.FLOAT16


def _convert_initializer(graph: ir.Graph, value: ir.Value, kept: set[ir.Node]) -> None:
    """Convert an initializer to float16, with a float32 twin for readers in `kept` if both types are read."""
    uses = list(value.uses())
    staying = [use for use in uses if use.node in kept]
    if uses and len(staying) == len(uses):
        return
    array = _array(value)
    if staying:
        twin = ir.Value(name=f"{value.name}_fp32", const_value=ir.tensor(array, name=f"{value.name}_fp32"))
        twin.shape, twin.dtype = value.shape, ir.DataType.FLOAT
        graph.register_initializer(twin)
        for use in staying:
            use.node.replace_input_with(use.idx, twin)
    value.const_value = ir.tensor(array.astype(np.float16), name=value.name)
    value.dtype = ir.DataType.FLOAT16


def _activation_type(value: ir.Value, kept: set[ir.Node]) -> ir.DataType | None:
    """Return the float type of a tensor after the conversion; None for constants and integers."""
    producer = value.producer()
    if producer is None:
        return ir.DataType.FLOAT if value.is_graph_input() and value.dtype == ir.DataType.FLOAT else None
    return None if producer.op_type in (_Q, "Cast") else _type_of(producer, kept)


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Add a Cast of `value` right after it and return the result."""
    name = f"{value.name}_{'fp32' if dtype == ir.DataType.FLOAT else 'fp16'}"
    cast = ir.node("Cast", [value], {"to": dtype.value}, name=f"{name}_cast")
    cast.outputs[0].name = name
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(producer, cast)
    return cast.outputs[0]

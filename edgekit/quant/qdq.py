"""The TensorRT emitter: FP32 ONNX and a calibration table to INT8 ONNX with explicit Q/DQ.

Placement (NVIDIA TensorRT documentation, "Working with quantized types"; TensorRT 8.5's parser):
1. Conv and Gemm: Q/DQ on the data input; the weight is an int8 initializer with a
   DequantizeLinear, one scale per output channel (axis 0); the bias stays float.
2. Convolutions with fewer than 16 input or output channels stay float, unless both counts are
   multiples of 8. A depthwise convolution needs a multiple of 8.
3. No Q/DQ between a Conv and its activation, and none on graph outputs.
4. A residual Add has Q/DQ on its shortcut only; the other side is fused into the Conv that writes
   it. The shortcut is the input that no Conv writes; where both come from a Conv, the one that
   something else reads too (MobileNetV2), else the second (a ResNet's downsampling Conv).
5. Squeeze-and-excitation: Q/DQ on the input of the average pool that feeds a Conv, and on both
   inputs of the Mul that scales the channels.
6. All readers of a tensor share one Q/DQ pair. Every scale is float32, every zero point is 0 and
   written out: TensorRT 8.5 reads scales as float32 and insists on three inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from edgekit.errors import EdgekitError
from edgekit.quant import affine
from edgekit.quantization import TENSORRT_SCHEME, CalibrationTable

_LEAST_CHANNELS = 16
_WEIGHTED = ("Conv", "Gemm")


def quantize(model: ir.Model, table: CalibrationTable, names: dict[str, str]) -> list[str]:
    """Insert Q/DQ pairs and int8 weights in place.

    Args:
        names: ONNX tensor name -> name in `table` (see `match.match_by_value`).
    Returns:
        The names of the Conv and Gemm nodes that now run in INT8.
    Raises:
        EdgekitError: a tensor that needs a range has none; the message names it.
    """
    graph = model.graph
    pairs: dict[str, tuple[ir.Value, float]] = {}

    def dequantized(value: ir.Value) -> tuple[ir.Value, float]:
        """The quantized and dequantized twin of an activation, and its scale."""
        name = str(value.name)
        if name not in pairs:
            if name not in names or names[name] not in table.ranges:
                raise EdgekitError(f"the ONNX tensor {name!r} has no counterpart in the calibration table")
            scale = affine.activation_grid(table.ranges[names[name]], TENSORRT_SCHEME.symmetric).scale
            pairs[name] = _insert_pair(graph, value, scale), scale
        return pairs[name]

    plan = list(_plan(graph))
    for node, index in plan:
        value = node.inputs[index]
        assert value is not None
        twin, scale = dequantized(value)
        node.replace_input_with(index, twin)
        if node.op_type in _WEIGHTED:
            _quantize_weight(graph, node, scale)
    graph.sort()
    return [str(node.name) for node, _ in plan if node.op_type in _WEIGHTED]


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


def _readers(node: ir.Node) -> list[ir.Node]:
    return [use.node for use in node.outputs[0].uses()]


def _has_constant(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    return value is not None and value.const_value is not None


def _conv_runs_in_int8(node: ir.Node) -> bool:
    """Rule 2."""
    if not _has_constant(node, 1):
        return False
    shape = node.inputs[1].const_value.shape.numpy()
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    outputs, inputs = shape[0], shape[1] * groups
    if groups == inputs and groups > 1:
        return outputs % 8 == 0
    return min(inputs, outputs) >= _LEAST_CHANNELS or (inputs % 8 == 0 and outputs % 8 == 0)


def _shortcut(node: ir.Node) -> list[int]:
    """Rule 4."""
    producers = [value.producer() if value is not None else None for value in node.inputs]
    convs = [producer is not None and producer.op_type == "Conv" for producer in producers]
    if not any(convs) or any(_has_constant(node, i) for i in (0, 1)):
        return []
    if not all(convs):
        return [convs.index(False)]
    shared = [value is not None and len(value.uses()) > 1 for value in node.inputs]
    return [shared.index(True)] if any(shared) else [1]


def _scales_channels(node: ir.Node) -> bool:
    """Rule 5: one side is a gate (Sigmoid or HardSigmoid of a Conv over pooled values)."""
    for value in node.inputs:
        gate = value.producer() if value is not None else None
        if gate is None or gate.op_type not in ("Sigmoid", "HardSigmoid"):
            continue
        source = gate.inputs[0]
        if source is not None and all(v is not source for v in node.inputs):  # x * sigmoid(x) is SiLU
            return True
    return False


def _insert_pair(graph: ir.Graph, value: ir.Value, scale: float) -> ir.Value:
    """Add QuantizeLinear and DequantizeLinear behind `value`; returns the dequantized value."""
    factor = constant(graph, f"{value.name}_scale", np.array(scale, np.float32))
    zero = constant(graph, f"{value.name}_zero_point", np.array(0, np.int8))
    quantized = ir.node("QuantizeLinear", [value, factor, zero], name=f"{value.name}_quantize")
    quantized.outputs[0].name = f"{value.name}_int8"
    restored = ir.node("DequantizeLinear", [quantized.outputs[0], factor, zero], name=f"{value.name}_dequantize")
    restored.outputs[0].name = f"{value.name}_dequantized"
    graph.extend([quantized, restored])
    return restored.outputs[0]


def _quantize_weight(graph: ir.Graph, node: ir.Node, input_scale: float) -> None:
    """Rule 1, for the weight (input 1) of a Conv or of a Gemm with transB=1."""
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    if node.op_type == "Gemm" and not (node.attributes.get("transB") and node.attributes["transB"].as_int()):
        raise EdgekitError(f"{node.name}: a Gemm whose weight is not (outputs, inputs)")
    weight = value.const_value.numpy()
    bias = node.inputs[2].const_value.numpy() if _has_constant(node, 2) else None
    scales = affine.weight_scales(weight, bias, input_scale)
    integers = constant(graph, f"{value.name}_int8", affine.quantize_weight(weight, scales))
    factor = constant(graph, f"{value.name}_scale", scales)
    zero = constant(graph, f"{value.name}_zero_point", np.zeros(len(scales), np.int8))
    restored = ir.node("DequantizeLinear", [integers, factor, zero], {"axis": 0}, name=f"{value.name}_dequantize")
    restored.outputs[0].name = f"{value.name}_dequantized"
    graph.insert_before(node, restored)
    node.replace_input_with(1, restored.outputs[0])
    if not value.uses():
        del graph.initializers[str(value.name)]


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of the graph."""
    value = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value

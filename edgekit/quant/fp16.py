"""Typed FP16 ONNX: float16 tensors inside, float32 at the border."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.errors import EdgekitError

_LARGEST = float(np.finfo(np.float16).max)
_TYPED_OPSET, _TYPED_IR = 19, 9  # QuantizeLinear takes float16 from opset 19 on
_QDQ = ("QuantizeLinear", "DequantizeLinear")


def to_fp16(model: ir.Model) -> None:
    """Make every float32 tensor between input and output float16, in place.

    Rules:
    1. Inputs and outputs stay float32, with one Cast behind or before each.
    2. Float32 initializers become float16; one that float16 cannot hold is an error.
    3. With Q/DQ nodes the scales become float16 too, which needs opset 19.
    """
    graph = model.graph
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(_half(str(value.name), tensor.numpy()), name=value.name)
            value.dtype = ir.DataType.FLOAT16
    for value in list(graph.inputs):
        cast = _cast(value, ir.DataType.FLOAT16, f"{value.name}_fp16")
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        cast.replace_input_with(0, value)
        graph.insert_before(graph[0], cast)
    for index, value in enumerate(list(graph.outputs)):
        name, shape = value.name, value.shape
        value.name = f"{name}_fp16"
        cast = _cast(value, ir.DataType.FLOAT, str(name))
        cast.outputs[0].shape, cast.outputs[0].dtype = shape, ir.DataType.FLOAT
        graph.append(cast)
        graph.outputs[index] = cast.outputs[0]
        value.shape, value.type = None, None
    if any(node.op_type in _QDQ for node in graph):
        graph.opset_imports[""] = _TYPED_OPSET
        model.ir_version = _TYPED_IR


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": dtype.value}, name=f"{name}_cast")
    cast.outputs[0].name = name
    return cast


def _half(name: str, array: np.ndarray) -> np.ndarray:
    """float32 to float16.

    Raises:
        EdgekitError: a value beyond 65,504.
    """
    if array.size and not np.abs(array).max() <= _LARGEST:
        raise EdgekitError(f"{name!r} holds {np.abs(array).max():.3g}, which float16 cannot", "use --precision fp32")
    return array.astype(np.float16)

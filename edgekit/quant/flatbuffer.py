"""LiteRT files as Python objects (schema: tensorflow/compiler/mlir/lite/schema/schema.fbs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.quantization import Grid

# Tensor type -> dtype.
TYPES = {"FLOAT32": np.float32, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32}


def read(path: Path) -> Any:
    """Return the model in a file, a ``ModelT``."""
    return parse(path.read_bytes())


def parse(content: bytes) -> Any:
    """Return the model in `content`, a ``ModelT``, with the constants that are stored after the flatbuffer."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def serialize(model: Any) -> bytes:
    """Return the content of a file with the model."""
    from ai_edge_litert.tools import flatbuffer_utils

    for buffer in model.buffers:
        if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(
                bytes(buffer.data), np.uint8
            )  # lists are written byte by byte, which takes seconds
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def type_of(name: str) -> int:
    """Return the code of a tensor type, such as FLOAT32."""
    from ai_edge_litert import schema_py_generated as schema

    return int(getattr(schema.TensorType, name))


def kind(model: Any, operator: Any) -> str:
    """Return the name of an operator, such as CONV_2D."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(name for name, value in vars(schema.BuiltinOperator).items() if value == number)


def tensor(model: Any, operator: Any, index: int) -> Any:
    """Return an input tensor of an operator, or None if it has no such input."""
    reads = operator.inputs
    return None if len(reads) <= index or reads[index] < 0 else model.subgraphs[0].tensors[reads[index]]


def constant(model: Any, operator: Any, index: int, dtype: Any = np.float32) -> np.ndarray | None:
    """Return the values of a constant input of an operator, flat, or None."""
    held = tensor(model, operator, index)
    data = None if held is None else model.buffers[held.buffer].data
    return None if data is None else np.frombuffer(bytes(data), dtype)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array, uint8."""
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def add_tensor(
    model: Any, name: str, shape: tuple[int, ...], dtype: str, grid: Grid | None = None, data: np.ndarray | None = None
) -> int:
    """Add a tensor and return its index.

    Args:
        dtype: one of `TYPES`. grid: of its integers. data: of a constant, which gets a buffer of its own.
    """
    from ai_edge_litert import schema_py_generated as schema

    buffer, made = schema.BufferT(), schema.TensorT()
    if data is not None:
        buffer.data = as_bytes(data.astype(TYPES[dtype], copy=False))
    model.buffers.append(buffer)
    made.name, made.shape, made.type, made.hasRank = name.encode(), list(shape), type_of(dtype), True
    made.buffer, made.quantization = len(model.buffers) - 1, schema.QuantizationParametersT()
    if grid is not None:
        set_grid(made, grid)
    model.subgraphs[0].tensors.append(made)
    return len(model.subgraphs[0].tensors) - 1


def set_grid(tensor: Any, grid: Grid) -> None:
    """Set the scale and zero point of a tensor."""
    tensor.quantization.scale, tensor.quantization.zeroPoint = [grid.scale], [grid.zero_point]


def add_operator(model: Any, name: str, inputs: list[int], output: int, **options: Any) -> Any:
    """Return a new operator, which the caller inserts into the graph.

    Args:
        name: such as SUB. options: of the operator, by their names in the schema.
    """
    from ai_edge_litert import schema_py_generated as schema

    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = _code(model, name), inputs, [output]
    if name == "PAD":
        made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.PadOptions, schema.PadOptionsT()
    if options:
        table = {
            "ADD": "AddOptions",
            "SUB": "SubOptions",
            "MUL": "MulOptions",
            "CONCATENATION": "ConcatenationOptions",
        }[name]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        made.builtinOptions = getattr(schema, f"{table}T")()
        for key, value in options.items():
            setattr(made.builtinOptions, key, value)
    return made


# The first version of each operator with the types used here; old runtimes refuse newer versions.
_VERSIONS = {"QUANTIZE": 2, "DEQUANTIZE": 2, "CONCATENATION": 2, "ADD": 2, "SUB": 1, "MUL": 2, "PAD": 2}


def _code(model: Any, name: str) -> int:
    """Return the index of an operator's code, which is added if it is missing."""
    from ai_edge_litert import schema_py_generated as schema

    wanted = getattr(schema.BuiltinOperator, name)
    for number, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted and code.version >= _VERSIONS[name]:
            return number
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = wanted, min(wanted, 127), _VERSIONS[name]
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1

"""LiteRT files as objects: read, changed, written back (schema: tensorflow/compiler/mlir/lite/schema/schema.fbs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.quant.affine import Grid

# What a tensor of this type holds.
TYPES = {"FLOAT32": np.float32, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32}


def read(path: Path) -> Any:
    """The model of a file, a ``ModelT``."""
    return parse(path.read_bytes())


def parse(content: bytes) -> Any:
    """The model in `content`, a ``ModelT``; constants that lie behind the flatbuffer are taken in."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def serialize(model: Any) -> bytes:
    """The file of a model."""
    from ai_edge_litert.tools import flatbuffer_utils

    for buffer in model.buffers:
        if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)  # else it is written byte by byte, in seconds
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def type_of(name: str) -> int:
    """The code of a tensor type, such as FLOAT32."""
    from ai_edge_litert import schema_py_generated as schema

    return int(getattr(schema.TensorType, name))


def kind(model: Any, operator: Any) -> str:
    """The name of an operator, such as CONV_2D."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(name for name, value in vars(schema.BuiltinOperator).items() if value == number)


def tensor(model: Any, operator: Any, index: int) -> Any:
    """The tensor that an operator reads at a place; None where it reads none."""
    reads = operator.inputs
    return None if len(reads) <= index or reads[index] < 0 else model.subgraphs[0].tensors[reads[index]]


def constant(model: Any, operator: Any, index: int, dtype: Any = np.float32) -> np.ndarray | None:
    """The values, flat, of a constant input of an operator."""
    read_there = tensor(model, operator, index)
    data = None if read_there is None else model.buffers[read_there.buffer].data
    return None if data is None else np.frombuffer(bytes(data), dtype)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """An array as a buffer holds it."""
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def add_tensor(
    model: Any, name: str, shape: tuple[int, ...], of: str, grid: Grid | None = None, data: np.ndarray | None = None
) -> int:
    """A new tensor; returns its number.

    Args:
        of: one of `TYPES`. grid: the meaning of its integers. data: of a constant; it has a buffer of its own.
    """
    from ai_edge_litert import schema_py_generated as schema

    buffer, made = schema.BufferT(), schema.TensorT()
    if data is not None:
        buffer.data = as_bytes(data.astype(TYPES[of], copy=False))
    model.buffers.append(buffer)
    made.name, made.shape, made.type, made.hasRank = name.encode(), list(shape), type_of(of), True
    made.buffer, made.quantization = len(model.buffers) - 1, schema.QuantizationParametersT()
    if grid is not None:
        set_grid(made, grid)
    model.subgraphs[0].tensors.append(made)
    return len(model.subgraphs[0].tensors) - 1


def set_grid(changed: Any, grid: Grid) -> None:
    """Give a tensor another scale and zero point."""
    changed.quantization.scale, changed.quantization.zeroPoint = [grid.scale], [grid.zero_point]


def add_operator(model: Any, name: str, inputs: list[int], output: int, **options: Any) -> Any:
    """A new operator, which is returned and must be put in its place.

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


# The version of each operator that knows the types that are written here; old runtimes refuse newer ones.
_VERSIONS = {"QUANTIZE": 2, "DEQUANTIZE": 2, "CONCATENATION": 2, "ADD": 2, "SUB": 1, "MUL": 2, "PAD": 2}


def _code(model: Any, name: str) -> int:
    """The number of an operator's code, which is added where it is not there."""
    from ai_edge_litert import schema_py_generated as schema

    wanted = getattr(schema.BuiltinOperator, name)
    for number, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted and code.version >= _VERSIONS[name]:
            return number
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = wanted, min(wanted, 127), _VERSIONS[name]
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1

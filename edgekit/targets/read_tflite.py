"""Read a ``.tflite`` file as `Contents`, by its schema. Nothing is executed.

The file is untrusted input: any damage is a `DataError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError, missing_package, raise_if_not_damage
from edgekit.labels import visible
from edgekit.targets import metadata
from edgekit.targets.contents import Contents, OpInfo, TensorInfo

_MOST_BYTES, _MOST_THINGS, _MOST_DIMENSIONS, _MOST_VALUES, _MOST_TEXT = 1 << 31, 100_000, 32, 64, 200
# Limit for the items read from one file: vectors may be shared, so that its size is not a limit.
_MOST_READ = 5_000_000
_MOST_BUFFER = 100_000
_IDENTIFIER = b"TFL3"
# Exceptions of reading outside a table, a vector or the file; the reader is pure Python.
_DAMAGE = (
    struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, AssertionError,
    MemoryError, RecursionError,
)  # fmt: skip
# Options of operators that are read: table -> its methods, which are also the names in `OpInfo.options`.
_OPTIONS = {
    "Conv2DOptions": ("FusedActivationFunction", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor"),
    "DepthwiseConv2DOptions": ("FusedActivationFunction", "StrideH", "StrideW", "DepthMultiplier"),
    "FullyConnectedOptions": ("FusedActivationFunction", "KeepNumDims", "WeightsFormat"),
    "AddOptions": ("FusedActivationFunction",),
    "MulOptions": ("FusedActivationFunction",),
    "SubOptions": ("FusedActivationFunction",),
    "DivOptions": ("FusedActivationFunction",),
    "ConcatenationOptions": ("FusedActivationFunction", "Axis"),
    "Pool2DOptions": ("FusedActivationFunction", "StrideH", "StrideW", "FilterHeight", "FilterWidth"),
    "SoftmaxOptions": ("Beta",),
    "ReducerOptions": ("KeepDims",),
    "BatchMatMulOptions": ("AdjX", "AdjY"),
}


def read(path: Path) -> Contents:
    """Read the main subgraph.

    Raises:
        DataError: the file is not a .tflite file, or damaged. MissingError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise missing_package("ai-edge-litert", "reading .tflite files", "litert") from None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than 2 GiB, the maximum size of a LiteRT file")
        content = path.read_bytes()
        if content[4:8] != _IDENTIFIER:
            raise DataError(f"{path} is not a .tflite file: it lacks the identifier TFL3", "export it again")
        contents = _contents(schema, content)
    except (DataError, OSError, *_DAMAGE) as error:
        raise_if_not_damage(error, path)
        said = visible(str(error).splitlines()[0] if str(error) else "")[:200]
        raise DataError(f"{path} is damaged: {type(error).__name__} {said}", "export it again") from None
    contents.metadata.update(metadata.read_archive(path))
    return contents


def _contents(schema: Any, content: bytes) -> Contents:
    file = _File(schema, content)
    model = file.model
    if file.count(model.SubgraphsLength()) < 1:
        raise ValueError("no subgraph")
    graph = model.Subgraphs(0)
    tensors = [_tensor(file, graph.Tensors(n)) for n in range(file.count(graph.TensorsLength()))]
    ops = [_op(file, graph.Operators(n), n, tensors) for n in range(file.count(graph.OperatorsLength()))]
    about = {
        "schema version": model.Version(),
        "description": file.text(model.Description()),
        "subgraphs": model.SubgraphsLength(),
        "operators": len(ops),
        "tensors": len(tensors),
    }
    entries = [model.Metadata(n) for n in range(file.count(model.MetadataLength(), 100))]
    kept = {file.text(entry.Name()): file.buffer(entry.Buffer()) for entry in entries}
    if "min_runtime_version" in kept:
        about["needs LiteRT"] = file.text(kept["min_runtime_version"].rstrip(b"\0"))
    about["metadata buffers"] = ", ".join(kept)
    described = metadata.read(kept[metadata.BUFFER]) if metadata.BUFFER in kept else {}
    return Contents(
        form="LiteRT",
        about=about,
        inputs=_chosen(file, tensors, graph.InputsAsNumpy()),
        outputs=_chosen(file, tensors, graph.OutputsAsNumpy()),
        ops=tuple(ops),
        weights=tuple(tensor for tensor in tensors if tensor.constant),
        signatures=tuple(_signatures(file, tensors)),
        metadata=described,
    )


class _File:
    """A model, names of its enumerations by number, and the number of items that may still be read."""

    def __init__(self, schema: Any, content: bytes) -> None:
        self.model, self.size, self.left = schema.Model.GetRootAs(content, 0), len(content), _MOST_READ
        self.ops, self.types, self.options, self.activations = (
            {number: name for name, number in vars(kind).items() if isinstance(number, int)}
            for kind in (
                schema.BuiltinOperator,
                schema.TensorType,
                schema.BuiltinOptions,
                schema.ActivationFunctionType,
            )
        )
        self.schema = schema

    def count(self, number: int, most: int = _MOST_THINGS) -> int:
        """Return `number` and deduct it from the items that may be read.

        Raises:
            ValueError: it is more than `most`, or more than are left.
        """
        self.left -= number
        if not 0 <= number <= most or self.left < 0:
            raise ValueError(f"{number} items; the maximum is {most}")
        return number

    def numbers(self, array: Any, most: int) -> tuple[int, ...]:
        """Return the items of a vector of integers; the generated code returns 0 for a missing vector."""
        return () if isinstance(array, int) else tuple(int(n) for n in array[: self.count(len(array), most)])

    def text(self, value: bytes | None) -> str:
        """Return a short printable text."""
        said = value or b""
        self.count(len(said) // 16, _MOST_READ)
        return visible(said[:_MOST_TEXT].decode("utf-8", "replace"))

    def buffer(self, index: int) -> bytes:
        """Return the bytes of a small buffer; empty for a large one, and for one outside the FlatBuffer."""
        data = self.model.Buffers(index).DataAsNumpy()
        return b"" if isinstance(data, int) or len(data) > _MOST_BUFFER else bytes(data[: self.count(len(data))])

    def buffer_size(self, index: int) -> int:
        """Return the size of a buffer in bytes."""
        buffer = self.model.Buffers(index)
        held = int(buffer.Size() if buffer.Offset() > 1 else buffer.DataLength())
        if not 0 <= held <= self.size:
            raise ValueError(f"a buffer of {held} bytes")
        return held


def _tensor(file: _File, tensor: Any) -> TensorInfo:
    shape = file.numbers(tensor.ShapeAsNumpy(), _MOST_DIMENSIONS)
    if tensor.ShapeSignatureLength() == len(shape) > 0:
        shape = file.numbers(tensor.ShapeSignatureAsNumpy(), _MOST_DIMENSIONS)
    dtype, nbytes, name = file.types[tensor.Type()].lower(), file.buffer_size(tensor.Buffer()), file.text(tensor.Name())
    small = dtype in ("int32", "int64") and 0 < nbytes <= 8 * _MOST_VALUES
    values = tuple(int(v) for v in np.frombuffer(file.buffer(tensor.Buffer()), dtype)) if small else ()
    if (grid := tensor.Quantization()) is None:
        return TensorInfo(name, shape, dtype, constant=nbytes > 0, nbytes=nbytes, values=values)
    scales = grid.ScaleAsNumpy()
    scales = () if isinstance(scales, int) else tuple(float(v) for v in scales[: file.count(len(scales))])
    if not all(math.isfinite(scale) for scale in scales):
        raise ValueError("a scale is not finite")
    zero_points = file.numbers(grid.ZeroPointAsNumpy(), _MOST_THINGS)
    axis = int(grid.QuantizedDimension())
    return TensorInfo(name, shape, dtype, scales, zero_points, axis, nbytes > 0, nbytes, values)


def _op(file: _File, op: Any, index: int, tensors: list[TensorInfo]) -> OpInfo:
    code = file.model.OperatorCodes(op.OpcodeIndex())
    kind = file.ops[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    if kind == "CUSTOM":
        kind = f"CUSTOM {file.text(code.CustomCode())}"
    inputs = tuple(tensors[n] if n >= 0 else None for n in file.numbers(op.InputsAsNumpy(), _MOST_THINGS))
    outputs = _chosen(file, tensors, op.OutputsAsNumpy())
    options = _read_options(file, op)
    return OpInfo(index, kind, inputs, outputs, code.Version(), options, _macs(kind, inputs, outputs, options))


def _read_options(file: _File, op: Any) -> dict[str, Any]:
    """Return the options of an operator that are in `_OPTIONS`."""
    name, table = file.options[op.BuiltinOptionsType()], op.BuiltinOptions()
    if table is None or name not in _OPTIONS:
        return {}
    typed = getattr(file.schema, name)()
    typed.Init(table.Bytes, table.Pos)
    found = {option: getattr(typed, option)() for option in _OPTIONS[name]}
    if "FusedActivationFunction" in found:
        found["FusedActivationFunction"] = file.activations[found["FusedActivationFunction"]]
    return found


def _macs(
    kind: str, inputs: Sequence[TensorInfo | None], outputs: Sequence[TensorInfo], options: dict[str, Any]
) -> int | None:
    """Return the multiply-accumulate operations of an operator, by the shapes of its weights (OHWI, 1HWO, (O, I))."""
    reduced: dict[str, Callable[[tuple[int, ...]], int]] = {
        "CONV_2D": lambda weight: prod(weight[1:]),
        "DEPTHWISE_CONV_2D": lambda weight: prod(weight[1:3]),
        "FULLY_CONNECTED": lambda weight: weight[-1],
        "BATCH_MATMUL": lambda other: other[-1 if options.get("AdjY") else -2],
    }
    if kind not in reduced or len(inputs) < 2 or not outputs:
        return None
    second, made = inputs[1], outputs[0].count
    if second is None or second.shape is None or second.count is None or made is None:
        return None
    if len(second.shape) < (2 if kind in ("FULLY_CONNECTED", "BATCH_MATMUL") else 4):
        return None
    return made * reduced[kind](second.shape)


def _signatures(file: _File, tensors: list[TensorInfo]) -> list[str]:
    found = []
    for n in range(file.count(file.model.SignatureDefsLength())):
        signature = file.model.SignatureDefs(n)
        sides = []
        for side in ("Inputs", "Outputs"):
            named = [getattr(signature, side)(m) for m in range(file.count(getattr(signature, side + "Length")()))]
            sides.append(", ".join(f"{file.text(m.Name())} = {tensors[m.TensorIndex()].name}" for m in named))
        found.append(f"{file.text(signature.SignatureKey())}: {sides[0]} -> {sides[1]}")
    return found


def _chosen(file: _File, tensors: list[TensorInfo], indices: Any) -> tuple[TensorInfo, ...]:
    numbers = file.numbers(indices, _MOST_THINGS)
    if min(numbers, default=0) < 0:
        raise IndexError("negative index of a tensor")
    return tuple(tensors[n] for n in numbers)

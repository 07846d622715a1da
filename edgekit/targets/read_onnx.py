"""Read an ONNX file as `Contents`. Nothing is executed, and files that it refers to are not opened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError, raise_if_not_damage
from edgekit.labels import visible
from edgekit.targets.contents import Contents, OpInfo, TensorInfo

_MOST_BYTES, _MOST_TEXT, _MOST_SCALES, _MOST_THINGS = 1 << 31, 200, 1 << 16, 200_000
_MOST_NAMED = 10
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGERS = ("int8", "uint8", "int4", "uint4", "int16", "uint16")


def read(path: Path) -> Contents:
    """Read the main graph.

    Raises:
        DataError: the file is not an ONNX file, or damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than 2 GiB, the maximum size of an ONNX file without external data")
        model.ParseFromString(path.read_bytes())
        if not model.graph.node or not model.opset_import:
            raise ValueError("it has no graph")
        return _contents(model)
    except (DataError, DecodeError, ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError,
            OSError) as error:  # fmt: skip
        raise_if_not_damage(error, path)
        said = visible(str(error).splitlines()[0] if str(error) else "")[:_MOST_TEXT]
        raise DataError(f"{path} is damaged, or not an ONNX file: {said}", "export it again") from None


@dataclass
class _Graph:
    """State while the nodes are read in order.

    Attributes:
        known: tensors by name. scales: values of scale tensors by name. integers: name of a dequantized tensor -> the
            quantized one.
    """

    known: dict[str, TensorInfo]
    scales: dict[str, tuple[float, ...]]
    integers: dict[str, TensorInfo] = field(default_factory=dict)

    def tensor(self, name: str) -> TensorInfo:
        return self.known.get(name) or TensorInfo(_name(name))


def _contents(model: Any) -> Contents:
    graph = model.graph
    if max(len(graph.node), len(graph.initializer), len(graph.value_info)) > _MOST_THINGS:
        raise ValueError("too many nodes or tensors")
    known = {t.name: _constant(t) for t in graph.initializer}
    known.update(
        {v.name: _declared(v) for v in (*graph.value_info, *graph.output, *graph.input) if v.name not in known}
    )
    state = _Graph(known, _scales(graph))
    ops = [_op(node, index, state) for index, node in enumerate(graph.node)]
    weights = tuple(known[t.name] for t in graph.initializer)
    about = {
        "opset": ", ".join(f"{_name(o.domain) or 'ai.onnx'} {o.version}" for o in model.opset_import[:20]),
        "IR version": model.ir_version,
        "producer": f"{_name(model.producer_name)} {_name(model.producer_version)}".strip(),
        "nodes": len(ops),
        **_external(graph),
        **_precision(ops, weights),
    }
    return Contents(
        form="ONNX",
        about=about,
        inputs=tuple(known[v.name] for v in graph.input if not known[v.name].constant),
        outputs=tuple(known[v.name] for v in graph.output),
        ops=tuple(ops),
        weights=weights,
        metadata={_name(p.key): _name(p.value) for p in model.metadata_props[:100]},
    )


def _precision(ops: list[OpInfo], weights: Iterable[TensorInfo]) -> dict[str, Any]:
    """Return the numbers of INT8 and float layers, and the share of float16."""
    counted = Counter(op.kind for op in ops)
    weighted = [op for op in ops if op.kind in _WITH_WEIGHTS]
    integer = [op for op in weighted if op.options.get("int8")]
    floats = Counter[str]()
    for tensor in weights:
        if tensor.dtype.startswith("float"):
            floats[tensor.dtype] += tensor.nbytes
    about: dict[str, Any] = {
        _QUANTIZE: counted[_QUANTIZE],
        _DEQUANTIZE: counted[_DEQUANTIZE],
        "INT8 by Q/DQ": f"{len(integer)} of {len(weighted)} {'/'.join(_WITH_WEIGHTS)}",
    }
    if integer:
        others = [op.name or op.outputs[0].name for op in weighted if op.outputs and not op.options.get("int8")]
        about["in floats"] = ", ".join(others[:_MOST_NAMED]) + (", ..." if len(others) > _MOST_NAMED else "")
    if floats:
        about["float16 of float bytes"] = f"{100 * floats['float16'] / max(1, sum(floats.values())):.0f} %"
    return about


def _dtype(number: int) -> str:
    import onnx

    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _constant(tensor: Any) -> TensorInfo:
    dtype = _dtype(tensor.data_type)
    shape = tuple(int(n) for n in tensor.dims[:32])
    if _is_external(tensor):  # which is not read
        return TensorInfo(_name(tensor.name), shape, dtype, constant=True, nbytes=_size(tensor.data_type, shape))
    typed = 4 * (len(tensor.float_data) + len(tensor.int32_data)) + 8 * (
        len(tensor.int64_data) + len(tensor.double_data)
    )
    return TensorInfo(_name(tensor.name), shape, dtype, constant=True, nbytes=len(tensor.raw_data) or typed)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL)


def _size(number: int, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor by its type and shape."""
    import onnx

    return math.prod(max(0, side) for side in shape) * int(onnx.helper.tensor_dtype_to_np_dtype(number).itemsize)


def _external(graph: Any) -> dict[str, Any]:
    """Return how many tensors lie in other files, and in which."""
    tensors = [t for t in graph.initializer if _is_external(t)]
    places = {_name(entry.value) for t in tensors for entry in t.external_data[:10] if entry.key == "location"}
    if not tensors:
        return {}
    named = sorted(places)[:_MOST_NAMED]
    more = ", ..." if len(places) > _MOST_NAMED else ""
    return {"external data": f"{len(tensors)} tensors in {', '.join(named)}{more}, which is not read"}


def _declared(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(int(d.dim_value) if d.HasField("dim_value") else -1 for d in tensor.shape.dim[:32])
    return TensorInfo(_name(value.name), shape, _dtype(tensor.elem_type) if tensor.elem_type else "")


def _name(name: str | bytes) -> str:
    """Return a short printable name; protobuf returns bytes if it is not UTF-8."""
    text = name[:_MOST_TEXT]
    return visible(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _scales(graph: Any) -> dict[str, tuple[float, ...]]:
    """Return the values of the scales of QuantizeLinear and DequantizeLinear nodes, by name."""
    wanted = {node.input[1] for node in graph.node if node.op_type in (_QUANTIZE, _DEQUANTIZE) and len(node.input) > 1}
    kinds = {"float32": np.float32, "float16": np.float16}
    found = {}
    for tensor in graph.initializer:
        dtype = kinds.get(_dtype(tensor.data_type))
        if tensor.name in wanted and dtype is not None and len(tensor.raw_data) <= 4 * _MOST_SCALES:
            raw = (
                np.frombuffer(tensor.raw_data, dtype) if tensor.raw_data else np.array(tensor.float_data[:_MOST_SCALES])
            )
            found[tensor.name] = tuple(float(v) for v in raw)
    return found


def _op(node: Any, index: int, graph: _Graph) -> OpInfo:
    """Read a node; its outputs are added to the known tensors, with their dtype if it follows from the inputs."""
    inputs = tuple(graph.tensor(name) if name else None for name in node.input[:_MOST_THINGS])
    dtype, kind, options = _written(node, inputs), _name(node.op_type), {}
    if kind == _DEQUANTIZE and len(inputs) > 1 and inputs[0] is not None:
        source = replace(inputs[0], scales=graph.scales.get(node.input[1], ()))
        graph.known[node.input[0]] = source
        graph.integers.update(dict.fromkeys(node.output[:1], source))
    if kind in _WITH_WEIGHTS:
        integers = [graph.integers.get(name) for name in node.input[:2]]
        options["int8"] = len(integers) == 2 and all(t is not None and t.dtype in _INTEGERS for t in integers)
        # As in a runtime that fuses DequantizeLinear into the consumer.
        inputs = tuple(graph.integers.get(n, t) if t else t for n, t in zip(node.input, inputs))
    outputs = []
    for name in node.output[:_MOST_THINGS]:
        made = graph.tensor(name)
        graph.known[name] = made if made.dtype else replace(made, dtype=dtype)
        outputs.append(graph.known[name])
    return OpInfo(index, kind, inputs, tuple(outputs), options=options, name=_name(node.name))


def _written(node: Any, inputs: tuple[TensorInfo | None, ...]) -> str:
    """Return the dtype of a node's output; "" if it does not follow from the node easily."""
    kinds = [tensor.dtype if tensor is not None else "" for tensor in inputs]
    if node.op_type == _QUANTIZE:
        return kinds[2] if len(kinds) > 2 else "uint8"
    if node.op_type == _DEQUANTIZE:
        return kinds[1] if len(kinds) > 1 else ""
    if node.op_type == "Cast":
        return next((_dtype(a.i) for a in node.attribute[:100] if a.name == "to"), "")
    return "int64" if node.op_type in ("Shape", "ArgMax") else kinds[0] if kinds else ""

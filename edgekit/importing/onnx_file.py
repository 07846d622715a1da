"""ONNX files of others: read whole, with their external data, or refused with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from edgekit.errors import DataError, MissingError, raise_if_not_damage
from edgekit.importing.onnx_graph import ONNX_DOMAINS, label_of
from edgekit.labels import visible
from edgekit.models.weights_file import first_line

MOST_BYTES = 2**31 - 1  # of one protobuf message
_OLDEST_OPSET = 7  # the oldest that ONNX Runtime promises to run
_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("ConvInteger", "MatMulInteger"),
)
_EXPORT_AGAIN = "export it again, for example with torch.onnx.export(model.eval(), image, 'model.onnx')"


def read(path: Path) -> onnx.ModelProto:
    """Read a model with its external data; ONNX Runtime finds out whether it is valid.

    Raises:
        MissingError: there is no such file, or its external data is not beside it.
        DataError: it is no ONNX file, damaged, over 2 GB, of an opset that is too old or too new, refers to files in
            other folders, or was exported in training mode.
    """
    if not path.is_file():
        raise MissingError(f"there is no file {str(path)!r}", "edgekit import takes the path of an .onnx file")
    model = onnx.ModelProto()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _too_large(path)
        model.ParseFromString(path.read_bytes())
        if not model.graph.node or not model.opset_import:
            raise ValueError("it has no graph")
        _check_versions(model, path)
        _load_external_data(model, path)
        if model.functions:
            from onnx import inliner

            model = inliner.inline_local_functions(model)
    except (DecodeError, ArithmeticError, ValueError, TypeError, KeyError, RuntimeError, MemoryError, OSError) as error:
        raise_if_not_damage(error, path)
        raise DataError(
            f"{path} is damaged, or not an ONNX file: {visible(first_line(error))[:200]}", _EXPORT_AGAIN
        ) from None
    _check_mode(model, path)
    return model


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return True if layers of the model compute with integers already."""
    return any(node.op_type in _QUANTIZED for node in model.graph.node)


def custom_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return the operators that are not ONNX's own, as domain.operator -> number of nodes."""
    foreign = (node for node in model.graph.node if node.domain not in ONNX_DOMAINS)
    return dict(Counter(visible(f"{node.domain}.{node.op_type}") for node in foreign))


def _too_large(path: Path) -> DataError:
    return DataError(f"{path} is over 2 GB, more than edgekit's ONNX files can hold", "choose a smaller network")


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain not in ONNX_DOMAINS:
            continue
        if entry.version < _OLDEST_OPSET:
            raise DataError(
                f"{path} has opset {entry.version}; edgekit reads {_OLDEST_OPSET} to {newest}",
                f'convert it: python -c "import onnx; from onnx import version_converter; onnx.save('
                f"version_converter.convert_version(onnx.load('{path.name}'), 17), 'opset17.onnx')\"",
            )
        if entry.version > newest:
            raise DataError(
                f"{path} has opset {entry.version}, which is newer than this version of onnx knows ({newest})",
                "export it with opset_version=18",
            )


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read tensors that lie in files beside the model's."""
    from onnx import external_data_helper

    tensors = [tensor for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL]
    total = path.stat().st_size
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        found = _beside(path, location)
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
        size = found.stat().st_size
        if offset < 0 or offset > size or (length >= 0 and offset + length > size):
            raise DataError(
                f"{found} is cut off: {path.name} needs {max(offset, offset + length):,} bytes of it, and it has "
                f"{size:,}",
                "copy it again from where the model was exported",
            )
        total += size - offset if length < 0 else length
    if total > MOST_BYTES:
        raise _too_large(path)
    if tensors:
        external_data_helper.load_external_data_for_model(model, str(path.resolve().parent))
        for tensor in tensors:
            tensor.data_location = tensor.DEFAULT
            del tensor.external_data[:]


def _beside(path: Path, location: str) -> Path:
    """Return the file of external data.

    Raises:
        DataError: the name leads out of the model's folder. MissingError: there is no such file.
    """
    name = visible(location)[:200]
    pure = PurePosixPath(location.replace("\\", "/"))
    leads_out = not location or pure.is_absolute() or PureWindowsPath(location).drive or ".." in pure.parts
    folder = path.resolve().parent
    found = folder / location
    if leads_out or not found.resolve().is_relative_to(folder):
        raise DataError(
            f"{path} takes weights from {name!r}, outside its own folder; edgekit does not read it",
            "put the file of the weights beside the model, under the name that the exporter gave it",
        )
    if not found.is_file():
        raise MissingError(
            f"{path} has its weights in {name!r}, which is not beside it",
            f"copy {name!r} to {visible(str(path.parent))}, or export with external_data=False",
        )
    return found


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of the main graph, of the graphs inside its nodes, and of functions."""
    graphs: list[Any] = [model.graph]
    nodes: list[Iterable[onnx.NodeProto]] = [function.node for function in model.functions]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.append(graph.node)
            continue
        for node in nodes.pop():
            for attribute in node.attribute:
                yield from (tensor for tensor in (attribute.t, *attribute.tensors) if tensor.data_type)
                graphs.extend(g for g in (attribute.g, *attribute.graphs) if g.node)


def _check_mode(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a file that was exported in training mode."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            trains = any(a.name == "training_mode" and a.i for a in node.attribute) or any(node.output[3:])
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            mode = constants.get(node.input[2])
            if mode is None and (maker := makers.get(node.input[2])) is not None:
                mode = next((a.t for a in maker.attribute if a.name == "value"), None)
            trains = mode is not None and bool(onnx.numpy_helper.to_array(mode).any())
        else:
            continue
        if trains:
            raise DataError(
                f"{path} was exported in training mode: {visible(label_of(node))}",
                "call model.eval() before the export",
            )

"""What a ``.tflite`` file says of itself for people: TFLite metadata and the files appended as a zip.

Fields by their place in ``metadata_schema.fbs`` of tensorflow/tflite-support (tensorflow_lite_support/metadata).
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.labels import visible

BUFFER = "TFLITE_METADATA"
_MODEL = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5, "min_parser_version": 7}
_SUBGRAPHS, _SIDES = 3, {"input": 2, "output": 3}
_TENSOR = {"name": 0, "description": 1}
_PROCESS_UNITS, _NORMALIZATION, _MEAN, _STD = 4, 1, 0, 1
_MOST_TEXT, _MOST_ITEMS, _MOST_FILES, _MOST_READ = 1000, 16, 64, 1 << 20
_ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError,
    OverflowError, OSError, IndexError, lzma.LZMAError,
)  # fmt: skip


def told(content: bytes) -> dict[str, Any]:
    """Name, description, version, author, license, and normalization of the tensors.

    Raises:
        struct.error, ValueError, IndexError, TypeError: it is damaged.
    """
    from flatbuffers import encode, packer
    from flatbuffers.table import Table

    root = Table(content, encode.Get(packer.uoffset, content, 0))
    found = {name: text for name, slot in _MODEL.items() if (text := _text(root, slot))}
    for graph in _tables(root, _SUBGRAPHS):
        for side, slot in _SIDES.items():
            for number, tensor in enumerate(_tables(graph, slot)):
                of = {name: text for name, place in _TENSOR.items() if (text := _text(tensor, place))}
                of.update(_normalization(tensor))
                found.update({f"{side} {number} {name}": value for name, value in of.items()})
    return found


def files(path: Path) -> dict[str, Any]:
    """The files appended as a zip: lines of the text files; a zip that cannot be read is named as such."""
    if not zipfile.is_zipfile(path):
        return {}
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist()[:_MOST_FILES]:
                with archive.open(entry) as file:
                    content = file.read(_MOST_READ)
                lines = len(content.decode("utf-8", "replace").splitlines())
                text = f"{entry.file_size} bytes, {lines} lines"
                found[f"file {visible(entry.filename)[:_MOST_TEXT]}"] = text
    except _ZIP_DAMAGE as error:
        return {"files": f"cannot be read: {visible(str(error))[:_MOST_TEXT]}"}
    return found


def _normalization(tensor: Any) -> dict[str, str]:
    from flatbuffers import number_types

    for unit in _tables(tensor, _PROCESS_UNITS):
        kind = _offset(unit, 0)
        if not kind or unit.Get(number_types.Uint8Flags, unit.Pos + kind) != _NORMALIZATION or not _offset(unit, 1):
            continue
        options = _table(unit, unit.Pos + _offset(unit, 1))
        return {"mean": _floats(options, _MEAN), "std": _floats(options, _STD)}
    return {}


def _offset(table: Any, slot: int) -> int:
    return int(table.Offset(4 + 2 * slot))


def _table(parent: Any, place: int) -> Any:
    from flatbuffers.table import Table

    return Table(parent.Bytes, parent.Indirect(place))


def _tables(parent: Any, slot: int) -> Iterator[Any]:
    """The tables of a vector of tables."""
    if place := _offset(parent, slot):
        start = parent.Vector(place)
        for number in range(_length(parent, place)):
            yield _table(parent, start + 4 * number)


def _length(parent: Any, place: int) -> int:
    length = int(parent.VectorLen(place))
    if length > _MOST_ITEMS:
        raise ValueError(f"{length} items")
    return length


def _text(table: Any, slot: int) -> str:
    place = _offset(table, slot)
    if not place:
        return ""
    said: bytes = table.String(table.Pos + place)
    return visible(said[: 4 * _MOST_TEXT].decode("utf-8", "replace"))[:_MOST_TEXT]


def _floats(table: Any, slot: int) -> str:
    from flatbuffers import number_types

    if not (place := _offset(table, slot)):
        return ""
    start = table.Vector(place)
    values = [table.Get(number_types.Float32Flags, start + 4 * n) for n in range(_length(table, place))]
    return ", ".join(f"{value:g}" for value in values)

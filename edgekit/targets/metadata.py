"""TFLite metadata: what a file is, inside the file, for readers that know nothing of edgekit.

The format of tensorflow/tflite-support (metadata_schema.fbs, identifier M001): a flatbuffer in a metadata buffer of
the model, and the labels as a zip that is appended to the file, so that it is a model and an archive at once.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.records import Preprocess

if TYPE_CHECKING:
    import flatbuffers


KEY = b"TFLITE_METADATA"
LABELS, CALIBRATION = "labels.txt", "score_calibration.txt"
_IDENTIFIER = b"M001"
_LEAST_PARSER = "1.0.0"
# Codes of the schema.
_AXIS_LABELS, _AXIS_CALIBRATION, _RGB = 2, 4, 1
_FEATURE, _IMAGE, _NORMALIZATION, _SCORE_CALIBRATION = 1, 2, 1, 2
_MOST_TEXT = 10_000
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in the archive: equal models are equal files


@dataclass(frozen=True)
class About:
    """What the author says of a model; a TOML file of ``edgekit export --about``. `name` is the file's."""

    name: str = "model"
    title: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        for name in ("title", "description", "version", "author", "license"):
            text = getattr(self, name)
            if len(text) > _MOST_TEXT or any(ord(c) < 32 and c not in "\n\t" for c in text):
                raise DataError(f"{name} must be printable text of at most {_MOST_TEXT} characters")


@dataclass(frozen=True)
class Facts:
    """What edgekit knows of a file: `input` is of `INPUTS`; `platt`: slope and offset of a score's probability."""

    labels: tuple[str, ...]
    preprocess: Preprocess
    input: str
    platt: tuple[float, float] | None = None


def attach(content: bytes, about: About, facts: Facts) -> bytes:
    """A model file with its metadata and its labels."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(_pack(about, facts), np.uint8)
    model.metadata = [m for m in model.metadata or [] if m.name != KEY]
    model.buffers.append(buffer)
    entry.name, entry.buffer = KEY, len(model.buffers) - 1
    model.metadata.append(entry)
    model.description = about.title.encode() or model.description
    return _with_files(bytes(flatbuffer_utils.convert_object_to_bytearray(model)), facts)


def _with_files(content: bytes, facts: Facts) -> bytes:
    """A model file with an archive behind it; a model that was written with one lost it when it was read."""
    held = io.BytesIO(content)
    # Without a line break at the end: MediaPipe takes what follows it for one more class.
    files = {LABELS: "\n".join(facts.labels)}
    if facts.platt is not None:
        slope, offset = facts.platt
        files[CALIBRATION] = "\n".join([f"1.0,{slope:.9g},{offset:.9g}"] * len(facts.labels))
    with zipfile.ZipFile(held, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return held.getvalue()


def _pack(about: About, facts: Facts) -> bytes:
    """The flatbuffer of the metadata."""
    import flatbuffers

    writer = _Writer(flatbuffers.Builder(4096))
    size = facts.preprocess.image_size
    # What a reader is to take off a value of the tensor's own type, and to divide by.
    mean, std = {"uint8": ([0.0], [1.0]), "int8": ([128.0], [1.0])}.get(
        facts.input, ([255 * v for v in facts.preprocess.mean], [255 * v for v in facts.preprocess.std])
    )
    square = writer.table({0: ("Uint32", size), 1: ("Uint32", size)})
    image = writer.tensor(
        "image",
        f"RGB, {size} x {size}: the shorter side resized to {facts.preprocess.resize_size} "
        f"({facts.preprocess.resample}), the centre cut out",
        (_IMAGE, writer.table({0: ("Int8", _RGB), 1: ("Offset", square)})),
        [(_NORMALIZATION, writer.table({0: ("Offset", writer.floats(mean)), 1: ("Offset", writer.floats(std))}))],
        [],
    )
    files = [writer.file(LABELS, "the class of each score", _AXIS_LABELS)]
    units = []
    if facts.platt is not None:
        files.append(writer.file(CALIBRATION, "the probability of each score by itself", _AXIS_CALIBRATION))
        units.append((_SCORE_CALIBRATION, writer.table({0: ("Int8", 0), 1: ("Float32", 0.0)})))
    scores = writer.tensor(
        "scores", "logits; softmax over them gives probabilities", (_FEATURE, writer.table({})), units, files
    )
    graph = writer.table({2: ("Offset", writer.offsets([image])), 3: ("Offset", writer.offsets([scores]))})
    texts = {0: about.title or about.name, 1: about.description, 2: about.version, 4: about.author, 5: about.license}
    told = {slot: ("Offset", writer.text(text)) for slot, text in texts.items() if text}
    least = {7: ("Offset", writer.text(_LEAST_PARSER))}
    writer.builder.Finish(
        writer.table({**told, 3: ("Offset", writer.offsets([graph])), **least}), file_identifier=_IDENTIFIER
    )
    return bytes(writer.builder.Output())


@dataclass(frozen=True)
class _Writer:
    """Tables, vectors and strings of a flatbuffer; each method returns where it lies."""

    builder: flatbuffers.Builder

    def table(self, fields: dict[int, tuple[str, Any]]) -> int:
        """Slot -> kind and value; the kinds are flatbuffers' names of scalars, and Offset."""
        self.builder.StartObject(max(fields, default=-1) + 1)
        for slot, (kind, value) in fields.items():
            if kind == "Offset":
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                getattr(self.builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(self.builder.EndObject())

    def text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def floats(self, values: Sequence[float]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def offsets(self, places: Sequence[int]) -> int:
        self.builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.builder.PrependUOffsetTRelative(place)
        return int(self.builder.EndVector())

    def file(self, name: str, description: str, kind: int) -> int:
        texts = {0: ("Offset", self.text(name)), 1: ("Offset", self.text(description))}
        return self.table({**texts, 2: ("Int8", kind)})

    def tensor(
        self, name: str, description: str, content: tuple[int, int], units: list[tuple[int, int]], files: list[int]
    ) -> int:
        """`content` and `units`: members of unions, each its code and where it lies."""
        texts = {0: ("Offset", self.text(name)), 1: ("Offset", self.text(description))}
        inside = self.table({0: ("Uint8", content[0]), 1: ("Offset", content[1])})
        steps = [self.table({0: ("Uint8", code), 1: ("Offset", place)}) for code, place in units]
        return self.table(
            {
                **texts,
                3: ("Offset", inside),
                **({4: ("Offset", self.offsets(steps))} if steps else {}),
                **({6: ("Offset", self.offsets(files))} if files else {}),
            }
        )


# What a ``.tflite`` file says of itself for people: TFLite metadata and the files appended as a zip.

BUFFER = "TFLITE_METADATA"
_MODEL = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5, "min_parser_version": 7}
_SUBGRAPHS, _SIDES = 3, {"input": 2, "output": 3}
_TENSOR = {"name": 0, "description": 1}
_PROCESS_UNITS, _READ_METADATA_NORMALIZATION, _MEAN, _STD = 4, 1, 0, 1
_READ_METADATA_MOST_TEXT, _MOST_ITEMS, _MOST_FILES, _MOST_READ = 1000, 16, 64, 1 << 20
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
                found[f"file {visible(entry.filename)[:_READ_METADATA_MOST_TEXT]}"] = text
    except _ZIP_DAMAGE as error:
        return {"files": f"cannot be read: {visible(str(error))[:_READ_METADATA_MOST_TEXT]}"}
    return found


def _normalization(tensor: Any) -> dict[str, str]:
    from flatbuffers import number_types

    for unit in _tables(tensor, _PROCESS_UNITS):
        kind = _offset(unit, 0)
        if (
            not kind
            or unit.Get(number_types.Uint8Flags, unit.Pos + kind) != _READ_METADATA_NORMALIZATION
            or not _offset(unit, 1)
        ):
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
    return visible(said[: 4 * _READ_METADATA_MOST_TEXT].decode("utf-8", "replace"))[:_READ_METADATA_MOST_TEXT]


def _floats(table: Any, slot: int) -> str:
    from flatbuffers import number_types

    if not (place := _offset(table, slot)):
        return ""
    start = table.Vector(place)
    values = [table.Get(number_types.Float32Flags, start + 4 * n) for n in range(_length(table, place))]
    return ", ".join(f"{value:g}" for value in values)

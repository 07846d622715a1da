"""TFLite metadata: labels, preprocessing and authorship inside a ``.tflite`` file.

The format is that of tensorflow/tflite-support (metadata_schema.fbs, identifier M001): a FlatBuffer in a buffer of the
model, and text files in a zip archive that is appended to the model, so that the file is a model and an archive at
once. `metadata_generated` reads and writes the tables; flatc makes it from metadata.fbs.
"""

from __future__ import annotations

import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.targets.contract import Contract

if TYPE_CHECKING:
    import flatbuffers


BUFFER = "TFLITE_METADATA"  # name of the model's metadata entry
LABELS, CALIBRATION, CONTRACT = "labels.txt", "score_calibration.txt", "preprocess.json"
_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"
_MAX_ABOUT_CHARS = 10_000
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in the archive, so that equal models are equal files
# Limits of reading, in characters, items of a vector, files, and bytes of a file.
_MAX_TEXT, _MAX_ITEMS, _MAX_FILES, _MAX_FILE_BYTES = 1000, 16, 64, 1 << 20
_ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError,
    OverflowError, OSError, IndexError, lzma.LZMAError,
)  # fmt: skip


@dataclass(frozen=True)
class About:
    """Author's description of a model, as the TOML file of ``edgekit export --about`` gives it.

    Attributes:
        name: stem of that file; the title where `title` is empty.
    """

    name: str = "model"
    title: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        for name in ("title", "description", "version", "author", "license"):
            text = getattr(self, name)
            if len(text) > _MAX_ABOUT_CHARS or any(ord(c) < 32 and c not in "\n\t" for c in text):
                raise DataError(f"{name} must be printable text of at most {_MAX_ABOUT_CHARS} characters")


@dataclass(frozen=True)
class Facts:
    """Properties of an exported classifier.

    Attributes:
        input: dtype of the input, one of `records.INPUTS`.
        platt: slope and offset of the logistic function that maps a score to a probability; None if it was not fitted.
    """

    contract: Contract
    input: str
    platt: tuple[float, float] | None = None


def attach(content: bytes, about: About, facts: Facts) -> bytes:
    """Return the bytes of a ``.tflite`` file with metadata and labels; metadata that it had is replaced."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as model_schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    entry, buffer = model_schema.MetadataT(), model_schema.BufferT()
    buffer.data = np.frombuffer(_pack(about, facts), np.uint8)
    model.metadata = [m for m in model.metadata or [] if m.name != BUFFER.encode()]
    model.buffers.append(buffer)
    entry.name, entry.buffer = BUFFER.encode(), len(model.buffers) - 1
    model.metadata.append(entry)
    model.description = about.title.encode() or model.description
    # An archive that was appended before is lost when the model is read.
    return _with_archive(bytes(flatbuffer_utils.convert_object_to_bytearray(model)), facts)


def _with_archive(content: bytes, facts: Facts) -> bytes:
    """Return a model file with a zip archive appended: labels, preprocessing contract, score calibration."""
    file = io.BytesIO(content)
    # No line break at the end: MediaPipe would take what follows it for one more class.
    labels, contract = facts.contract.labels, facts.contract.of_file(facts.input, "NHWC")
    texts = {LABELS: "\n".join(labels), CONTRACT: json.dumps(contract, ensure_ascii=False, indent=1)}
    if facts.platt is not None:
        slope, offset = facts.platt
        texts[CALIBRATION] = "\n".join([f"1.0,{slope:.9g},{offset:.9g}"] * len(labels))
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), text)
    return file.getvalue()


def _pack(about: About, facts: Facts) -> bytes:
    """Return the FlatBuffer of the metadata, a ``ModelMetadata``."""
    import flatbuffers

    from edgekit.targets import metadata_generated as schema

    builder = flatbuffers.Builder(4096)
    writer = _Writer(builder)
    preprocess, size = facts.contract.preprocess, facts.contract.preprocess.image_size
    # A reader subtracts the mean from a value of the tensor's dtype and divides by std.
    mean, std = {"uint8": ([0.0], [1.0]), "int8": ([128.0], [1.0])}.get(
        facts.input, ([255 * v for v in preprocess.mean], [255 * v for v in preprocess.std])
    )
    image_size = writer.table("ImageSize", Width=size, Height=size)
    image = writer.tensor(
        "image",
        f"RGB, {size} x {size}: {preprocess.geometry}",
        _Member(
            schema.ContentProperties.ImageProperties,
            writer.table("ImageProperties", ColorSpace=schema.ColorSpaceType.RGB, DefaultSize=image_size),
        ),
        [
            _Member(
                schema.ProcessUnitOptions.NormalizationOptions,
                writer.table("NormalizationOptions", Mean=writer.floats(mean), Std=writer.floats(std)),
            )
        ],
    )
    files = [writer.file(LABELS, "the class of each score", schema.AssociatedFileType.TENSOR_AXIS_LABELS)]
    calibration = []
    if facts.platt is not None:
        kind = schema.AssociatedFileType.TENSOR_AXIS_SCORE_CALIBRATION
        files.append(writer.file(CALIBRATION, "the probability of each score by itself", kind))
        identity = writer.table(
            "ScoreCalibrationOptions",
            ScoreTransformation=schema.ScoreTransformationType.IDENTITY,
            DefaultScore=0.0,
        )
        calibration.append(_Member(schema.ProcessUnitOptions.ScoreCalibrationOptions, identity))
    scores = writer.tensor(
        "scores",
        "logits; softmax over them gives probabilities",
        _Member(schema.ContentProperties.FeatureProperties, writer.table("FeatureProperties")),
        calibration,
        files,
    )
    graph = writer.table(
        "SubGraphMetadata", InputTensorMetadata=writer.offsets([image]), OutputTensorMetadata=writer.offsets([scores])
    )
    texts = {
        "Name": about.title or about.name,
        "Description": about.description,
        "Version": about.version,
        "Author": about.author,
        "License": about.license,
    }
    fields = {name: writer.text(text) for name, text in texts.items() if text}
    least = writer.text(_MIN_PARSER_VERSION)
    root = writer.table("ModelMetadata", **fields, SubgraphMetadata=writer.offsets([graph]), MinParserVersion=least)
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


@dataclass(frozen=True)
class _Member:
    """Member of a union: its type code, and the offset of its table."""

    code: int
    offset: int


@dataclass(frozen=True)
class _Writer:
    """Writes tables, vectors and strings of the schema; each method returns the offset of what it wrote."""

    builder: flatbuffers.Builder

    def table(self, name: str, **fields: Any) -> int:
        """Write a table; `fields` have the names of the generated functions, such as ``MinParserVersion``."""
        from edgekit.targets import metadata_generated as schema

        getattr(schema, f"{name}Start")(self.builder)
        for field, value in fields.items():
            getattr(schema, f"{name}Add{field}")(self.builder, value)
        return int(getattr(schema, f"{name}End")(self.builder))

    def text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def floats(self, values: Sequence[float]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def file(self, name: str, description: str, kind: int) -> int:
        return self.table("AssociatedFile", Name=self.text(name), Description=self.text(description), Type=kind)

    def tensor(
        self, name: str, description: str, content: _Member, units: Sequence[_Member], files: Sequence[int] = ()
    ) -> int:
        fields = {"Name": self.text(name), "Description": self.text(description)}
        fields["Content"] = self.table("Content", ContentPropertiesType=content.code, ContentProperties=content.offset)
        steps = [self.table("ProcessUnit", OptionsType=unit.code, Options=unit.offset) for unit in units]
        if steps:
            fields["ProcessUnits"] = self.offsets(steps)
        if files:
            fields["AssociatedFiles"] = self.offsets(files)
        return self.table("TensorMetadata", **fields)


def read(content: bytes) -> dict[str, str]:
    """Return the texts and the normalization of a metadata FlatBuffer by name, such as ``input 0 mean``.

    Raises:
        struct.error, ValueError, IndexError, TypeError: it is damaged.
    """
    from edgekit.targets import metadata_generated as schema

    model = schema.ModelMetadata.GetRootAs(content)
    texts = {
        "name": model.Name(),
        "description": model.Description(),
        "version": model.Version(),
        "author": model.Author(),
        "license": model.License(),
        "min_parser_version": model.MinParserVersion(),
    }
    found = {name: _text(text) for name, text in texts.items()}
    for graph in map(model.SubgraphMetadata, range(_count(model.SubgraphMetadataLength()))):
        inputs = map(graph.InputTensorMetadata, range(_count(graph.InputTensorMetadataLength())))
        outputs = map(graph.OutputTensorMetadata, range(_count(graph.OutputTensorMetadataLength())))
        for side, tensors in (("input", inputs), ("output", outputs)):
            for number, tensor in enumerate(tensors):
                found[f"{side} {number} name"] = _text(tensor.Name())
                found[f"{side} {number} description"] = _text(tensor.Description())
                for name, values in _normalization(tensor).items():
                    found[f"{side} {number} {name}"] = values
    return {name: text for name, text in found.items() if text}


def _normalization(tensor: Any) -> dict[str, str]:
    """Return mean and std of a ``TensorMetadata``, as text."""
    from edgekit.targets import metadata_generated as schema

    for unit in map(tensor.ProcessUnits, range(_count(tensor.ProcessUnitsLength()))):
        table = unit.Options()
        if unit.OptionsType() == schema.ProcessUnitOptions.NormalizationOptions and table is not None:
            options = schema.NormalizationOptions()
            options.Init(table.Bytes, table.Pos)
            return {
                "mean": ", ".join(f"{options.Mean(n):g}" for n in range(_count(options.MeanLength()))),
                "std": ", ".join(f"{options.Std(n):g}" for n in range(_count(options.StdLength()))),
            }
    return {}


def _count(length: int) -> int:
    """Return the length of a vector.

    Raises:
        ValueError: it is too long to be true.
    """
    if length > _MAX_ITEMS:
        raise ValueError(f"{length} items")
    return length


def _text(content: bytes | None) -> str:
    """Return a string of untrusted input, printable and not long."""
    return visible((content or b"")[: 4 * _MAX_TEXT].decode("utf-8", "replace"))[:_MAX_TEXT]


def read_archive(path: Path) -> dict[str, str]:
    """Return the size of each file in the zip archive that is appended to a model; an error is an entry too."""
    if not zipfile.is_zipfile(path):
        return {}
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist()[:_MAX_FILES]:
                with archive.open(entry) as file:
                    content = file.read(_MAX_FILE_BYTES)
                lines = len(content.decode("utf-8", "replace").splitlines())
                found[f"file {visible(entry.filename)[:_MAX_TEXT]}"] = f"{entry.file_size} bytes, {lines} lines"
    except _ZIP_DAMAGE as error:
        return {"files": f"cannot be read: {visible(str(error))[:_MAX_TEXT]}"}
    return found

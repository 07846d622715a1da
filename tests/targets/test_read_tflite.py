"""What a .tflite file holds, and that no damage of one ends in anything but one error."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError, MissingError
from edgekit.targets import contents as figures
from edgekit.targets import read_tflite
from edgekit.targets.contents import Contents
from tests import flat

INT8 = flat.tflite("int8", "uint8", "float32")


def read(content: bytes, folder: Path) -> Contents:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return read_tflite.read(path)


def changed(content: bytes, change: Any) -> bytes:
    """A file whose objects `change` has changed."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    change(model)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_inputs_and_outputs_have_their_grids(tmp_path: Path) -> None:
    contents = read(INT8, tmp_path)
    (image,), (scores,) = contents.inputs, contents.outputs
    assert (image.name, image.shape, image.dtype) == ("image", (1, 8, 8, 3), "uint8")
    assert (image.scales, image.zero_points) == ((1 / 64,), (128,))
    assert image.real_range == (-2.0, 127 / 64)
    assert (scores.dtype, scores.scales, scores.real_range) == ("float32", (), None)
    assert contents.signatures == ("serving_default: image = image -> scores = scores",)
    assert contents.about["description"] == "by hand"


def test_operators_have_types_and_multiplications(tmp_path: Path) -> None:
    contents = read(INT8, tmp_path)
    assert figures.kinds(contents.ops) == [
        ("CONV_2D", "int8 x int8 per channel -> int8", 1, 4 * 4 * 16 * 27),
        ("DEQUANTIZE", "int8 -> float32", 1, 0),
        ("FULLY_CONNECTED", "int8 x int8 -> int8", 1, 16 * 5),
        ("MEAN", "int8 x int32 -> int8", 1, 0),
        ("QUANTIZE", "uint8 -> int8", 1, 0),
    ]
    assert figures.macs(contents) == 4 * 4 * 16 * 27 + 16 * 5
    conv, mean = contents.ops[1], contents.ops[2]
    assert (conv.version, conv.options["FusedActivationFunction"], conv.options["StrideH"]) == (3, "RELU6", 2)
    assert mean.inputs[1] is not None
    assert mean.inputs[1].values == (1, 2)
    assert [t.name for t in mean.activations] == ["act", "pool"]


def test_weights_are_counted_by_type(tmp_path: Path) -> None:
    contents = read(INT8, tmp_path)
    assert figures.weight_bytes(contents) == {"int8": 16 * 27 + 80, "int32": 4 * (16 + 2 + 5)}
    assert [t.name for t in figures.largest(contents, 2)] == ["conv/weight", "dense/weight"]
    assert figures.weight_bytes(read(flat.tflite(), tmp_path)) == {"float32": 4 * (16 * 27 + 16 + 80 + 5), "int32": 8}


def test_open_dimensions_and_custom_operators_are_shown(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 3]
        model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].customCode = b"Mine\x1b[2J"

    contents = read(changed(flat.tflite(), change), tmp_path)
    assert contents.inputs[0].shape == (-1, 8, 8, 3)
    assert contents.inputs[0].count is None
    assert contents.ops[0].kind == "CUSTOM Mine\\x1b[2J"


def metadata() -> bytes:
    """A TFLITE_METADATA buffer with a name, a license and the normalization of its input."""
    b = flatbuffers.Builder(256)
    mean, std = (b.CreateNumpyVector(np.array(v, np.float32)) for v in ([127.5], [127.5, 128.0]))
    options = table(b, {0: mean, 1: std})
    b.StartObject(2)
    b.PrependUint8Slot(0, 1, 0)
    b.PrependUOffsetTRelativeSlot(1, options, 0)
    units = vector(b, [b.EndObject()])
    tensor = table(b, {0: b.CreateString("image"), 4: units})
    graph = table(b, {2: vector(b, [tensor])})
    slots = {0: b.CreateString("fruit"), 2: b.CreateString("7"), 3: vector(b, [graph]), 5: b.CreateString("MIT")}
    b.Finish(table(b, slots), b"M001")
    return bytes(b.Output())


def table(b: flatbuffers.Builder, slots: dict[int, int]) -> int:
    b.StartObject(8)
    for slot, offset in slots.items():
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(b.EndObject())


def vector(b: flatbuffers.Builder, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def with_metadata(content: bytes) -> bytes:
    def change(model: Any) -> None:
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
        buffer.data = np.frombuffer(metadata(), np.uint8)
        model.buffers.append(buffer)
        model.metadata = [entry]

    return changed(content, change)


def test_what_it_says_for_people_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(with_metadata(flat.tflite()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "apple\nbanana\n")
    assert read_tflite.read(path).metadata == {
        "name": "fruit",
        "version": "7",
        "license": "MIT",
        "input 0 name": "image",
        "input 0 mean": "127.5",
        "input 0 std": "127.5, 128",
        "file labels.txt": "13 bytes, 2 lines",
    }


def test_a_zip_that_is_damaged_is_named_and_the_model_shown(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", "apple\n" * 100)
    content = bytearray(path.read_bytes())
    start = content.index(b"labels.txt") + len("labels.txt")
    content[start : start + 8] = b"\xff" * 8
    contents = read(bytes(content), tmp_path)
    assert contents.metadata["files"].startswith("cannot be read: ")
    assert len(contents.ops) == 3


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"\n" * (1 << 26))
    assert read_tflite.read(path).metadata == {"file labels.txt": f"{1 << 26} bytes, {1 << 20} lines"}


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 100, b"PK\x03\x04" + b"x" * 100])
def test_another_file_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"is not a \.tflite file"):
        read(content, tmp_path)


def test_vectors_that_are_shared_many_times_do_not_take_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables may point to one long vector, so the size of the file is no bound for what it says."""
    monkeypatch.setattr(read_tflite, "_MOST_READ", 100)
    with pytest.raises(DataError, match="is damaged"):
        read(INT8, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [10**6]),
        lambda m: setattr(m.subgraphs[0].operators[0], "outputs", [-1]),
        lambda m: setattr(m.subgraphs[0].operators[0], "opcodeIndex", 99),
        lambda m: setattr(m.subgraphs[0].tensors[0], "buffer", 10**6),
        lambda m: setattr(m.subgraphs[0].tensors[0], "shape", [1] * 33),
        lambda m: setattr(m.subgraphs[0].tensors[0], "type", 100),
        lambda m: setattr(m.operatorCodes[0], "builtinCode", 100_000),
        lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 10**6),
        lambda m: setattr(m, "subgraphs", []),
    ],
)
def test_numbers_that_point_nowhere_are_an_error(tmp_path: Path, change: Any) -> None:
    with pytest.raises(DataError, match="is damaged"):
        read(changed(flat.tflite(), change), tmp_path)


def test_shapes_beyond_any_machine_have_no_count(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = [2**31 - 1] * 32

    contents = read(changed(flat.tflite(), change), tmp_path)
    assert contents.inputs[0].count is None
    assert figures.macs(contents) is None


def survives(content: bytes, folder: Path) -> None:
    """It is read, or it is one error."""
    with contextlib.suppress(DataError):
        contents = read(content, folder)
        figures.kinds(contents.ops)
        figures.largest(contents, 3)


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, len(INT8) - 1))
def test_a_file_that_was_cut_off_is_one_error_or_none(tmp_path_factory: pytest.TempPathFactory, end: int) -> None:
    survives(INT8[:end], tmp_path_factory.getbasetemp())


WITH = with_metadata(INT8)


@settings(max_examples=300, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, len(WITH) - 1), st.integers(0, 255)), min_size=1, max_size=12),
    spared=st.booleans(),
)
def test_a_file_with_wrong_bytes_is_one_error_or_none(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]], spared: bool
) -> None:
    content = bytearray(WITH)
    for place, value in places:
        content[place] = value
    if spared:
        content[4:8] = b"TFL3"
    survives(bytes(content), tmp_path_factory.getbasetemp())


def test_without_ai_edge_litert_it_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ai_edge_litert

    monkeypatch.delattr(ai_edge_litert, "schema_py_generated")
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(MissingError, match=r"reading \.tflite files needs the package 'ai-edge-litert'"):
        read(INT8, tmp_path)

"""What a LiteRT file says of itself, read by the flatbuffers package alone."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import number_types
from flatbuffers.table import Table

from edgekit.convert.fold import fold
from edgekit.quant import flatbuffer
from edgekit.records import Preprocess
from edgekit.targets import metadata
from edgekit.targets.contract import Contract
from edgekit.targets.metadata import About, Facts
from tests import nets

pytestmark = pytest.mark.xdist_group("litert")
ABOUT = About("about", "Rüben & Co.", "tells beets apart", "1.2.3", "A. U. Thor", "CC-BY-4.0")
CONTRACT = Contract("net", "c" * 64, ("sugar beet", "<b>", "Rübe"), Preprocess(32, 36, "bicubic"), 1.5)
FACTS = Facts(CONTRACT, "uint8", (0.75, -2.5))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("metadata")
    return nets.emit_float_tflite(fold(nets.tiny(3).eval()), 32, folder).read_bytes()


class Read:
    """A table of a flatbuffer, its fields by their numbers in the schema."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def at(self, slot: int) -> int:
        return int(self.table.Offset(4 + 2 * slot))

    def text(self, slot: int) -> str:
        return self.table.String(self.at(slot) + self.table.Pos).decode() if self.at(slot) else ""

    def inner(self, slot: int) -> Read:
        return Read(Table(self.table.Bytes, self.table.Indirect(self.at(slot) + self.table.Pos)))

    def union(self, slot: int) -> Read:
        found = Table(self.table.Bytes, 0)
        self.table.Union(found, self.at(slot))
        return Read(found)

    def each(self, slot: int) -> list[Read]:
        if not self.at(slot):
            return []
        start, count = self.table.Vector(self.at(slot)), self.table.VectorLen(self.at(slot))
        return [Read(Table(self.table.Bytes, self.table.Indirect(start + 4 * n))) for n in range(count)]

    def number(self, slot: int, flags: Any) -> Any:
        return self.table.Get(flags, self.at(slot) + self.table.Pos) if self.at(slot) else 0

    def floats(self, slot: int) -> list[float]:
        return list(self.table.GetVectorAsNumpy(number_types.Float32Flags, self.at(slot)))


def read(content: bytes) -> Read:
    model = flatbuffer.parse(content)
    (entry,) = (m for m in model.metadata if m.name == b"TFLITE_METADATA")
    packed = bytearray(bytes(model.buffers[entry.buffer].data))
    assert packed[4:8] == b"M001"
    return Read(Table(packed, flatbuffers.encode.Get(flatbuffers.packer.uoffset, packed, 0)))


def tensors(content: bytes) -> tuple[Read, Read]:
    (graph,) = read(content).each(3)
    (image,), (scores,) = graph.each(2), graph.each(3)
    return image, scores


def test_the_model_says_who_made_it_and_under_which_terms(plain: bytes) -> None:
    root = read(metadata.attach(plain, ABOUT, FACTS))
    told = [root.text(slot) for slot in (0, 1, 2, 4, 5)]
    assert told == ["Rüben & Co.", "tells beets apart", "1.2.3", "A. U. Thor", "CC-BY-4.0"]
    assert root.text(7)


def test_the_image_is_described(plain: bytes) -> None:
    image, _ = tensors(metadata.attach(plain, ABOUT, FACTS))
    assert image.text(0) == "image"
    content = image.inner(3)
    assert content.number(0, number_types.Uint8Flags) == 2  # ImageProperties
    properties = content.union(1)
    assert properties.number(0, number_types.Int8Flags) == 1  # RGB
    size = properties.inner(1)
    assert [size.number(slot, number_types.Uint32Flags) for slot in (0, 1)] == [32, 32]


@pytest.mark.parametrize(
    ("taken", "mean", "std"),
    [
        ("uint8", [0.0], [1.0]),
        ("int8", [128.0], [1.0]),
        ("float32", [0.485 * 255, 0.456 * 255, 0.406 * 255], [0.229 * 255, 0.224 * 255, 0.225 * 255]),
    ],
)
def test_the_normalization_is_what_is_left_to_the_app(
    plain: bytes, taken: str, mean: list[float], std: list[float]
) -> None:
    facts = Facts(CONTRACT, taken)
    (unit,) = tensors(metadata.attach(plain, ABOUT, facts))[0].each(4)
    assert unit.number(0, number_types.Uint8Flags) == 1  # NormalizationOptions
    options = unit.union(1)
    assert options.floats(0) == pytest.approx(mean)
    assert options.floats(1) == pytest.approx(std)


def test_labels_and_score_calibration_lie_in_the_file(plain: bytes) -> None:
    content = metadata.attach(plain, ABOUT, FACTS)
    _, scores = tensors(content)
    named = [(file.text(0), file.number(2, number_types.Int8Flags)) for file in scores.each(6)]
    assert named == [("labels.txt", 2), ("score_calibration.txt", 4)]
    (unit,) = scores.each(4)
    assert unit.number(0, number_types.Uint8Flags) == 2  # ScoreCalibrationOptions
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode() == "sugar beet\n<b>\nRübe"  # no line break: it would be a class
        assert archive.read("score_calibration.txt").decode() == "\n".join(["1.0,0.75,-2.5"] * 3)


def test_without_a_calibration_there_is_none(plain: bytes) -> None:
    content = metadata.attach(plain, ABOUT, Facts(CONTRACT, "uint8"))
    assert tensors(content)[1].each(4) == []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt", "preprocess.json"]


def test_the_model_answers_as_before(plain: bytes) -> None:
    answers = []
    for content in (plain, metadata.attach(plain, ABOUT, FACTS)):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 32, 32, 3), np.float32))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert np.array_equal(*answers)


def test_equal_models_are_equal_files_and_metadata_is_replaced(plain: bytes) -> None:
    once = metadata.attach(plain, ABOUT, FACTS)
    assert once == metadata.attach(plain, ABOUT, FACTS)
    assert read(metadata.attach(once, About(title="new"), FACTS)).text(0) == "new"


def test_what_was_written_is_read(plain: bytes) -> None:
    found = metadata.read(metadata._pack(ABOUT, FACTS))
    assert {name: found[name] for name in ("name", "description", "version", "author", "license")} == {
        "name": "Rüben & Co.", "description": "tells beets apart", "version": "1.2.3", "author": "A. U. Thor",
        "license": "CC-BY-4.0",
    }  # fmt: skip
    assert (found["input 0 name"], found["input 0 mean"], found["input 0 std"]) == ("image", "0", "1")
    assert found["output 0 name"] == "scores"
    assert "output 0 mean" not in found


def test_the_generated_code_is_that_of_the_schema(tmp_path: Path) -> None:
    """`make metadata-schema` makes it; another flatc may write other code."""
    folder = Path(metadata.__file__).parent
    header, _, generated = (folder / "metadata_generated.py").read_text(encoding="utf-8").partition("\n")
    made_by = re.fullmatch(r"# Made by `make metadata-schema` from metadata.fbs: (.*), --python --gen-onefile", header)
    assert made_by
    if shutil.which("flatc") is None:
        pytest.skip("no flatc here: apt install flatbuffers-compiler")
    if (here := subprocess.check_output(["flatc", "--version"], text=True).strip()) != made_by[1]:
        pytest.skip(f"the code was made by {made_by[1]}, here is {here}")
    schema = folder / "metadata.fbs"
    subprocess.run(["flatc", "--python", "--gen-onefile", "-o", str(tmp_path), str(schema)], check=True)
    assert (tmp_path / "metadata_generated.py").read_text(encoding="utf-8") == generated

"""The programs of a model card run, and prepare a picture as edgekit does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from torch import nn

from edgekit.convert import tflite
from edgekit.convert.fold import fold
from edgekit.data.images import load_pixels
from edgekit.measurements import Gates
from edgekit.records import Artifact, Preprocess
from edgekit.reporting import usage
from edgekit.reporting.decide import decide
from tests.bench.results import BASELINE_ROW, artifact, row
from tests.quant.graphs import conv, gemm, graph, op

LABELS = ["a", "b c", "ü", "d", "e", "f", "g", "h", "i", "j"]
CROP = Preprocess(32, 40, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
RULES = [
    CROP,
    Preprocess(32, 32, "bilinear", resize="squash"),
    Preprocess(32, 32, "bicubic", resize="letterbox", background="#204060"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with labels.txt and a picture with transparent parts that is turned by its EXIF."""
    pixels = np.random.default_rng(0).integers(0, 256, (57, 90, 4)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    (tmp_path / "photo.png").rename(tmp_path / "photo.jpg")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(of: Artifact, preprocess: Preprocess) -> dict[str, Any]:
    """What the program leaves behind."""
    text = usage.program(of, preprocess)
    assert text is not None
    left: dict[str, Any] = {}
    exec(compile(text, "card", "exec"), left)
    return left


def normalized(preprocess: Preprocess) -> np.ndarray:
    (pixels,) = load_pixels([Path("photo.jpg")], preprocess)
    return np.asarray((pixels / 255 - np.array(preprocess.mean)) / np.array(preprocess.std), np.float32)


@pytest.mark.parametrize("preprocess", RULES, ids=lambda p: p.resize)
def test_an_onnx_file_is_run_with_what_edgekit_makes_of_the_picture(
    folder: Path, capsys: pytest.CaptureFixture[str], preprocess: Preprocess
) -> None:
    parts = [conv("image", "c1", inputs=3), op("Relu", ["c1"], "act"), op("GlobalAveragePool", ["act"], "pool")]
    model = graph(*parts, op("Flatten", ["pool"], "flat"), gemm("flat", "scores"), channels=3, side=32)
    (folder / "model.fp32.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    for details in ({}, {"host_runtime": "onnxruntime"}):
        left = ran(artifact("jetson/model.fp32.onnx", "fp32", "tensorrt", details=details), preprocess)
        assert left["values"].dtype == np.float32
        np.testing.assert_allclose(left["values"], normalized(preprocess).transpose(2, 0, 1)[None], atol=1e-5)
        assert capsys.readouterr().out == LABELS[int(left["scores"].argmax())] + "\n"


@pytest.mark.filterwarnings("ignore")
def test_a_litert_file_is_run_and_answers_as_torch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    tflite.export(fold(model), 32, folder / "model.fp32.tflite")
    left = ran(artifact("android/model.fp32.tflite", "fp32", "litert", layout="NHWC"), CROP)
    values = torch.from_numpy(normalized(CROP).transpose(2, 0, 1)[None].copy())
    np.testing.assert_allclose(left["scores"], model.eval()(values)[0].detach().numpy(), atol=1e-4)
    assert capsys.readouterr().out == LABELS[int(left["scores"].argmax())] + "\n"


def test_byte_inputs_get_the_pixels() -> None:
    for kind, says in (("uint8", "values = np.asarray(picture)[None]"), ("int8", "- 128).astype(np.int8)[None]")):
        text = usage.program(artifact("a/b.tflite", "int8", "litert", layout="NHWC", input=kind), CROP)
        assert text is not None
        assert says in text
        assert "/ 255" not in text
    assert usage.program(artifact("jetson/model.int8.engine", "int8", "tensorrt"), CROP) is None


def test_what_is_shipped_is_what_was_chosen_else_the_smallest_that_is_right_enough() -> None:
    jetson = {"target": "jetson", "stand_in": True}
    rows = [
        BASELINE_ROW, row(), row(artifact="android/model.fp32.tflite", precision="fp32", p50_ms=9.0, size_mb=9.0),
        row(artifact="jetson/model.int8.onnx", size_mb=2.0, drop=4.0, **jetson),
        row(artifact="jetson/model.fp16.onnx", precision="fp16", size_mb=5.0, **jetson),
        row(artifact="jetson/model.fp32.onnx", precision="fp32", size_mb=9.0, **jetson),
    ]  # fmt: skip
    assert usage.shipped(decide(rows), rows, Gates()) == ["android/model.int8.tflite", "jetson/model.fp16.onnx"]

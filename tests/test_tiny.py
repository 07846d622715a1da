"""The whole road in one file: train, export, benchmark, report, predict, through the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit import files
from edgekit.api import artifacts, emitters
from edgekit.bench import session
from edgekit.cli.app import run
from edgekit.data import dataset, images
from edgekit.models import checkpoints
from edgekit.models.build import predict_logits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# Least share of samples on which an artifact gives torch's answer, and why it may not be all.
LEAST_AGREEMENT = {
    "fp32": 0.995,  # another order of the same additions
    "fp16": 0.995,  # 11 bits
    "int8": 0.97,  # 8 bits
}
KIT = {"build.sh", "SHA256SUMS", "labels.txt", "preprocess.json", "manifest.json"}


@dataclass(frozen=True)
class Road:
    """One folder of runs, and the command line on it."""

    runs: Path
    name: str

    def __call__(self, *arguments: str) -> int:
        return run([*arguments, "--runs-dir", str(self.runs)])

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    def files(self, target: str) -> dict[str, str]:
        """File -> sha256 of everything that was exported for `target`."""
        folder = self.folder / "export" / target
        return {path.name: files.sha256_file(path) for path in sorted(folder.iterdir())}


def train(runs: Path, name: str, data: str, *options: str) -> Road:
    road = Road(runs, name)
    assert road("train", data, "--name", name, *options) == 0
    return road


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """EfficientNet-Lite0 with its ImageNet weights, three epochs on handwritten digits; exported."""
    options = ("--model", "efficientnet_lite0", "--image-size", "32", "--epochs", "3", "--lr", "3e-3")
    road = train(tmp_path_factory.mktemp("runs"), "digits", "digits", *options)
    assert json.loads((road.folder / "run.json").read_text())["status"] == "finished"
    assert road("export", "digits", "--target", "jetson", "--target", "android") == 0
    assert set(road.files("jetson")) >= {f"model.{name}.onnx" for name in ("fp32", "fp16", "int8", "int8.typed")} | KIT
    assert set(road.files("android")) >= {f"model.{name}.tflite" for name in LEAST_AGREEMENT} | {"README.txt"}
    return road


@dataclass(frozen=True)
class Answers:
    """What torch answers on the test split."""

    pixels: np.ndarray
    logits: np.ndarray
    expected: np.ndarray
    preprocess: Any


@pytest.fixture(scope="module")
def answers(digits: Road) -> Answers:
    checkpoint, model = checkpoints.load(digits.folder / "checkpoint.pt")
    index = dataset.load_index(digits.folder / "data.json")
    samples = index.split("test")
    pixels = images.load_pixels([index.root / sample.path for sample in samples], checkpoint.preprocess)
    logits = predict_logits(model, pixels, checkpoint.preprocess).numpy()
    return Answers(pixels, logits, np.array([sample.label for sample in samples]), checkpoint.preprocess)


@pytest.mark.xdist_group("digits")
class TestDigits:
    def test_it_learnt(self, answers: Answers) -> None:
        assert (answers.logits.argmax(1) == answers.expected).mean() > 0.9

    @pytest.mark.parametrize(
        "name",
        [f"jetson/model.{p}.onnx" for p in (*LEAST_AGREEMENT, "int8.typed")]
        + [f"android/model.{p}.tflite" for p in LEAST_AGREEMENT],
    )
    def test_every_artifact_gives_torchs_answer(self, digits: Road, answers: Answers, name: str) -> None:
        known = {a.name: a for a in artifacts.load_artifacts((digits.folder / "export" / name).parent)}
        got = session.infer_here(known[name], digits.folder / "export" / name, answers.pixels, answers.preprocess)
        agreement = float((got.argmax(1) == answers.logits.argmax(1)).mean())
        print(f"{name}: {agreement:.4f} of {len(got)}")
        assert agreement >= LEAST_AGREEMENT[known[name].precision]

    def test_what_was_exported_is_measured_reported_and_answers(
        self, digits: Road, answers: Answers, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert digits("benchmark", "digits", "--suite", "quick", "--json") == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows[0]["artifact"] == "baseline/pytorch"
        assert [row["baseline"] for row in rows] == sorted((row["baseline"] for row in rows), reverse=True)
        assert {row["precision"] for row in rows} == {"fp32", "fp16", "int8"}
        assert all(row["queries"] >= 128 and row["p50_ms"] > 0 for row in rows)

        assert digits("layers", "digits", "--artifact", "android/model.int8.tflite") == 0
        assert digits("report", "digits") == 0
        page = (digits.folder / "report.html").read_text()
        assert all(row["artifact"] in page for row in rows)

        picture = tmp_path / "seven.png"
        Image.fromarray(answers.pixels[0]).save(picture)
        capsys.readouterr()
        assert digits("predict", "digits", str(picture), "--json") == 0
        assert digits("predict", "digits", str(picture), "--artifact", "android/model.fp32.tflite", "--json") == 0
        parts = capsys.readouterr().out.replace("]\n[", "]\0[").split("\0")
        torch, litert = (json.loads(part)[0]["top"] for part in parts)
        assert {answer["label"] for answer in torch} <= set("0123456789")
        assert litert[0]["label"] == torch[0]["label"]
        assert litert[0]["probability"] == pytest.approx(torch[0]["probability"], abs=1e-3)

    def test_a_second_export_uses_the_calibration_again(
        self, digits: Road, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = digits.files("android")
        monkeypatch.setattr("edgekit.quant.calibrate.calibrate", None)
        assert digits("export", "digits", "--target", "android") == 0
        assert "used again" in capsys.readouterr().err.replace("\n", " ")
        after = digits.files("android")
        assert {n: h for n, h in after.items() if n != "manifest.json"} == {
            n: h for n, h in before.items() if n != "manifest.json"
        }

    def test_exporting_one_precision_keeps_the_files_of_the_others(self, digits: Road) -> None:
        before = digits.files("jetson")
        assert digits("export", "digits", "--target", "jetson", "--precision", "int8") == 0
        after = digits.files("jetson")
        assert set(after) == set(before)
        assert all(after[name] == before[name] for name in before if name.endswith(".onnx"))
        listed = {artifact.precision for artifact in artifacts.load_artifacts(digits.folder / "export" / "jetson")}
        assert listed == {"fp32", "fp16", "int8"}

    def test_a_killed_export_leaves_the_former_one_whole(self, digits: Road, monkeypatch: pytest.MonkeyPatch) -> None:
        before = digits.files("jetson")

        def killed(*arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setitem(emitters.EMITTERS, (".onnx", "int8"), killed)
        assert digits("export", "digits", "--target", "jetson") == 130
        assert digits.files("jetson") == before
        assert [path.name for path in (digits.folder / "export").iterdir() if path.name.startswith(".")] == []

"""Every file of every kit, opened as its README says and as a user would by habit, answers like the checkpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit.cli.app import run
from edgekit.targets import infer

pytestmark = [pytest.mark.xdist_group("road"), pytest.mark.filterwarnings("ignore")]
# Largest difference from the FP32 file, relative to its largest score.
MAY_DIFFER = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.3}


@pytest.fixture(scope="module")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export folder of an evaluated run, with every kind of kit."""
    folder = tmp_path_factory.mktemp("kits")
    shutil.copytree(made / "runs", folder / "runs")
    runs = ["--runs-dir", str(folder / "runs")]
    assert run(["evaluate", "fruit", *runs]) == 0
    targets = [word for name in ("jetson", "desktop", "android", "jetson-nano") for word in ("-t", name)]
    assert run(["export", "fruit", *targets, *runs]) == 0
    return folder / "runs" / "fruit" / "export"


@pytest.fixture
def photos(made: Path) -> list[Path]:
    return sorted((made / "photos").glob("*/00[0-3].png"))


def told(kit: Path, name: str) -> Any:
    return json.loads((kit / name).read_text(encoding="utf-8"))


def by_habit(path: Path, images: list[np.ndarray]) -> np.ndarray:
    """The scores of a default session."""
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image})[0] for image in images])


@pytest.mark.parametrize("target", ["jetson", "jetson-nano", "desktop"])
def test_onnx_files_answer_in_a_default_session_as_the_reference_does(
    exported: Path, photos: list[Path], target: str
) -> None:
    kit = exported / target
    preprocess = told(kit, "preprocess.json")
    images = [infer.to_tensor(infer.load(path, preprocess), preprocess) for path in photos]
    expected = by_habit(kit / "model.fp32.onnx", images)
    assert len(set(expected.argmax(1))) == 3
    for artifact in told(kit, "manifest.json")["artifacts"]:
        scores = by_habit(exported / artifact["name"], images)
        assert (scores.argmax(1) == expected.argmax(1)).all(), artifact["name"]
        differs = np.abs(scores - expected).max() / np.abs(expected).max()
        assert differs < MAY_DIFFER[artifact["precision"]], artifact["name"]


def test_litert_files_answer_in_a_default_interpreter_as_the_reference_does(exported: Path, photos: list[Path]) -> None:
    kit = exported / "android"
    pixels = np.stack([infer.load(path, told(kit, "preprocess.json")) for path in photos])
    found: dict[str, np.ndarray] = {}
    for artifact in told(kit, "manifest.json")["artifacts"]:
        interpreter = Interpreter(str(kit / Path(artifact["name"]).name))
        taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        single = artifact["details"].get("batch") == 1
        for size in (1,) if single else (1, 4):
            interpreter.resize_tensor_input(taken["index"], [size, *taken["shape"][1:]])
            interpreter.allocate_tensors()
            scores = []
            for start in range(0, len(pixels), size):
                interpreter.set_tensor(taken["index"], pixels[start : start + size])
                interpreter.invoke()
                scores.append(interpreter.get_tensor(given["index"]))
            found[f"{artifact['precision']} in batches of {size}"] = np.concatenate(scores)
        assert single is (artifact["name"].rpartition("/")[2] in one_at_a_time(kit))
    expected = found["fp32 in batches of 1"]
    for name, scores in found.items():
        assert (scores.argmax(1) == expected.argmax(1)).all(), name
        assert np.abs(scores - expected).max() < MAY_DIFFER[name.split()[0]] * np.abs(expected).max(), name


def one_at_a_time(kit: Path) -> str:
    lines = (kit / "README.txt").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if "One image at a time" in line), "")


@pytest.mark.parametrize("target", ["jetson", "desktop"])
def test_the_example_gives_the_probabilities_of_predict(
    exported: Path, photos: list[Path], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kit, pictures = exported / target, list(map(str, photos))
    capsys.readouterr()
    model = f"{target}/model.int8.onnx"
    runs = ["--runs-dir", str(exported.parent.parent), "--artifact", model, "--json"]
    assert run(["predict", "fruit", *pictures, *runs]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers[0]["temperature"] == told(kit, "manifest.json")["temperature"] not in (None, 1.0)
    done = subprocess.run([sys.executable, str(kit / "infer.py"), *pictures], capture_output=True, text=True)
    assert done.stderr == "model.int8.onnx\n"
    lines = [
        f"{a['image']}: " + ", ".join(f"{t['label']} {100 * t['probability']:.1f} %" for t in a["top"]) for a in answers
    ]
    assert done.stdout.splitlines() == lines
    checked = subprocess.run([sys.executable, str(kit / "infer.py"), "--check"], capture_output=True, text=True)
    assert (checked.returncode, "changed" in checked.stdout) == (0, False)


def test_a_kit_that_cannot_be_built_is_said_while_it_is_made(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported.parent.parent, tmp_path / "runs")
    capsys.readouterr()
    assert run(["export", "fruit", "-t", "jetson-nano", "-p", "fp16"]) == 0
    assert "warning: no engine can be built on jetson-nano" in capsys.readouterr().err
    assert run(["export", "fruit", "-t", "jetson-orin-nano", "-p", "fp16"]) == 0
    assert "no engine can be built" not in capsys.readouterr().err

"""``edgekit quant debug``, on a tiny network with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from edgekit import files, runs
from edgekit.cli.app import run
from edgekit.data import dataset
from edgekit.models import build, checkpoints, zoo
from edgekit.runs import RunInfo
from tests import nets
from tests.datasets import write_images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images and runs/fruit, which is not trained."""
    zoo.MODELS["tiny"] = nets.TINY
    folder = tmp_path_factory.mktemp("debug")
    data = dataset.index(write_images(folder / "photos", {"apple": 20, "banana": 20}))
    torch.manual_seed(0)
    model = build.build("tiny", 2)
    checkpoint = checkpoints.save(folder / "checkpoint.pt", model, "tiny", data.labels, nets.TINY.preprocess)
    about = {"arch": "tiny", "status": "finished", "checkpoint_sha256": checkpoint.sha256}
    fruit = runs.create_run(folder / "runs", "fruit", RunInfo.from_document(about))
    shutil.move(folder / "checkpoint.pt", fruit.path)
    files.save_json(fruit.path / "data.json", data)
    yield folder
    del zoo.MODELS["tiny"]


@pytest.fixture
def fruit(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in ./runs/fruit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "fruit"


def debugged(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    """Standard output and standard error of ``edgekit quant debug``."""
    capsys.readouterr()
    assert run(["quant", "debug", *arguments]) == status
    output = capsys.readouterr()
    return output.out, output.err


def kept(fruit: Path, target: str = "android") -> dict[str, Any]:
    return json.loads((fruit / "quant" / f"debug-{target}.json").read_text())


def test_a_table_a_picture_and_the_figures(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = debugged(capsys, "--verbose")
    found = kept(fruit)
    rows = [line.split() for line in out.splitlines()[1:3]]
    assert [row[0] for row in rows] == [layer["name"] for layer in found["layers"]]
    assert {layer["name"] for layer in found["layers"]} == {"0", "5"}
    for row, layer in zip(rows, found["layers"]):
        shown = [float(text) for text in row if text.count(".") == 1]
        pairs = [layer["weight"], layer["alone"], layer["accumulated"], layer["effect"]["logits"]]
        assert shown == pytest.approx([p[key] for p in pairs for key in ("sqnr_db", "cosine")], abs=0.06)
    assert f"all quantized: logits {found['effect']['logits']['sqnr_db']:.1f} dB" in out
    assert "top-1 changed on" in out
    assert "of 28 images" in out  # the train split has no more
    assert {path.name for path in (fruit / "quant").iterdir()} == {"debug-android.svg", "debug-android.json"}
    for kind in ("svg", "json"):
        assert f"fruit/quant/debug-android.{kind}" in err
    assert "background: #fff" in ElementTree.parse(fruit / "quant" / "debug-android.svg").getroot().attrib["style"]


def test_the_figures_say_what_they_are_of(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    debugged(capsys, "fruit", "--recipe", "minmax", "--images", "9")
    found = kept(fruit, "android-minmax")
    assert (found["run"], found["target"], found["images"]) == ("fruit", "android", 9)
    assert found["calibration"]["recipe"] == found["calibration"]["observer"] == "minmax"
    assert found["checkpoint_sha256"] == runs.open_run(Path("runs"), "fruit").weights_sha256
    table = json.loads(next((fruit / "calibration").glob("minmax-*.json")).read_text())["table"]["ranges"]
    assert {tensor["name"] for tensor in found["tensors"]} <= set(table)
    for tensor in found["tensors"]:
        step = (tensor["high"] - tensor["low"]) / 255
        assert tensor["low"] == pytest.approx(table[tensor["name"]]["low"], abs=step)
        assert tensor["high"] == pytest.approx(table[tensor["name"]]["high"], abs=step)


def test_json_is_the_file_and_nothing_else(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = debugged(capsys, "--json")
    assert json.loads(out) == kept(fruit)


@pytest.mark.parametrize(("target", "stem"), [("android", True), ("rpi", True), ("jetson", False), ("desktop", False)])
def test_the_target_says_what_runs_in_int8(
    fruit: Path, capsys: pytest.CaptureFixture[str], target: str, stem: bool
) -> None:
    out, _ = debugged(capsys, "--target", target)
    found = kept(fruit, target)
    shown = {line.split()[0]: " INT8 " in line for line in out.splitlines()[1:3]}
    assert shown == {"0": stem, "5": True}
    assert {layer["name"]: layer["int8"] for layer in found["layers"]} == {"0": stem, "5": True}
    names = {tensor["name"] for tensor in found["tensors"]}
    assert ("image" in names) == stem  # of so few channels, TensorRT's convolution stays float
    lows = [tensor["low"] for tensor in found["tensors"]]
    assert 0.0 in lows  # what a ReLU wrote has all 256 steps: LiteRT's zero point, or TensorRT's biases
    assert (min(lows) < 0) == stem


def test_twice_gives_the_same(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[str, bytes]:
        debugged(capsys)
        return {path.name: path.read_bytes() for path in (fruit / "quant").iterdir()}

    assert files() == files()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--target", "jetsn"), 2, "did you mean 'jetson'"),
        (("--recipe", "minmaks"), 2, "minmax"),
        (("nowhere",), 4, "nowhere"),
        (("--target", "old.toml"), 2, "old does not run int8"),
        (("--images", "0"), 2, "--images"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    fruit: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, said: str
) -> None:
    Path("old.toml").write_text('family = "jetson"\nruntime = "tensorrt"\nprecisions = ["fp16"]\n')
    _, err = debugged(capsys, *arguments, status=status)
    assert said in err
    assert not (fruit / "quant").exists()

"""``edgekit quant table``, on a tiny network with random weights."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgekit import files, runs
from edgekit.api.intermediates import Intermediates
from edgekit.cli.app import run
from edgekit.data import dataset
from edgekit.models import build, checkpoints, zoo
from edgekit.runs import RunInfo
from tests import nets
from tests.datasets import write_images

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images and runs/fruit, which is not trained."""
    zoo.MODELS["tiny"] = nets.TINY
    folder = tmp_path_factory.mktemp("table")
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


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    """Standard output and standard error of ``edgekit quant table fruit``."""
    capsys.readouterr()
    assert run(["quant", "table", "fruit", *arguments]) == status
    output = capsys.readouterr()
    return output.out, output.err


def test_every_tensor_has_a_row_with_its_range_and_scales(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys)
    rows = [line.split() for line in out.splitlines()[1:]]
    whole = json.loads(next((fruit / "calibration").glob("default-*.json")).read_text())["table"]
    kept, observer = whole["ranges"], whole["observer"]
    assert [row[0] for row in rows] == list(kept)
    for name, low, high, symmetric, asymmetric, zero_point in rows:
        assert float(low) == pytest.approx(kept[name]["low"], rel=1e-3)
        assert float(high) == pytest.approx(kept[name]["high"], rel=1e-3)
        assert float(symmetric) == pytest.approx(max(-float(low), float(high)) / 127, rel=1e-3)
        assert float(asymmetric) == pytest.approx((float(high) - float(low)) / 255, rel=1e-3)
        assert -128 <= int(zero_point) <= 127
    assert f"{len(rows)} tensors, observer {observer}, recipe default" in err


def test_as_json_is_the_file_of_the_run_and_goes_where_it_is_told(
    fruit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = printed(capsys, "--as", "json", "--recipe", "minmax")
    (kept,) = (fruit / "calibration").glob("minmax-*.json")
    assert out == kept.read_text()
    out, err = printed(capsys, "--as", "json", "--recipe", "minmax", "--output", "out/table.json")
    assert out == ""
    assert "written: out/table.json" in err
    assert Path("out/table.json").read_text() == kept.read_text()


def test_as_tensorrt_names_the_tensors_of_the_onnx_file(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, "--as", "tensorrt")
    header, *lines = out.splitlines()
    assert header == "TRT-8502-EntropyCalibration2"
    assert all(re.fullmatch(r"\S+: [0-9a-f]{8}", line) for line in lines)
    assert {"image", "scores"} <= {line.split(":")[0] for line in lines}
    assert "model.fp32.onnx" in err


@pytest.mark.slow
def test_as_litert_names_the_tensors_of_the_litert_file(fruit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capfd, "--as", "litert")  # capfd: the converter writes to the file descriptor
    result = json.loads(out)
    assert len(result) >= 4
    assert all(span["min"][0][0][0][0] <= 0 <= span["max"][0][0][0][0] for span in result.values())
    assert "model.fp32.tflite" in err


def test_diff_with_another_file_says_what_is_wider(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "--recipe", "minmax")
    (kept,) = (fruit / "calibration").glob("minmax-*.json")
    document = json.loads(kept.read_text())
    for part in ("ranges", "seen"):
        document["table"][part]["image"]["high"] *= 2
        document["table"][part]["new"] = document["table"][part]["image"]
    files.save_document(Path("other.json"), document)
    out, err = printed(capsys, "--recipe", "minmax", "--diff", "other.json")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["new", "image"]
    assert rows[0][1:3] == ["-", "-"]
    assert 1 < float(rows[1][-1]) < 2
    assert "2 ranges differ" in err
    out, _ = printed(capsys, "--recipe", "minmax", "--diff", "other.json", "--as", "json")
    changes = json.loads(out)
    assert [c["tensor"] for c in changes] == ["new", "image"]
    assert (changes[0]["before"], changes[0]["ratio"]) == (None, None)
    assert changes[1]["after"]["high"] == 2 * changes[1]["before"]["high"]


@pytest.mark.parametrize("hashed", [True, False])
def test_a_range_that_changed_is_not_believed(fruit: Path, capsys: pytest.CaptureFixture[str], hashed: bool) -> None:
    """Also in a file of a version that wrote no hash, if the range is wider than the values were."""
    printed(capsys, "--recipe", "minmax")
    (kept,) = (fruit / "calibration").glob("minmax-*.json")
    document = json.loads(kept.read_text())
    document["table"]["ranges"]["image"]["high"] *= 0.5 if hashed else 2
    if not hashed:
        del document["content_sha256"]
    kept.write_text(json.dumps(document))
    assert run(["quant", "table", "--recipe", "minmax"]) == 3
    err = capsys.readouterr().err
    assert f"{kept.relative_to(fruit.parents[1])} is damaged: " in err
    assert ("its values are not those that edgekit wrote" if hashed else "the range of image is [") in err
    assert "restore it from a copy; or rename" in err


def test_diff_with_another_run_compares_the_same_recipe(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(fruit, fruit.with_name("twin"))
    out, err = printed(capsys, "--diff", "twin")
    assert out == ""
    assert "0 ranges differ" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--as", "csv"], "known: json, tensorrt, litert"),
        (["--output", "x.json"], "add --as json"),
        (["--diff", "other.json", "--as", "tensorrt"], "leave out --as"),
        (["--recipe", "none"], "known: "),
    ],
)
def test_requests_without_a_meaning(
    fruit: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in printed(capsys, *arguments, status=2)[1]
    assert not (fruit / "calibration").exists()


def test_another_table_must_be_one(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.json").write_text("{}")
    assert "not a file that edgekit wrote" in printed(capsys, "--diff", "other.json", status=3)[1]
    printed(capsys, "--diff", "none.json", status=4)


def gone(fruit: Path) -> None:
    """The images of the run are nowhere."""
    index = dataset.load_index(fruit / "data.json")
    files.save_json(fruit / "data.json", dataclasses.replace(index, root=Path("/nowhere")))


def test_a_kept_table_needs_no_images_and_a_new_one_says_what_to_type(
    fruit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, _ = printed(capsys, "--recipe", "minmax")
    gone(fruit)
    assert printed(capsys, "--recipe", "minmax")[0] == before
    assert run(["quant", "table", "--recipe", "mse"]) == 4
    err = capsys.readouterr().err
    assert "the images for the calibration are gone since training" in err
    assert "hint: add --data DIR" in err


def test_other_calibration_images_need_none_of_the_training(
    fruit: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone(fruit)
    for _ in range(2):
        table = Intermediates(runs.read_run(fruit), calibration_data=made / "photos" / "apple").table
        assert table.ranges["image"].high > 0
    err = capsys.readouterr().err
    assert err.count("these images are not compared with those of val: the images for the comparison with val are") == 1
    assert err.count("(used again)") == 1


def test_a_calibration_leaves_out_a_few_missing_images(
    fruit: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = dataset.load_index(fruit / "data.json")
    shutil.copytree(made / "photos", "photos")
    lost = index.split("train")[0]
    Path("photos", lost.path).unlink()
    gone(fruit)
    opened = runs.choose_run("runs", "fruit", "photos")
    intermediates = Intermediates(opened)
    table = intermediates.table
    assert lost.sha256 not in {sample.sha256 for sample in intermediates.calibration_set.samples}
    assert len(intermediates.calibration_set.samples) == len(index.split("train")) - 1
    assert table.samples == intermediates.calibration_set.fingerprint
    assert f"1 of 28 train images are left out: {lost.path} (gone); the calibration uses" in capsys.readouterr().err
    assert Intermediates(opened).table == table
    assert "(used again)" in capsys.readouterr().err

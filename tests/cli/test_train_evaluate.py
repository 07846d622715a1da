"""``edgekit evaluate``, and what ``edgekit predict`` makes of it, on a tiny network with random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgekit import files, runs
from edgekit.api import predict
from edgekit.api.evaluate import evaluate_run
from edgekit.cli.app import run
from edgekit.data import dataset
from edgekit.evaluation import evaluate
from edgekit.models import build, checkpoints, zoo
from edgekit.runs import RunInfo
from edgekit.training.options import TrainOptions
from tests import nets
from tests.datasets import indexed, write_images
from tests.reporting.made import meta


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images and runs/fruit, which was trained and not judged."""
    zoo.MODELS["tiny"] = nets.TINY
    folder = tmp_path_factory.mktemp("judged")
    data = dataset.index(write_images(folder / "photos", {"apple": 20, "ba$nana$": 20, "<b>": 20}))
    torch.manual_seed(0)
    model = build.build("tiny", 3)
    checkpoint = checkpoints.save(folder / "checkpoint.pt", model, "tiny", data.labels, nets.TINY.preprocess)
    options = TrainOptions(arch="tiny", weights="none", image_size=32)
    about = meta(
        arch="tiny", labels=data.labels, checkpoint_sha256=checkpoint.sha256, options=dataclasses.asdict(options)
    )
    about = {**about, "data": {"root": str(data.root), "fingerprint": data.fingerprint}, "status": "finished"}
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


@pytest.fixture
def photos(made: Path) -> list[str]:
    return sorted(map(str, made.glob("photos/*/00[0-3].png")))


@pytest.fixture
def answers(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def predict(*arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert run(["predict", "fruit", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return predict


# Evaluate ------------------------------------------------------------------------------------


def test_every_class_is_in_the_table_and_everything_is_kept(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate"]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["<b>", "apple", "ba$nana$"]
    assert lines[4].startswith("(mean of classes)")
    assert "images (95 % interval" in output.err
    assert "next: edgekit report fruit" in output.err
    judged = evaluate.load(fruit, runs.open_run(Path("runs"), "fruit").weights_sha256)
    assert judged is not None
    assert f"{judged.splits['test'].scores.top1:.1f} %" in output.err
    pictures = {"learning_curves.svg", "classes.svg", "confusion.svg", "reliability.svg", "samples.png", "mistakes.png"}
    assert {p.name for p in (fruit / "pictures").iterdir()} == pictures


def test_json_is_the_evaluation_and_nothing_else(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "fruit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((fruit / "evaluation.json").read_text())


def test_a_report_follows(fruit: Path) -> None:
    assert run(["evaluate"]) == 0
    assert run(["report"]) == 0
    page = (fruit / "report.html").read_text()
    assert "&lt;b&gt;" in page
    assert page.count("data:image/png") >= 2  # the samples, the confusion matrix


def test_twice_gives_the_same(fruit: Path) -> None:
    assert run(["evaluate"]) == 0
    first = (fruit / "evaluation.json").read_bytes()
    samples = (fruit / "pictures" / "samples.png").read_bytes()
    assert run(["evaluate"]) == 0
    assert (fruit / "evaluation.json").read_bytes() == first
    assert (fruit / "pictures" / "samples.png").read_bytes() == samples


def test_the_samples_are_of_as_many_classes_as_there_is_room_for(fruit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def record(pixels: np.ndarray, labels: list[str]) -> bytes:
        seen.append(labels)
        assert pixels.shape == (len(labels), 32, 32, 3)
        return b""

    monkeypatch.setattr("edgekit.reporting.pictures.samples", record)
    monkeypatch.setattr("edgekit.api.evaluate._SAMPLES", 5)
    assert run(["evaluate"]) == 0
    assert seen == [["<b>", "apple", "ba$nana$", "<b>", "apple"]]


def test_a_run_whose_options_mean_nothing_now_goes_without_samples(
    fruit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.open_run(Path("runs"), "fruit").save(options={"arch": "tiny", "magic": 3})
    assert run(["evaluate"]) == 0
    assert "no picture of augmented images" in capsys.readouterr().err
    assert not (fruit / "pictures" / "samples.png").exists()


def test_a_run_that_was_just_trained_holds_records_and_can_be_judged(fruit: Path) -> None:
    opened = runs.open_run(Path("runs"), "fruit")
    options = TrainOptions(arch="tiny", weights="none", image_size=32)
    judged = evaluate_run(opened.save(options=options))
    assert judged.labels == ("<b>", "apple", "ba$nana$")
    assert (fruit / "pictures" / "samples.png").is_file()


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_that_changed_since_training_are_refused(
    fruit: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    index = dataset.load_index(fruit / "data.json")
    changed = tuple(dataclasses.replace(s, sha256="0" * 64) if s.split == split else s for s in index.samples)
    other = indexed(index.root, index.labels, changed)
    files.save_json(fruit / "data.json", other)
    runs.read_run(fruit).save(data=runs.DataInfo(str(other.root), other.fingerprint))
    assert run(["evaluate"]) == 3
    assert "9 of 9 images for the evaluation have changed since training" in capsys.readouterr().err
    assert not (fruit / "evaluation.json").exists()


def moved(fruit: Path, made: Path) -> Path:
    """A folder with the images of the run under other names, where the run cannot know of it."""
    for number, path in enumerate(sorted((made / "photos").rglob("*.png"))):
        (Path("now") / str(number)).mkdir(parents=True)
        shutil.copy(path, Path("now") / str(number) / "image.png")
    index = dataset.load_index(fruit / "data.json")
    files.save_json(fruit / "data.json", dataclasses.replace(index, root=Path("/nowhere")))
    return Path("now")


def test_a_run_is_evaluated_on_images_that_were_moved(
    fruit: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluate_run(runs.read_run(fruit))
    folder = moved(fruit, made)
    assert run(["evaluate"]) == 4
    assert "add --data DIR, the folder where they are now" in capsys.readouterr().err
    assert run(["evaluate", "--data", "not there"]) == 4
    assert "'not there' is neither a folder nor a file" in capsys.readouterr().err
    assert run(["evaluate", "--data", str(folder)]) == 0
    after = evaluate.load(fruit, before.checkpoint_sha256)
    assert after is not None
    assert (after.left_out, after.temperature) == ((), before.temperature)
    assert np.array_equal(after.raw["test_logits"], before.raw["test_logits"])
    assert run(["data", "relocate", "fruit", str(folder)]) == 0
    assert "fruit: 60 of 60 images are in now" in capsys.readouterr().err
    assert run(["evaluate"]) == 0


def test_images_that_are_missing_are_left_out_of_the_evaluation_and_of_comparisons(
    fruit: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = moved(fruit, made)
    assert run(["evaluate", "--data", str(folder)]) == 0
    shutil.copytree(fruit, fruit.with_name("whole"))
    lost = dataset.load_index(fruit / "data.json").split("test")[0]
    (path,) = (p for p in folder.rglob("*.png") if files.sha256_file(p) == lost.sha256)
    path.unlink()
    capsys.readouterr()
    assert run(["evaluate", "fruit", "--data", str(folder)]) == 0
    assert f"1 of 9 test images are left out: {lost.path} (gone)" in capsys.readouterr().err
    after = evaluate.load(fruit, runs.read_run(fruit).weights_sha256)
    assert after is not None
    assert (after.left_out, after.splits["test"].scores.samples) == ((lost.sha256,), 8)
    assert run(["compare", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["run"]: row["samples"] for row in rows} == {"fruit": 8, "whole": 9}
    assert rows[1]["p_value"] == 1.0  # the same answers to the images of both


# Predict -------------------------------------------------------------------------------------


def test_probabilities_are_calibrated_once_the_run_is_judged(
    fruit: Path, photos: list[str], answers: Callable[..., list[dict[str, Any]]]
) -> None:
    plain = answers(*photos, "--top", "3")
    assert run(["evaluate"]) == 0
    calibrated = answers(*photos, "--top", "3")
    temperature = json.loads((fruit / "evaluation.json").read_text())["temperature"]
    assert {a["temperature"] for a in plain} == {None}
    assert {a["temperature"] for a in calibrated} == {temperature}
    assert abs(temperature - 1) > 0.01
    for before, after in zip(plain, calibrated):
        assert [t["label"] for t in before["top"]] == [t["label"] for t in after["top"]]
        powers = np.array([t["probability"] for t in before["top"]]) ** (1 / temperature)
        want = powers / powers.sum()
        assert [t["probability"] for t in after["top"]] == pytest.approx(want.tolist(), abs=2e-5)


def test_an_evaluation_of_other_weights_calibrates_nothing(
    fruit: Path, photos: list[str], answers: Callable[..., list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate"]) == 0
    path = fruit / "evaluation.json"
    files.save_document(path, {**files.load_document(path, 1), "checkpoint_sha256": "0" * 64})
    assert answers(photos[0])[0]["temperature"] is None
    assert run(["predict", "fruit", photos[0]]) == 0
    assert "not calibrated; edgekit evaluate fruit" in capsys.readouterr().err


def test_uncertainty_is_what_the_thinned_heads_say(
    fruit: Path, photos: list[str], answers: Callable[..., list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate"]) == 0
    found = answers(*photos, "--uncertainty")
    for answer in found:
        doubt = answer["uncertainty"]
        assert 0 < doubt["mean_probability"] < 1
        assert 0 < doubt["spread"] < 0.5
        assert doubt["entropy_share"] == pytest.approx(doubt["entropy"] / np.log(3), abs=1e-5)
        assert 0 <= doubt["mutual_information"] <= doubt["entropy"]
    assert answers(photos[3], "--uncertainty") == [found[3]]  # the same alone as among others
    assert "uncertainty" not in answers(photos[0])[0]
    assert run(["predict", "fruit", *photos, "--uncertainty"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0].split() == ["image", "top", "3", "mean", "%", "spread", "entropy", "(share)"]
    assert "calibrated on val (temperature" in output.err


def test_uncertainty_needs_an_evaluation(fruit: Path, photos: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "fruit", photos[0], "--uncertainty"]) == 4
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert "'fruit' was not evaluated yet" in error
    assert hint == "  hint: edgekit evaluate fruit"


def test_uncertainty_is_not_for_artifacts(fruit: Path, photos: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "fruit", photos[0], "--uncertainty", "--artifact", "android/model.int8.tflite"]) == 2
    assert "leave out --artifact" in capsys.readouterr().err


def test_good_images_are_answered_with_their_doubt_beside_bad_ones(
    fruit: Path, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate"]) == 0
    (tmp_path / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    capsys.readouterr()
    assert run(["predict", "fruit", "bad.png", "red.png", "--uncertainty", "--json"]) == 3
    (only,) = json.loads(capsys.readouterr().out)
    assert only["image"] == "red.png"
    assert "uncertainty" in only
    assert run(["predict", "fruit", "bad.png", "--uncertainty"]) == 3


def test_scores_that_are_no_numbers_are_an_error_and_no_class(
    fruit: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [np.array([np.nan, 0.0, 0.0], np.float32), np.array([0.0, 9.0, 0.0], np.float32)]
    monkeypatch.setattr(predict, "_run_network", lambda *arguments: (scores, None))
    assert run(["predict", "fruit", *photos[:2], "--json"]) == 5
    said = capsys.readouterr()
    (only,) = json.loads(said.out)
    assert (only["image"], only["top"][0]["label"]) == (photos[1], "apple")
    assert f"the scores of fruit for {photos[0]} are NaN or infinite" in said.err


# Predict: what is no image file --------------------------------------------------------------


def test_a_folder_stands_for_its_images(
    fruit: Path, made: Path, answers: Callable[..., list[dict[str, Any]]], tmp_path: Path, photos: list[str]
) -> None:
    folder = tmp_path / "my photos"
    for number, name in enumerate(["b/2.PNG", "a.png", "b/1.png", ".hidden/3.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number], folder / name)
    (folder / "notes.txt").write_text("")
    found = answers(str(folder), photos[0])
    assert [a["image"] for a in found] == [*(str(folder / name) for name in ("a.png", "b/1.png", "b/2.PNG")), photos[0]]
    assert found[-1]["top"] == answers(photos[0])[0]["top"]


def test_as_many_images_as_do_not_fit_into_memory_give_the_same(
    fruit: Path, answers: Callable[..., list[dict[str, Any]]], photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(*photos)
    monkeypatch.setattr(predict, "_AT_ONCE", 5)
    assert len(photos) > 10
    assert answers(*photos) == whole


@pytest.mark.parametrize(
    ("what", "status", "message", "hint"),
    [
        ("https://example.com/a cat.jpg", 2, "not addresses", "curl -LO 'https://example.com/a cat.jpg'"),
        ("empty folder", 3, "no images in this folder", ".jpeg, .jpg"),
        ("a photo.HEIC", 3, "HEIC, which needs the package", "convert it, for example: magick 'a photo.HEIC'"),
        ("photo.jpg", 3, "cannot be decoded", "a sound copy"),
        ("text.png", 3, "cannot be decoded", "a sound copy"),
    ],
)
def test_what_is_no_image_file_says_what_to_do(
    fruit: Path, capsys: pytest.CaptureFixture[str], what: str, status: int, message: str, hint: str
) -> None:
    Path("empty folder").mkdir()
    Path("a photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    Path("photo.jpg").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0mif1avif")
    Path("text.png").write_text("text")
    assert run(["predict", "fruit", what]) == status
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2
    assert message in said[0]
    assert hint in said[1]
    assert "delete" not in said[1]

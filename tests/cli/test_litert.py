"""LiteRT files through the command line: what goes in, what they say of themselves, and that all of them answer."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit import files
from edgekit.cli.app import run

pytestmark = [pytest.mark.xdist_group("road"), pytest.mark.filterwarnings("ignore")]
FORMS = ("fp32", "fp16", "int8", "w8", "16x8")
ABOUT = 'title = "Fruit"\nversion = "1.2"\nauthor = "A. U. Thor"\nlicense = "CC-BY-4.0"\n'


@pytest.fixture(scope="module")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of which every form was exported."""
    folder = tmp_path_factory.mktemp("litert")
    shutil.copytree(made / "runs", folder / "runs")
    (folder / "about.toml").write_text(ABOUT)
    precisions = [word for form in FORMS for word in ("-p", form)]
    about = ["--about", str(folder / "about.toml"), "--runs-dir", str(folder / "runs")]
    assert run(["export", "fruit", "-t", "android", *precisions, *about]) == 0
    return folder


@pytest.fixture
def phone(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its export folder, in ./runs, that a test may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    shutil.copytree(exported / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "fruit" / "export"


def manifest(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "manifest.json").read_text())["artifacts"]


def labels(made: Path, artifact: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What an artifact says of one picture a class."""
    pictures = sorted(map(str, (made / "photos").glob("*/00[01].png")))
    capsys.readouterr()
    assert run(["predict", "fruit", *pictures, "--artifact", artifact, "--json"]) == 0
    return [answer["top"][0]["label"] for answer in json.loads(capsys.readouterr().out)]


def test_every_form_takes_bytes_and_answers_like_the_reference(
    made: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = manifest(phone / "android")
    assert [(a["precision"], a["input"]) for a in found] == [(form, "uint8") for form in FORMS]
    answers = {form: labels(made, f"android/model.{form}.tflite", capsys) for form in FORMS}
    assert set(answers["fp32"]) == {"apple", "banana", "cherry"}
    assert all(answer == answers["fp32"] for answer in answers.values())
    weights = {a["precision"]: a["details"].get("calibration_sha256") for a in found}
    assert weights["w8"] == weights["16x8"] == weights["int8"] != weights["fp32"] is None


def test_the_readme_says_what_to_feed(phone: Path) -> None:
    text = (phone / "android" / "README.txt").read_text()
    assert all(f"model.{form}.tflite" in text for form in FORMS)
    assert "uint8: the pixels unchanged" in text
    assert "float32: normalized" not in text


def test_a_file_says_who_made_it_and_holds_its_labels(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = phone / "android" / "model.int8.tflite"
    assert run(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"name": "Fruit", "version": "1.2", "author": "A. U. Thor", "license": "CC-BY-4.0"}.items() <= told[
        "metadata"
    ].items()
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt") == b"apple\nbanana\ncherry"
        assert len(archive.read("score_calibration.txt").splitlines()) == 3


def test_another_input_and_output_replace_those_of_one_form_and_leave_the_others(
    made: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = labels(made, "android/model.int8.tflite", capsys)
    assert run(["export", "fruit", "-t", "android", "-p", "int8", "--input", "int8", "--output", "int8"]) == 0
    assert {a["precision"]: a["input"] for a in manifest(phone / "android")} == {
        form: "int8" if form == "int8" else "uint8" for form in FORMS
    }
    assert labels(made, "android/model.int8.tflite", capsys) == before
    text = (phone / "android" / "README.txt").read_text()
    assert "int8: the pixels minus 128; the file does step 3 itself (model.int8.tflite)" in text


def test_strict_parity_normalizes_outside(phone: Path) -> None:
    assert run(["export", "fruit", "-t", "ios", "-p", "int8", "--parity", "strict"]) == 0
    assert [a["input"] for a in manifest(phone / "ios")] == ["float32"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "float16"], "unknown input 'float16'"),
        (["--output", "int4"], "unknown output 'int4'"),
        (["--input", "uint8", "--parity", "strict"], "--parity strict gives all targets the same integers"),
        (["--about", "bad.toml"], "unknown key 'licence'"),
        (["-p", "w4"], "unknown precision 'w4'"),
        (["-p", "fp32", "--output", "int8"], "--output int8 is for INT8 LiteRT files"),
        (["--about", "none.toml"], "there is no file 'none.toml'"),
        (["--about", "long.toml"], "description must be printable text of at most 10000 characters"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    phone: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.toml").write_text('licence = "MIT"\n')
    Path("long.toml").write_text(f'description = "{"x" * 20_000}"\n')
    before = (phone / "android" / "manifest.json").stat().st_mtime_ns
    assert run(["export", "fruit", "-t", "android", *arguments]) in (2, 3, 4)
    assert said in capsys.readouterr().err
    assert (phone / "android" / "manifest.json").stat().st_mtime_ns == before


def test_who_made_it_is_not_forgotten_by_the_next_export(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def author(path: Path) -> str:
        capsys.readouterr()
        assert run(["inspect", str(path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)["metadata"].get("author", "")

    assert run(["export", "fruit", "-t", "android", "-p", "fp16"]) == 0
    assert "about: as given for android; --about replaces it" in capsys.readouterr().err
    assert author(phone / "android" / "model.fp16.tflite") == "A. U. Thor"
    assert run(["export", "fruit", "-t", "ios", "-p", "fp16"]) == 0
    assert author(phone / "ios" / "model.fp16.tflite") == "A. U. Thor"
    Path("nobody.toml").write_text("")
    assert run(["export", "fruit", "-t", "ios", "-p", "fp16", "--about", "nobody.toml"]) == 0
    assert author(phone / "ios" / "model.fp16.tflite") == ""


def test_other_targets_have_no_such_forms(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "fruit", "-t", "jetson", "-p", "w8"]) == 2
    assert "jetson does not run w8" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--input", "int8"], ["--about", "about.toml"], ["--output", "uint8"]])
def test_what_is_for_litert_files_is_refused_where_there_are_none(
    phone: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("about.toml").write_text(ABOUT)
    assert run(["export", "fruit", "-t", "jetson", *arguments]) == 2
    assert "LiteRT files" in capsys.readouterr().err


def test_another_export_to_the_folder_is_waited_for(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with files.locked(phone.parent / ".export.lock", "export"):
        assert run(["export", "fruit", "-t", "android", "-p", "fp32"]) == 2
    assert "another export of fruit is running" in capsys.readouterr().err


def test_without_the_training_images_the_files_are_made_again(phone: Path, made: Path) -> None:
    """All that was decided is in the run."""
    moved = (made / "photos").rename(made / "elsewhere")
    try:
        assert run(["export", "fruit", "-t", "android", "-p", "int8"]) == 0
    finally:
        moved.rename(made / "photos")

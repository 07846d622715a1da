"""``edgekit data check``: exit status, the report, and JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.app import run
from edgekit.data.findings import KINDS
from tests.data.test_judge import flat, picture, split

__all__ = ["flat", "split"]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = run(["data", "check", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_sound_data_set_is_status_0_and_a_table(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(split)]) == 0
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert lines[:4] == [["class", "train", "val", "test"], ["a", "4", "2", "2"], ["b", "4", "2", "2"],
                         ["(all)", "8", "4", "4"]]  # fmt: skip
    assert output.out.endswith("16 images, no problems\n")
    assert output.err.strip() == ""


def test_errors_are_status_3_with_examples_and_what_to_do(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        (split / "train" / "a" / f"bad{number}.png").write_text("")
    assert run(["data", "check", str(split)]) == 3
    output = capsys.readouterr()
    assert "error: unreadable: 5\n  train/a/bad0.png: cannot be decoded (not a known image format)\n" in output.out
    assert "\n  and 2 more\n" in output.out
    error, hint = output.err.strip().splitlines()
    assert error == f"error: {split}: 5 errors, 0 warnings"
    assert f"edgekit data check {split}" in hint


def test_warnings_are_status_0_unless_strict(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(700, 20).save(split / "train" / "a" / "x.png")
    assert run(["data", "check", str(split)]) == 0
    assert "warning: tiny: 1\n" in capsys.readouterr().out
    assert run(["data", "check", str(split), "--strict"]) == 3
    assert "1 warning (--strict)" in capsys.readouterr().err


def test_what_is_only_said_is_status_0_even_if_strict(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(0).save(split / "train" / "a" / "x.jpg")
    assert run(["data", "check", str(split), "--strict"]) == 0
    assert "info: near duplicate: 1\n" in capsys.readouterr().out


def test_a_class_without_usable_images_can_be_left_out(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (split / "train" / "c").mkdir()
    (split / "train" / "c" / "x.svg").write_text("<svg/>")
    assert run(["data", "check", str(split)]) == 3
    assert "error: lost class: 1\n" in capsys.readouterr().out
    assert run(["data", "check", str(split), "--skip-empty"]) == 0
    assert "lost class" not in capsys.readouterr().out


def test_near_duplicates_can_be_left_out(split: Path) -> None:
    picture(0).save(split / "test" / "a" / "x.jpg")
    assert run(["data", "check", str(split)]) == 3
    assert run(["data", "check", str(split), "--no-near-duplicates"]) == 0


@pytest.mark.parametrize("wrong", [["--distance", "13"], ["--distance", "-1"], ["--image-size", "0"], []])
def test_a_wrong_request_is_status_2(split: Path, wrong: list[str]) -> None:
    assert run(["data", "check", *([str(split)] if wrong else []), *wrong]) == 2


def test_the_side_below_which_an_image_is_tiny_can_be_given(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = as_json(capsys, str(split), "--image-size", "49")
    assert (status, report["warnings"], {f["kind"] for f in report["findings"]}) == (0, 16, {"tiny"})


def test_json_holds_everything(flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (flat / "a" / f"bad{number:02}.png").write_text("")
    status, report = as_json(capsys, str(flat))
    assert status == 3
    assert set(report) == {"schema", "data", "split_folders", "images", "counts", "imbalance", "errors", "warnings",
                           "findings", "left_out", "read_as"}  # fmt: skip
    assert (report["schema"], report["data"], report["split_folders"], report["images"]) == (1, str(flat), [], 16)
    assert report["counts"]["a"] == {"train": 6, "val": 1, "test": 1}
    assert report["errors"] == len(report["findings"]) == 12
    for number, finding in enumerate(report["findings"]):
        assert set(finding) == {"kind", "severity", "message", "paths"}
        assert finding["severity"] == KINDS[finding["kind"]]
        assert finding["paths"] == [f"a/bad{number:02}.png"]


def test_hostile_names_are_printed_visibly_and_json_is_still_json(
    flat: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (flat / "b").rename(flat / "b\x1b[31m\r[red]")
    (flat / "a" / "x\x1b]0;t\x07.png").write_text("")
    shutil.copy(flat / "a" / "00.png", bytes(flat / "a" / "bad") + b"\xff.png")
    assert run(["data", "check", str(flat)]) == 3
    output = capsys.readouterr()
    assert (output.out + output.err).replace("\n", "").isprintable()
    assert "b\\x1b[31m\\r[red]" in output.out
    _, report = as_json(capsys, str(flat))
    assert {path for f in report["findings"] for path in f["paths"]} == {"a/x\x1b]0;t\x07.png", "a/bad\\xff.png"}


@pytest.mark.parametrize("make", ["empty", "loose", "rest"])
def test_a_folder_that_is_no_data_set_is_status_3(split: Path, tmp_path: Path, make: str) -> None:
    root = tmp_path / "other"
    root.mkdir()
    if make == "loose":
        picture(0).save(root / "a.png")
    if make == "rest":
        shutil.copytree(split / "train", root / "train")
        shutil.copytree(split / "val", root / "rest")
    assert run(["data", "check", str(root)]) == 3


def test_no_folder_at_all_is_status_4(tmp_path: Path) -> None:
    assert run(["data", "check", str(tmp_path / "none")]) == 4


def test_the_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys; from edgekit.cli.app import run; run(['data', 'check', '-h']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "PIL"} & set(done.stdout.splitlines()[-1].split())

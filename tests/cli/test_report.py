"""``edgekit report`` over measurements that lie in a run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit import store
from edgekit.bench import session
from edgekit.cli.app import run
from edgekit.report import html, pictures
from edgekit.train.evaluation import save
from tests.bench.results import artifact, result
from tests.report.evaluations import evaluation
from tests.report.made import meta

INT8 = artifact("android/model.int8.tflite", "int8", "litert", sha256="c" * 64)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Run:
    """A run with a baseline and one INT8 model, both measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    made = store.create_run(tmp_path / "runs", "digits", meta())
    (made.path / "checkpoint.pt").touch()
    store.save_json(made.path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": [INT8]})
    for one in (result(), result(INT8, ms=0.5)):
        session.save(made.path / "bench", one)
    return made


def test_the_newest_run_is_reported_and_its_page_written(
    measured: store.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert "run: digits (the newest)" in output.err
    assert "report: " in output.err
    assert [line.split()[0] for line in output.out.splitlines()[1:]] == ["baseline/pytorch", INT8.name]
    assert "android/model.int8.tflite" in (measured.path / "report.html").read_text()


def test_json_on_standard_output_is_nothing_else(measured: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "digits", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["artifact"], r["p50_ms"]) for r in rows] == [("baseline/pytorch", 2.0), (INT8.name, 0.5)]


def test_the_folder_of_runs_can_be_set_in_the_environment(
    measured: store.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir("/")
    assert run(["report", "digits"]) == 0


def test_measurements_of_other_weights_are_left_out(measured: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    measured.save(checkpoint_sha256="d" * 64)
    store.save_json(measured.path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": []})
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "nothing was measured yet; next: edgekit benchmark digits" in output.err
    assert "Figures" not in (measured.path / "report.html").read_text()


@pytest.mark.parametrize("key", ["arch", "history", "versions"])
def test_a_run_file_without_a_key_is_named_with_it(
    measured: store.Run, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    store.save_json(measured.path / "run.json", {k: v for k, v in measured.meta.items() if k != key})
    assert run(["report"]) == 3
    assert f"run.json is damaged: {key} missing" in capsys.readouterr().err
    assert not (measured.path / "report.html").exists()


def test_a_busy_machine_is_marked_in_the_table_and_below_it(
    measured: store.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = result(INT8, ms=0.5)
    session.save(measured.path / "bench", dataclasses.replace(busy, environment={**busy.environment, "busy_before": 1}))
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert ["0.500!" in line for line in output.out.splitlines()] == [False, False, True]
    assert "!: the machine was busy" in output.err


def test_measurements_that_were_touched_are_status_3(measured: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    next(measured.path.rglob("*.npz")).write_bytes(b"")
    assert run(["report"]) == 3
    assert "does not belong to" in capsys.readouterr().err
    assert not (measured.path / "report.html").exists()


# A run that was only trained -------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Run:
    """A run without exports, measurements or an evaluation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    made = store.create_run(tmp_path / "runs", "digits", meta())
    (made.path / "checkpoint.pt").touch()
    return made


def test_a_run_that_was_only_trained_has_its_page(trained: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "next: edgekit evaluate digits" in output.err
    assert "next: edgekit export digits --target jetson --target android" in output.err
    assert "edgekit evaluate digits" in (trained.path / "report.html").read_text()
    assert {p.name for p in (trained.path / "pictures").iterdir()} == {"learning_curves.svg"}


def test_its_json_is_an_empty_list(trained: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_judged_run_says_what_it_is_worth(trained: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    judged = evaluation()
    save(trained.path, judged)
    assert run(["report"]) == 0
    error = capsys.readouterr().err
    assert f"{judged.splits['test'].scores.top1:.1f} % of 18 test images right" in error
    assert "edgekit evaluate" not in error
    page = (trained.path / "report.html").read_text()
    assert "Wrong, and sure of it" in page
    pictures = {p.name for p in (trained.path / "pictures").iterdir()}
    assert pictures == {"learning_curves.svg", "confusion.svg", "reliability.svg", "mistakes.png"}


def test_an_evaluation_of_other_weights_is_not_shown(trained: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(trained.path, evaluation(checkpoint_sha256="d" * 64))
    assert run(["report"]) == 0
    assert "next: edgekit evaluate digits" in capsys.readouterr().err
    assert "Wrong, and sure of it" not in (trained.path / "report.html").read_text()


def test_the_picture_of_augmented_images_is_in_the_page(trained: store.Run) -> None:
    content = pictures.samples(np.zeros((2, 9, 9, 3), np.uint8), ["a", "b"])
    (trained.path / "pictures").mkdir()
    (trained.path / "pictures" / "samples.png").write_bytes(content)
    assert run(["report"]) == 0
    assert html.address(content) in (trained.path / "report.html").read_text()
    assert (trained.path / "pictures" / "samples.png").read_bytes() == content


def test_a_damaged_evaluation_is_status_3(trained: store.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(trained.path, evaluation())
    (trained.path / "evaluation.npz").write_bytes(b"")
    assert run(["report"]) == 3
    assert "does not belong to evaluation.json" in capsys.readouterr().err
    assert not (trained.path / "report.html").exists()


def test_a_report_needs_no_torch(trained: store.Run) -> None:
    save(trained.path, evaluation())
    code = "import sys; from edgekit.cli.app import run; assert run(['report']) == 0; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

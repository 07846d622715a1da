"""``edgekit report`` over measurements that lie in a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgekit import store
from edgekit.bench import session
from edgekit.cli.app import run
from tests.bench.results import artifact, result
from tests.report.test_html import meta

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
    assert run(["report"]) == 4
    assert "has no measurements yet" in capsys.readouterr().err


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

"""What is said of gates, and when they are an error."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit import config
from edgekit.api.benchmark import Benchmarked, _plan, check_gates, report_missing
from edgekit.errors import ExitStatus, GateError, UsageError
from edgekit.measurements import BenchmarkResult, Gates, Suite, Summary
from tests.bench.results import BASELINE_ROW, artifact, result, row
from tests.reporting import made

ROW = row(drop=0.3, drop_low=-1.0, drop_high=1.6)
MEASURED = {(ROW.artifact, ROW.device), (BASELINE_ROW.artifact, BASELINE_ROW.device)}


def check(gates: Gates, rows: list[Summary], measured: set[tuple[str, str]], strict: bool) -> None:
    check_gates(Benchmarked(made.run(), Suite("mine", gates=gates), [], rows, measured), strict)


def say_missing(suite: Suite, results: list[BenchmarkResult], measured: set[tuple[str, str]]) -> None:
    report_missing(Benchmarked(made.run(), suite, results, [], measured))


def test_without_gates_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    check(Gates(), [BASELINE_ROW, ROW], MEASURED, strict=True)
    assert capsys.readouterr() == ("", "")


def test_what_holds_is_counted_and_standard_output_stays_free(capsys: pytest.CaptureFixture[str]) -> None:
    check(Gates(max_drop=2.0), [BASELINE_ROW, ROW], MEASURED, strict=True)
    assert capsys.readouterr() == ("", "gates: 1 of 1 held\n")


def test_a_broken_gate_is_said_and_is_status_7(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GateError, match=r"1 of 1 gates do not hold \(--max-p90-ms\)") as caught:
        check(Gates(max_p90_ms=1.0), [ROW], MEASURED, strict=False)
    assert caught.value.status == ExitStatus.GATE == 7
    assert "quant debug" not in caught.value.hint
    assert capsys.readouterr().err.startswith("gate broken: android/model.int8.tflite on local: p90 is 3.2 ms")


def test_doubt_is_a_note_and_an_error_only_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    check(Gates(max_drop=1.0), [ROW], MEASURED, strict=False)
    assert "gate doubtful: " in capsys.readouterr().err
    with pytest.raises(GateError, match="--max-drop") as caught:
        check(Gates(max_drop=1.0), [ROW], MEASURED, strict=True)
    assert "edgekit quant debug" in caught.value.hint


@pytest.mark.parametrize("rows", [[], [BASELINE_ROW], [BASELINE_ROW, row(device="phone")]])
def test_gates_on_nothing_that_was_measured_now_are_not_kept(rows: list) -> None:
    with pytest.raises(GateError, match="no artifact was measured"):
        check(Gates(max_drop=50.0), rows, MEASURED, strict=False)


def test_a_percentile_that_the_suite_promised_and_the_queries_lack_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    int8 = artifact("android/model.int8.tflite", "int8", "litert")
    few = result(int8, latencies_ns=(1_000_000,) * 100)
    suite = Suite("mine", percentiles=(50, 90, 95, 99))
    measured = {(int8.name, "local")}
    say_missing(suite, [few, result(), result(int8, latencies_ns=(1,), device="other")], measured)
    assert capsys.readouterr().err == (
        "android/model.int8.tflite on local: insufficient samples, 100 queries; p95 needs 130, p99 needs 662\n"
    )
    say_missing(suite, [result(int8)], measured)
    say_missing(suite, [result(int8, latencies_ns=(1,), source="emulated")], measured)
    assert capsys.readouterr().err == ""


def test_a_device_that_a_program_measured_is_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    phone = {*MEASURED, (ROW.artifact, "phone"), ("android/other.tflite", "local")}
    with pytest.raises(GateError, match="1 of 2 gates do not hold"):
        check(Gates(min_speedup=0.1), [BASELINE_ROW, row(speedup_low=3.9)], phone, strict=False)
    assert "gate insufficient: android/model.int8.tflite on phone: " in capsys.readouterr().err


def test_queries_that_a_start_up_took_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).normal(size=700)
    slow = 2e6 * (1 + 0.03 * noise) * np.where(np.arange(700) < 60, 2, 1)
    int8 = artifact("android/model.int8.tflite", "int8", "litert")
    started = result(int8, latencies_ns=tuple(int(v) for v in slow))
    say_missing(Suite("mine", percentiles=(50, 99)), [started], {(int8.name, "local")})
    said = capsys.readouterr().err
    assert re.search(r"insufficient samples, 6\d\d queries without [67]\d of the start-up; p99 needs 662$", said)


def test_the_fp32_reference_is_not_judged_unless_it_is_named_or_answers_with_no_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fp32 = row(artifact="android/model.fp32.tflite", precision="fp32", speedup=1.0, speedup_low=0.9)
    int8 = row(speedup=4.0, speedup_low=3.9, latency=None)
    gates = Gates(min_speedup=2.0)

    def judge(*rows: Summary, named: tuple[str, ...] = ()) -> None:
        measured = {(each.artifact, each.device) for each in (BASELINE_ROW, *rows)}
        check_gates(Benchmarked(made.run(), Suite("mine", gates=gates), [], [BASELINE_ROW, *rows], measured, named))

    judge(fp32, int8)
    text = capsys.readouterr().err
    assert "gates: not of android/model.fp32.tflite, for reference; --artifact NAME judges one too" in text
    assert "gates: 1 of 1 held" in text
    with pytest.raises(GateError, match="1 of 2 gates"):
        judge(fp32, int8, named=(fp32.artifact, int8.artifact))
    with pytest.raises(GateError, match="1 of 1 gates"):
        judge(fp32)  # all there is
    with pytest.raises(GateError, match="1 of 2 gates"):
        judge(dataclasses.replace(fp32, no_answer=3), int8)


def test_only_the_models_that_are_named_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["android/model.fp32.tflite", "android/model.int8.tflite", "rpi/model.int8.tflite"]
    known = [artifact(name, name.split(".")[1], "litert") for name in names]
    monkeypatch.setattr("edgekit.api.artifacts.current_artifacts", lambda run, sha256: known)
    monkeypatch.setattr("edgekit.bench.session.is_installed", lambda runtime: True)
    of = SimpleNamespace(run=SimpleNamespace(path=Path("x"), handle="x"), checkpoint=SimpleNamespace(sha256="b" * 64))

    def planned(*named: str) -> list[str]:
        ((_, work),) = _plan(of, [config.load_device("local")], named, [])  # type: ignore[arg-type]
        return [each.name for each, _ in work]

    assert planned() == names
    assert planned(names[1]) == names[1:2]
    assert planned(names[2], names[0]) == [names[0], names[2]]
    with pytest.raises(UsageError, match=r"unknown artifact 'model\.int8\.tflite'"):
        planned("model.int8.tflite")

"""Gates: each outcome by its figure, its interval, and where it was measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgekit.bench.gates import BROKEN, DOUBTFUL, HELD, INSUFFICIENT, NOT_SHOWN, judge
from edgekit.bench.latency import latency
from edgekit.measurements import Summary
from edgekit.suites import Gates
from tests.bench.results import BASELINE_ROW, row

P90 = latency([3_000_000 + n * 37 % 101 for n in range(700)])


def good(**changes: Any) -> Summary:
    """A row that a tight measurement gives."""
    fields = {"drop_low": -0.2, "drop_high": 0.2, "speedup_low": 3.9, "speedup_high": 4.1, "latency": P90, **changes}
    return row(**fields)


def outcomes(gates: Gates, *rows: Summary) -> list[str]:
    return [verdict.outcome for verdict in judge(rows, gates)]


@pytest.mark.parametrize(
    ("gates", "changes", "expected"),
    [
        (Gates(max_drop=1.0), {}, HELD),
        (Gates(max_drop=0.0), {"drop_high": 0.0}, HELD),
        (Gates(max_drop=1.0), {"drop": 1.1, "drop_high": 2.0}, BROKEN),
        (Gates(max_drop=1.0), {"drop": 0.3, "drop_high": 2.0}, DOUBTFUL),
        (Gates(max_drop=1.0), {"drop_high": None}, DOUBTFUL),
        (Gates(min_accuracy=98.0), {}, HELD),
        (Gates(min_accuracy=98.0), {"top1": 94.8, "drop": 3.0, "drop_high": 4.0}, BROKEN),
        (Gates(min_accuracy=98.0), {"top1": 96.8, "drop": 1.0, "drop_high": 3.0}, DOUBTFUL),
        (Gates(min_accuracy=98.0), {"top1": 0.0, "drop": 0.0}, INSUFFICIENT),
        (Gates(max_p90_ms=3.3), {}, HELD),
        (Gates(max_p90_ms=3.1), {}, BROKEN),
        (Gates(max_p90_ms=3.3), {"p90_ms": None}, INSUFFICIENT),
        (Gates(max_p90_ms=3.3), {"latency": None}, DOUBTFUL),
        (Gates(min_speedup=2.0), {}, HELD),
        (Gates(min_speedup=5.0), {}, BROKEN),
        (Gates(min_speedup=3.95), {}, DOUBTFUL),
        (Gates(min_speedup=2.0), {"speedup": None}, INSUFFICIENT),
    ],
)
def test_each_outcome(gates: Gates, changes: dict[str, Any], expected: str) -> None:
    (verdict,) = judge([BASELINE_ROW, good(**changes)], gates)
    assert verdict.outcome == expected
    assert verdict.fails(strict=False) is (expected in (BROKEN, INSUFFICIENT))
    assert verdict.fails(strict=True) is (expected != HELD)


@pytest.mark.parametrize("changes", [{"stand_in": True}, {"source": "emulated"}])
def test_a_latency_that_is_not_the_artifact_s_is_not_shown_but_its_accuracy_counts(changes: dict[str, Any]) -> None:
    gates = Gates(max_drop=1.0, max_p90_ms=0.1, min_speedup=9.0)
    assert outcomes(gates, good(**changes), good()) == [HELD, HELD, NOT_SHOWN, BROKEN, NOT_SHOWN, BROKEN]


def test_a_gate_that_no_row_could_show_is_never_passed() -> None:
    """Else a limit on the latency of a Jetson would hold wherever no Jetson is."""
    (verdict,) = judge([BASELINE_ROW, good(stand_in=True, ran_in="onnxruntime 1.23")], Gates(max_p90_ms=9.0))
    assert verdict.outcome == INSUFFICIENT
    assert verdict.text.endswith("p90 is: onnxruntime 1.23 stands in for its runtime, asked at most 9 ms")


def test_the_baseline_is_not_gated_and_no_limit_is_no_verdict() -> None:
    assert judge([BASELINE_ROW], Gates(max_p90_ms=0.1)) == []
    assert judge([good()], Gates()) == []


def test_words_have_the_figures_the_limit_and_the_interval() -> None:
    (verdict,) = judge([good(drop=0.3, drop_high=2.25)], Gates(max_drop=1.0))
    assert verdict.text == (
        "android/model.int8.tflite on local: the drop of top-1 is 0.3 points, asked at most 1 points; its 95 % "
        "interval reaches 2.25 points"
    )
    (verdict,) = judge([good(speedup=None)], Gates(min_speedup=2.0))
    assert "the speed-up is: no baseline with as many threads, asked at least 2x" in verdict.text
    (verdict,) = judge([dataclasses.replace(good(), speedup=None, p50_ms=None)], Gates(min_speedup=2.0))
    assert "insufficient samples" in verdict.text

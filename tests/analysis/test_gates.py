"""Gates: each outcome by its figure, its interval, and where it was measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgekit.analysis.gates import Outcome, judge
from edgekit.measurements import Gates, Summary
from edgekit.stats.latency import LatencySeries
from tests.bench.results import BASELINE_ROW, row

BROKEN, DOUBTFUL, HELD = Outcome.BROKEN, Outcome.DOUBTFUL, Outcome.HELD
INSUFFICIENT, NOT_SHOWN = Outcome.INSUFFICIENT, Outcome.NOT_SHOWN
P90 = LatencySeries([3_000_000 + n * 37 % 101 for n in range(700)]).figures


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
    assert verdict.text.endswith("p90 is not known (onnxruntime 1.23 stood in for its runtime), asked at most 9 ms")


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
    assert verdict.text.endswith("the speed-up is not known (no baseline has as many threads), asked at least 2x")
    (verdict,) = judge([dataclasses.replace(good(), speedup=None, p50_ms=None)], Gates(min_speedup=2.0))
    assert verdict.text.endswith("the speed-up is not known (the samples are too few), asked at least 2x")


@pytest.mark.parametrize(("gates", "broken"), [(Gates(max_p90_ms=3.3), Gates(max_p90_ms=3.1)),
                                               (Gates(min_speedup=2.0), Gates(min_speedup=5.0))])  # fmt: skip
def test_other_work_makes_a_latency_doubtful_and_a_broken_gate_worth_a_second_try(gates: Gates, broken: Gates) -> None:
    busy = good(busy=True, speedup_doubtful=True)
    (verdict,) = judge([busy], gates)
    assert verdict.outcome == DOUBTFUL
    assert verdict.text.endswith("; other work ran while it was measured")
    (verdict,) = judge([busy], broken)
    assert verdict.outcome == BROKEN
    assert verdict.text.endswith("; the machine was busy, measure again")
    assert outcomes(Gates(max_drop=1.0), busy) == [HELD]


def test_a_busy_baseline_makes_the_speed_up_alone_doubtful() -> None:
    row = good(speedup_doubtful=True)
    assert outcomes(Gates(max_p90_ms=3.3, min_speedup=2.0), row) == [HELD, DOUBTFUL]
    assert "other work ran while the baseline was measured" in judge([row], Gates(min_speedup=2.0))[0].text


def test_what_is_left_out_as_a_start_up_is_never_held_for_sure() -> None:
    started = good(latency=dataclasses.replace(P90, warmup=40))
    gates = Gates(max_drop=1.0, max_p90_ms=3.3, min_speedup=2.0)
    assert outcomes(gates, started) == [HELD, DOUBTFUL, DOUBTFUL]
    assert "the first 40 measured queries are left out as a start-up" in judge([started], gates)[1].text
    assert outcomes(Gates(max_p90_ms=3.1), started) == [BROKEN]


def test_a_device_without_rows_is_not_passed_over() -> None:
    gates, phone = Gates(max_drop=1.0, max_p90_ms=3.3), {("android/model.int8.tflite", "phone")}
    verdicts = judge([good()], gates, phone)
    assert [(v.device, v.outcome) for v in verdicts] == [
        ("local", HELD), ("phone", NOT_SHOWN), ("local", HELD), ("phone", INSUFFICIENT)
    ]  # fmt: skip
    assert verdicts[-1].text == (
        "android/model.int8.tflite on phone: p90 is not known (no single times were kept), asked at most 3.3 ms"
    )


def test_a_loss_of_exactly_the_limit_is_kept() -> None:
    """99 of 100 against 100, and so on; as a difference of two shares most of these are a little above 1."""
    for right in range(2, 100):
        exact = good(samples=100, top1=100 * (right - 1) / 100, drop=1.0, drop_low=0.9, drop_high=1.0)
        assert outcomes(Gates(max_drop=1.0), exact) == [HELD]
        share = 100 * (right - 1) / right
        assert outcomes(Gates(min_accuracy=share), exact)[0] != BROKEN
        assert outcomes(Gates(min_accuracy=share * (1 + 1e-12)), exact) == [BROKEN]


def test_no_gate_is_held_by_answers_that_are_no_numbers() -> None:
    every = Gates(max_drop=50.0, min_accuracy=1.0, max_p90_ms=3.3, min_speedup=2.0)
    verdicts = judge([good(no_answer=37, samples=100)], every)
    assert [verdict.outcome for verdict in verdicts] == [BROKEN] * 4
    assert verdicts[0].text == (
        "android/model.int8.tflite on local: 37 of 100 answers are NaN or infinite, so no gate is held"
    )


def test_a_baseline_whose_answers_are_no_numbers_is_no_measure_of_accuracy() -> None:
    verdicts = judge([good(baseline_no_answer=270)], Gates(max_drop=1.0, min_accuracy=99.0))
    assert [verdict.outcome for verdict in verdicts] == [INSUFFICIENT] * 2
    assert "(of the baseline, 270 of 270 answers are NaN or infinite)" in verdicts[0].text

"""The sentences, and that they claim no more than the figures carry."""

from __future__ import annotations

import dataclasses

import pytest

from edgekit.report.verdict import sentences, trained
from tests.bench.results import BASELINE_ROW, row
from tests.report.evaluations import evaluation, split

FP32 = row(artifact="android/model.fp32.tflite", precision="fp32", size_mb=9.6, p50_ms=9.0)


def sentence(**changes: object) -> str:
    (only,) = sentences([BASELINE_ROW, FP32, row(**changes)])
    return only


def test_only_int8_rows_get_a_sentence() -> None:
    assert sentences([BASELINE_ROW, FP32]) == []
    assert len(sentences([BASELINE_ROW, FP32, row(), row(target="rpi")])) == 2


@pytest.mark.parametrize(
    ("drop", "p", "says"),
    [
        (2.0, 0.001, "loses 2.0 points of top-1 (p = 0.001)"),
        (-2.0, 0.001, "gains 2.0 points of top-1"),
        (0.4, 0.5, "0.4 points below the baseline: no difference that 270 images can show"),
        (-0.4, 0.5, "0.4 points above the baseline: no difference that 270 images can show"),
        (0.0, 1.0, "like the baseline: no difference that 270 images can show"),
    ],
)
def test_a_difference_is_claimed_only_where_it_is_significant(drop: float, p: float, says: str) -> None:
    text = sentence(drop=drop, p_value=p)
    assert says in text
    assert ("loses" in text or "gains" in text) == (p < 0.05)


def test_size_and_time_are_compared_with_fp32_of_the_same_target() -> None:
    text = sentence()
    assert "2.4 MB, 4.0 times smaller than FP32" in text
    assert "3.00 times as fast as FP32 in ai-edge-litert 2.0 on this machine" in text


def test_a_stand_in_says_nothing_about_time() -> None:
    text = sentence(stand_in=True)
    assert "as fast" not in text
    assert "must be measured on the device" in text


@pytest.mark.parametrize("other", [{"target": "rpi"}, {"device": "board"}])
def test_without_an_fp32_of_its_own_nothing_is_compared(other: dict[str, str]) -> None:
    (text,) = sentences([BASELINE_ROW, dataclasses.replace(FP32, **other), row()])
    assert "FP32" not in text


def test_without_latencies_time_is_left_out() -> None:
    assert "as fast" not in sentence(p50_ms=None)


def test_a_trained_network_is_judged_in_three_sentences() -> None:
    judged = evaluation()
    test = judged.splits["test"]
    right, calibrated, doubt = trained(judged)
    assert right.startswith(
        f"{test.scores.top1:.1f} % of 18 test images right (95 % interval {test.scores.top1_low:.1f}-"
    )
    assert f"F1 {test.scores.macro.f1:.1f} %" in right
    assert "no test image" not in right
    assert (
        f"Temperature 1.50, fitted on val, takes NLL on test from {test.before.nll:.3f} to {test.after.nll:.3f}"
        in calibrated
    )
    assert "rate 0.3, 64 samples" in doubt


@pytest.mark.parametrize(
    ("helps", "images", "says"),
    [
        (True, 100, "better by more than chance"),
        (True, 99, "no gain beyond chance"),
        (False, 1000, "no gain beyond chance"),
    ],
)
def test_a_gain_of_dropout_is_claimed_only_where_there_is_one(helps: bool, images: int, says: str) -> None:
    judged = evaluation()
    fitted = dataclasses.replace(judged.dropout, helps=helps, fitted_on=images)
    assert says in trained(dataclasses.replace(judged, dropout=fitted))[2]


@pytest.mark.parametrize(("temperature", "limit"), [(20.0, True), (0.05, True), (1.5, False)])
def test_a_temperature_at_its_limit_is_called_so(temperature: float, limit: bool) -> None:
    judged = dataclasses.replace(evaluation(), temperature=temperature)
    assert ("at its limit" in trained(judged)[1]) == limit


def test_classes_that_test_does_not_have_are_mentioned() -> None:
    judged = evaluation(("cat", "dog", "owl", "bat"))
    kept = judged.raw["test_labels"] < 2
    short = split(judged.raw["test_logits"][kept], judged.raw["test_labels"][kept])
    judged = dataclasses.replace(judged, splits={"val": short, "test": short})
    assert "2 of 4 classes have no test image and are left out" in trained(judged)[0]

"""The sentences, and that they claim no more than the figures carry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.analysis.summary import summarize
from edgekit.measurements import Gates, Summary
from edgekit.reporting import decide, tables
from edgekit.reporting.decide import training_verdicts
from tests.bench.results import artifact, result, row
from tests.reporting.evaluations import evaluation, split


def test_a_trained_network_is_judged_in_three_sentences() -> None:
    judged = evaluation()
    test = judged.splits["test"]
    right, calibrated, doubt = training_verdicts(judged)
    assert right.startswith(
        f"Test accuracy: {test.scores.top1:.1f} % of 18 images (95 % interval {test.scores.top1_low:.1f}-"
    )
    assert f"F1 {test.scores.macro.f1:.1f} %" in right
    assert "no test image" not in right
    assert (
        f"temperature 1.50, fitted on val, changes NLL on test from {test.before.nll:.3f} to {test.after.nll:.3f}"
        in calibrated
    )
    assert "64 dropout samples at rate 0.3" in doubt


@pytest.mark.parametrize(
    ("helps", "images", "says"),
    [
        (True, 100, "; a significant gain on val"),
        (True, 99, "; no significant gain on val"),
        (False, 1000, "; no significant gain on val"),
    ],
)
def test_a_gain_of_dropout_is_claimed_only_where_there_is_one(helps: bool, images: int, says: str) -> None:
    judged = evaluation()
    fitted = dataclasses.replace(judged.dropout, helps=helps, fitted_on=images)
    assert says in training_verdicts(dataclasses.replace(judged, dropout=fitted))[2]


@pytest.mark.parametrize(("temperature", "limit"), [(20.0, True), (0.05, True), (1.5, False)])
def test_a_temperature_at_its_limit_is_called_so(temperature: float, limit: bool) -> None:
    judged = dataclasses.replace(evaluation(), temperature=temperature)
    assert ("at its limit" in training_verdicts(judged)[1]) == limit


def test_classes_that_test_does_not_have_are_mentioned() -> None:
    judged = evaluation(("cat", "dog", "owl", "bat"))
    kept = judged.raw["test_labels"] < 2
    short = split(judged.raw["test_logits"][kept], judged.raw["test_labels"][kept])
    judged = dataclasses.replace(judged, splits={"val": short, "test": short})
    assert "without 2 of 4 classes that have no test image" in training_verdicts(judged)[0]


# INT8 against FP16 -------------------------------------------------------------------------------


def on_orin(precision: str, /, **changes: object) -> Summary:
    fields = {"target": "jetson", "device": "orin", "source": "device", "ran_in": "tensorrt 10.3.0"}
    return row(**{**fields, "artifact": f"jetson/model.{precision}.onnx", "precision": precision, **changes})


@pytest.mark.parametrize(
    ("int8", "fp16_ms", "says"),
    [
        ({"p50_ms": 1.0}, 1.5, "orin: ship int8. INT8 is 1.50 times as fast as FP16"),
        ({"p50_ms": 1.0}, 1.14, "orin: ship fp16. INT8 is only 1.14 times as fast as FP16"),
        ({"p50_ms": 1.0}, 1.15, "orin: ship int8."),
        ({"p50_ms": 1.0, "drop": 1.1}, 1.5, "orin: ship fp16."),
        ({"p50_ms": 1.0, "drop": 1.0}, 1.5, "orin: ship int8."),
        ({"p50_ms": 1.0, "drop": -3.0}, 1.5, "orin: ship int8."),
    ],
)
def test_int8_is_shipped_where_it_is_fast_and_right_enough(int8: dict[str, float], fp16_ms: float, says: str) -> None:
    (line,) = decide.quantization_verdicts([on_orin("fp16", p50_ms=fp16_ms), on_orin("int8", **int8)])
    assert line.startswith(says)


def test_where_fp16_is_too_wrong_as_well_neither_is_shipped() -> None:
    (line,) = decide.quantization_verdicts(
        [on_orin("fp16", p50_ms=2.0, drop=60.0), on_orin("int8", p50_ms=1.0, drop=40.0)]
    )
    assert line.startswith(
        "orin: nothing to ship. No measured model stays within 1 point of top-1; the nearest is jetson"
    )
    assert "40.0 points of top-1 below" in line


def test_gates_and_cautions_are_those_of_the_page() -> None:
    rows = [on_orin("fp16", p50_ms=2.0), on_orin("int8", p50_ms=1.0, drop=0.4, drop_low=-0.2, drop_high=1.3)]
    (line,) = decide.quantization_verdicts(rows)
    assert line.startswith("orin: ship int8.")
    assert line.endswith(" Note: with 270 images the loss may be up to 1.3 points.")
    assert decide.quantization_verdicts(rows, Gates(max_drop=0.2))[0].startswith("orin: ship fp16.")


def test_a_network_that_always_answers_one_class_is_warned_of() -> None:
    truth = np.repeat(np.arange(3), 6)
    constant = split(np.tile(np.float32([0, 2, 1]), (18, 1)), truth)
    lines = decide.training_verdicts(evaluation(splits={"val": constant, "test": constant}))
    assert lines[0].startswith("warning: the network answers dog for each of the 18 test images")
    assert lines[1].startswith("Test accuracy: 33.3 %")
    assert decide.training_verdicts(evaluation())[0].startswith("Test accuracy")
    of_one_class = split(np.tile(np.float32([0, 2, 1]), (18, 1)), np.ones(18, int))
    assert decide.training_verdicts(evaluation(splits={"val": of_one_class, "test": of_one_class}))[0].startswith(
        "Test accuracy"
    )


def test_a_file_that_always_answers_one_class_is_warned_of_where_it_is_measured() -> None:
    base = result()
    answers = np.tile(np.float32([0, 2, 1]), (40, 1))
    constant = result(artifact("android/model.int8.tflite", "int8", "litert"), logits=answers)
    rows = summarize([base, constant])
    assert [row.one_class for row in rows] == [False, True]
    says = "warning: the same class for every image, so of no use: android/model.int8.tflite on local"
    assert says in tables.footnotes(rows)
    assert not any("same class" in line for line in tables.footnotes(rows[:1]))
    (found,) = decide.decide([dataclasses.replace(row, drop=0.0) for row in rows])
    assert "it answers the same class for every image" in found.cautions


def test_figures_of_different_power_modes_are_called_so() -> None:
    rows = [on_orin("fp16", p50_ms=2.5, state={"power_mode": "MAXN"}), on_orin("int8", state={"power_mode": "15W"})]
    assert "different power modes (15W, MAXN)" in decide.quantization_verdicts(rows)[0]


def test_a_verdict_on_a_board_that_was_slowed_down_says_so() -> None:
    rows = [on_orin("fp16", p50_ms=1.4), on_orin("int8", p50_ms=1.0, throttling=("hot",))]
    assert "the board was throttled" in decide.quantization_verdicts(rows)[0]
    assert "the board was throttled" not in decide.quantization_verdicts([rows[0], on_orin("int8", p50_ms=1.0)])[0]


@pytest.mark.parametrize("changes", [{"stand_in": True}, {"p50_ms": None}])
def test_without_a_latency_of_the_device_itself_nothing_is_shipped(changes: dict[str, object]) -> None:
    (line,) = decide.quantization_verdicts([on_orin("fp16", **changes), on_orin("int8", **changes)])
    assert line.startswith("orin: nothing to ship. Not decided")


def test_equal_files_of_two_targets_give_one_verdict_the_desktop_and_browsers_none() -> None:
    rows = [on_orin("fp16", p50_ms=2.0), on_orin("int8", p50_ms=1.0)]
    twins = [dataclasses.replace(r, target="jetson-orin-nano") for r in rows]
    assert len(decide.quantization_verdicts([*rows, *twins])) == 1
    assert decide.quantization_verdicts([dataclasses.replace(r, source="host") for r in rows]) == []
    assert decide.quantization_verdicts([dataclasses.replace(r, ran_in="LiteRT.js 2.5.3") for r in rows]) == []

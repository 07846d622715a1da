"""What quantization changed: classes, pairs and single images, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.measurements import BenchmarkResult
from edgekit.reporting.changes import (
    Change,
    ChangeKind,
    changes,
    class_table,
    classes_text,
    pair_table,
    picture,
    shown_images,
)
from edgekit.stats.proportions import holm
from tests.bench.results import artifact, result

BROKE, REPAIRED, BOTH_WRONG = ChangeKind
EXPECTED = np.array([0, 0, 0, 1, 1, 2])
BEFORE = [0, 0, 1, 1, 2, 2]
AFTER = [1, 0, 0, 1, 0, 2]  # broke, -, repaired, -, both wrong, -


def said(answers: list[int], name: str = "android/model.int8.tflite", **more: object) -> BenchmarkResult:
    of = artifact() if name.startswith("baseline") else artifact(name, "int8", "litert")
    logits = 3 * np.eye(3, dtype=np.float32)[answers]
    return result(of, logits=logits, expected=EXPECTED, **more)


BASE = said(BEFORE, "baseline/pytorch")


def found(*results: BenchmarkResult) -> Change:
    (only,) = changes([BASE, *results])
    return only


def test_answers_are_broke_repaired_or_both_wrong() -> None:
    change = found(said(AFTER))
    assert [(a.image, a.kind, a.label, a.before, a.after) for a in change.answers] == [
        (0, BROKE, 0, 0, 1), (2, REPAIRED, 0, 1, 0), (4, BOTH_WRONG, 1, 2, 0)
    ]  # fmt: skip
    assert change.drop == 0
    assert change.answers[0].sure == pytest.approx(np.exp(3) / (np.exp(3) + 2))


def test_recall_by_class_and_cells_of_the_confusion_matrix() -> None:
    change = found(said([1, 1, 1, 1, 1, 2]))
    assert {c.label: (c.images, round(c.before), round(c.after)) for c in change.classes} == {
        0: (3, 67, 0), 1: (2, 50, 100), 2: (1, 100, 100)
    }  # fmt: skip
    assert change.classes[0].label == 0  # the most worsened first
    assert {(p.label, p.said): (p.before, p.after) for p in change.pairs} == {
        (0, 0): (2, 0), (0, 1): (1, 3), (1, 1): (1, 2), (1, 2): (1, 0)
    }  # fmt: skip


def test_equal_answers_are_one_entry_and_the_most_changed_comes_first() -> None:
    one, twin, same = said(AFTER), said(AFTER, "ios/model.int8.tflite"), said(BEFORE, "rpi/model.int8.tflite")
    first, second = changes([BASE, same, twin, one])
    assert first.names == ("android/model.int8.tflite on local", "ios/model.int8.tflite on local")
    assert second.answers == ()
    assert second.pairs == ()


def test_what_answered_other_images_or_has_no_baseline_is_left_out() -> None:
    other = said(AFTER)
    object.__setattr__(other, "expected", EXPECTED[::-1])
    assert changes([BASE, other]) == []
    assert changes([said(AFTER)]) == []


def test_other_baselines_are_neither_changed_nor_compared_with() -> None:
    other = said([2] * 6, "baseline/onnxruntime")
    object.__setattr__(other, "artifact", artifact("baseline/onnxruntime", "fp32", "onnxruntime"))
    compiled = said([2] * 6, "baseline/compiled")
    object.__setattr__(compiled, "artifact", artifact("baseline/compiled"))
    (only,) = changes([compiled, other, BASE, said(AFTER)])
    assert len(only.answers) == 3


def test_holm_is_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def many(classes: int, moved: int) -> Change:
    """Ten images a class, all right before; all of the first `moved` classes are wrong now."""
    expected = np.repeat(np.arange(classes), 10)
    after = np.where(expected < moved, (expected + 1) % classes, expected)
    eye = np.eye(classes, dtype=np.float32)
    base = result(logits=eye[expected], expected=expected)
    (only,) = changes([base, result(artifact("a/b.tflite", "int8", "litert"), logits=eye[after], expected=expected)])
    return only


def test_a_class_must_be_significant_among_all_of_them() -> None:
    # Ten of ten broke: p = 2/1024; among 20 classes 0.039, among 40 only 0.078.
    assert (many(20, 1).suspects, len(many(20, 1).significant)) == (1, 1)
    assert (many(40, 1).suspects, len(many(40, 1).significant)) == (1, 0)
    text = classes_text(many(40, 1))
    assert "After Holm's correction 0 of these changes are significant" in text
    assert text.endswith("; without it 1, where chance alone gives up to 2.0.")


def test_of_many_classes_the_most_changed_are_shown_and_the_rest_is_named() -> None:
    change = many(40, 30)
    table = class_table(change, [f"c{n}" for n in range(40)])
    assert len(list(table.rows)) == 10
    assert "the 10 most changed of 30" in table.notes[0]
    assert len(list(pair_table(change, [f"c{n}" for n in range(40)]).rows)) == 10
    assert picture(change, [f"c{n}" for n in range(40)]) == ""
    assert picture(many(3, 1), ["a", "<b>", "c"]).count("&lt;b&gt;") == 2


def test_at_most_so_many_images_are_shown_and_every_model_gets_its_turn() -> None:
    chosen = shown_images([many(20, 20), many(20, 1)], most=8)
    assert [n for n, _ in chosen] == [0] * 4 + [1] * 4
    assert len(shown_images([many(20, 20)])) == 24
    assert shown_images([]) == []
    kinds = [a.kind for _, a in shown_images([found(said(AFTER))])]
    assert kinds == [BROKE, REPAIRED, BOTH_WRONG]


def test_answers_that_are_no_numbers_have_a_column_and_a_name_of_their_own() -> None:
    lost = said(AFTER)
    lost.logits[[1, 5]] = np.nan
    change = found(lost)
    assert [(a.image, a.kind, a.after, a.sure) for a in change.answers if a.after == -1] == [
        (1, BROKE, -1, 0.0), (5, BROKE, -1, 0.0)
    ]  # fmt: skip
    assert {(p.label, p.said): (p.before, p.after) for p in change.pairs if p.said == -1} == {
        (0, -1): (0, 1), (2, -1): (0, 1)
    }  # fmt: skip
    assert ("cat", "(no number)", "0", "1", "+1") in list(pair_table(change, ("cat", "dog", "owl")).rows)
    assert "<svg" in picture(change, ("cat", "dog", "owl"))

"""Scores and calibration against scikit-learn, closed forms and answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from edgekit.evaluation import metrics

CLASSES = 5


def answers(seed: int, count: int = 80, classes: int = CLASSES, lost: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits that are right more often than not; the last `lost` classes have no images."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - lost, count)
    logits = rng.normal(0, 1, (count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1.2
    return logits, labels


@pytest.mark.parametrize("lost", [0, 1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_scikit_learn(seed: int, lost: int) -> None:
    logits, labels = answers(seed, lost=lost)
    predicted, present = logits.argmax(1), np.unique(labels)
    found = metrics.scores(logits, labels)
    assert found.samples == len(labels)
    assert found.top1 == pytest.approx(100 * sk.accuracy_score(labels, predicted))
    assert found.top1_low < found.top1 < found.top1_high
    recalls = sk.recall_score(labels, predicted, labels=present, average=None)
    assert found.balanced_accuracy == pytest.approx(100 * recalls.mean())
    for average in ("macro", "weighted"):
        want = sk.precision_recall_fscore_support(labels, predicted, labels=present, average=average, zero_division=0)
        mean = getattr(found, average)
        assert (mean.precision, mean.recall, mean.f1) == pytest.approx([100 * v for v in want[:3]])
    want = sk.precision_recall_fscore_support(labels, predicted, labels=present, zero_division=0)
    for position, number in enumerate(present):
        one = found.classes[number]
        assert (one.precision, one.recall, one.f1) == pytest.approx([100 * v[position] for v in want[:3]])
        assert one.support == want[3][position]
    matrix = sk.confusion_matrix(labels, predicted, labels=range(CLASSES))
    assert {(r, c): n for r, c, n in found.confusion} == {(r, c): matrix[r, c] for r, c in np.argwhere(matrix)}


def test_a_class_without_images_has_no_recall_and_is_in_no_average() -> None:
    logits = np.eye(4)[[0, 0, 1, 3]]
    found = metrics.scores(logits, np.array([0, 0, 1, 1]))
    assert found.absent == 2
    assert [c.recall for c in found.classes] == [100, 50, None, None]
    assert [c.f1 for c in found.classes] == [100, pytest.approx(200 / 3), None, None]
    assert [c.precision for c in found.classes] == [100, 100, None, 0]  # class 3 was said once, wrongly
    assert found.macro.recall == 75
    assert found.balanced_accuracy == 75


def test_a_class_that_is_never_predicted_has_precision_zero_and_counts() -> None:
    found = metrics.scores(np.eye(2)[[0, 0, 0]], np.array([0, 0, 1]))
    assert found.classes[1].precision == 0
    assert found.classes[1].f1 == 0
    assert found.macro.precision == pytest.approx(100 / 3)


@pytest.mark.parametrize("classes", [2, 3, 200])
def test_one_image_can_be_judged(classes: int) -> None:
    logits = np.zeros((1, classes), np.float32)
    found = metrics.scores(logits, np.array([classes - 1]))
    assert (found.top1, found.absent) == (0, classes - 1)
    assert metrics.calibration(metrics.softmax(logits), np.array([0])).top1 == 100


@pytest.mark.parametrize("scale", [1, 1e4])
def test_softmax_and_nll_are_those_of_scikit_learn_and_stay_finite(scale: float) -> None:
    logits, labels = answers(1)
    probabilities = metrics.softmax(logits * scale)
    assert probabilities.sum(1) == pytest.approx(np.ones(len(labels)))
    found = metrics.nll(probabilities, labels)
    assert np.isfinite(found)
    if scale == 1:
        assert found == pytest.approx(sk.log_loss(labels, probabilities, labels=range(CLASSES)))


def test_a_temperature_divides_the_logits() -> None:
    logits, _ = answers(2)
    assert metrics.softmax(logits, 2.5) == pytest.approx(metrics.softmax(logits / 2.5), abs=1e-6)


def test_ece_by_hand() -> None:
    """Ten answers 80 % sure of which six are right, ten 60 % sure of which six are: gaps of 0.2 and 0."""
    probabilities = np.array([[0.8, 0.2]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array(([0] * 6 + [1] * 4) * 2)
    found = metrics.calibration(probabilities, labels)
    assert found.ece == pytest.approx(10)
    used = [b for b in found.bins if b.count]
    assert [(b.count, b.confidence, b.accuracy) for b in used] == [
        (10, pytest.approx(0.6), pytest.approx(0.6)),
        (10, pytest.approx(0.8), pytest.approx(0.6)),
    ]
    assert all(b.low < b.confidence <= b.high for b in used)
    assert len(found.bins) == 15
    assert all(b.confidence is None and b.accuracy is None for b in found.bins if not b.count)


def test_ece_of_equal_mass_by_hand() -> None:
    """30 answers: two a bin. Each bin of one right and one wrong answer at 50 % has no gap."""
    probabilities = np.full((30, 2), 0.5)
    assert metrics.calibration(probabilities, np.array([0, 1] * 15)).ece_equal_mass == 0
    assert metrics.calibration(probabilities, np.zeros(30, int)).ece_equal_mass == pytest.approx(50)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6))
def test_ece_lies_between_the_mean_gap_and_100(seed: int, count: int, classes: int) -> None:
    """Both errors are at least the gap between mean confidence and accuracy, by the triangle inequality."""
    logits, labels = answers(seed, count, classes)
    probabilities = metrics.softmax(logits)
    found = metrics.calibration(probabilities, labels)
    gap = abs(100 * probabilities.max(1).mean() - found.top1)
    for error in (found.ece, found.ece_equal_mass):
        assert gap - 1e-9 <= error <= 100
    assert sum(b.count for b in found.bins) == count


def test_certainty_falls_into_the_last_bin() -> None:
    found = metrics.calibration(np.array([[1.0, 0.0]]), np.array([0]))
    assert found.bins[-1].count == 1
    assert found.ece == 0


@pytest.mark.parametrize("seed", range(4))
def test_auroc_is_scikit_learns_also_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    doubt, wrong = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.3
    assert metrics.auroc(doubt, wrong) == pytest.approx(sk.roc_auc_score(wrong, doubt))


@pytest.mark.parametrize("wrong", [True, False])
def test_auroc_needs_right_and_wrong_answers(wrong: bool) -> None:
    assert metrics.auroc(np.arange(3.0), np.full(3, wrong)) is None

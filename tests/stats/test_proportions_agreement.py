"""Answers against each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.stats import proportions


def test_top1_and_agreement_compare_the_largest_logit() -> None:
    logits = np.array([[1.0, 2, 0], [5, 1, 1], [0, 0, 9]])
    assert proportions.top1(logits, np.array([1, 0, 0])).tolist() == [True, True, False]
    assert proportions.agreement(logits, logits * 100) == 1
    assert proportions.agreement(logits, np.array([[9.0, 0, 0]] * 3)) == pytest.approx(1 / 3)


def test_the_cosine_is_that_of_the_angle_whatever_the_length() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    assert proportions.cosine(a, 3 * a) == pytest.approx(1)
    assert proportions.cosine(a, -a) == pytest.approx(-1)
    assert proportions.cosine(a, a[:, ::-1]) == 0
    assert proportions.cosine(a, 0 * a) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_no_answer_and_never_right(bad: float) -> None:
    logits = np.array([[1.0, 2.0], [bad, 0.0], [0.0, bad]])
    assert proportions.answers(logits).tolist() == [1, -1, -1]
    assert proportions.top1(logits, np.array([1, 0, 1])).tolist() == [True, False, False]
    assert proportions.top1(logits, np.array([1, -1, -1])).tolist() == [True, False, False]
    assert proportions.agreement(logits, logits) == pytest.approx(1 / 3)
    assert proportions.cosine(logits, logits) == 0
    assert proportions.answers(np.zeros((0, 2))).tolist() == []

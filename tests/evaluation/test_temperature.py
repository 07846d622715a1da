"""Temperature scaling: the minimum of the NLL, and what is given where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from edgekit.evaluation import metrics, temperature


def drawn(true: float, count: int = 4000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at the temperature `true`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    cumulative = metrics.softmax(logits, true).cumsum(1)
    return logits.astype(np.float32), (rng.random((count, 1)) > cumulative).sum(1)


@pytest.mark.parametrize("true", [0.3, 1.0, 2.0, 6.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    assert temperature.fit_temperature(*drawn(true)) == pytest.approx(true, rel=0.08)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_minimum_of_the_nll(seed: int) -> None:
    logits, labels = drawn(1.7, 60, 5, seed)
    found = temperature.fit_temperature(logits, labels)
    best = minimize_scalar(
        lambda t: metrics.nll(metrics.softmax(logits, math.exp(t)), labels), bounds=(-2.9, 2.9), method="bounded"
    )
    assert found == pytest.approx(math.exp(best.x), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_it_stays_within_its_bounds_and_the_probabilities_finite(scale: float) -> None:
    logits, labels = drawn(1.0, 200)
    found = temperature.fit_temperature(logits * np.float32(scale), labels)
    assert found == pytest.approx(temperature.LOWEST if scale < 1 else temperature.HIGHEST)
    assert np.isfinite(metrics.nll(metrics.softmax(logits * np.float32(scale), found), labels))


def test_all_wrong_gives_the_highest() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2] * 5] * 4
    assert temperature.fit_temperature(logits, np.array([1, 2, 0] * 5)) == pytest.approx(temperature.HIGHEST)


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_all_right_gives_laplaces_confidence_not_certainty(count: int) -> None:
    labels = np.arange(count) % 2
    logits = np.eye(2, dtype=np.float32)[labels] * 3
    confidence = metrics.softmax(logits, temperature.fit_temperature(logits, labels)).max(1)
    assert confidence == pytest.approx((count + 1) / (count + 2))


def test_all_right_by_far_less_or_more_than_the_bounds_allow_stays_within_them() -> None:
    labels = np.zeros(50, int)
    assert temperature.fit_temperature(np.tile([1e-4, 0.0], (50, 1)), labels) == pytest.approx(temperature.LOWEST)
    assert temperature.fit_temperature(np.tile([1e4, 0.0], (50, 1)), labels) == pytest.approx(temperature.HIGHEST)


def test_all_right_on_val_does_not_make_a_mistake_on_test_infinitely_wrong() -> None:
    """The lowest temperature would: what minimizes the NLL of 100 right answers is certainty."""
    labels = np.zeros(100, int)
    logits = np.tile(np.float32([2.0, 0.0]), (100, 1))
    mistake = np.float32([[0.5, 0.0]]), np.array([1])
    fitted = temperature.fit_temperature(logits, labels)
    assert metrics.nll(metrics.softmax(mistake[0], fitted), mistake[1]) < 2
    assert metrics.nll(metrics.softmax(mistake[0], temperature.LOWEST), mistake[1]) > 9


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_samples_change_nothing(count: int) -> None:
    assert temperature.fit_temperature(np.ones((count, 3), np.float32), np.zeros(count, int)) == 1.0


def test_logits_that_say_nothing_change_nothing() -> None:
    assert temperature.fit_temperature(np.full((9, 3), 7.0), np.arange(9) % 3) == 1.0


def test_no_answer_changes() -> None:
    logits, labels = drawn(3.0, 300)
    fitted = temperature.fit_temperature(logits, labels)
    assert (metrics.softmax(logits, fitted).argmax(1) == logits.argmax(1)).all()


def test_a_tie_is_not_all_right() -> None:
    assert temperature.all_right(np.array([[1.0, 0.0]]), np.array([0]))
    assert not temperature.all_right(np.array([[1.0, 1.0]]), np.array([0]))

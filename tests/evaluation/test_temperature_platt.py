"""A probability for each score by itself."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.evaluation import temperature


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def sampled(slope: float, offset: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Two scores an image, of which the first belongs to the label with the chance that slope and offset give it."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, count)
    first = rng.random(count) < sigmoid(slope * scores + offset)
    return np.stack([scores, -scores - 2 * offset / slope], 1), np.where(first, 0, 1)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, -1.0), (2.0, 3.0)])
def test_slope_and_offset_that_made_the_labels_are_found(slope: float, offset: float) -> None:
    found = temperature.fit_platt(*sampled(slope, offset))
    assert found == pytest.approx((slope, offset), rel=0.15, abs=0.15)


def test_no_other_slope_or_offset_is_more_likely() -> None:
    logits, labels = sampled(0.8, -0.5)
    hit = (np.arange(2) == labels[:, None]).ravel()
    wanted = np.where(hit, (hit.sum() + 1) / (hit.sum() + 2), 1 / ((~hit).sum() + 2))

    def loss(slope: float, offset: float) -> float:
        chance = sigmoid(slope * logits.ravel() + offset)
        return -float((wanted * np.log(chance) + (1 - wanted) * np.log(1 - chance)).sum())

    slope, offset = temperature.fit_platt(logits, labels) or (0.0, 0.0)
    around = [loss(slope + a, offset + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01) if a or b]
    assert min(around) > loss(slope, offset)


def test_scores_that_are_always_right_stay_finite() -> None:
    labels = np.arange(50) % 5
    slope, offset = temperature.fit_platt(20 * np.eye(5)[labels], labels) or (np.nan, np.nan)
    assert np.isfinite([slope, offset]).all()
    assert sigmoid(20 * slope + offset) > 0.9 > 0.1 > sigmoid(offset)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((1, 3)), np.zeros(1, int)),
        (np.zeros((9, 3)), np.zeros(9, int)),
        (np.ones((9, 1)), np.zeros(9, int)),
        (-np.eye(3)[np.arange(30) % 3], np.arange(30) % 3),
    ],
    ids=["one image", "no score differs", "one class", "always wrong"],
)
def test_scores_that_tell_nothing_get_no_probability(logits: np.ndarray, labels: np.ndarray) -> None:
    assert temperature.fit_platt(logits, labels) is None

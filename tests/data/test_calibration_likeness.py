"""Calibration images against evaluation images: an alarm for another kind of image, and for nothing less."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.calibration import compare_likeness
from edgekit.errors import DataError


def features(count: int, seed: int, shift: float = 0.0, scale: float = 1.0, width: int = 16) -> np.ndarray:
    """Like a network's pooled features: few directions carry most of it, none is below zero."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, width)) * np.array([[2.0], [1.0], [0.5], [0.5]])
    return np.maximum(rng.normal(shift, scale, (count, 4)) @ mixing + 1, 0).astype(np.float32)


@pytest.mark.parametrize(("calibration", "evaluation"), [(64, 150), (16, 40), (256, 30)])
def test_the_same_kind_of_images_raises_no_alarm(calibration: int, evaluation: int) -> None:
    pairs = ((features(calibration, 2 * n), features(evaluation, 2 * n + 1)) for n in range(200))
    assert sum(compare_likeness(*pair).unlike for pair in pairs) <= 4  # 2 %


@pytest.mark.parametrize(("calibration", "evaluation"), [(12, 150), (6, 20)])
def test_few_heavy_tailed_features_raise_no_alarm(calibration: int, evaluation: int) -> None:
    """Here chance alone moves the sets further apart than `MOST_EXCESS`: the permutations must see that."""
    rng = np.random.default_rng(0)
    pairs = [[rng.lognormal(0, 1.5, (count, 3)) for count in (calibration, evaluation)] for _ in range(200)]
    found = [compare_likeness(*pair) for pair in pairs]
    assert sum(f.distance - f.expected > 0.25 for f in found) >= 10
    assert sum(f.unlike for f in found) <= 4


@pytest.mark.parametrize("change", [{"shift": 1.5}, {"scale": 3.0}])
@pytest.mark.parametrize("count", [32, 64, 256])
def test_another_kind_of_images_is_seen(change: dict[str, float], count: int) -> None:
    found = [compare_likeness(features(count, 2 * n, **change), features(150, 2 * n + 1)) for n in range(20)]
    assert all(f.unlike for f in found)
    assert min(f.ratio for f in found) > 2


def test_a_difference_that_does_not_matter_raises_no_alarm() -> None:
    """What training does to the images that it saw: significant, but small."""
    found = compare_likeness(features(2000, 0, shift=0.2), features(2000, 1))
    assert found.ratio > 5
    assert not found.unlike


def test_chance_is_what_the_expected_distance_says() -> None:
    found = [compare_likeness(features(64, 2 * n), features(150, 2 * n + 1)) for n in range(200)]
    assert np.mean([f.distance for f in found]) == pytest.approx(np.mean([f.expected for f in found]), rel=0.1)


def test_the_unit_is_the_variance_of_the_evaluation_data() -> None:
    one, other = features(64, 0, shift=1.0), features(150, 1)
    assert compare_likeness(1000 * one, 1000 * other).distance == pytest.approx(
        compare_likeness(one, other).distance, rel=1e-5
    )
    by_hand = ((one.mean(0) - other.mean(0)) ** 2 + (one.std(0) - other.std(0)) ** 2).sum() / other.var(0).sum()
    assert compare_likeness(one, other).distance == pytest.approx(by_hand, rel=1e-4)


def test_the_answer_depends_on_the_seed_alone() -> None:
    one, other = features(64, 0), features(150, 1)
    assert compare_likeness(one, other) == compare_likeness(one, other)
    assert compare_likeness(one, other).expected != compare_likeness(one, other, seed=1).expected


def test_equal_images_are_alike_even_without_any_spread() -> None:
    same = np.ones((40, 8), np.float32)
    assert not compare_likeness(same, same).unlike
    assert compare_likeness(same + 1, same).unlike


def test_nothing_and_nan_are_refused() -> None:
    some = features(8, 0)
    with pytest.raises(DataError, match="no images"):
        compare_likeness(some, some[:0])
    with pytest.raises(DataError, match="NaN"):
        compare_likeness(some, np.where(some > 1, np.nan, some))

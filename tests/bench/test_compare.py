"""What chance can do: differences of accuracy and ratios of latencies against closed forms and simulations."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.bench import quantiles
from edgekit.bench.compare import Change, Spread, latency_change, spread, top1_change, widened
from edgekit.statistics import paired_difference

# Of 40 pairs 2 are expected at 5 %; 10 and more have a chance below 1 in 10,000.
_MOST = 9


def answers(right: int, of: int) -> np.ndarray:
    return np.arange(of) < right


def test_newcombe_s_published_interval_of_unpaired_shares() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10: 56/70 less 48/80 is 0.0524 to 0.3339.
    found = top1_change(answers(48, 80), answers(56, 70), paired=False)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((20.0, 5.24, 33.39), abs=0.005)
    assert found.significant
    assert found.p_value is None


def test_paired_answers_are_tested_by_mcnemar() -> None:
    before, after = answers(90, 100), answers(98, 100)
    found = top1_change(before, after, paired=True)
    assert found is not None
    assert found.value == pytest.approx(8.0)
    assert found.p_value == pytest.approx(2 * 0.5**8)
    assert found.significant
    unpaired = top1_change(before, after, paired=False)
    assert unpaired is not None
    assert found.high - found.low < unpaired.high - unpaired.low


def test_paired_answers_have_the_interval_of_tango() -> None:
    before = np.array([True] * 1 + [False] * 5 + [True] * 14)
    after = np.array([False] * 1 + [True] * 5 + [True] * 14)
    found = top1_change(before, after, paired=True)
    assert found is not None
    assert (found.low, found.high) == pytest.approx([100 * v for v in paired_difference(5, 1, 20)])


def test_a_drop_of_one_image_in_260_is_no_drop() -> None:
    found = top1_change(answers(250, 260), answers(249, 260), paired=True)
    assert found is not None
    assert not found.significant
    assert found.low < 0 < found.high


def test_nothing_is_said_of_no_images() -> None:
    assert top1_change(answers(0, 0), answers(1, 2), paired=False) is None


def series(seed: int, rho: float = 0.0, size: int = 400, ms: float = 1.0) -> np.ndarray:
    """Latencies whose neighbours are correlated by `rho`."""
    noise = np.random.default_rng(seed).standard_normal(size)
    for n in range(1, size):
        noise[n] = rho * noise[n - 1] + noise[n] * np.sqrt(1 - rho * rho)
    return np.asarray((1e6 * ms * np.exp(0.05 * noise)).astype(np.int64))


@pytest.mark.parametrize("rho", [0.0, 0.8])
@pytest.mark.parametrize("percentile", [50, 90])
def test_two_series_of_one_kind_rarely_differ(rho: float, percentile: int) -> None:
    found = [latency_change(series(2 * n, rho), series(2 * n + 1, rho), percentile) for n in range(40)]
    assert sum(one.significant for one in found if one) <= _MOST


def test_counting_neighbours_as_independent_would_find_differences_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiles.Sample, "inefficiency", lambda self, percentile: 1.0)
    found = [latency_change(series(2 * n, 0.8), series(2 * n + 1, 0.8), 50) for n in range(40)]
    assert sum(one.significant for one in found if one) > _MOST


def test_a_true_difference_is_found() -> None:
    found = latency_change(series(1), series(2, ms=1.1), 50)
    assert found is not None
    assert found.significant
    assert found.low < 1.1 < found.high


def test_the_same_series_give_the_same_interval() -> None:
    assert latency_change(series(1), series(2), 50) == latency_change(series(1), series(2), 50)


@pytest.mark.parametrize(("percentile", "size"), [(50, 19), (90, 63)])
def test_few_latencies_are_insufficient(percentile: int, size: int) -> None:
    assert latency_change(series(1, size=size), series(2), percentile) is None
    assert latency_change(series(1), series(2, size=size), percentile) is None
    assert latency_change(series(1, size=size + 1), series(2), percentile) is not None


def test_the_spread_of_repeats_is_that_of_their_logarithms() -> None:
    found = spread([[1.0, np.e], [10.0, 10 * np.e, 10 * np.e**2]])
    assert found is not None
    assert (found.repeats, found.freedom) == (5, 3)
    assert found.deviation == pytest.approx(np.sqrt((0.5 + 2.0) / 3))


@pytest.mark.parametrize("groups", [[], [[1.0, 2.0]], [[1.0], [2.0], [3.0]]])
def test_two_measurements_say_nothing_of_the_next(groups: list[list[float]]) -> None:
    assert spread(groups) is None


def test_a_spread_widens_an_interval_and_can_take_its_significance() -> None:
    change = Change(1.05, 1.04, 1.06, "x", None, True)
    narrow, wide = widened(change, Spread(0.0001, 10, 9)), widened(change, Spread(0.02, 4, 3))
    assert narrow is not None
    assert wide is not None
    assert narrow.significant
    assert not wide.significant
    assert wide.low < narrow.low < 1.05 < narrow.high < wide.high
    assert wide.high == pytest.approx(1.05 * np.exp(np.hypot(np.log(1.06 / 1.05), 3.182 * np.sqrt(2) * 0.02)))
    assert widened(change, None) == change

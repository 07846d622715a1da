"""What chance can do: differences of accuracy and ratios of latencies against closed forms and simulations."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.stats import quantiles
from edgekit.stats.change import Change, Spread, latency_change, spread, top1_change, widened
from edgekit.stats.proportions import paired_difference

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


@pytest.mark.parametrize(("percentile", "size", "least"), [(50, 19, 8), (90, 63, 10)])
def test_few_latencies_have_a_ratio_and_no_interval(percentile: int, size: int, least: int) -> None:
    for pair in ((series(1, size=size), series(2)), (series(1), series(2, size=size))):
        found = latency_change(*pair, percentile)
        assert found is not None
        assert (found.low, found.high, found.significant) == (None, None, False)
        assert f"too few queries: {len(pair[0])} and {len(pair[1])}" in found.why
        assert found.value == pytest.approx(1.0, rel=0.1)
    enough = latency_change(series(1, size=size + 1), series(2), percentile)
    assert enough is not None
    assert enough.low is not None
    assert latency_change(series(1, size=least - 1), series(2), percentile) is None
    assert latency_change(series(1, size=least), series(2), percentile) is not None


def drifting(seed: int, first: float, last: float, size: int = 400) -> np.ndarray:
    return np.asarray(series(seed, size=size) * np.linspace(first, last, size)).astype(np.int64)


def test_a_drift_to_four_times_as_slow_has_a_lower_bound() -> None:
    found = latency_change(series(1), drifting(2, 2.0, 6.0), 50)
    assert found is not None
    assert found.value == pytest.approx(4.0, rel=0.1)
    assert found.low is not None
    assert 1.5 < found.low < 2.1
    assert (found.high, found.significant, found.method) == (None, True, "range of the latencies")
    assert "after: drifts (+" in found.why
    turned = latency_change(drifting(2, 2.0, 6.0), series(1), 50)
    assert turned is not None
    assert turned.high is not None
    assert (turned.low, turned.significant) == (None, True)
    assert turned.high == pytest.approx(1 / found.low)
    wide = widened(found, Spread(0.01, 10, 9))
    assert wide is not None
    assert wide.low is not None
    assert wide.low < found.low
    assert wide.high is None


def test_a_drift_over_the_other_series_has_its_ratio_and_the_reason() -> None:
    found = latency_change(series(1), drifting(2, 0.8, 3.0), 50)
    assert found is not None
    assert (found.low, found.high, found.significant, found.method) == (None, None, False, "")
    assert found.value == pytest.approx(1.9, rel=0.1)
    assert "after: drifts" in found.why
    assert widened(found, Spread(0.01, 10, 9)) == found


def test_a_step_is_named_as_the_reason() -> None:
    stepped = np.concatenate([series(2, size=200), series(3, size=200, ms=2.0)])
    found = latency_change(series(1), stepped, 50)
    assert found is not None
    assert (found.low, found.significant) == (None, False)
    assert "after: a step at query 201 (+" in found.why


def test_the_interval_is_that_of_the_ratio_of_two_percentiles() -> None:
    for percentile in (50, 90):
        found = latency_change(series(1), series(2), percentile)
        assert found is not None
        samples = [quantiles.Sample.of(series(seed)) for seed in (2, 1)]
        assert (found.low, found.high) == pytest.approx(quantiles.ratio(*samples, percentile))


def test_the_spread_of_repeats_is_that_of_the_median_step() -> None:
    found = spread([[1.0, 1.01, 1.03], [10.0, 10.4, 11.0]])
    assert found is not None
    assert (found.repeats, found.steps) == (6, 4)
    assert found.deviation == pytest.approx(np.log(10.4 / 10.0) / 0.67449 / np.sqrt(2))


@pytest.mark.parametrize("groups", [[], [[1.0, 2.0]], [[1.0], [2.0], [3.0]]])
def test_two_measurements_say_nothing_of_the_next(groups: list[list[float]]) -> None:
    assert spread(groups) is None


def test_a_level_that_changes_once_is_no_spread() -> None:
    steady, stepped = spread([[1.0, 1.01, 0.99, 1.0, 1.01]]), spread([[1.0, 1.01, 0.99, 1.5, 1.51]])
    assert steady is not None
    assert stepped is not None
    assert stepped.deviation < 2.5 * steady.deviation


def test_a_spread_widens_an_interval_and_can_take_its_significance() -> None:
    change = Change(1.05, 1.04, 1.06, "x", None, True)
    narrow, wide = widened(change, Spread(0.0001, 10, 9)), widened(change, Spread(0.02, 4, 3))
    assert narrow is not None
    assert wide is not None
    assert narrow.significant
    assert not wide.significant
    assert wide.high == pytest.approx(1.05 * np.exp(np.hypot(np.log(1.06 / 1.05), 3.64 * np.sqrt(2) * 0.02)))
    assert widened(change, None) == change


def test_measurements_that_lie_far_apart_leave_no_interval() -> None:
    found = widened(Change(2.0, 1.9, 2.1, "x", None, True), spread([[1.0, 2.0, 1.0, 2.0]]))
    assert found is not None
    assert (found.low, found.high, found.significant, found.method) == (None, None, False, "")
    assert found.why == "4 repeated measurements lie too far apart"


def alarms(repeats: int, step: float, pairs: int = 4000) -> float:
    """In how many of 100 pairs the last of `repeats` + 1 measurements differs from the first, 3 % apart by chance and
    `step` slower from the middle on; of itself each is known well.
    """
    noise = np.random.default_rng(repeats)
    found = 0
    for _ in range(pairs):
        levels = np.exp(noise.normal(0, 0.03, repeats + 1)) * np.where(np.arange(repeats + 1) < repeats // 2, 1, step)
        value = float(levels[-1] / levels[0])
        change = widened(Change(value, value / 1.001, value * 1.001, "x", None, True), spread([levels[:-1].tolist()]))
        assert change is not None
        found += change.significant
    return 100 * found / pairs


@pytest.mark.parametrize("repeats", [3, 4, 5, 6, 8, 10, 20])
def test_unchanged_measurements_alarm_in_five_of_a_hundred(repeats: int) -> None:
    assert alarms(repeats, 1.0) == pytest.approx(5, abs=1.5)  # three standard errors are 1.03


@pytest.mark.parametrize("repeats", [5, 6, 8, 10, 20])
def test_a_regression_that_was_measured_often_still_alarms(repeats: int) -> None:
    assert alarms(repeats, 1.5, 500) > 90


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("total", [100, 200, 1000])
def test_a_change_of_whole_points_is_that_number(total: int, paired: bool) -> None:
    """Else one of exactly a tolerance is beyond it."""
    for before in range(1, total, 7):
        for points in range(1, min(20, before * 100 // total) + 1):
            rights = [np.arange(total) < n for n in (before, before - points * total // 100)]
            found = top1_change(*rights, paired)
            assert found is not None
            assert found.value == -points

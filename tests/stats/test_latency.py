"""From raw latencies to what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import autoregressive
from edgekit.measurements import FlagKind, Latency
from edgekit.stats.latency import LatencySeries, images_per_s

AT = np.arange(700)


def latency(measured: list[int], warmup: list[int] | tuple[()] = (), is_each_timed: bool = True) -> Latency:
    return LatencySeries(measured, warmup, is_each_timed).figures


def ns(factor: np.ndarray | float = 1.0, seed: int = 0, length: int = 700) -> list[int]:
    """Latencies around 2 ms, times `factor`."""
    return [round(v) for v in 2e6 * (1 + 0.03 * np.random.default_rng(seed).normal(size=length)) * factor]


def test_a_level_series_is_believed() -> None:
    found = latency(ns(), ns(1.0, 1, 50))
    assert (found.queries, found.warmup, found.flags, found.method) == (700, 0, (), "order statistics")
    assert [q.percentile for q in found.quantiles] == [50, 90, 95, 99]
    assert all(q.low_ms <= q.ms <= q.high_ms for q in found.quantiles)
    assert all(q.bound_ms > q.ms for q in found.quantiles[1:])
    assert abs(found.autocorrelation) < 0.1


def test_a_start_that_lies_in_the_warm_up_costs_nothing() -> None:
    warming = ns(np.linspace(3, 1, 100), 1, 100)
    assert latency(ns(), warming).warmup == 0
    assert len(LatencySeries(ns(), warming).settled_ns) == 700


def test_one_that_goes_on_is_left_out_and_said() -> None:
    found = latency(ns(np.where(AT < 30, 2, 1)), ns(2.0, 1, 20))
    assert 30 <= found.warmup <= 100
    assert found.queries == 700 - found.warmup
    assert found.flags[0].text == f"started up: the first {found.warmup} of 700 measured queries are left out"
    assert found.flags[0].kind == FlagKind.STARTED_UP
    assert found.quantiles[-1].ms < 2.5
    assert latency(ns(np.where(AT < 30, 2, 1)), ns(1.0, 1, 0)).warmup >= 30  # without a warm-up too


@pytest.mark.parametrize(
    ("factor", "kind", "says", "ratio"),
    [
        (np.linspace(1, 1.18, 700), FlagKind.DRIFTS, "drifts: last third 11 % slower than the first", 1.11),
        (np.linspace(1.18, 1, 700), FlagKind.DRIFTS, "drifts: last third 10 % faster than the first", 1.11),
        (
            np.where(AT < 500, 1, 1.25),
            FlagKind.STEP,
            "slows down: 25 % slower from query 501 of 700 on, as when throttled",
            1.25,
        ),
        (np.where(AT < 300, 1.25, 1), FlagKind.STEP, "speeds up: 20 % faster from query 302 of 700 on", 1.25),
        (np.where(AT % 3 == 0, 1.5, 1), FlagKind.TWO_MODES, "two modes: 67 % around 2 ms, 33 % around 2.99 ms", 1.5),
    ],
)
def test_what_makes_a_series_doubtful_is_said_with_figures(
    factor: np.ndarray, kind: FlagKind, says: str, ratio: float
) -> None:
    (found,) = (flag for flag in latency(ns(factor)).flags if flag.kind == kind)
    assert found.text == says
    assert found.ratio == pytest.approx(ratio, rel=0.02)


def test_dependence_is_said_with_what_it_costs() -> None:
    walk = autoregressive(np.random.default_rng(3), 1, 700, 0.8)[0]
    found = latency([round(2e6 * v) for v in np.exp(0.2 * walk)])
    assert found.method == "order statistics of the effective sample"
    (flag,) = found.flags
    assert flag.kind == FlagKind.AUTOCORRELATED
    assert flag.text.startswith(f"autocorrelated ({found.autocorrelation:.2f} at lag 1): 700 queries tell as much")
    assert found.autocorrelation == pytest.approx(0.8, abs=0.05)
    independent = int(flag.text.split(" as ")[-1].split()[0])
    assert 20 < independent < 200


def test_queries_that_were_timed_together_have_a_median_alone() -> None:
    found = latency(ns(), is_each_timed=False)
    assert [q.percentile for q in found.quantiles if q.ms is not None] == [50]
    assert [q.percentile for q in found.quantiles] == [50, 90, 95, 99]
    assert all(q.bound_ms is None for q in found.quantiles[1:])


@pytest.mark.parametrize("count", [0, 1, 2, 5, 7])
def test_too_few_queries_say_nothing_and_break_nothing(count: int) -> None:
    found = latency(ns()[:count])
    assert (found.queries, found.flags) == (count, ())
    assert {q.ms for q in found.quantiles} == {None}


def test_throughput_is_images_over_time_with_an_interval_from_8_passes_on() -> None:
    assert images_per_s([10**9, 10**9], 32) == (32, None, None)
    assert images_per_s([10**8] * 8, 10) == (100, 100, 100)
    value, low, high = images_per_s([9 * 10**7, 11 * 10**7] * 10, 10)
    assert value == pytest.approx(100)
    assert (low, high) == (pytest.approx(95.4, abs=0.5), pytest.approx(105, abs=0.5))


@pytest.mark.parametrize(("passes", "images"), [((), 5), ((10**9,), 0)])
def test_what_was_not_measured_has_no_throughput(passes: tuple[int, ...], images: int) -> None:
    assert images_per_s(passes, images) == (None, None, None)


def test_a_series_that_tells_next_to_nothing_says_so_instead_of_an_interval() -> None:
    walk = np.cumsum(np.random.default_rng(2).normal(size=400))
    found = latency([round(2e6 * v) for v in np.exp(0.05 * walk)])
    assert found.flags[-1].text.endswith("tell less of the median than 8 independent ones, too little for an interval")
    assert (found.quantiles[0].low_ms, found.quantiles[0].high_ms) == (None, None)
    assert found.quantiles[0].ms is not None

"""From raw latencies to what they say, and whether they can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.measurements import Latency, Quantile
from edgekit.stats import quantiles, stability
from edgekit.stats.quantiles import Sample

PERCENTILES = (50, 90, 95, 99)
# The fewest passes over the images whose mean has an interval.
_LEAST_PASSES = 8
# Of the inefficiency of the median: from here on it is said.
_DEPENDENT = 2.0


def settled(latencies_ns: Sequence[int], warmup_ns: Sequence[int] = ()) -> np.ndarray:
    """int64: the latencies that count, those behind the end of the start-up.

    The end is looked for in the warm-up and the measured queries together; what lies in the warm-up is off anyway.
    """
    measured = np.asarray(latencies_ns, np.int64)
    whole = np.concatenate([np.asarray(warmup_ns, np.int64), measured])
    return measured[max(0, stability.warm_up_end(whole) - len(warmup_ns)) :]


def latency(latencies_ns: Sequence[int], warmup_ns: Sequence[int] = (), alone: bool = True) -> Latency:
    """What the latencies of a single stream say.

    Args:
        alone: each query was timed by itself; else, as means hide the slow ones, there is but a median.
    """
    kept = settled(latencies_ns, warmup_ns)
    sample = Sample.of(kept)
    inefficiency = sample.inefficiency(50) if len(kept) else 1.0
    wanted = PERCENTILES if alone else PERCENTILES[:1]
    found = tuple(quantiles.quantile(sample, p) for p in wanted)
    missing = tuple(Quantile(p, None, None, None, None) for p in PERCENTILES[len(wanted) :])
    cut = len(latencies_ns) - len(kept)
    return Latency(
        queries=len(kept),
        warmup=cut,
        quantiles=found + missing,
        method="order statistics" + (" of the effective sample" if sample.memory else ""),
        autocorrelation=sample.autocorrelation,
        flags=_flags(kept, cut, sample, inefficiency),
    )


def _flags(kept: np.ndarray, cut: int, sample: Sample, inefficiency: float) -> tuple[str, ...]:
    """What makes the series doubtful, in words."""
    said = []
    if cut:
        said.append(f"started up: the first {cut} of {cut + len(kept)} measured queries are left out")
    if change := stability.shift(kept):
        said.append(_changed(change, len(kept)))
    if two := stability.modes(kept, inefficiency):
        said.append(
            f"two modes: {100 * two.share:.0f} % around {two.low / 1e6:.3g} ms, "
            f"{100 * (1 - two.share):.0f} % around {two.high / 1e6:.3g} ms"
        )
    if inefficiency >= _DEPENDENT:
        effective, least = int(len(kept) / inefficiency), quantiles.LEAST_EFFECTIVE
        tell = f"as much of the median as {effective} independent ones"
        if effective < least:
            tell = f"less of the median than {least} independent ones, too little for an interval"
        said.append(f"autocorrelated ({sample.autocorrelation:.2f} at lag 1): {len(kept)} queries tell {tell}")
    return tuple(said)


def _changed(change: stability.Shift, queries: int) -> str:
    percent = f"{abs(100 * (change.ratio - 1)):.0f} %"
    if change.at is None:
        return f"drifts: last third {percent} {'slower' if change.ratio > 1 else 'faster'} than the first"
    if change.ratio > 1:
        return f"slows down: {percent} slower from query {change.at + 1} of {queries} on, as when throttled"
    return f"speeds up: {percent} faster from query {change.at + 1} of {queries} on"


def images_per_s(passes_ns: Sequence[int], images: int) -> tuple[float | None, float | None, float | None]:
    """Offline throughput and its 95 % interval, out of passes over `images` images each.

    The interval is Student's of the mean time, by as many passes as are independent; None below 8 passes. They are few,
    so their dependence is taken to be no less than that of an autoregression of their first autocorrelation, freed of
    its bias, (1 + 3 r) / n too low (Kendall 1954).
    """
    times = np.asarray(passes_ns, np.float64)
    if not len(times) or images < 1 or times.sum() <= 0:
        return None, None, None
    value = 1e9 * images / float(times.mean())
    first = float(quantiles.autocorrelation(times, 1)[1])
    first = min(0.9, max(0.0, first + (1 + 3 * first) / len(times) if times.std() > 0 else 0.0))
    effective = len(times) / max(quantiles.inefficiency(times), (1 + first) / (1 - first))
    if len(times) < _LEAST_PASSES or effective < 2:
        return value, None, None
    error = float(times.std(ddof=1)) / math.sqrt(effective) * quantiles.student(effective - 1)
    low = 1e9 * images / (float(times.mean()) + error)
    high = 1e9 * images / (float(times.mean()) - error) if error < times.mean() else None
    return value, low, high


def percentiles_ms(latencies_ns: Sequence[int] | np.ndarray, environment: dict[str, Any]) -> tuple[float | None, ...]:
    """p50, p90 and p99, each None where the latencies cannot carry it.

    Where the clock of a browser made it time several queries together there is no p90 or p99: means hide the slow ones.
    """
    single = environment.get("timed_together", 1) == 1
    return tuple(quantiles.percentile_ms(latencies_ns, p) if single or p == 50 else None for p in (50, 90, 99))

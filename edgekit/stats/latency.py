"""Figures of a series of latencies, each derived once, and reasons to doubt the series."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from edgekit.measurements import BenchmarkResult, Flag, FlagKind, Latency, Quantile
from edgekit.stats import quantiles, stability
from edgekit.stats.quantiles import Sample

PERCENTILES = (50, 90, 95, 99)
# Fewest passes over the images whose mean has an interval.
_LEAST_PASSES = 8
# Inefficiency of the median from which a series is flagged as autocorrelated.
_DEPENDENT = 2.0


@dataclass(frozen=True, eq=False)
class LatencySeries:
    """Latencies of one measurement; what is derived from them is computed once, when it is first needed.

    Attributes:
        measured_ns: int64 (queries,). warmup_ns: int64, of the queries before.
        is_each_timed: each query was timed by itself. Otherwise there is only a median, as means hide slow queries.
    """

    measured_ns: np.ndarray
    warmup_ns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    is_each_timed: bool = True

    def __post_init__(self) -> None:
        for name in ("measured_ns", "warmup_ns"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))

    @cached_property
    def settled_ns(self) -> np.ndarray:
        """The latencies that count, int64: those after the end of the start-up.

        The end is looked for in the warm-up and the measured queries together; the warm-up is left out anyway.
        """
        whole = np.concatenate([self.warmup_ns, self.measured_ns])
        return self.measured_ns[max(0, stability.warm_up_end(whole) - len(self.warmup_ns)) :]

    @property
    def cut(self) -> int:
        """Number of measured queries that are left out as start-up."""
        return len(self.measured_ns) - len(self.settled_ns)

    @cached_property
    def sample(self) -> Sample:
        """The settled latencies with their dependence."""
        return Sample.of(self.settled_ns)

    @cached_property
    def p50_ms(self) -> float | None:
        """Median; None below 8 queries."""
        return quantiles.percentile_ms(self.settled_ns, 50)

    @cached_property
    def p90_ms(self) -> float | None:
        """Early-stopping estimate of p90; None where there are too few queries."""
        return quantiles.percentile_ms(self.settled_ns, 90) if self.is_each_timed else None

    @cached_property
    def p99_ms(self) -> float | None:
        """Early-stopping estimate of p99; None where there are too few queries."""
        return quantiles.percentile_ms(self.settled_ns, 99) if self.is_each_timed else None

    @cached_property
    def figures(self) -> Latency:
        """Percentiles with their intervals, and flags; no throughput."""
        wanted = PERCENTILES if self.is_each_timed else PERCENTILES[:1]
        found = tuple(quantiles.quantile(self.sample, p) for p in wanted)
        missing = tuple(Quantile(p, None, None, None, None) for p in PERCENTILES[len(wanted) :])
        return Latency(
            queries=len(self.settled_ns),
            warmup=self.cut,
            quantiles=found + missing,
            method="order statistics" + (" of the effective sample" if self.sample.memory else ""),
            autocorrelation=self.sample.autocorrelation,
            flags=tuple(self._flags()),
        )

    def _flags(self) -> list[Flag]:
        kept, cut = self.settled_ns, self.cut
        inefficiency = self.sample.inefficiency(50) if len(kept) else 1.0
        found = []
        if cut:
            text = f"started up: the first {cut} of {cut + len(kept)} measured queries are left out"
            found.append(Flag(FlagKind.STARTED_UP, text))
        if change := stability.shift(kept):
            found.append(_shift_flag(change, len(kept)))
        if two := stability.modes(kept, inefficiency):
            text = (
                f"two modes: {100 * two.share:.0f} % around {two.low / 1e6:.3g} ms, "
                f"{100 * (1 - two.share):.0f} % around {two.high / 1e6:.3g} ms"
            )
            found.append(Flag(FlagKind.TWO_MODES, text, two.high / two.low))
        if inefficiency >= _DEPENDENT:
            effective, least = int(len(kept) / inefficiency), quantiles.LEAST_EFFECTIVE
            worth = f"as much of the median as {effective} independent ones"
            if effective < least:
                worth = f"less of the median than {least} independent ones, too little for an interval"
            text = f"autocorrelated ({self.sample.autocorrelation:.2f} at lag 1): {len(kept)} queries tell {worth}"
            found.append(Flag(FlagKind.AUTOCORRELATED, text))
        return found


_SERIES: WeakKeyDictionary[BenchmarkResult, LatencySeries] = WeakKeyDictionary()


def series_of(result: BenchmarkResult) -> LatencySeries:
    """Return the latencies of a result, always the same object for the same result; of an emulator none count."""
    if result not in _SERIES:
        measured = result.latencies_ns if result.source != "emulated" else result.latencies_ns[:0]
        _SERIES[result] = LatencySeries(measured, result.warmup_ns, result.environment.is_each_timed)
    return _SERIES[result]


def figures_of(result: BenchmarkResult) -> Latency | None:
    """Return the figures of a result, with its throughput; None where no latency counts."""
    series = series_of(result)
    if not len(series.measured_ns):
        return None
    value, low, high = images_per_s(result.offline_ns, result.environment.offline_images or 0)
    return dataclasses.replace(series.figures, images_per_s=value, images_per_s_low=low, images_per_s_high=high)


def _shift_flag(change: stability.Shift, queries: int) -> Flag:
    percent = f"{abs(100 * (change.ratio - 1)):.0f} %"
    ratio = max(change.ratio, 1 / change.ratio)
    if change.at is None:
        slower = "slower" if change.ratio > 1 else "faster"
        return Flag(FlagKind.DRIFTS, f"drifts: last third {percent} {slower} than the first", ratio)
    if change.ratio > 1:
        text = f"slows down: {percent} slower from query {change.at + 1} of {queries} on, as when throttled"
    else:
        text = f"speeds up: {percent} faster from query {change.at + 1} of {queries} on"
    return Flag(FlagKind.STEP, text, ratio)


def images_per_s(passes_ns: Sequence[int] | np.ndarray, images: int) -> tuple[float | None, float | None, float | None]:
    """Return the offline throughput and its 95 % interval, from passes over `images` images each.

    The interval is Student's, of the mean time, by the number of effectively independent passes; None below 8 passes.
    As passes are few, their dependence is taken to be at least that of an autoregression with their autocorrelation at
    lag 1, corrected for its bias of -(1 + 3 r) / n (Kendall 1954).
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


def percentiles_ms(latencies_ns: Sequence[int] | np.ndarray, is_each_timed: bool = True) -> tuple[float | None, ...]:
    """Return p50, p90 and p99 of latencies as they are; None where the latencies cannot carry it.

    Args:
        is_each_timed: as for `LatencySeries`.
    """
    return tuple(quantiles.percentile_ms(latencies_ns, p) if is_each_timed or p == 50 else None for p in (50, 90, 99))

"""Simulate the coverage of edgekit's intervals and the false alarms of its flags; writes results/coverage.json.

Every 95 % interval of edgekit is computed for many series whose true value is known, beside two common alternatives:
order statistics as if queries were independent, and a block bootstrap of the percentile.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from edgekit.stats import latency, quantiles, stability
from edgekit.stats.proportions import paired_difference
from edgekit.stats.quantiles import Sample

RESULT = Path(__file__).parent / "results" / "coverage.json"
LENGTHS = (128, 662, 1024, 5000)
PERCENTILES = (50, 90, 95, 99)
SERIES, BOOTSTRAPPED, DRAWS = 240, 4, 200  # simulated series; every fourth is bootstrapped; bootstrap draws
MARGINAL = 4_000_000  # draws that estimate the true percentile if there is no closed form
Rng = np.random.Generator
Made = Callable[[Rng, int, int], np.ndarray]  # (count, length) -> float64 (count, length), in ms


def autoregressive(rng: Rng, count: int, length: int, phi: float) -> np.ndarray:
    """Draw AR(1) series with a standard normal marginal, float64 (count, length)."""
    found = np.empty((count, length))
    found[:, 0] = rng.normal(size=count)
    shocks = rng.normal(size=(count, length)) * math.sqrt(1 - phi * phi)
    for n in range(1, length):
        found[:, n] = phi * found[:, n - 1] + shocks[:, n]
    return found


def _lognormal(rng: Rng, count: int, length: int) -> np.ndarray:
    return np.exp(0.3 * rng.normal(size=(count, length)))


def _spikes(rng: Rng, count: int, length: int) -> np.ndarray:
    return _lognormal(rng, count, length) * np.where(rng.random((count, length)) < 0.02, 5, 1)


def _bursts(rng: Rng, count: int, length: int) -> np.ndarray:
    """Draw series of which 5 % of the queries are slow, in bursts of ten on average."""
    slow = np.empty((count, length), bool)
    slow[:, 0] = rng.random(count) < 0.05
    for n in range(1, length):
        slow[:, n] = rng.random(count) < np.where(slow[:, n - 1], 0.9, 0.1 * 0.05 / 0.95)
    return _lognormal(rng, count, length) * np.where(slow, 3, 1)


def _drifting(rng: Rng, count: int, length: int) -> np.ndarray:
    """Draw series that are 10 % slower at the end; the true percentile is that of the whole run."""
    return (1 + 0.05 * rng.normal(size=(count, length))) * np.linspace(1, 1.1, length)


def _bimodal(rng: Rng, count: int, length: int) -> np.ndarray:
    return (1 + 0.05 * rng.normal(size=(count, length))) * np.where(rng.random((count, length)) < 0.3, 1.5, 1)


def _ar(phi: float) -> Made:
    return lambda rng, count, length: np.exp(0.3 * autoregressive(rng, count, length, phi))


def _log_truth(percentile: float) -> float:
    return math.exp(0.3 * NormalDist().inv_cdf(percentile / 100))


KINDS: dict[str, Made] = {
    "normal": lambda rng, count, length: 1 + 0.05 * rng.normal(size=(count, length)),
    "lognormal": _lognormal,
    "Pareto, a = 1.5": lambda rng, count, length: 1 + rng.pareto(1.5, (count, length)),
    "spikes, 2 %": _spikes,
    "bursts, 5 %": _bursts,
    "AR(1) 0.5": _ar(0.5),
    "AR(1) 0.9": _ar(0.9),
    "AR(1) 0.97": _ar(0.97),
    "drifting 10 %": _drifting,
    "bimodal": _bimodal,
}
_CLOSED: dict[str, Callable[[float], float]] = {
    "normal": lambda p: 1 + 0.05 * NormalDist().inv_cdf(p / 100),
    "Pareto, a = 1.5": lambda p: (1 - p / 100) ** (-1 / 1.5),
    **dict.fromkeys(("lognormal", "AR(1) 0.5", "AR(1) 0.9", "AR(1) 0.97"), _log_truth),
}


@lru_cache(None)
def truth(kind: str, percentile: float) -> float:
    """Return the true percentile, that of an infinite series."""
    if kind in _CLOSED:
        return _CLOSED[kind](percentile)
    drawn = KINDS[kind](np.random.default_rng(1), MARGINAL // 5000, 5000)
    return float(np.quantile(drawn, percentile / 100))


def block_length(values: np.ndarray) -> int:
    """Return the block length of a circular block bootstrap of the mean, at most 3 sqrt(n) or n / 3.

    Politis & White 2004, corrected 2009.
    """
    length = len(values)
    found = quantiles.autocorrelation(values, quantiles.lags_of(length))
    lag = quantiles.memory(found, length)
    if lag == 0:
        return 1
    steps = np.arange(1, 2 * lag + 1)
    weighted = np.minimum(1, 2 * (1 - steps / (2 * lag))) * found[1 : 2 * lag + 1]
    slope, level = 2 * float((steps * weighted).sum()), max(0.05, 1 + 2 * float(weighted.sum()))
    best = (2 * slope**2 / (4 / 3 * level**2) * length) ** (1 / 3)
    return int(np.clip(math.ceil(best), 1, math.ceil(min(3 * math.sqrt(length), length / 3))))


def bootstrap(values: np.ndarray, percentiles: tuple[int, ...], rng: Rng) -> np.ndarray:
    """Return the bounds of percentile intervals by a circular block bootstrap, float64 (2, percentiles)."""
    length, block = len(values), block_length(values)
    starts = rng.integers(0, length, (DRAWS, math.ceil(length / block)))
    drawn = values[((starts[:, :, None] + np.arange(block)) % length).reshape(DRAWS, -1)[:, :length]]
    found = np.quantile(drawn, [p / 100 for p in percentiles], axis=1)
    return np.quantile(found, (0.025, 0.975), axis=1)


def _holds(low: float | None, high: float | None, true: float) -> bool:
    return (low is None or low <= true) and (high is None or true <= high)


def percent(hits: int, total: int) -> float | None:
    """Return `hits` in percent of `total`; None if `total` is 0."""
    return round(100 * hits / total, 1) if total else None


def of_percentiles(kind: str, length: int, count: int) -> list[dict[str, Any]]:
    """Return the coverage of edgekit's intervals and of the alternatives, for one kind of series."""
    rng = np.random.default_rng(length)
    drawn = KINDS[kind](rng, count, length)
    samples = [Sample.of(values) for values in drawn]
    booted = [bootstrap(values, PERCENTILES, rng) for values in drawn[::BOOTSTRAPPED]]
    rows = []
    for n, p in enumerate(PERCENTILES):
        true = truth(kind, p)
        shipped = [quantiles.interval(sample, p) for sample in samples]
        both = [ends for ends in shipped if None not in ends]
        ranks = quantiles.interval_ranks(length, p)
        plain = [tuple(None if r is None else s.ordered[r - 1] for r in ranks) for s in samples]
        bounds = [quantiles.percentile_ms(np.rint(s.ordered * 1e9), p) for s in samples]
        stopped = [b for b in bounds if b is not None and p != 50]
        rows.append({
            "series": kind, "n": length, "percentile": p,
            "covered": percent(sum(_holds(*ends, true) for ends in shipped), count),
            "both_ends": percent(len(both), count),
            "covered_where_both_ends": percent(sum(_holds(*ends, true) for ends in both), len(both)),
            "as_if_independent": percent(sum(_holds(*ends, true) for ends in plain), count),
            "block_bootstrap": percent(sum(b[0, n] <= true <= b[1, n] for b in booted), len(booted)),
            "early_stopping_above": percent(sum(b / 1e3 >= true for b in stopped), len(stopped)),
        })  # fmt: skip
    return rows


def of_ratios(kind: str, length: int, count: int) -> dict[str, Any]:
    """Return the coverage of the interval of a speed-up: two series of one kind, one twice as slow."""
    rng = np.random.default_rng(length + 1)
    slow, fast = (KINDS[kind](rng, count, length) for _ in range(2))
    ends = [quantiles.ratio(Sample.of(2 * a), Sample.of(b)) for a, b in zip(slow, fast)]
    known = [e for e in ends if None not in e]
    held = sum(_holds(*e, 2.0) for e in known)
    return {"series": kind, "n": length, "covered": percent(held, len(known)), "known": percent(len(known), count)}


def of_throughput(phi: float, passes: int, count: int) -> dict[str, Any]:
    """Return the coverage of the interval of offline throughput, and of a block bootstrap of the mean."""
    rng = np.random.default_rng(passes)
    drawn = 1e8 * (1 + 0.1 * autoregressive(rng, count, passes, phi))
    ends = [latency.images_per_s([round(v) for v in values], 10)[1:] for values in drawn]
    known = [e for e in ends if None not in e]
    booted = 0
    for values in drawn:
        block = block_length(values)
        starts = rng.integers(0, passes, (DRAWS, math.ceil(passes / block)))
        picked = ((starts[:, :, None] + np.arange(block)) % passes).reshape(DRAWS, -1)[:, :passes]
        low, high = np.quantile(values[picked].mean(1), (0.025, 0.975))
        booted += low <= 1e8 <= high
    return {
        "autocorrelation": phi, "passes": passes, "known": percent(len(known), count),
        "covered": percent(sum(_holds(*e, 100.0) for e in known), len(known)),
        "block_bootstrap": percent(booted, count),
    }  # fmt: skip


def of_differences(samples: int, lost: float, won: float, count: int) -> dict[str, Any]:
    """Return coverage and mean width of the interval of a drop in top-1, and of a bootstrap of the pairs."""
    rng = np.random.default_rng(samples)
    found = rng.multinomial(samples, [lost, won, 1 - lost - won], count)
    ends = np.array([paired_difference(int(a), int(b), samples) for a, b, _ in found])
    booted = np.empty((count, 2))
    for n, counts in enumerate(found):
        drawn = rng.multinomial(samples, counts / samples, 1000)
        booted[n] = np.quantile((drawn[:, 0] - drawn[:, 1]) / samples, (0.025, 0.975))
    row: dict[str, Any] = {"images": samples, "lost": lost, "won": won}
    for name, each in (("score", ends), ("bootstrap", booted)):
        held = (each[:, 0] <= lost - won + 1e-12) & (lost - won - 1e-12 <= each[:, 1])
        row[name] = percent(int(held.sum()), count)
        row[f"{name}_points"] = round(100 * float((each[:, 1] - each[:, 0]).mean()), 2)
    return row


def _shaped(shape: str, rng: Rng, count: int, length: int) -> np.ndarray:
    """Draw series with a feature that a flag must find, and 5 % of noise."""
    noise, at = 1 + 0.05 * rng.normal(size=(count, length)), np.arange(length)
    since = at - rng.integers(0, length - length // 8 + 1, (count, 1))  # queries since the start of a burst, anywhere
    throttled = at >= rng.integers(length // 10, length // 2, (count, 1))
    return (
        noise
        * {
            "starts 2x slower, 10 queries": np.where(at < 10, 2.0, 1.0),
            "starts up over 30 queries": 1 + 0.5 * np.exp(-at / 10),
            "one burst, an eighth, 2x slower": np.where((since >= 0) & (since < length // 8), 2.0, 1.0),
            "one burst, 15 queries, 2x slower": np.where((since >= 0) & (since < 15), 2.0, 1.0),
            "1.5x slower from a tenth to a half on": np.where(throttled, 1.5, 1.0),
            "drifts 10 %": np.linspace(1, 1.1, length),
            "10 % slower for the last fifth": np.where(at >= 0.8 * length, 1.1, 1.0),
            "two modes, 30 % 1.5x slower": np.where(rng.random((count, length)) < 0.3, 1.5, 1.0),
        }[shape]
    )


def _ticks(share: float) -> Made:
    """Return a generator of series from a clock with two values; `share` of the queries have the larger one."""
    return lambda rng, count, length: np.where(rng.random((count, length)) < share, 2.0, 1.0)


COARSE: dict[str, Made] = {
    "one tick, 0.2 % two": _ticks(0.002),
    "one tick, 1 % two": _ticks(0.01),
    "one tick, 20 % two": _ticks(0.2),
    "normal, 20 ticks": lambda rng, count, length: np.round(20 + rng.normal(size=(count, length))),
}
LEVEL = ("normal", "lognormal", "Pareto, a = 1.5", "spikes, 2 %", "AR(1) 0.5", "AR(1) 0.9", "AR(1) 0.97", *COARSE)
SHAPES = ("starts 2x slower, 10 queries", "starts up over 30 queries", "one burst, an eighth, 2x slower",
          "one burst, 15 queries, 2x slower", "1.5x slower from a tenth to a half on", "drifts 10 %",
          "10 % slower for the last fifth", "two modes, 30 % 1.5x slower")  # fmt: skip


def of_flags(kind: str, length: int, count: int) -> dict[str, Any]:
    """Return the percentage of series that each flag is raised for."""
    rng = np.random.default_rng(length + 2)
    made = {**KINDS, **COARSE}.get(kind)
    drawn = made(rng, count, length) if made else _shaped(kind, rng, count, length)
    raised = {"start_up": 0, "step": 0, "drift": 0, "modes": 0}
    for values in drawn:
        left = values[stability.warm_up_end(values) :]
        raised["start_up"] += len(left) < length
        changed = stability.shift(left)
        raised["step"] += changed is not None and changed.at is not None
        raised["drift"] += changed is not None and changed.at is None
        raised["modes"] += stability.modes(left, Sample.of(left).inefficiency(50)) is not None
    return {"series": kind, "n": length, **{name: percent(hits, count) for name, hits in raised.items()}}


def simulate(count: int) -> dict[str, Any]:
    """Simulate every table of docs/statistics.md."""
    few = max(1, count // 2)
    return {
        "series_each": count,
        "bootstrapped_each": -(-count // BOOTSTRAPPED),
        "percentiles": [row for kind in KINDS for n in LENGTHS for row in of_percentiles(kind, n, count)],
        "speedups": [of_ratios(kind, n, few) for kind in KINDS for n in LENGTHS[:3]],
        "throughput": [of_throughput(phi, n, few) for phi in (0.0, 0.5) for n in (8, 20, 60)],
        "drops": [
            of_differences(n, lost, won, 2 * count)
            for n in (100, 260, 1000)
            for lost, won in ((0.005, 0.005), (0.02, 0.01), (0.05, 0.02))
        ],
        "false_alarms": [of_flags(kind, n, few) for kind in LEVEL for n in LENGTHS],
        "alarms": [of_flags(shape, n, few) for shape in SHAPES for n in LENGTHS],
    }


def main() -> None:
    """Simulate, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--series", type=int, default=SERIES, help="series of each kind and length")
    options = parser.parse_args()
    started = time.perf_counter()
    found = simulate(options.series)
    for name, rows in found.items():
        for row in rows if isinstance(rows, list) else []:
            print(name, *(f"{key}={value}" for key, value in row.items()))
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{RESULT}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

"""From raw values to judged figures, against the baseline."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.analysis.energy import energy, throttling
from edgekit.bench import roofline
from edgekit.errors import MissingError
from edgekit.measurements import BROWSERS, BUSY, HERE, REFERENCE, BenchmarkResult, Latency, Summary
from edgekit.stats import proportions, quantiles
from edgekit.stats.latency import images_per_s, latency, percentiles_ms, settled
from edgekit.stats.proportions import mcnemar, paired_difference, wilson
from edgekit.stats.quantiles import Sample, ratio

# What else runs the files of a runtime as it does.
_ALSO = {"tensorrt": "trtexec"}


def summarize(results: Sequence[BenchmarkResult]) -> list[Summary]:
    """One row per result: the baseline first, then by target and precision.

    Raises:
        MissingError: no baseline among the results, or one on other samples.
    """
    baselines = [r for r in results if r.artifact.name == REFERENCE]
    if not baselines:
        raise MissingError("the desktop baseline has not been measured", "edgekit benchmark")
    best = {id(r): _image_ms(r) for r in results if r.artifact.is_baseline}
    rows = []
    for result in results:
        own = _own(result, baselines)
        if own.expected.shape != result.expected.shape or (own.expected != result.expected).any():
            raise MissingError(f"{result.artifact.name} was measured on other images", "edgekit benchmark")
        peers = [best[id(r)] for r in results if id(r) in best and r.device == own.device and _alike(r, result)]
        rows.append(_with_best(_summary(result, own), peers))
    return sorted(rows, key=_order)


def _order(row: Summary) -> tuple[Any, ...]:
    """The baselines first, and of them the one that all are compared with."""
    first = not row.baseline, row.artifact != REFERENCE if row.baseline else False
    return (*first, row.device, row.target, row.precision != "fp32", row.precision, row.artifact)


def _own(result: BenchmarkResult, baselines: Sequence[BenchmarkResult]) -> BenchmarkResult:
    """The baseline to compare with: of the same device, else with as many threads, else this machine's."""

    def far(baseline: BenchmarkResult) -> tuple[bool, bool, bool]:
        return baseline.device != result.device, not _alike(baseline, result), baseline.device != HERE

    return min(baselines, key=far)


def _alike(one: BenchmarkResult, other: BenchmarkResult) -> bool:
    return bool(one.environment["threads"] == other.environment["threads"])


def _image_ms(result: BenchmarkResult) -> float | None:
    """The median per image, of the latencies that count."""
    median = quantiles.percentile_ms(_quoted(result), 50)
    return None if median is None else median / _batch(result)


def _with_best(row: Summary, baselines_ms: Sequence[float | None]) -> Summary:
    """The row with its speed-up over the fastest of the baselines, of any precision, per image."""
    best = min((ms for ms in baselines_ms if ms), default=None)
    if row.stand_in or not best or not row.p50_ms:
        return row
    return dataclasses.replace(row, speedup_best=best * row.batch / row.p50_ms)


@dataclass(frozen=True)
class Parity:
    """How often two models of one precision, made for two runtimes, give the same top-1, in percent."""

    one: str
    other: str
    agreement: float
    samples: int


def parities(results: Sequence[BenchmarkResult]) -> list[Parity]:
    """INT8 models of different runtimes, each measured on its first device, against each other."""
    first: dict[str, BenchmarkResult] = {}
    for result in sorted(results, key=lambda r: (r.artifact.name, r.device)):
        if result.artifact.precision == "int8":
            first.setdefault(result.artifact.sha256, result)
    return [
        Parity(a.artifact.name, b.artifact.name, 100 * proportions.agreement(a.logits, b.logits), len(a.expected))
        for a, b in itertools.combinations(first.values(), 2)
        if a.artifact.runtime != b.artifact.runtime and a.logits.shape == b.logits.shape
    ]


@dataclass(frozen=True)
class Twin:
    """One file on a device and here: how often both give the same top-1, in percent, and the cosine of all logits."""

    artifact: str
    device: str
    agreement: float
    cosine: float
    samples: int


def twins(results: Sequence[BenchmarkResult]) -> list[Twin]:
    """The answers of other devices and of browsers against those that this machine's runners gave to the same file."""
    here = {r.artifact.sha256: r for r in results if _is_here(r) and not r.artifact.is_baseline}
    pairs = ((r, here.get(r.artifact.sha256)) for r in results if not _is_here(r))
    return [
        Twin(
            there.artifact.name,
            there.device,
            100 * proportions.agreement(there.logits, same.logits),
            proportions.cosine(there.logits, same.logits),
            len(there.expected),
        )
        for there, same in pairs
        if same is not None and there.logits.shape == same.logits.shape
    ]


def _is_here(result: BenchmarkResult) -> bool:
    return result.source == "host" and not result.device.startswith(BROWSERS)


def _summary(result: BenchmarkResult, baseline: BenchmarkResult) -> Summary:
    right = proportions.top1(result.logits, result.expected)
    right_baseline = proportions.top1(baseline.logits, baseline.expected)
    low, high = wilson(int(right.sum()), len(right))
    quoted = _quoted(result)
    environment = result.environment
    p50, p90, p99 = percentiles_ms(quoted, environment)
    drop_low, drop_high = drop_interval(right_baseline, right)
    batch = _batch(result)
    before, after = _state(environment, "_before"), _state(environment, "_after")
    spent = None if result.power is None or result.source == "emulated" else energy(environment, result.power)
    stand_in = _stands_in(result)
    speedup = (None, None, None) if stand_in else speedup_over(result, baseline)
    return Summary(
        artifact=result.artifact.name,
        target=result.artifact.target,
        precision=result.artifact.precision,
        ran_in=f"{environment['runtime']} {environment['version']}",
        processor=environment["processor"],
        device=result.device,
        threads=environment["threads"],
        source=result.source,
        stand_in=stand_in,
        baseline=result.artifact.is_baseline,
        busy=_busy(result),
        size_mb=result.size_bytes / 1e6,
        samples=len(right),
        top1=100 * float(right.mean()),
        top1_low=100 * low,
        top1_high=100 * high,
        drop=100 * float(right_baseline.mean() - right.mean()),
        p_value=mcnemar(right_baseline, right),
        agreement=100 * proportions.agreement(result.logits, baseline.logits),
        queries=len(result.latencies_ns),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        speedup=speedup[0],
        compute_ms=quantiles.percentile_ms(result.compute_ns, 50) if len(quoted) else None,
        state=after,
        rail=spent.rail if spent else "",
        idle_mw=spent.idle_mw if spent else None,
        gross_mj=spent.gross_mj / batch if spent else None,
        net_mj=spent.net_mj / batch if spent else None,
        batch=batch,
        no_energy="" if spent else _why_no_energy(result),
        throttling=tuple(throttling(before, after)),
        latency=_latency(result),
        drop_low=drop_low,
        drop_high=drop_high,
        speedup_low=speedup[1],
        speedup_high=speedup[2],
        speedup_doubtful=speedup[0] is not None and result is not baseline and (_busy(result) or _busy(baseline)),
        roofline=None if stand_in else roofline.reached(environment, p50, batch),
    )


def _stands_in(result: BenchmarkResult) -> bool:
    """Whether what ran is not the runtime that the artifact was made for."""
    own = result.artifact.runtime
    return not result.artifact.is_baseline and result.runtime not in (own, _ALSO.get(own))


def _busy(result: BenchmarkResult) -> bool:
    return bool(result.environment.get("busy_before", -1.0) > BUSY)


def _batch(result: BenchmarkResult) -> int:
    return max(1, int(result.environment.get("batch", 1)))


def drop_interval(baseline: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of how many points of top-1 are lost, of answers that are right or wrong: bool (N,) each."""
    lost, won = int((baseline & ~right).sum()), int((right & ~baseline).sum())
    low, high = paired_difference(lost, won, len(right))
    return 100 * low, 100 * high


def speedup_over(result: BenchmarkResult, baseline: BenchmarkResult) -> tuple[float | None, float | None, float | None]:
    """How many times faster an image is than in `baseline`, with the 95 % interval of the ratio of the medians.

    None where the numbers of threads differ, or where the latencies cannot carry it.
    """
    own, there = _quoted(result), _quoted(baseline)
    p50, reference = (quantiles.percentile_ms(values, 50) for values in (own, there))
    if not _alike(result, baseline) or not p50 or not reference:
        return None, None, None
    if result is baseline:
        return 1.0, 1.0, 1.0
    scale = _batch(result) / _batch(baseline)
    low, high = ratio(Sample.of(there), Sample.of(own))
    return reference * scale / p50, None if low is None else low * scale, None if high is None else high * scale


def _quoted(result: BenchmarkResult) -> np.ndarray:
    """The latencies that count: none where they are an emulator's."""
    return settled(() if result.source == "emulated" else result.latencies_ns, result.warmup_ns)


def _latency(result: BenchmarkResult) -> Latency | None:
    if result.source == "emulated" or not result.latencies_ns:
        return None
    environment = result.environment
    found = latency(result.latencies_ns, result.warmup_ns, alone=environment.get("timed_together", 1) == 1)
    value, low, high = images_per_s(result.offline_ns, int(environment.get("offline_images", 0)))
    return dataclasses.replace(found, images_per_s=value, images_per_s_low=low, images_per_s_high=high)


def _why_no_energy(result: BenchmarkResult) -> str:
    """In words; nothing where nobody asked for it."""
    if "power_why_not" in result.environment:
        return str(result.environment["power_why_not"])
    return "" if result.power is None else "the samples do not cover the measurement, or cannot be true"


def _state(environment: dict[str, Any], when: str) -> dict[str, Any]:
    """The state of the board before or after, by the names of `edgekit.ondevice.jetson.state`."""
    return {name.removesuffix(when): value for name, value in environment.items() if name.endswith(when)}

"""Figures of measured artifacts, compared with the baseline."""

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
from edgekit.measurements import BROWSERS, HERE, REFERENCES, BenchmarkResult, Summary
from edgekit.stats import proportions, quantiles
from edgekit.stats.latency import figures_of, series_of
from edgekit.stats.proportions import mcnemar, paired_difference, wilson
from edgekit.stats.quantiles import half_ns, ratio

# Other runtimes that run the files of a runtime as it does itself.
_EQUIVALENT = {"tensorrt": "trtexec"}


def summarize(results: Sequence[BenchmarkResult]) -> list[Summary]:
    """Return one row per result: the baselines first, then by device, target and precision.

    Raises:
        MissingError: there is no baseline among the results, or none on the same images.
    """
    baselines = references(results)
    if not baselines:
        raise MissingError("the desktop baseline has not been measured", "edgekit benchmark")
    best = {id(r): _image_ms(r) for r in results if r.artifact.is_baseline}
    rows = []
    for result in results:
        own = _own(result, baselines)
        if not _same_images(own, result):
            raise MissingError(f"{result.artifact.name} was measured on other images", "edgekit benchmark")
        peers = [best[id(r)] for r in results if id(r) in best and r.device == own.device and _same_threads(r, result)]
        rows.append(_with_best(_summary(result, own), peers))
    return sorted(rows, key=_order)


def on_other_images(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """Return the results that cannot be compared with their baseline, as a few images were missing for one of them."""
    baselines = references(results)
    return [r for r in results if baselines and not _same_images(_own(r, baselines), r)]


def references(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """Return the results of the baseline that the others are compared with, one per device and number of threads."""
    named = ([r for r in results if r.artifact.name == name] for name in REFERENCES)
    return next(filter(None, named), [])


def _same_images(one: BenchmarkResult, other: BenchmarkResult) -> bool:
    return one.expected.shape == other.expected.shape and bool((one.expected == other.expected).all())


def _order(row: Summary) -> tuple[Any, ...]:
    """Sort the baselines to the front, and of them the reference."""
    first = not row.baseline, not row.is_reference if row.baseline else False
    return (*first, row.device, row.target, row.precision != "fp32", row.precision, row.artifact)


def _own(result: BenchmarkResult, baselines: Sequence[BenchmarkResult]) -> BenchmarkResult:
    """Return the baseline to compare with: of the same device, else with as many threads, else of this machine."""

    def distance(baseline: BenchmarkResult) -> tuple[bool, bool, bool]:
        return baseline.device != result.device, not _same_threads(baseline, result), baseline.device != HERE

    return min(baselines, key=distance)


def _same_threads(one: BenchmarkResult, other: BenchmarkResult) -> bool:
    return one.environment.threads == other.environment.threads


def _image_ms(result: BenchmarkResult) -> float | None:
    """Return the median latency per image."""
    median = series_of(result).p50_ms
    return None if median is None else median / result.environment.images_per_query


def _with_best(row: Summary, baselines_ms: Sequence[float | None]) -> Summary:
    """Add the speed-up over the fastest of the baselines, of any precision, per image."""
    best = min((ms for ms in baselines_ms if ms), default=None)
    if row.stand_in or not best or not row.p50_ms:
        return row
    return dataclasses.replace(row, speedup_best=best * row.batch / row.p50_ms)


@dataclass(frozen=True)
class Parity:
    """Agreement of top-1, in percent, of two models of one precision, made for two runtimes."""

    one: str
    other: str
    agreement: float
    samples: int


def parities(results: Sequence[BenchmarkResult]) -> list[Parity]:
    """Compare INT8 models of different runtimes with each other, each as measured on its first device."""
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
    """Agreement of top-1, in percent, and cosine of all logits, of one file on a device and on this machine."""

    artifact: str
    device: str
    agreement: float
    cosine: float
    samples: int


def twins(results: Sequence[BenchmarkResult]) -> list[Twin]:
    """Compare the answers of other devices and of browsers with those of this machine's runners for the same file."""
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
    same = proportions.same(proportions.answers(result.logits), proportions.answers(baseline.logits))
    series, environment = series_of(result), result.environment
    batch = environment.images_per_query
    spent = None if result.power is None or result.source == "emulated" else energy(environment, result.power)
    stand_in = _stands_in(result)
    speedup = (None, None, None) if stand_in else speedup_over(result, baseline)
    return Summary(
        artifact=result.artifact.name,
        target=result.artifact.target,
        precision=result.artifact.precision,
        ran_in=f"{environment.runtime} {environment.version}",
        processor=environment.processor or "",
        device=result.device,
        threads=environment.threads or 1,
        source=result.source,
        stand_in=stand_in,
        baseline=result.artifact.is_baseline,
        busy=environment.busy,
        size_mb=result.size_bytes / 1e6,
        samples=len(same),
        agreement=100 * float(same.mean()),
        **(_accuracy(result, baseline) if is_labelled(result) else _agreement(same)),
        queries=len(result.latencies_ns),
        p50_ms=series.p50_ms,
        p90_ms=series.p90_ms,
        p99_ms=series.p99_ms,
        speedup=speedup[0],
        compute_ms=quantiles.percentile_ms(result.compute_ns, 50) if len(series.settled_ns) else None,
        state=environment.after.table(),
        rail=spent.rail if spent else "",
        idle_mw=spent.idle_mw if spent else None,
        gross_mj=spent.gross_mj / batch if spent else None,
        net_mj=spent.net_mj / batch if spent else None,
        batch=batch,
        no_energy="" if spent else _why_no_energy(result),
        throttling=tuple(throttling(environment.before, environment.after)),
        latency=figures_of(result),
        speedup_low=speedup[1],
        speedup_high=speedup[2],
        speedup_doubtful=speedup[0] is not None
        and result is not baseline
        and (environment.busy or baseline.environment.busy),
        roofline=None if stand_in else roofline.reached(environment, series.p50_ms, batch),
        no_answer=_no_answers(result),
        baseline_no_answer=_no_answers(baseline),
        one_class=_is_one_class(result),
        reference=baseline.artifact.name,
    )


def is_labelled(result: BenchmarkResult) -> bool:
    """Return False for answers to images whose classes are not known."""
    return not len(result.expected) or int(result.expected.min()) >= 0


def _accuracy(result: BenchmarkResult, baseline: BenchmarkResult) -> dict[str, Any]:
    """Return the fields of `Summary` about labelled images."""
    right = proportions.top1(result.logits, result.expected)
    right_baseline = proportions.top1(baseline.logits, baseline.expected)
    low, high = wilson(int(right.sum()), len(right))
    drop_low, drop_high = drop_interval(right_baseline, right)
    return {
        "top1": 100 * int(right.sum()) / len(right),
        "top1_low": 100 * low,
        "top1_high": 100 * high,
        # From whole numbers: the difference of two shares is a little off, and a loss of exactly a limit above it.
        "drop": 100 * (int(right_baseline.sum()) - int(right.sum())) / len(right),
        "p_value": mcnemar(right_baseline, right),
        "drop_low": drop_low,
        "drop_high": drop_high,
    }


def _agreement(same: np.ndarray) -> dict[str, Any]:
    """Return the fields of `Summary` about images without labels, from bool (N,): the baseline's answer was given."""
    low, high = wilson(int(same.sum()), len(same))
    unknown = dict.fromkeys(("top1", "top1_low", "top1_high", "drop", "p_value"))
    return {**unknown, "agreement_low": 100 * low, "agreement_high": 100 * high}


def _no_answers(result: BenchmarkResult) -> int:
    return int((proportions.answers(result.logits) == proportions.NO_ANSWER).sum())


def _is_one_class(result: BenchmarkResult) -> bool:
    """Return whether images of several classes all got the same answer."""
    given, expected = np.unique(proportions.answers(result.logits)), np.unique(result.expected)
    return len(expected) > 1 and len(given) == 1 and given[0] != proportions.NO_ANSWER


def _stands_in(result: BenchmarkResult) -> bool:
    """Return whether another runtime ran than the artifact was made for."""
    own = result.artifact.runtime
    return not result.artifact.is_baseline and result.runtime not in (own, _EQUIVALENT.get(own))


def drop_interval(baseline: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the drop of top-1 in points, from bool (N,) arrays of right answers."""
    lost, won = int((baseline & ~right).sum()), int((right & ~baseline).sum())
    low, high = paired_difference(lost, won, len(right))
    return 100 * low, 100 * high


def speedup_over(result: BenchmarkResult, baseline: BenchmarkResult) -> tuple[float | None, float | None, float | None]:
    """Return the ratio of the median latencies per image, baseline over result, with its 95 % interval.

    None where the numbers of threads differ, or where there are too few latencies.
    """
    own, other = series_of(result), series_of(baseline)
    p50, reference = own.p50_ms, other.p50_ms
    if not _same_threads(result, baseline) or not p50 or not reference:
        return None, None, None
    if result is baseline:
        return 1.0, 1.0, 1.0
    images = result.environment.images_per_query, baseline.environment.images_per_query
    scale = images[0] / images[1]
    low, high = ratio(other.sample, own.sample)
    value = half_ns(reference) * images[0] / (half_ns(p50) * images[1])
    return value, None if low is None else low * scale, None if high is None else high * scale


def _why_no_energy(result: BenchmarkResult) -> str:
    """Return the reason, for users; "" where no power was asked for."""
    if result.environment.power_why_not is not None:
        return result.environment.power_why_not
    return "" if result.power is None else "the samples do not cover the measurement, or are not plausible"

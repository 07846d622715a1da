"""What is said of gates, and of percentiles that a suite promised, once everything is measured and kept."""

from __future__ import annotations

from collections.abc import Sequence, Set

from edgekit import progress
from edgekit.bench import gates as judged
from edgekit.bench.latency import settled
from edgekit.bench.quantiles import early_stopping_rank
from edgekit.errors import GateError
from edgekit.measurements import LEAST_SAMPLES, BenchmarkResult, Gates, Suite, Summary
from edgekit.records import BASELINES

_ACCURACY = "edgekit quant debug says where accuracy is lost; more test images narrow its interval"
_LATENCY = "edgekit benchmark --suite standard on an idle machine; a network or a device that is faster"
_HINTS = {"max_drop": _ACCURACY, "min_accuracy": _ACCURACY, "max_p90_ms": _LATENCY, "min_speedup": _LATENCY}
# Names of an artifact and of a device: what this command measured, beside what the run has of earlier ones.
Measured = Set[tuple[str, str]]


def say_missing(suite: Suite, results: Sequence[BenchmarkResult], measured: Measured) -> None:
    """A line for each measurement that ended before it could carry a percentile of its suite."""
    for result in (r for r in results if (r.artifact.name, r.device) in measured and r.source != "emulated"):
        queries = len(settled(result.latencies_ns, result.warmup_ns))
        lacking = [p for p in suite.percentiles if p > 50 and early_stopping_rank(queries, p) is None]
        if lacking:
            needs = ", ".join(f"p{p} needs {LEAST_SAMPLES[p]}" for p in lacking)
            cut = len(result.latencies_ns) - queries
            behind = f" behind a start-up of {cut}" if cut else ""
            progress.note(
                f"{result.artifact.name} on {result.device}: insufficient samples, {queries} queries{behind}; {needs}"
            )


def check(gates: Gates, rows: Sequence[Summary], measured: Measured, strict: bool) -> None:
    """Say how each gate fared; one that holds is not spoken of.

    Raises:
        GateError: one is broken or could not be shown; with `strict` also where it is doubtful.
    """
    if gates == Gates():
        return
    own = [row for row in rows if (row.artifact, row.device) in measured]
    verdicts = judged.judge(own, gates, _without_rows(own, measured))
    failed = [verdict for verdict in verdicts if verdict.fails(strict)]
    for verdict in verdicts:
        if verdict.outcome != judged.HELD:
            progress.note(f"gate {verdict.outcome}: {verdict.text}")
    if all(row.baseline for row in own):
        raise GateError(
            "gates are set, and no artifact was measured that they could be judged on",
            "edgekit export, or another --device: what benchmark_model measures has no answers and no percentiles",
        )
    if failed:
        broken = sorted({verdict.gate for verdict in failed})
        raise GateError(
            f"{len(failed)} of {len(verdicts)} gates are not kept ({', '.join(map(_option, broken))}); everything was "
            "measured and kept",
            "; ".join(dict.fromkeys(_HINTS[gate] for gate in broken)),
        )
    progress.note(f"gates: {sum(v.outcome == judged.HELD for v in verdicts)} of {len(verdicts)} held")


def _without_rows(own: Sequence[Summary], measured: Measured) -> set[tuple[str, str]]:
    """What was measured on devices that gave no row: by a program, which says no single times.

    Where a device gave some, the others are files of which one engine was built, and that has its row.
    """
    devices = {row.device for row in own}
    return {(name, device) for name, device in measured if device not in devices and not name.startswith(BASELINES)}


def _option(gate: str) -> str:
    return f"--{gate.replace('_', '-')}"

"""Two kept results, compared: what changed, how sure that is, and what else was different."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.archive.entry import Entry
from edgekit.stats.change import Change, latency_change, spread, top1_change, widened

# What of the environment explains a difference, and what people call it.
_CIRCUMSTANCES = {
    "cpu": "CPU", "board": "board", "machine": "architecture", "cores": "cores", "cores_usable": "usable cores",
    "threads": "threads", "batch": "batch", "processor": "processor", "accelerator": "accelerator", "api": "API",
    "xnnpack": "XNNPACK", "mode": "mode", "governor": "governor", "turbo": "turbo", "microcode": "microcode",
    "power_mode": "power mode", "power_mode_before": "power mode", "clocks_locked_before": "clocks locked",
    "power_mode_after": "power mode at the end", "clocks_locked_after": "clocks locked at the end",
    "memory_gb": "memory in GB", "system": "system", "kernel": "kernel", "user_agent": "browser", "gpu": "GPU",
    "runtime": "runtime", "version": "runtime's version", "edgekit": "edgekit", "python": "Python", "numpy": "numpy",
    "suite": "suite", "timed_together": "queries timed together",
}  # fmt: skip
# Where one of these differs, latencies are of two machines or two ways to run, and no version explains them.
_OTHER_MACHINE = (
    "cpu", "board", "machine", "processor", "accelerator", "batch", "mode", "api", "xnnpack", "power_mode",
    "power_mode_before", "power_mode_after", "clocks_locked_before", "clocks_locked_after", "governor",
    "timed_together",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """`after` against `before`.

    Attributes:
        top1, p50, p90: None where there is nothing to compare. p50 and p90 are ratios, of p90 that of the samples' own
            percentile; they may have no interval. agreement: percent of the images with the same answer; None where
            the images are not known to be the same.
        paired: the same images, one by one. same_file: the very same model file.
        circumstances: what else differs, by its name: before and after. machines: why latencies are of two machines.
    """

    before: Entry
    after: Entry
    top1: Change | None
    p50: Change | None
    p90: Change | None
    agreement: float | None
    paired: bool
    same_file: bool
    circumstances: dict[str, tuple[Any, Any]]
    machines: str


NO_SINGLE_TIMES = "a program that keeps no single times measured it"


def doubtful(found: Comparison, change: Change | None) -> bool:
    """Whether a change of latency may be that of other work: it ran, and no repeated measurements tell what it does."""
    return change is not None and not change.repeats and (found.before.busy or found.after.busy)


def compare(before: Entry, after: Entry, others: Sequence[Entry] = ()) -> Comparison:
    """Compare two entries that have their samples.

    Args:
        others: more measurements, of which those of the same files on the same machine tell how far one measurement
            lies from the next; without any, intervals are of the two measurements alone.
    """
    a, b = before.samples, after.samples
    assert a is not None
    assert b is not None
    paired = bool(before.images_sha256) and before.images_sha256 == after.images_sha256 and len(a.right) == len(b.right)
    paired = paired and len(a.right) > 0
    return Comparison(
        before=before,
        after=after,
        top1=top1_change(a.right, b.right, paired),
        p50=widened(_latency(before, after, 50), spread(_repeats(before, after, others, "p50_ms"))),
        p90=widened(_latency(before, after, 90), spread(_repeats(before, after, others, "p90_ms"))),
        agreement=100 * float((a.answers == b.answers).mean()) if paired else None,
        paired=paired,
        same_file=before.artifact_sha256 == after.artifact_sha256,
        circumstances=circumstances(before, after),
        machines=machines(before, after),
    )


def _latency(before: Entry, after: Entry, percentile: int) -> Change | None:
    """Means of several queries, as of a coarse clock, have no p90 that could be compared."""
    assert before.samples is not None
    assert after.samples is not None
    if "emulated" in (before.source, after.source):
        return None
    together = [entry.environment.get("timed_together", 1) for entry in (before, after)]
    if percentile != 50 and together != [1, 1]:
        return None
    if "program" in (before.kind, after.kind):
        values = [quantile_ms(entry, percentile) for entry in (before, after)]
        if not values[0] or not values[1]:
            return None
        return Change(values[1] / values[0], None, None, "", None, False, why=NO_SINGLE_TIMES)
    series = before.samples.latencies_ns / before.batch, after.samples.latencies_ns / after.batch
    return latency_change(*series, percentile)


def _repeats(before: Entry, after: Entry, others: Sequence[Entry], name: str) -> list[list[float]]:
    """The values of a figure in measurements that are repetitions of either side, in the order of measuring.

    Where both sides are repetitions of each other, `after` is left out: what it is judged by must not have it in it.
    """
    all_of = {entry.sha256: entry for entry in (*others, before, after)}  # a copied run has the same ones again
    if _made_alike(before) == _made_alike(after):
        del all_of[after.sha256]
    groups: dict[tuple[object, ...], list[float]] = {}
    for entry in sorted(all_of.values(), key=lambda e: (e.run, e.number, e.measured)):
        if (value := getattr(entry, name)) is not None and value > 0:
            groups.setdefault(_made_alike(entry), []).append(value)
    return [groups.get(key, []) for key in {_made_alike(before), _made_alike(after)}]


def _made_alike(entry: Entry) -> tuple[object, ...]:
    """What measurements share that repeat each other: the file, the device, and all that could explain a change."""
    said = (str(entry.environment.get(key)) for key in _CIRCUMSTANCES)
    return (entry.artifact_sha256, entry.device, entry.source, *said)


def circumstances(before: Entry, after: Entry) -> dict[str, tuple[Any, Any]]:
    """What of both environments differs; what only one of them says differs too."""
    found: dict[str, tuple[Any, Any]] = {}
    if before.device != after.device:
        found["device"] = (before.device, after.device)
    if before.source != after.source:
        found["measured as"] = (before.source, after.source)
    for key, name in _CIRCUMSTANCES.items():
        values = before.environment.get(key), after.environment.get(key)
        if values[0] != values[1] and any(value not in (None, "", -1, -1.0) for value in values):
            found.setdefault(name, values)
    if before.busy or after.busy:
        loads = [entry.environment.get("busy_before", -1) for entry in (before, after)]
        found["other work just before (share of all cores)"] = (loads[0], loads[1])
    return found


def machines(before: Entry, after: Entry) -> str:
    """Why the latencies of two entries are not of one machine run in one way; "" if they are."""
    if before.device != after.device:
        return f"other device ({before.device}, {after.device})"
    if before.threads != after.threads:
        return f"other number of threads ({before.threads}, {after.threads})"
    for key in _OTHER_MACHINE:
        unsaid = 1 if key == "timed_together" else None
        values = [entry.environment.get(key, unsaid) for entry in (before, after)]
        if values[0] != values[1] and not any(value in (None, "", -1) for value in values):
            return f"other {_CIRCUMSTANCES[key]} ({values[0]}, {values[1]})"
    cores = [entry.environment.get("cores") for entry in (before, after)]
    if None not in cores and cores[0] != cores[1]:
        return f"other number of cores ({cores[0]}, {cores[1]})"
    return ""


def sentences(found: Comparison) -> list[str]:
    """What a comparison says, figure by figure, and what is significant."""
    a, b = found.before, found.after
    said = [_of_top1(found), *(_of_latency(found, p) for p in (50, 90)), _of_size(found)]
    if a.warmup or b.warmup:
        said.append(
            f"left out as start-up: {a.warmup} of {a.warmup + a.queries} queries, {b.warmup} of {b.warmup + b.queries}"
        )
    if found.agreement is not None and not (found.same_file and found.agreement == 100):
        said.append(f"same answer on {found.agreement:.1f} % of {a.images} images")
    if found.machines:
        said.append(f"latencies compare two machines or two ways to run a model, not two versions: {found.machines}")
    said += [f"differs: {name}: {_value(x)} -> {_value(y)}" for name, (x, y) in found.circumstances.items()]
    if not found.circumstances:
        said.append("what was recorded of the machine and the versions is the same")
    if "program" in (a.kind, b.kind):
        said.append("measured by a program that keeps no single times: nothing can be said of chance")
    return said


def _of_top1(found: Comparison) -> str:
    a, b, change = found.before, found.after, found.top1
    if change is None or a.top1 is None or b.top1 is None:
        return "top-1: not measured in both"
    how = (
        f"McNemar p = {change.p_value:.2g}, the same {a.images} images"
        if change.p_value is not None
        else f"unpaired: {a.images} and {b.images} images that are not known to be the same"
    )
    verdict = "not significant" if not change.significant else "better" if change.value > 0 else "worse"
    return (
        f"top-1: {a.top1:.1f} -> {b.top1:.1f} %, {change.value:+.1f} points "
        f"(95 % interval {change.low:+.1f} to {change.high:+.1f}; {how}): {_sure(verdict)}"
    )


def _of_latency(found: Comparison, percentile: int) -> str:
    a, b = found.before, found.after
    change = found.p50 if percentile == 50 else found.p90
    name = f"p{percentile}"
    if why := not_compared(found, percentile):
        return f"{name}: not compared: {why}"
    if change is None:
        return f"{name}: insufficient samples ({a.queries} and {b.queries} queries)"
    shown = [shown_ms(entry, percentile) for entry in (a, b)]
    unit = "ms an image" if (a.batch, b.batch) != (1, 1) else "ms"
    of = "early-stopping estimates; p90 of the samples " if percentile != 50 and a.kind != "program" else ""
    said = f"{name}: {_ms(shown[0])} -> {_ms(shown[1])} {unit}, {of}x {change.value:.3f}"
    interval = bounds(change, ".3f")
    if not interval:
        return f"{said}: no interval ({change.why})"
    verdict = "not significant" if not change.significant else "faster" if change.value < 1 else "slower"
    doubt = ", but other work ran" if change.significant and doubtful(found, change) else ""
    limits = f"; {change.why}" if change.why else ""
    return f"{said} (95 % interval {interval}, {change.method}{limits}): {_sure(verdict)}{doubt}"


def not_compared(found: Comparison, percentile: int) -> str:
    """Why a percentile of latencies is not compared, whatever the samples are; "" if it is."""
    entries = (found.before, found.after)
    if emulated := [entry.device for entry in entries if entry.source == "emulated"]:
        return f"{emulated[0]} is emulated"
    if percentile != 50 and any(entry.environment.get("timed_together", 1) != 1 for entry in entries):
        return "several queries were timed together"
    if percentile != 50 and "program" in (entry.kind for entry in entries):
        return NO_SINGLE_TIMES
    return ""


def bounds(change: Change, form: str) -> str:
    """An interval in words, perhaps of one end; "" where it has none."""
    if change.low is not None and change.high is not None:
        return f"{change.low:{form}} to {change.high:{form}}"
    if change.low is not None:
        return f"at least {change.low:{form}}"
    return "" if change.high is None else f"at most {change.high:{form}}"


def shown_ms(entry: Entry, percentile: int) -> float | None:
    """A percentile as edgekit shows it everywhere, of one image: of p90 the early-stopping estimate."""
    if percentile == 50:
        return quantile_ms(entry, 50)
    return None if entry.p90_ms is None else entry.p90_ms / entry.batch


def quantile_ms(entry: Entry, percentile: int) -> float | None:
    """The samples' own percentile, of one image; of p50 that of all of them, of p90 that of those kept. Of a program
    its own median.
    """
    if percentile == 50 and entry.p50_ms is not None:
        return entry.p50_ms / entry.batch
    if entry.kind == "program":
        return None
    if entry.samples is None or not len(entry.samples.latencies_ns):
        return None
    return float(np.percentile(entry.samples.latencies_ns, percentile)) / 1e6 / entry.batch


def _of_size(found: Comparison) -> str:
    a, b = found.before, found.after
    if found.same_file:
        return f"size: {a.size_bytes / 1e6:.2f} MB, the same file"
    percent = f", {100 * (b.size_bytes / a.size_bytes - 1):+.1f} %" if a.size_bytes else ""
    return f"size: {a.size_bytes / 1e6:.2f} -> {b.size_bytes / 1e6:.2f} MB{percent}"


def _sure(verdict: str) -> str:
    return verdict if verdict == "not significant" else f"significantly {verdict}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _value(value: Any) -> str:
    return "not recorded" if value in (None, "", -1, -1.0) else str(value)

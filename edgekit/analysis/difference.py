"""Comparison of two kept results: changes, their significance, and other differences that may explain them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.archive.entry import Entry, Kind
from edgekit.measurements import not_finite
from edgekit.stats import proportions
from edgekit.stats.change import Change, Spread, Steps, latency_change, top1_change, widened

# Fields of the environment that may explain a difference, and their names for users.
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
# Where one of these differs, latencies are of two machines or two ways to run a model, and are not compared.
_OTHER_MACHINE = (
    "cpu", "board", "machine", "processor", "accelerator", "batch", "mode", "api", "xnnpack", "power_mode",
    "power_mode_before", "power_mode_after", "clocks_locked_before", "clocks_locked_after", "governor",
    "timed_together",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Comparison of `after` with `before`.

    Attributes:
        top1, p50, p90: None where there is nothing to compare. p50 and p90 are ratios of the samples' percentiles, and
            may have no interval. agreement: percent of the images with the same answer; None where the images are not
            known to be the same.
        paired: both were measured on the same images. same_file: the model file is the same.
        circumstances: other differences, by name: before and after.
        machines: why the latencies are of two machines, or of two ways to run a model; "" if they are not.
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


NO_SINGLE_TIMES = "a program that keeps no single latencies measured it"


class Repeats:
    """Measurements grouped by what repeated ones share: the file, the device, and all that may explain a change.

    Each measurement is looked at once, however many pairs of them are compared.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        unique = {entry.sha256: entry for entry in entries}  # a copied run has the same ones again
        self._setting = {sha256: _setting(entry) for sha256, entry in unique.items()}
        self._groups: dict[tuple[object, ...], list[Entry]] = {}
        for entry in sorted(unique.values(), key=lambda e: (e.run, e.number, e.measured)):
            self._groups.setdefault(self._setting[entry.sha256], []).append(entry)
        self._steps: dict[tuple[object, ...], tuple[Steps, dict[str, int]]] = {}

    def spread(self, before: Entry, after: Entry, name: str) -> Spread | None:
        """Return how far repeated measurements of either side lie apart in a figure, such as "p50_ms".

        Where both sides repeat each other, `after` is left out: it must not be judged by itself.
        """
        if not {before.sha256, after.sha256} <= self._setting.keys():
            return self._with(before, after).spread(before, after, name)
        settings = self._setting[before.sha256], self._setting[after.sha256]
        steps, index = self._steps_of(frozenset(settings), name)
        return steps.spread(without=index.get(after.sha256) if settings[0] == settings[1] else None)

    def _with(self, *entries: Entry) -> Repeats:
        settings = {_setting(entry) for entry in entries}
        return Repeats([*(e for s in settings for e in self._groups.get(s, ())), *entries])

    def _steps_of(self, settings: frozenset[tuple[object, ...]], name: str) -> tuple[Steps, dict[str, int]]:
        """Return the steps of the groups, and the place of each measurement if there is one group."""
        key = (settings, name)
        if key not in self._steps:
            groups = [[(e.sha256, getattr(e, name)) for e in self._groups[setting]] for setting in settings]
            groups = [[(sha256, value) for sha256, value in group if value] for group in groups]
            index = {sha256: n for n, (sha256, _) in enumerate(groups[0])} if len(groups) == 1 else {}
            self._steps[key] = Steps([[value for _, value in group] for group in groups]), index
        return self._steps[key]


def _setting(entry: Entry) -> tuple[object, ...]:
    """Return what repeated measurements share."""
    return (entry.artifact_sha256, entry.device, entry.source, *(str(entry.environment.get(k)) for k in _CIRCUMSTANCES))


def doubtful(found: Comparison, change: Change | None) -> bool:
    """Return whether other work may explain a change of latency: it ran, and no measurements were repeated."""
    return change is not None and not change.repeats and (found.before.busy or found.after.busy)


def compare(before: Entry, after: Entry, repeats: Repeats | None = None) -> Comparison:
    """Compare two entries that have their samples.

    Args:
        repeats: further measurements. Those of the same files on the same machine widen the intervals by how far one
            measurement lies from the next; without any, intervals are of the two measurements alone.
    """
    repeats = repeats or Repeats(())
    a, b = before.samples, after.samples
    assert a is not None
    assert b is not None
    paired = bool(before.images_sha256) and before.images_sha256 == after.images_sha256 and len(a.right) == len(b.right)
    paired = paired and len(a.right) > 0
    return Comparison(
        before=before,
        after=after,
        top1=top1_change(a.right, b.right, paired),
        p50=widened(_latency(before, after, 50), repeats.spread(before, after, "p50_ms")),
        p90=widened(_latency(before, after, 90), repeats.spread(before, after, "p90_ms")),
        agreement=100 * float(proportions.same(a.answers, b.answers).mean()) if paired else None,
        paired=paired,
        same_file=before.artifact_sha256 == after.artifact_sha256,
        circumstances=circumstances(before, after),
        machines=machines(before, after),
    )


def _latency(before: Entry, after: Entry, percentile: int) -> Change | None:
    """Return the change of a percentile; means of several queries, as of a coarse clock, have no p90."""
    assert before.samples is not None
    assert after.samples is not None
    if "emulated" in (before.source, after.source):
        return None
    together = [entry.environment.get("timed_together", 1) for entry in (before, after)]
    if percentile != 50 and together != [1, 1]:
        return None
    if Kind.PROGRAM in (before.kind, after.kind):
        values = [quantile_ms(entry, percentile) for entry in (before, after)]
        if not values[0] or not values[1]:
            return None
        return Change(values[1] / values[0], None, None, "", None, False, why=NO_SINGLE_TIMES)
    series = before.samples.latencies_ns / before.batch, after.samples.latencies_ns / after.batch
    return latency_change(*series, percentile)


def circumstances(before: Entry, after: Entry) -> dict[str, tuple[Any, Any]]:
    """Return the differences of both environments by name, including values that only one of them has."""
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
    """Return why the latencies are of two machines or of two ways to run a model; "" if they are not."""
    if before.device != after.device:
        return f"other device ({before.device}, {after.device})"
    if before.threads != after.threads:
        return f"other number of threads ({before.threads}, {after.threads})"
    for key in _OTHER_MACHINE:
        default = 1 if key == "timed_together" else None
        values = [entry.environment.get(key, default) for entry in (before, after)]
        if values[0] != values[1] and not any(value in (None, "", -1) for value in values):
            return f"other {_CIRCUMSTANCES[key]} ({values[0]}, {values[1]})"
    cores = [entry.environment.get("cores") for entry in (before, after)]
    if None not in cores and cores[0] != cores[1]:
        return f"other number of cores ({cores[0]}, {cores[1]})"
    return ""


def sentences(found: Comparison) -> list[str]:
    """Return a comparison as sentences, figure by figure."""
    a, b = found.before, found.after
    lines = [_of_top1(found), *(_of_latency(found, p) for p in (50, 90)), _of_size(found)]
    lines += [
        f"{side}: {lost}, counted as wrong" for side, e in (("before", a), ("after", b)) if (lost := lost_answers(e))
    ]
    if a.warmup or b.warmup:
        lines.append(
            f"left out as start-up: {a.warmup} of {a.warmup + a.queries} queries, {b.warmup} of {b.warmup + b.queries}"
        )
    if found.agreement is not None and not (found.same_file and found.agreement == 100):
        lines.append(f"same answer on {found.agreement:.1f} % of {a.images} images")
    if found.machines:
        lines.append(f"latencies compare two machines or two ways to run a model, not two versions: {found.machines}")
    lines += [f"differs: {name}: {_value(x)} -> {_value(y)}" for name, (x, y) in found.circumstances.items()]
    if not found.circumstances:
        lines.append("no recorded difference of machine or versions")
    if Kind.PROGRAM in (a.kind, b.kind):
        lines.append("measured by a program that keeps no single latencies, so the significance is unknown")
    return lines


def lost_answers(entry: Entry) -> str:
    """Return in words how many answers are not finite; "" if all are."""
    answers = entry.samples.answers if entry.samples else np.zeros(0, np.int64)
    return not_finite(int((answers == proportions.NO_ANSWER).sum()), len(answers))


def _of_top1(found: Comparison) -> str:
    a, b, change = found.before, found.after, found.top1
    if change is None or a.top1 is None or b.top1 is None:
        return "top-1: not measured in both"
    test = (
        f"McNemar p = {change.p_value:.2g}, the same {a.images} images"
        if change.p_value is not None
        else f"unpaired: {a.images} and {b.images} images that are not known to be the same"
    )
    verdict = "not significant" if not change.significant else "better" if change.value > 0 else "worse"
    return (
        f"top-1: {a.top1:.1f} -> {b.top1:.1f} %, {change.value:+.1f} points "
        f"(95 % interval {change.low:+.1f} to {change.high:+.1f}; {test}): {_sure(verdict)}"
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
    of = "early-stopping estimates; p90 of the samples " if percentile != 50 and a.kind != Kind.PROGRAM else ""
    text = f"{name}: {_ms(shown[0])} -> {_ms(shown[1])} {unit}, {of}x {change.value:.3f}"
    interval = bounds(change, ".3f")
    if not interval:
        return f"{text}: no interval ({change.why})"
    verdict = "not significant" if not change.significant else "faster" if change.value < 1 else "slower"
    doubt = ", but other work ran" if change.significant and doubtful(found, change) else ""
    limits = f"; {change.why}" if change.why else ""
    return f"{text} (95 % interval {interval}, {change.method}{limits}): {_sure(verdict)}{doubt}"


def not_compared(found: Comparison, percentile: int) -> str:
    """Return why a percentile of latencies is not compared, whatever the samples are; "" if it is."""
    entries = (found.before, found.after)
    if emulated := [entry.device for entry in entries if entry.source == "emulated"]:
        return f"{emulated[0]} is emulated"
    if percentile != 50 and any(entry.environment.get("timed_together", 1) != 1 for entry in entries):
        return "several queries were timed together"
    if percentile != 50 and Kind.PROGRAM in (entry.kind for entry in entries):
        return NO_SINGLE_TIMES
    return ""


def bounds(change: Change, form: str) -> str:
    """Return an interval in words, perhaps with one end; "" where it has none."""
    if change.low is not None and change.high is not None:
        return f"{change.low:{form}} to {change.high:{form}}"
    if change.low is not None:
        return f"at least {change.low:{form}}"
    return "" if change.high is None else f"at most {change.high:{form}}"


def shown_ms(entry: Entry, percentile: int) -> float | None:
    """Return a percentile of one image as edgekit shows it everywhere: for p90 the early-stopping estimate."""
    if percentile == 50:
        return quantile_ms(entry, 50)
    return None if entry.p90_ms is None else entry.p90_ms / entry.batch


def quantile_ms(entry: Entry, percentile: int) -> float | None:
    """Return the percentile of the samples, of one image: p50 of all of them, p90 of those kept.

    A program's p50 is the median that it printed.
    """
    if percentile == 50 and entry.p50_ms is not None:
        return entry.p50_ms / entry.batch
    if entry.kind == Kind.PROGRAM:
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

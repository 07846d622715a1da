"""Regressions: results that are worse than a reference, beyond tolerance and beyond chance.

A reference is a run, an earlier measurement, or a file of entries that can be committed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from shlex import quote
from typing import Any

from edgekit import __version__, files
from edgekit.analysis.difference import (
    Comparison,
    Repeats,
    bounds,
    compare,
    doubtful,
    lost_answers,
    not_compared,
    quantile_ms,
)
from edgekit.archive.entry import PACKED, Entry, checked, joined
from edgekit.errors import DataError, MissingError
from edgekit.measurements import TextEnum
from edgekit.stats.change import Change

SCHEMA = 1
_MOST_BYTES, _MOST_ENTRIES = 1 << 26, 1000


class State(TextEnum):
    """Outcome of a check, the worst first. CANNOT_TELL: beyond the tolerance, but not beyond chance."""

    WORSE = "worse"
    CANNOT_TELL = "cannot tell"
    NOT_COMPARED = "not compared"
    PASS = "pass"  # noqa: S105


@dataclass(frozen=True)
class Tolerances:
    """Accepted changes for the worse: latencies and sizes in percent, top-1 in points; None: not checked."""

    p50: float | None = 5.0
    p90: float | None = None
    top1: float | None = 1.0
    size: float | None = 5.0


@dataclass(frozen=True)
class Figure:
    """One figure of one artifact, judged. `change`, `low`, `high`: in points of top-1, else in percent."""

    name: str
    state: State
    why: str
    change: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """One artifact on one device, judged. `before`, `after`: ids of the results, "" where there is none."""

    artifact: str
    device: str
    before: str
    after: str
    figures: tuple[Figure, ...]

    @property
    def state(self) -> State:
        """The worst state of the figures."""
        return next((state for state in State if any(f.state == state for f in self.figures)), State.NOT_COMPARED)


# Figures of results that have nothing to be compared with.
SAME_RESULT = Figure("all", State.NOT_COMPARED, "the newest result is the reference itself")
NOT_IN_REFERENCE = Figure("all", State.NOT_COMPARED, "not in the reference")
NO_SAMPLES = Figure("all", State.NOT_COMPARED, "its samples are damaged")
NOT_MEASURED_NOW = Figure("all", State.NOT_COMPARED, "in the reference, but not measured now")


def judge(before: Entry, after: Entry, tolerances: Tolerances, repeats: Repeats | None = None) -> Verdict:
    """Judge `after` by `before`; both must have their samples. `repeats`: as for `difference.compare`."""
    found = compare(before, after, repeats)
    lost = lost_answers(after)
    figures = [
        Figure("answers", State.WORSE, f"{lost}, counted as wrong") if lost else None,
        None if tolerances.top1 is None else _top1(found, tolerances.top1),
        None if tolerances.p50 is None else _latency("p50", found, found.p50, tolerances.p50),
        None if tolerances.p90 is None else _latency("p90", found, found.p90, tolerances.p90),
        None if tolerances.size is None else _size(found, tolerances.size),
    ]
    return Verdict(after.artifact, after.device, before.id, after.id, tuple(f for f in figures if f is not None))


def _top1(found: Comparison, tolerance: float) -> Figure:
    change = found.top1
    if change is None:
        return Figure("top-1", State.NOT_COMPARED, "not measured in both")
    unpaired = "" if found.paired else ", images not known to be the same"
    text = f"{change.value:+.1f} points ({change.low:+.1f} to {change.high:+.1f}{unpaired})"
    return _judged("top-1", change, -change.value <= tolerance, tolerance, text)


def _latency(name: str, found: Comparison, change: Change | None, tolerance: float) -> Figure:
    percentile = int(name[1:])
    if why := found.machines or not_compared(found, percentile):
        return Figure(name, State.NOT_COMPARED, why)
    if change is None:
        why = f"insufficient samples ({found.before.queries} and {found.after.queries} queries)"
        return Figure(name, State.CANNOT_TELL, why)
    value, low, high = (None if v is None else 100 * (v - 1) for v in (change.value, change.low, change.high))
    percent = dataclasses.replace(change, value=100 * (change.value - 1), low=low, high=high)
    of = "" if percentile == 50 else ", of the samples"
    if not (interval := bounds(percent, "+.1f")):
        shown = " -> ".join("-" if v is None else f"{v:.4g}" for v in _values_ms(found, percentile))
        why = f"{percent.value:+.1f} %, x {change.value:.3f} ({shown} ms{of}), no interval: {change.why}"
        return Figure(name, State.CANNOT_TELL, why, value)
    text = f"{percent.value:+.1f} %{of} ({interval})"
    text += f", {change.why}" if change.why else ""
    text += ", while other work ran" if found.before.busy or found.after.busy else ""
    # The ratio itself is compared: as a percentage, one of exactly 1.05 is a little above 5.
    most = float(1 + Fraction(str(tolerance)) / 100)
    figure = _judged(name, percent, change.value <= most, tolerance, text)
    if figure.state == State.WORSE and doubtful(found, change):
        why = f"{text}, tolerated {tolerance:g}: measure on an idle machine, or four times"
        return dataclasses.replace(figure, state=State.CANNOT_TELL, why=why)
    return figure


def _values_ms(found: Comparison, percentile: int) -> list[float | None]:
    return [quantile_ms(entry, percentile) for entry in (found.before, found.after)]


def _judged(name: str, change: Change, within: bool, tolerance: float, text: str) -> Figure:
    """Return WORSE beyond tolerance and chance, CANNOT_TELL beyond the tolerance alone, else PASS."""
    if within:
        state, why = State.PASS, text
    elif change.significant:
        state, why = State.WORSE, f"{text}, tolerated {tolerance:g}"
    else:
        state, why = State.CANNOT_TELL, f"{text}, tolerated {tolerance:g}: chance alone could do that"
    return Figure(name, state, why, change.value, change.low, change.high)


def _size(found: Comparison, tolerance: float) -> Figure:
    a, b = found.before.size_bytes, found.after.size_bytes
    if not a or not b:
        return Figure("size", State.NOT_COMPARED, "not known of both")
    percent = 100 * (b - a) / a
    state = State.WORSE if percent > tolerance else State.PASS
    why = f"{percent:+.1f} %" + (f", tolerated {tolerance:g}" if state == State.WORSE else "")
    return Figure("size", state, why, percent, percent, percent)


def save_reference(path: Path, entries: Sequence[Entry]) -> None:
    """Write entries, which must have their samples, to a file that can be committed."""
    document = {"schema": SCHEMA, "edgekit": __version__, "created": files.now()}
    files.save_output(path, files.as_json({**document, "results": [_document(entry) for entry in entries]}))


def _document(entry: Entry) -> dict[str, Any]:
    assert entry.samples is not None
    packed = {name: base64.b64encode(content).decode() for name, content in entry.samples.packed().items()}
    return {**{f.name: getattr(entry, f.name) for f in dataclasses.fields(Entry)}, "samples": packed}


def load_reference(path: Path) -> list[Entry]:
    """Read what `save_reference` wrote.

    Raises:
        MissingError: there is no such file. DataError: it is damaged. StorageError: a newer edgekit wrote it.
    """
    if not path.is_file():
        raise MissingError(f"the reference {path} does not exist", f"edgekit check --save-reference {quote(str(path))}")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} is not a reference: it has {path.stat().st_size} bytes")
    results = files.load_document(path, SCHEMA, "results")["results"]
    if not isinstance(results, list) or not 0 < len(results) <= _MOST_ENTRIES:
        raise DataError(
            f"{path} is not a reference: it holds no results", f"edgekit check --save-reference {quote(str(path))}"
        )
    try:
        return [_from_document(result, f"result {number} of {path}") for number, result in enumerate(results, 1)]
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise DataError(
            f"{path} is damaged: {type(error).__name__}: {error}", f"edgekit check --save-reference {quote(str(path))}"
        ) from None


def _from_document(result: dict[str, Any], where: str) -> Entry:
    packed = {name: base64.b64decode(result["samples"][name], validate=True) for name in PACKED}
    entry = checked({"warmup": 0, **{k: v for k, v in result.items() if k != "samples"}}, where)
    return joined(entry, packed, where)

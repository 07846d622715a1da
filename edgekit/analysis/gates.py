"""Verdicts on the gates of measured artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgekit.measurements import Gates, Summary, TextEnum, not_finite


class Outcome(TextEnum):
    """Outcome of one gate on one artifact.

    INSUFFICIENT: a figure is missing where there should be one. DOUBTFUL: the figure holds, but its 95 % interval
    reaches over the limit, other work ran, or queries were cut off as start-up. NOT_SHOWN: this device gives no figure.
    BROKEN is also every gate of a model that gave answers that are not finite.
    """

    HELD = "held"
    BROKEN = "broken"
    INSUFFICIENT = "insufficient"
    DOUBTFUL = "doubtful"
    NOT_SHOWN = "not shown"


_FAILS = (Outcome.BROKEN, Outcome.INSUFFICIENT)


@dataclass(frozen=True)
class Verdict:
    """One gate on one artifact on one device. `text`: the whole verdict for users, with figures."""

    artifact: str
    device: str
    gate: str
    outcome: Outcome
    text: str

    def fails(self, strict: bool) -> bool:
        """Return whether the check as a whole fails; `strict`: everything fails that is not shown to hold."""
        return self.outcome in _FAILS or (strict and self.outcome != Outcome.HELD)


def judge(rows: Iterable[Summary], gates: Gates, without: Iterable[tuple[str, str]] = ()) -> list[Verdict]:
    """Judge every gate that has a limit, on every row but the baselines', in their order.

    A gate that no row could show becomes INSUFFICIENT: a limit is never passed by measuring nothing.

    Args:
        without: names of artifacts and devices that were measured without a row, by a program that keeps no single
            latencies. Gates of their latency are INSUFFICIENT; their accuracy is shown by another row of the file.
    """
    limits = {name: limit for name, limit in dataclasses.asdict(gates).items() if limit is not None}
    judged = [row for row in rows if not row.baseline]
    others = sorted(without)
    found: list[Verdict] = []
    for name, limit in limits.items():
        verdicts = [_verdict(row, name, limit) for row in judged]
        verdicts += [_without_row(artifact, device, name, limit) for artifact, device in others]
        if all(verdict.outcome == Outcome.NOT_SHOWN for verdict in verdicts):
            verdicts = [dataclasses.replace(verdict, outcome=Outcome.INSUFFICIENT) for verdict in verdicts]
        found.extend(verdicts)
    return found


@dataclass(frozen=True)
class _Figure:
    """The figure that a gate limits.

    Attributes:
        worst: the end of its interval that is nearer to the limit. why_not: why there is no value.
        shown: False if this device can give no such figure.
        doubts: reasons to doubt a figure that holds. busy: other work ran, so a figure that fails may be wrong.
        bound: the figure itself is not known, but is at most `value`.
    """

    value: float | None
    worst: float | None
    why_not: str = "the samples are too few"
    shown: bool = True
    doubts: tuple[str, ...] = ()
    busy: bool = False
    bound: bool = False


def _asked(gate: str, limit: float) -> tuple[str, str]:
    """Return the name of a gate's figure, and its limit in words."""
    return _NAMES[gate], f"at {'least' if gate.startswith('min_') else 'most'} {limit:g}{_UNITS[gate]}"


def _unknown(gate: str, limit: float, why: str) -> str:
    name, asked = _asked(gate, limit)
    return f"{name} is not known ({why}), asked {asked}"


def _without_row(artifact: str, device: str, gate: str, limit: float) -> Verdict:
    timed = gate in ("max_p90_ms", "min_speedup")
    why = "no single times were kept" if timed else "no answers were kept"
    text = f"{artifact} on {device}: {_unknown(gate, limit, why)}"
    return Verdict(artifact, device, gate, Outcome.INSUFFICIENT if timed else Outcome.NOT_SHOWN, text)


def _verdict(row: Summary, gate: str, limit: float) -> Verdict:
    figure = _FIGURES[gate](row)
    name, asked = _asked(gate, limit)
    lost = not_finite(row.no_answer, row.samples)

    def keeps(value: float) -> bool:
        return value >= limit if gate.startswith("min_") else value <= limit

    def verdict(outcome: Outcome, *parts: str) -> Verdict:
        return Verdict(row.artifact, row.device, gate, outcome, f"{row.artifact} on {row.device}: {'; '.join(parts)}")

    if lost:
        return verdict(Outcome.BROKEN, f"{lost}, so no gate is held")
    if not figure.shown or figure.value is None:
        return verdict(
            Outcome.INSUFFICIENT if figure.shown else Outcome.NOT_SHOWN, _unknown(gate, limit, figure.why_not)
        )
    text = f"{name} is {figure.value:.4g}{_UNITS[gate]}, asked {asked}"
    if figure.bound:
        text = f"{name} is at most {figure.value:.4g}{_UNITS[gate]}, the share of other answers, asked {asked}"
        if not keeps(figure.value):
            return verdict(Outcome.INSUFFICIENT, text, "labelled images would tell: --data DIR")
    if not keeps(figure.value):
        return verdict(Outcome.BROKEN, text, *(["the machine was busy, measure again"] if figure.busy else []))
    doubts = list(figure.doubts)
    if figure.worst is None:
        doubts.insert(0, "its 95 % interval has no end there")
    elif not keeps(figure.worst):
        doubts.insert(0, f"its 95 % interval reaches {figure.worst:.4g}{_UNITS[gate]}")
    return verdict(Outcome.DOUBTFUL if doubts else Outcome.HELD, text, *doubts)


def _drop(row: Summary) -> _Figure:
    if why := _no_baseline(row):
        return _Figure(None, None, why)
    if row.drop is None:
        return _Figure(row.loss, None if row.agreement_low is None else 100 - row.agreement_low, bound=True)
    return _Figure(row.drop, row.drop_high)


def _no_baseline(row: Summary) -> str:
    """Return why the baseline's top-1 is no measure; "" if it is one."""
    lost = not_finite(row.baseline_no_answer, row.samples)
    return f"of the baseline, {lost}" if lost else ""


def _accuracy(row: Summary) -> _Figure:
    """Return the share of the baseline's top-1 that is left, in percent."""
    if row.top1 is None or row.drop is None:
        return _Figure(None, None, "the images have no labels")
    if (left := row.share_left) is None or _no_baseline(row):
        return _Figure(None, None, _no_baseline(row) or "the baseline has no answer right")
    baseline = row.top1 + row.drop
    worst = None if row.drop_high is None else 100 * (baseline - row.drop_high) / baseline
    return _Figure(left, worst)


def _p90(row: Summary) -> _Figure:
    p90 = next((q for q in row.latency.quantiles if q.percentile == 90), None) if row.latency else None
    return _timed(row, _Figure(row.p90_ms, p90.high_ms if p90 else None, busy=row.busy))


def _speedup(row: Summary) -> _Figure:
    figure = _timed(row, _Figure(row.speedup, row.speedup_low, busy=row.busy or row.speedup_doubtful))
    if figure.shown and row.speedup is None and row.p50_ms is not None:
        return dataclasses.replace(figure, why_not="no baseline has as many threads")
    return figure


def _timed(row: Summary, figure: _Figure) -> _Figure:
    """Add the doubts about a latency; that of a stand-in or an emulator does not count."""
    if row.source == "emulated":
        return dataclasses.replace(figure, shown=False, why_not="the time that an emulator takes is not a latency")
    if row.stand_in:
        return dataclasses.replace(figure, shown=False, why_not=f"{row.ran_in} stood in for its runtime")
    doubts = []
    if figure.busy:
        doubts.append(f"other work ran while {'it' if row.busy else 'the baseline'} was measured")
    if row.latency and row.latency.warmup:
        doubts.append(f"the first {row.latency.warmup} measured queries are left out as a start-up")
    return dataclasses.replace(figure, doubts=tuple(doubts))


_FIGURES: dict[str, Callable[[Summary], _Figure]] = {
    "max_drop": _drop,
    "min_accuracy": _accuracy,
    "max_p90_ms": _p90,
    "min_speedup": _speedup,
}
_NAMES = {
    "max_drop": "the drop of top-1",
    "min_accuracy": "the share that is left of the baseline's top-1",
    "max_p90_ms": "p90",
    "min_speedup": "the speed-up",
}
_UNITS = {"max_drop": " points", "min_accuracy": " %", "max_p90_ms": " ms", "min_speedup": "x"}

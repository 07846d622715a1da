"""Whether measured artifacts keep their gates, and what could not be shown; pure functions of judged rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgekit.measurements import Summary
from edgekit.suites import Gates

HELD, BROKEN, INSUFFICIENT, DOUBTFUL, NOT_SHOWN = "held", "broken", "insufficient", "doubtful", "not shown"
_FAILS = (BROKEN, INSUFFICIENT)


@dataclass(frozen=True)
class Verdict:
    """One gate on one artifact of one device.

    Attributes:
        outcome: "held"; "broken"; "insufficient", no figure where there should be one; "doubtful", the figure holds
            but its 95 % interval reaches over the limit; "not shown", no figure of this device's.
        text: all of it in words, with figures.
    """

    artifact: str
    device: str
    gate: str
    outcome: str
    text: str

    def fails(self, strict: bool) -> bool:
        """Whether it makes the whole fail; `strict`: only what was shown to hold does not."""
        return self.outcome in _FAILS or (strict and self.outcome != HELD)


def judge(rows: Iterable[Summary], gates: Gates) -> list[Verdict]:
    """Every gate that has a limit, on every row but the baseline's, in their order.

    A gate that not one row could show is "insufficient" where it could not be shown: a limit that was set is never
    passed by measuring nothing.
    """
    limits = {name: limit for name, limit in dataclasses.asdict(gates).items() if limit is not None}
    judged = [row for row in rows if not row.baseline]
    found: list[Verdict] = []
    for name, limit in limits.items():
        verdicts = [_verdict(row, name, limit) for row in judged]
        if not any(verdict.outcome != NOT_SHOWN for verdict in verdicts):
            verdicts = [dataclasses.replace(verdict, outcome=INSUFFICIENT) for verdict in verdicts]
        found.extend(verdicts)
    return found


@dataclass(frozen=True)
class _Figure:
    """What a gate looks at: its value and the end of its interval that is nearer to the limit, as text shows them."""

    value: float | None
    worst: float | None
    text: str
    why_not: str = "insufficient samples"
    shown: bool = True


def _verdict(row: Summary, gate: str, limit: float) -> Verdict:
    figure = _FIGURES[gate](row)
    least = gate.startswith("min_")
    asked = f"at {'least' if least else 'most'} {limit:g}{_UNITS[gate]}"

    def keeps(value: float) -> bool:
        return value >= limit if least else value <= limit

    if not figure.shown or figure.value is None:
        outcome, text = (INSUFFICIENT if figure.shown else NOT_SHOWN), f"{figure.text}: {figure.why_not}, asked {asked}"
    elif not keeps(figure.value):
        outcome, text = BROKEN, f"{figure.text} {figure.value:.4g}{_UNITS[gate]}, asked {asked}"
    else:
        text = f"{figure.text} {figure.value:.4g}{_UNITS[gate]}, asked {asked}"
        outcome = HELD
        if figure.worst is None:
            outcome, text = DOUBTFUL, f"{text}; its 95 % interval has no end there"
        elif not keeps(figure.worst):
            outcome, text = DOUBTFUL, f"{text}; its 95 % interval reaches {figure.worst:.4g}{_UNITS[gate]}"
    return Verdict(row.artifact, row.device, gate, outcome, f"{row.artifact} on {row.device}: {text}")


def _drop(row: Summary) -> _Figure:
    return _Figure(row.drop, row.drop_high, "the drop of top-1 is")


def _accuracy(row: Summary) -> _Figure:
    """The share of the baseline's top-1 that is left, in percent."""
    baseline = row.top1 + row.drop
    if baseline <= 0:
        return _Figure(None, None, "top-1 of the baseline's", "the baseline has no answer right")
    worst = None if row.drop_high is None else 100 * (baseline - row.drop_high) / baseline
    return _Figure(100 * row.top1 / baseline, worst, "top-1 of the baseline's is")


def _p90(row: Summary) -> _Figure:
    p90 = next((q for q in row.latency.quantiles if q.percentile == 90), None) if row.latency else None
    return _timed(row, _Figure(row.p90_ms, p90.high_ms if p90 else None, "p90 is"))


def _speedup(row: Summary) -> _Figure:
    figure = _timed(row, _Figure(row.speedup, row.speedup_low, "the speed-up is"))
    if figure.shown and row.speedup is None and row.p50_ms is not None:
        return dataclasses.replace(figure, why_not="no baseline with as many threads")
    return figure


def _timed(row: Summary, figure: _Figure) -> _Figure:
    """Latency of a stand-in or of an emulator is none of the artifact's."""
    if row.source == "emulated":
        return dataclasses.replace(figure, shown=False, why_not="emulated, which is no latency")
    if row.stand_in:
        return dataclasses.replace(figure, shown=False, why_not=f"{row.ran_in} stands in for its runtime")
    return figure


_FIGURES: dict[str, Callable[[Summary], _Figure]] = {
    "max_drop": _drop,
    "min_accuracy": _accuracy,
    "max_p90_ms": _p90,
    "min_speedup": _speedup,
}
_UNITS = {"max_drop": " points", "min_accuracy": " %", "max_p90_ms": " ms", "min_speedup": "x"}

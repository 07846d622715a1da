"""What to ship on each device, and why: a pure function of judged figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.measurements import Gates, Summary
from edgekit.report import reasons
from edgekit.report.pareto import per_image_ms, quantile
from edgekit.report.reasons import FLOAT, WORTH, lost, points
from edgekit.report.tables import SIGNIFICANT, latency

# Points of top-1 that a model may lose.
BUDGET = 1.0
DEVICE, HERE, BROWSER, EMULATED = "device", "this machine", "browser", "emulated"


@dataclass(frozen=True)
class Rejected:
    """An artifact that is not shipped, and why."""

    row: Summary
    why: str


@dataclass(frozen=True)
class Decision:
    """What to ship on one device.

    Attributes:
        device: its name. target: whose files these are; empty where all that ran on the device compete.
        kind: `DEVICE`; or what was measured instead of one, which is never passed off as one.
        chosen: None where the figures decide nothing. reason: one sentence.
        doubts: what makes the latencies behind the choice doubtful. cautions: what else the figures do not carry.
    """

    device: str
    target: str
    kind: str
    chosen: Summary | None
    reason: str
    rejected: tuple[Rejected, ...] = ()
    doubts: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For what the decision is."""
        return self.target or self.device

    @property
    def where(self) -> str:
        """Where it was measured, and what that is not."""
        return {
            DEVICE: f"measured on {self.device}, here" if self.target else "measured on the device",
            BROWSER: "measured in a browser; an app runs the same file by other code",
            HERE: "measured here, on this machine: not a phone, not a board",
            EMULATED: f"emulated on {self.device}: the accuracy tells, there is no latency",
        }[self.kind]


def decide(rows: Sequence[Summary], gates: Gates | None = None) -> list[Decision]:
    """One decision per device; on this machine, which nobody ships to, and under emulation one per target.

    Of what costs at most ``gates.max_drop`` points of top-1 (else `BUDGET`) and keeps the other gates, the fastest is
    shipped; a rounded network only if it is `WORTH` times as fast as the fastest in floating point. Of equally fast
    ones that without a significant loss, then the smallest. Without a latency of its own runtime nothing is chosen.
    """
    gates = gates or Gates()
    found: dict[tuple[str, str], list[Summary]] = {}
    for row in rows:
        if not row.baseline:
            apart = row.source != "device" and kind_of(row) != BROWSER
            found.setdefault((row.device, row.target if apart else ""), []).append(row)
    order = (DEVICE, BROWSER, HERE, EMULATED)
    decisions = [_decide(device, target, group, gates) for (device, target), group in found.items()]
    return sorted(decisions, key=lambda d: (order.index(d.kind), d.device, d.target))


def rule(gates: Gates) -> str:
    """How it is decided, in words."""
    budget = BUDGET if gates.max_drop is None else gates.max_drop
    known = {
        f"{gates.min_accuracy} % of the baseline's top-1 at least": gates.min_accuracy,
        f"a p90 of at most {gates.max_p90_ms} ms": gates.max_p90_ms,
        f"{gates.min_speedup} times the baseline's speed at least": gates.min_speedup,
    }
    wanted = [text for text, value in known.items() if value is not None]
    limits = f", with {' and '.join(wanted)}" if wanted else ""
    return (
        f"The rule: of what costs at most {points(budget)} of top-1{limits}, the fastest; a rounded network only if "
        f"it is {WORTH:g} times as fast as the fastest in floating point; of equally fast ones the smallest. Intervals "
        "are of 95 %; * p < 0.05 (McNemar, paired)."
    )


def kind_of(row: Summary) -> str:
    """What was measured: a device, or what stood in for one."""
    if row.source == "emulated":
        return EMULATED
    if row.ran_in.startswith("LiteRT.js") or row.device.startswith("web:"):
        return BROWSER
    on_board = row.compute_ms is not None  # of a Jetson that runs edgekit itself
    own = row.target == "desktop" and not row.stand_in  # what is shipped to a machine like this one
    return DEVICE if row.source == "device" or on_board or own else HERE


def _decide(device: str, target: str, rows: Sequence[Summary], gates: Gates) -> Decision:
    rows = list({(row.artifact, row.ran_in): row for row in rows}.values())
    budget = BUDGET if gates.max_drop is None else gates.max_drop
    out = [Rejected(row, why) for row in rows if (why := _fails(row, budget, gates))]
    able = [row for row in rows if row not in [r.row for r in out]]
    kind = kind_of(rows[0])
    if not able:
        return Decision(device, target, kind, None, reasons.nothing(rows, budget), tuple(out))
    exact = _fastest([row for row in able if row.precision in FLOAT])
    quick = _fastest([row for row in able if row.precision not in FLOAT])
    if exact and quick:
        worth = per_image_ms(exact) / per_image_ms(quick) >= WORTH
        chosen = _best([row for row in able if _competes(row, exact, worth)])
        reason = reasons.faster(chosen, exact) if worth else reasons.exact_enough(chosen, exact, quick)
    else:
        chosen = _best(able)
        reason = reasons.alone(chosen, rows, budget)
    lead = min((row for row in able if (row.precision in FLOAT) == (chosen.precision in FLOAT)), key=per_image_ms)
    out += [Rejected(row, reasons.slower(row, chosen, lead, exact)) for row in able if row is not chosen]
    order = {row.artifact: n for n, row in enumerate(rows)}
    out.sort(key=lambda r: order[r.row.artifact])
    doubts, cautions = reasons.doubts(chosen, able), reasons.cautions(chosen, able, budget)
    return Decision(device, target, kind, chosen, reason, tuple(out), tuple(doubts), tuple(cautions))


def _competes(row: Summary, exact: Summary, rounded: bool) -> bool:
    """Whether the row is of the kind that is shipped; of rounded ones each must be worth it, not only the fastest."""
    if row.precision in FLOAT:
        return not rounded
    return rounded and per_image_ms(exact) / per_image_ms(row) >= WORTH


def _fails(row: Summary, budget: float, gates: Gates) -> str:
    """Why the row cannot be chosen at all; empty if it can."""
    if row.drop > budget:
        return f"too wrong: {lost(row, budget)}; at most {budget:g} below is allowed"
    if gates.min_accuracy is not None and row.top1 < gates.min_accuracy / 100 * (row.top1 + row.drop):
        return f"too wrong: {lost(row)}; at least {gates.min_accuracy:g} % of the baseline's top-1 is wanted"
    if row.stand_in:
        return f"ran in {row.ran_in} as a stand-in: its accuracy tells ({lost(row)}), its latency does not"
    if row.source == "emulated":
        return f"emulated: its accuracy tells ({lost(row)}), how long it took does not"
    if row.p50_ms is None:
        return "insufficient samples for a p50"
    if gates.max_p90_ms is not None:
        found = quantile(row, 90)
        p90 = found.bound_ms if found else row.p90_ms
        if p90 is None or p90 > gates.max_p90_ms:
            return (
                f"p90 {'unknown' if p90 is None else f'{latency(p90)} ms'}; at most {gates.max_p90_ms:g} ms is allowed"
            )
    if gates.min_speedup is not None and (row.speedup is None or row.speedup < gates.min_speedup):
        said = "unknown" if row.speedup is None else f"{row.speedup:.2f} times the baseline's"
        return f"speed {said}; at least {gates.min_speedup:g} times is wanted"
    return ""


def _fastest(rows: Sequence[Summary]) -> Summary | None:
    return min(rows, key=per_image_ms, default=None)


def _best(rows: Sequence[Summary]) -> Summary:
    """Of the rows that are nearly as fast as the fastest: no significant loss first, then the smallest."""
    fastest = min(map(per_image_ms, rows))
    near = [row for row in rows if per_image_ms(row) < fastest * WORTH]
    return min(near, key=lambda r: (r.drop > 0 and r.p_value < SIGNIFICANT, r.size_mb, per_image_ms(r)))

"""What to ship on each device, and why: a pure function of judged figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekit.measurements import Summary
from edgekit.report.pareto import per_image_ms, quantile
from edgekit.report.tables import SIGNIFICANT, latency
from edgekit.suites import Gates

# What a rounded network must be to be worth it: so many times as fast as floating point; points of top-1 it may lose.
WORTH, BUDGET = 1.15, 1.0
DEVICE, HERE, BROWSER, EMULATED = "device", "this machine", "browser", "emulated"
_FLOAT = ("fp32", "fp16")
_NAMES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8", "w8": "W8", "16x8": "16x8"}


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
    shipped; a rounded network only if it is `WORTH` times as fast as the best in floating point. Of equally fast ones
    that without a significant loss, then the smallest. Without a latency of its own runtime nothing is chosen.
    """
    gates = gates or Gates()
    found: dict[tuple[str, str], list[Summary]] = {}
    for row in rows:
        if not row.baseline:
            apart = row.source != "device" and kind_of(row) != BROWSER
            found.setdefault((row.device, row.target if apart else ""), []).append(row)
    order = (DEVICE, BROWSER, HERE, EMULATED)
    decisions = [_decide(device, target, group, gates) for (device, target), group in found.items()]
    if any(row.baseline and row.busy for row in rows):
        decisions = [_without_speedup(d) for d in decisions]
    return sorted(decisions, key=lambda d: (order.index(d.kind), d.device, d.target))


def _without_speedup(decision: Decision) -> Decision:
    """The decision where nothing can be compared with the baseline's latency."""
    if decision.chosen is None:
        return decision
    why = "the machine was busy while the baseline was measured: how much faster this is than it, is not said"
    chosen = replace(decision.chosen, speedup=None, speedup_low=None, speedup_high=None, speedup_best=None)
    return replace(decision, chosen=chosen, cautions=(*decision.cautions, why))


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
        f"The rule: of what costs at most {_points(budget)} of top-1{limits}, the fastest; a rounded network only if "
        f"it is {WORTH:g} times as fast as the best in floating point; of equally fast ones the smallest. Intervals "
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


def lost(row: Summary) -> str:
    """The drop in words, and whether it is one."""
    interval = "" if row.drop_low is None else f" (95 %: {row.drop_low:+.1f} to {row.drop_high or 0.0:+.1f})"
    if abs(row.drop) < 0.05:
        change = f"like the baseline{interval}"
    else:
        change = f"{abs(row.drop):.1f} points of top-1 {'below' if row.drop > 0 else 'above'} the baseline{interval}"
    tells = (
        f"significant, p = {row.p_value:.2g}"
        if row.p_value < SIGNIFICANT
        else f"no difference that {row.samples} images can show"
    )
    return f"{change}, {tells}"


def _decide(device: str, target: str, rows: Sequence[Summary], gates: Gates) -> Decision:
    rows = list({(row.artifact, row.ran_in): row for row in rows}.values())
    budget = BUDGET if gates.max_drop is None else gates.max_drop
    out = [Rejected(row, why) for row in rows if (why := _fails(row, budget, gates))]
    able = [row for row in rows if row not in [r.row for r in out]]
    kind = kind_of(rows[0])
    if not able:
        return Decision(device, target, kind, None, _nothing(rows, out, budget), tuple(out))
    floats = [row for row in able if row.precision in _FLOAT]
    rounded = [row for row in able if row.precision not in _FLOAT]
    exact, quick = _best(floats), _best(rounded)
    if exact and quick:
        ratio = per_image_ms(exact) / per_image_ms(quick)
        chosen, other = (quick, exact) if ratio >= WORTH else (exact, quick)
        reason = _compared(chosen, other, ratio, quick)
    else:
        chosen = exact or quick or able[0]
        reason = _alone(chosen, rows, budget)
    out += [Rejected(row, _slower(row, chosen)) for row in able if row is not chosen]
    order = {row.artifact: n for n, row in enumerate(rows)}
    out.sort(key=lambda r: order[r.row.artifact])
    doubts, cautions = _doubts(chosen, able), _cautions(chosen, able, budget)
    return Decision(device, target, kind, chosen, reason, tuple(out), tuple(doubts), tuple(cautions))


def _fails(row: Summary, budget: float, gates: Gates) -> str:
    """Why the row cannot be chosen at all; empty if it can."""
    if row.drop > budget:
        return f"too wrong: {lost(row)}; at most {budget:g} below is allowed"
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


def _best(rows: Sequence[Summary]) -> Summary | None:
    """Of the rows that are nearly as fast as the fastest: no significant loss first, then the smallest."""
    if not rows:
        return None
    fastest = min(map(per_image_ms, rows))
    near = [row for row in rows if per_image_ms(row) < fastest * WORTH]
    return min(near, key=lambda r: (r.drop > 0 and r.p_value < SIGNIFICANT, r.size_mb, per_image_ms(r)))


def _compared(chosen: Summary, other: Summary, ratio: float, quick: Summary) -> str:
    rounded, exact = (_NAMES[row.precision] for row in ((chosen, other) if chosen is quick else (other, chosen)))
    times = f"{rounded} is {ratio:.2f} times as fast as {exact}"
    if chosen is quick:
        times += f" (p50 {_p50(chosen)} and {_p50(other)} ms), {_smaller(chosen, other)}; {lost(chosen)}"
        return f"{times}."
    larger = other.size_mb < chosen.size_mb
    size = f"; where size counts more, {rounded} is {_smaller(other, chosen)}" if larger else ""
    return f"{times}, at least {WORTH:g} is wanted of a rounded network; {exact}: {lost(chosen)}{size}."


def _alone(chosen: Summary, rows: Sequence[Summary], budget: float) -> str:
    name = _NAMES[chosen.precision]
    if len(rows) == 1:
        return f"{name} is all that was measured: p50 {_p50(chosen)} ms; {lost(chosen)}."
    others = sorted(
        {_NAMES[row.precision] for row in rows if (row.precision in _FLOAT) != (chosen.precision in _FLOAT)}
    )
    left = f", and none of {', '.join(others)} can be chosen" if others else ""
    return f"{name} is the best that stays within {_points(budget)}: p50 {_p50(chosen)} ms; {lost(chosen)}{left}."


def _nothing(rows: Sequence[Summary], out: Sequence[Rejected], budget: float) -> str:
    right = [row for row in rows if row.drop <= budget]
    if not right:
        least = min(rows, key=lambda row: row.drop)
        return (
            f"Nothing measured stays within {_points(budget)} of top-1; the nearest is {least.artifact}: {lost(least)}."
        )
    if all(row.stand_in or row.source == "emulated" for row in right):
        known = ", ".join(dict.fromkeys(_NAMES[row.precision] for row in right))
        return f"Not decided: no latency of the device's own runtime was measured; right enough: {known}."
    return "Not decided: of what is right enough nothing keeps the limits of latency, or has samples enough."


def _slower(row: Summary, chosen: Summary) -> str:
    ratio = per_image_ms(row) / per_image_ms(chosen)
    if ratio >= WORTH:
        time = f"{ratio:.2f} times as slow (p50 {_p50(row)} ms)"
    elif ratio > 1 / WORTH:
        time = f"not faster by {WORTH:g} times (p50 {_p50(row)} ms)"
    else:
        time = f"faster (p50 {_p50(row)} ms), but not by {WORTH:g} times against the best float"
    size = f", {row.size_mb / chosen.size_mb:.1f} times as large" if row.size_mb > 1.1 * chosen.size_mb else ""
    worse = f"; {lost(row)}" if row.drop > 0 and row.p_value < SIGNIFICANT else ""
    return f"{time}{size}{worse}"


def _p50(row: Summary) -> str:
    return latency(row.p50_ms) + (f" of {row.batch} images" if row.batch > 1 else "")


def _smaller(one: Summary, other: Summary) -> str:
    ratio = other.size_mb / one.size_mb
    return f"{ratio:.1f} times smaller" if ratio >= 1.1 else f"of {one.size_mb:.1f} MB"


def _doubts(chosen: Summary, able: Sequence[Summary]) -> list[str]:
    """What makes the latencies doubtful that were compared."""
    doubts = []
    if busy := [row.artifact for row in able if row.busy]:
        doubts.append(f"measured while the machine was busy with other work, measure again: {_few(busy)}")
    if slowed := [row.artifact for row in able if row.throttling]:
        doubts.append(f"measured while the board was slowed down: {_few(slowed)}")
    modes = sorted({str(row.state.get("power_mode", "")) for row in able})
    if len(modes) > 1:
        doubts.append(f"measured in different power modes ({', '.join(m or 'unknown' for m in modes)})")
    doubts += [f"latency of {chosen.artifact}: {flag}" for flag in (chosen.latency.flags if chosen.latency else ())]
    return doubts


def _cautions(chosen: Summary, able: Sequence[Summary], budget: float) -> list[str]:
    """What else a reader must know before the choice is acted upon."""
    cautions = []
    if chosen.drop_high is not None and chosen.drop_high > budget:
        cautions.append(f"with {chosen.samples} images the loss may be up to {chosen.drop_high:.1f} points")
    if other := _overlapping(chosen, able):
        cautions.append(f"the 95 % intervals of p50 overlap with {_few(other)}")
    return cautions


def _overlapping(chosen: Summary, able: Sequence[Summary]) -> list[str]:
    mine = quantile(chosen, 50)
    if mine is None or mine.low_ms is None or mine.high_ms is None:
        return []
    names = []
    for row in able:
        its = quantile(row, 50)
        if row is chosen or its is None or its.low_ms is None or its.high_ms is None:
            continue
        if (
            its.low_ms / row.batch <= mine.high_ms / chosen.batch
            and mine.low_ms / chosen.batch <= its.high_ms / row.batch
        ):
            names.append(row.artifact)
    return names


def _points(budget: float) -> str:
    return f"{budget:g} point" + ("" if budget == 1 else "s")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

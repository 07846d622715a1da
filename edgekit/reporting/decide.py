"""What to ship on each device, and why: a pure function of judged figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.measurements import Gates, Quantile, Summary
from edgekit.reporting.tables import SIGNIFICANT, latency
from edgekit.scores import Evaluation

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
        return Decision(device, target, kind, None, nothing(rows, budget), tuple(out))
    exact = _fastest([row for row in able if row.precision in FLOAT])
    quick = _fastest([row for row in able if row.precision not in FLOAT])
    if exact and quick:
        worth = per_image_ms(exact) / per_image_ms(quick) >= WORTH
        chosen = _best([row for row in able if _competes(row, exact, worth)])
        reason = faster(chosen, exact) if worth else exact_enough(chosen, exact, quick)
    else:
        chosen = _best(able)
        reason = alone(chosen, rows, budget)
    lead = min((row for row in able if (row.precision in FLOAT) == (chosen.precision in FLOAT)), key=per_image_ms)
    out += [Rejected(row, slower(row, chosen, lead, exact)) for row in able if row is not chosen]
    order = {row.artifact: n for n, row in enumerate(rows)}
    out.sort(key=lambda r: order[r.row.artifact])
    doubts, cautions = find_doubts(chosen, able), find_cautions(chosen, able, budget)
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


# Latency of one image against top-1: what can be compared, and what leads.


def timed(row: Summary) -> bool:
    """Whether the row has a latency that says how fast the artifact is there."""
    return row.p50_ms is not None and not row.stand_in and row.source != "emulated"


def per_image_ms(row: Summary) -> float:
    """The p50 of one image; only of rows that are `timed`."""
    assert row.p50_ms is not None
    return row.p50_ms / row.batch


def quantile(row: Summary, percentile: float) -> Quantile | None:
    """The percentile with its interval, where the statistics have it."""
    found = row.latency.quantiles if row.latency else ()
    return next((q for q in found if q.percentile == percentile), None)


def pareto_front(rows: Sequence[Summary]) -> list[int]:
    """Positions of the rows that no other one beats in both latency and top-1, the fastest first."""
    order = sorted(
        (n for n, row in enumerate(rows) if timed(row)), key=lambda n: (per_image_ms(rows[n]), -rows[n].top1)
    )
    best, kept = float("-inf"), []
    for n in order:
        if rows[n].top1 > best:
            best = rows[n].top1
            kept.append(n)
    return kept


# Why one model is shipped and the others are not, in sentences; and what makes that doubtful.

# So many times as fast as floating point a rounded network must be to be worth it.
WORTH = 1.15
FLOAT = ("fp32", "fp16")
_NAMES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8", "w8": "W8", "16x8": "16x8"}
# How the flag of a series begins whose queries depend on each other. Where it has an interval, that knows of it.
AUTOCORRELATED = "autocorrelated"
_MOST_FLAGS = 3


def lost(row: Summary, limit: float | None = None) -> str:
    """The drop in words, and whether it is one; with as many digits as tell it from `limit`."""
    interval = ""
    if row.drop_low is not None and row.drop_high is not None:
        interval = f" (95 %: {row.drop_low:+.1f} to {row.drop_high:+.1f})"
    if abs(row.drop) < 0.05:
        change = f"like the baseline{interval}"
    else:
        digits = 1 if limit is None else next((n for n in (1, 2, 3) if round(row.drop, n) != round(limit, n)), 4)
        side = "below" if row.drop > 0 else "above"
        change = f"{abs(row.drop):.{digits}f} points of top-1 {side} the baseline{interval}"
    return f"{change}, {shown(row)}"


def shown(row: Summary) -> str:
    """What the images show of the drop: the interval and the test need not agree where it is close."""
    if row.drop_low is not None and row.drop_high is not None:
        apart = row.drop_low > 0 or row.drop_high < 0
        if apart != (row.p_value < SIGNIFICANT):
            return f"on the border of what {row.samples} images can show, p = {row.p_value:.2g}"
    if row.p_value < SIGNIFICANT:
        return f"significant, p = {row.p_value:.2g}"
    return f"no difference that {row.samples} images can show"


def faster(chosen: Summary, exact: Summary) -> str:
    """Why a rounded network is chosen; `exact` is the fastest in floating point."""
    return (
        f"{_NAMES[chosen.precision]} is {_times(chosen, exact):.2f} times as fast as {_NAMES[exact.precision]} "
        f"(p50 {_p50(chosen)} and {_p50(exact)} ms), {_smaller(chosen, exact)}; {lost(chosen)}."
    )


def exact_enough(chosen: Summary, exact: Summary, quick: Summary) -> str:
    """Why none is chosen that was rounded: the fastest of them, `quick`, against the fastest in floating point."""
    name, rounded = _NAMES[chosen.precision], _NAMES[quick.precision]
    text = (
        f"{rounded} is {_times(quick, exact):.2f} times as fast as {_NAMES[exact.precision]}, at least {WORTH:g} is "
        "wanted of a rounded network"
    )
    if chosen is not exact:
        text += (
            f"; {name} is nearly as fast as {_NAMES[exact.precision]} (p50 {_p50(chosen)} and {_p50(exact)} ms), "
            + (_smaller(chosen, exact) if chosen.size_mb < exact.size_mb else "without its loss")
        )
    size = f"; where size counts more, {rounded} is {_smaller(quick, chosen)}" if quick.size_mb < chosen.size_mb else ""
    return f"{text}; {name}: {lost(chosen)}{size}."


def alone(chosen: Summary, rows: Sequence[Summary], budget: float) -> str:
    """Why the row is chosen where there is nothing of the other kind, rounded or not, to compare it with."""
    name = _NAMES[chosen.precision]
    if len(rows) == 1:
        return f"{name} is all that was measured: p50 {_p50(chosen)} ms; {lost(chosen)}."
    others = sorted({_NAMES[row.precision] for row in rows if (row.precision in FLOAT) != (chosen.precision in FLOAT)})
    left = f", and none of {', '.join(others)} can be chosen" if others else ""
    return f"{name} is the best that stays within {points(budget)}: p50 {_p50(chosen)} ms; {lost(chosen)}{left}."


def nothing(rows: Sequence[Summary], budget: float) -> str:
    """Why nothing is chosen."""
    right = [row for row in rows if row.drop <= budget]
    if not right:
        least = min(rows, key=lambda row: row.drop)
        return (
            f"Nothing measured stays within {points(budget)} of top-1; the nearest is {least.artifact}: "
            f"{lost(least, budget)}."
        )
    if all(row.stand_in or row.source == "emulated" for row in right):
        known = ", ".join(dict.fromkeys(_NAMES[row.precision] for row in right))
        return f"Not decided: no latency of the device's own runtime was measured; right enough: {known}."
    return "Not decided: of what is right enough nothing keeps the limits of latency, or has samples enough."


def slower(row: Summary, chosen: Summary, lead: Summary, exact: Summary | None) -> str:
    """Why a row that could be is not chosen; `lead` is the fastest of the kind that is, `exact` in floating point."""
    if (ratio := _times(chosen, row)) >= WORTH:
        time = f"{ratio:.2f} times as slow (p50 {_p50(row)} ms)"
    elif row.precision not in FLOAT and exact and (gain := _times(row, exact)) < WORTH:
        time = (
            f"p50 {_p50(row)} ms, {gain:.2f} times as fast as {_NAMES[exact.precision]}, the fastest in floating "
            f"point; at least {WORTH:g} is wanted"
        )
    elif (behind := _times(lead, row)) >= WORTH:
        time = f"{behind:.2f} times as slow as {lead.artifact} (p50 {_p50(row)} ms)"
    else:
        time = f"not faster by {WORTH:g} times (p50 {_p50(row)} ms)"
    size = f", {row.size_mb / chosen.size_mb:.1f} times as large" if row.size_mb > 1.1 * chosen.size_mb else ""
    worse = f"; {lost(row)}" if row.drop > 0 and row.p_value < SIGNIFICANT else ""
    return f"{time}{size}{worse}"


def find_doubts(chosen: Summary, able: Sequence[Summary]) -> list[str]:
    """What makes the latencies doubtful that were compared."""
    found = []
    if busy := [row.artifact for row in able if row.busy]:
        found.append(f"measured while the machine was busy with other work, measure again: {few(busy)}")
    if slowed := [row.artifact for row in able if row.throttling]:
        found.append(f"measured while the board was slowed down: {few(slowed)}")
    modes = sorted({str(row.state.get("power_mode", "")) for row in able})
    if len(modes) > 1:
        found.append(f"measured in different power modes ({', '.join(m or 'unknown' for m in modes)})")
    flagged = [chosen, *(row for row in able if row is not chosen)]
    flags = [f"latency of {row.artifact}: {flag}" for row in flagged for flag in doubtful_flags(row)]
    found += flags[:_MOST_FLAGS]
    if len(flags) > _MOST_FLAGS:
        found.append(f"and {len(flags) - _MOST_FLAGS} more such flags, which stand below the figures")
    return found


def doubtful_flags(row: Summary) -> list[str]:
    """The flags of the series without one that the interval of its median knows of."""
    p50 = quantile(row, 50)
    known = p50 is not None and p50.low_ms is not None and p50.high_ms is not None
    flags = row.latency.flags if row.latency else ()
    return [flag for flag in flags if not (known and flag.startswith(AUTOCORRELATED))]


def find_cautions(chosen: Summary, able: Sequence[Summary], budget: float) -> list[str]:
    """What else a reader must know before the choice is acted upon."""
    found = []
    if chosen.drop_high is not None and chosen.drop_high > budget:
        found.append(f"with {chosen.samples} images the loss may be up to {chosen.drop_high:.1f} points")
    if other := _overlapping(chosen, able):
        found.append(f"the 95 % intervals of p50 overlap with {few(other)}")
    if chosen.speedup is not None and chosen.speedup_doubtful:
        found.append("the machine was busy while this or the baseline was measured: how much faster it is, is doubtful")
    return found


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


def points(budget: float) -> str:
    """So many points of top-1."""
    return f"{budget:g} point" + ("" if budget == 1 else "s")


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _times(one: Summary, other: Summary) -> float:
    """How many times as fast one is as the other."""
    return per_image_ms(other) / per_image_ms(one)


def _p50(row: Summary) -> str:
    return latency(row.p50_ms) + (f" of {row.batch} images" if row.batch > 1 else "")


def _smaller(one: Summary, other: Summary) -> str:
    ratio = other.size_mb / one.size_mb
    return f"{ratio:.1f} times smaller" if ratio >= 1.1 else f"of {one.size_mb:.1f} MB"


# What the figures say, in sentences, and no more than they carry.

# Of fewer val images nothing is claimed. And where a fitted temperature stops.
LEAST_JUDGED = 100
_LIMITS = 0.051, 19.9


def quantization_verdicts(rows: Sequence[Summary], gates: Gates | None = None) -> list[str]:
    """For each device that was measured itself: what to ship, and why, as the page says it. Nothing of browsers and of
    this machine, unless it has TensorRT; `decide.decide` has the rules, and takes the gates.
    """
    lines = []
    for found in decide(rows, gates):
        if found.kind == DEVICE:
            what = (
                f"ship {found.chosen.precision}: {found.reason}" if found.chosen else f"nothing to ship: {found.reason}"
            )
            doubts = f" Doubtful: {'; '.join(found.doubts)}." if found.doubts else ""
            cautions = f" But {'; '.join(found.cautions)}." if found.cautions else ""
            lines.append(f"On {found.device} {what}{doubts}{cautions}")
    return lines


def training_verdicts(evaluation: Evaluation) -> list[str]:
    """What the trained network is worth on the test split: how right, how well calibrated, how doubtful."""
    test, dropout = evaluation.splits["test"], evaluation.dropout
    scores = test.scores
    right = (
        f"{scores.top1:.1f} % of {scores.samples} test images right (95 % interval {scores.top1_low:.1f}-"
        f"{scores.top1_high:.1f}); over the classes: precision {scores.macro.precision:.1f}, "
        f"recall {scores.macro.recall:.1f} (balanced accuracy), F1 {scores.macro.f1:.1f} %"
    )
    if scores.absent:
        right += f"; {scores.absent} of {len(evaluation.labels)} classes have no test image and are left out"
    calibrated = (
        f"Temperature {evaluation.temperature:.2f}, fitted on val, takes NLL on test from {test.before.nll:.3f} "
        f"to {test.after.nll:.3f}, ECE from {test.before.ece:.1f} to {test.after.ece:.1f} %"
    )
    if not _LIMITS[0] < evaluation.temperature < _LIMITS[1]:
        calibrated += "; it is at its limit, as for a network that is no better than guessing, or always right"
    gains = dropout.helps and dropout.fitted_on >= LEAST_JUDGED
    doubt = (
        f"Dropout at test time, for predict --uncertainty (rate {dropout.rate:g}, {dropout.samples} samples): NLL on "
        f"test {test.dropout.nll:.3f} against {test.after.nll:.3f} with temperature alone; fitted on val, there "
        f"{'better by more than chance' if gains else 'no gain beyond chance'}"
    )
    return [f"{line}." for line in (right, calibrated, doubt)]

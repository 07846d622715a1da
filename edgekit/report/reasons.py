"""Why one model is shipped and the others are not, in sentences; and what makes that doubtful."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Summary
from edgekit.report.pareto import per_image_ms, quantile
from edgekit.report.tables import SIGNIFICANT, latency

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


def doubts(chosen: Summary, able: Sequence[Summary]) -> list[str]:
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


def cautions(chosen: Summary, able: Sequence[Summary], budget: float) -> list[str]:
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

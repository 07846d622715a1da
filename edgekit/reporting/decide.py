"""Choice of the model to ship on each device, with its reasons in sentences; pure functions of judged figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from edgekit.labels import visible
from edgekit.measurements import Flag, FlagKind, Gates, Quantile, Summary, not_finite
from edgekit.records import FLOAT
from edgekit.reporting.tables import in_browser, latency
from edgekit.scores import Evaluation
from edgekit.stats.proportions import SIGNIFICANT
from edgekit.stats.quantiles import half_ns

# Points of top-1 that a model may lose unless a gate says otherwise.
BUDGET = 1.0
# A quantized model is shipped if it is at least this many times as fast as floating point; times closer than this to
# each other count as equal.
WORTH = 1.15
_NAMES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8", "w8": "W8", "16x8": "16x8"}
_MOST_FLAGS = 3
# Factor by which a latency may be wrong that was measured beside other work, throttled or in another power mode: of two
# such latencies, one may come out twice as long, as when two programs take turns on a core.
_DISTURBED = 1.4


class Basis(str, Enum):
    """Object of a measurement: the device itself, or something in its place."""

    DEVICE = "device"
    BROWSER = "browser"
    HERE = "this machine"
    EMULATED = "emulated"

    __str__ = str.__str__

    def text(self, device: str, target: str) -> str:
        """Return where a decision was measured, and what that does not tell."""
        return {
            Basis.DEVICE: f"measured on {device}, this machine" if target else "measured on the device",
            Basis.BROWSER: "measured in a browser; in an app the same file runs natively",
            Basis.HERE: "measured on this machine, not on a phone or a board",
            Basis.EMULATED: f"emulated on {device}: the accuracy is valid, there is no latency",
        }[self]


class DoubtKind(str, Enum):
    """Reasons to doubt the latencies behind a choice."""

    BUSY = "busy"
    THROTTLED = "throttled"
    POWER_MODES = "power modes"
    FLAG = "flag"
    MORE_FLAGS = "more flags"

    __str__ = str.__str__


@dataclass(frozen=True)
class Doubt:
    """One reason to doubt the latencies behind a choice, with its text for the reader."""

    kind: DoubtKind
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Rejected:
    """An artifact that is not shipped, and the reason."""

    row: Summary
    reason: str


@dataclass(frozen=True)
class Decision:
    """The model to ship on one device.

    Attributes:
        target: target of the files; empty if everything that ran on the device competes.
        chosen: None if the figures do not decide.
        reason: one sentence.
        cautions: further limits of the figures, besides the doubts about the latencies.
    """

    device: str
    target: str
    basis: Basis
    chosen: Summary | None
    reason: str
    rejected: tuple[Rejected, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the target, or of the device if everything on it competes."""
        return self.target or self.device

    @property
    def where(self) -> str:
        """Place where the decision was measured, and what that does not tell."""
        return self.basis.text(self.device, self.target)

    @property
    def on_device(self) -> bool:
        """Return whether the device itself was measured."""
        return self.basis == Basis.DEVICE


def decide(rows: Sequence[Summary], gates: Gates | None = None) -> list[Decision]:
    """Return one decision for each device; for this machine and for emulators, one for each target.

    Candidates lose at most ``gates.max_drop`` points of top-1 (default: `BUDGET`), keep the other gates and have a
    latency of their own runtime. The fastest one is chosen; a quantized one only if it is `WORTH` times as fast as the
    fastest in floating point. Among equally fast ones, those without a significant loss come first, then the smallest.
    """
    gates = gates or Gates()
    groups: dict[tuple[str, str], list[Summary]] = {}
    for row in rows:
        if not row.baseline:
            by_target = row.source != "device" and basis_of(row) != Basis.BROWSER
            groups.setdefault((row.device, row.target if by_target else ""), []).append(row)
    order = list(Basis)
    decisions = [_decide(device, target, group, gates) for (device, target), group in groups.items()]
    return sorted(decisions, key=lambda d: (order.index(d.basis), d.device, d.target))


def rule(gates: Gates) -> str:
    """Return the rule of `decide` in words."""
    limits = {
        f"at least {gates.min_accuracy} % of the baseline's top-1": gates.min_accuracy,
        f"a p90 of at most {gates.max_p90_ms} ms": gates.max_p90_ms,
        f"at least {gates.min_speedup} times the baseline's speed": gates.min_speedup,
    }
    wanted = [text for text, value in limits.items() if value is not None]
    kept = f", with {' and '.join(wanted)}" if wanted else ""
    return (
        f"Rule: among the models that lose at most {_points(_budget(gates))} of top-1{kept}, the fastest is chosen. A "
        f"quantized model must be {WORTH:g} times as fast as the fastest one in floating point. Among equally fast "
        "models the smallest is chosen. Intervals are 95 %; * means p < 0.05 (McNemar's test, paired)."
    )


def basis_of(row: Summary) -> Basis:
    """Return what was measured: a device, or something in its place."""
    if row.source == "emulated":
        return Basis.EMULATED
    if in_browser(row):
        return Basis.BROWSER
    on_board = row.compute_ms is not None  # edgekit runs on the Jetson itself
    for_desktop = row.target == "desktop" and not row.stand_in
    return Basis.DEVICE if row.source == "device" or on_board or for_desktop else Basis.HERE


def _budget(gates: Gates) -> float:
    return BUDGET if gates.max_drop is None else gates.max_drop


def _decide(device: str, target: str, rows: Sequence[Summary], gates: Gates) -> Decision:
    rows = list({(row.artifact, row.ran_in): row for row in rows}.values())
    budget, basis = _budget(gates), basis_of(rows[0])
    failed = [Rejected(row, reason) for row in rows if (reason := _violation(row, budget, gates))]
    chosen = _pick(rows, budget, gates)
    if chosen is None:
        return Decision(device, target, basis, None, _undecided(rows, budget), tuple(failed))
    candidates = [row for row in rows if row not in [r.row for r in failed]]
    exact, quantized = _fastest_kinds(candidates)
    if not (exact and quantized):
        reason = _unrivalled_reason(chosen, rows, budget)
    elif chosen.precision in FLOAT:
        reason = _float_reason(chosen, exact, quantized)
    else:
        reason = _quantized_reason(chosen, exact)
    same_kind = [row for row in candidates if (row.precision in FLOAT) == (chosen.precision in FLOAT)]
    fastest = min(same_kind, key=per_image_ms)
    others = [Rejected(row, _lost_to(row, chosen, fastest, exact)) for row in candidates if row is not chosen]
    order = {row.artifact: n for n, row in enumerate(rows)}
    return Decision(
        device,
        target,
        basis,
        chosen,
        reason,
        rejected=tuple(sorted([*failed, *others], key=lambda r: order[r.row.artifact])),
        doubts=tuple(_doubts(chosen, rows, budget, gates)),
        cautions=tuple(_cautions(chosen, candidates, budget, gates)),
    )


def _competes(row: Summary, exact: Summary, ships_quantized: bool) -> bool:
    """Return whether the row is of the kind that is shipped; each quantized one must be worth it by itself."""
    if row.precision in FLOAT:
        return not ships_quantized
    return ships_quantized and _speedup(row, exact) >= WORTH


def _violation(row: Summary, budget: float, gates: Gates) -> str:
    """Return why the row cannot be a candidate; empty if it can."""
    if lost := _lost(row):
        return f"{lost}: {loss_text(row)}"
    if lost := _lost_by_baseline(row):
        return lost
    if row.loss > budget:
        return f"accuracy: {loss_text(row, budget)}; the limit is {budget:g}"
    if gates.min_accuracy is not None and row.top1 is None:
        return "accuracy: not known, because the images have no labels"
    if gates.min_accuracy is not None and (row.share_left is None or row.share_left < gates.min_accuracy):
        return f"accuracy: {loss_text(row)}; at least {gates.min_accuracy:g} % of the baseline's top-1 is required"
    if row.stand_in:
        return f"ran in {row.ran_in} as a stand-in: its accuracy is valid ({loss_text(row)}), its latency is not"
    if row.source == "emulated":
        return f"emulated: its accuracy is valid ({loss_text(row)}), its latency is not"
    if row.p50_ms is None:
        return "insufficient samples for a p50"
    if gates.max_p90_ms is not None:
        found = quantile(row, 90)
        p90 = found.bound_ms if found else row.p90_ms
        if p90 is None or p90 > gates.max_p90_ms:
            known = "unknown" if p90 is None else f"{latency(p90)} ms"
            return f"p90 {known}; the limit is {gates.max_p90_ms:g} ms"
    if gates.min_speedup is not None and (row.speedup is None or row.speedup < gates.min_speedup):
        known = "unknown" if row.speedup is None else f"{row.speedup:.2f} times the baseline's"
        return f"speed {known}; at least {gates.min_speedup:g} times is required"
    return ""


def _lost(row: Summary) -> str:
    """Return how many answers are no numbers, in words; "" if none."""
    return not_finite(row.no_answer, row.samples)


def _lost_by_baseline(row: Summary) -> str:
    """Return why the loss of accuracy is not known, if the baseline has answers that are no numbers."""
    lost = not_finite(row.baseline_no_answer, row.samples)
    return f"the loss of accuracy is not known: of the baseline, {lost}" if lost else ""


def _pick(rows: Sequence[Summary], budget: float, gates: Gates) -> Summary | None:
    """Return the row to ship; None if no row keeps the limits."""
    candidates = [row for row in rows if not _violation(row, budget, gates)]
    exact, quantized = _fastest_kinds(candidates)
    if exact and quantized:
        ships_quantized = _speedup(quantized, exact) >= WORTH
        candidates = [row for row in candidates if _competes(row, exact, ships_quantized)]
    return _best(candidates) if candidates else None


def _fastest_kinds(rows: Sequence[Summary]) -> tuple[Summary | None, Summary | None]:
    """Return the fastest row in floating point and the fastest quantized one."""
    exact = _fastest([row for row in rows if row.precision in FLOAT])
    return exact, _fastest([row for row in rows if row.precision not in FLOAT])


def _fastest(rows: Sequence[Summary]) -> Summary | None:
    return min(rows, key=per_image_ms, default=None)


def _best(rows: Sequence[Summary]) -> Summary:
    """Return, of the rows about as fast as the fastest, one without a significant loss if possible; the smallest."""
    fastest = min(map(per_image_ms, rows))
    near = [row for row in rows if per_image_ms(row) < fastest * WORTH]
    return min(near, key=lambda r: (is_significant_loss(r), r.size_mb, per_image_ms(r)))


# Latency of one image against top-1.


def has_own_latency(row: Summary) -> bool:
    """Return whether the row has a latency that tells how fast the artifact is where it ran."""
    return row.p50_ms is not None and not row.stand_in and row.source != "emulated"


def per_image_ms(row: Summary) -> float:
    """Return the p50 of one image, for rows that have one."""
    assert row.p50_ms is not None
    return row.p50_ms / row.batch


def quantile(row: Summary, percentile: float) -> Quantile | None:
    """Return the percentile with its interval, or None if it was not computed."""
    found = row.latency.quantiles if row.latency else ()
    return next((q for q in found if q.percentile == percentile), None)


def pareto_front(rows: Sequence[Summary]) -> list[int]:
    """Return the positions of the rows that no other row beats in both latency and top-1, the fastest first."""
    candidates = [n for n, row in enumerate(rows) if has_own_latency(row)]
    best, front = float("-inf"), []
    for n in sorted(candidates, key=lambda n: (per_image_ms(rows[n]), -rows[n].score)):
        if rows[n].score > best:
            best = rows[n].score
            front.append(n)
    return front


# Reasons in sentences.


def loss_text(row: Summary, limit: float | None = None) -> str:
    """Return the loss of accuracy in words, with as many digits as distinguish it from `limit`.

    For images without labels, that is the share of answers that are the baseline's.
    """
    if row.drop is None:
        low, high = row.score_interval
        return (
            f"the baseline's answer for {row.agreement:.1f} % of {row.samples} images without labels "
            f"(95 %: {low:.1f} to {high:.1f})"
        )
    interval = ""
    if row.drop_low is not None and row.drop_high is not None:
        interval = f" (95 %: {row.drop_low:+.1f} to {row.drop_high:+.1f})"
    if abs(row.drop) < 0.05:
        change = f"same top-1 as the baseline{interval}"
    else:
        digits = 1 if limit is None else next((n for n in (1, 2, 3) if round(row.drop, n) != round(limit, n)), 4)
        side = "below" if row.drop > 0 else "above"
        change = f"{abs(row.drop):.{digits}f} points of top-1 {side} the baseline{interval}"
    return f"{change}, {significance_text(row)}"


def is_significant(row: Summary) -> bool:
    """Return whether top-1 differs from the baseline's beyond chance; never for images without labels."""
    return row.p_value is not None and row.p_value < SIGNIFICANT


def is_significant_loss(row: Summary) -> bool:
    """Return whether top-1 is below the baseline's beyond chance; never for images without labels."""
    return row.loss > 0 and is_significant(row)


def significance_text(row: Summary) -> str:
    """Return in words whether the loss is significant.

    Near the limit the interval and the test may disagree, because they are different approximations.
    """
    if row.p_value is None:
        return "not known without labels"
    if row.drop_low is not None and row.drop_high is not None:
        excludes_zero = row.drop_low > 0 or row.drop_high < 0
        if excludes_zero != (row.p_value < SIGNIFICANT):
            return f"borderline with {row.samples} images, p = {row.p_value:.2g}"
    if row.p_value < SIGNIFICANT:
        return f"significant, p = {row.p_value:.2g}"
    return f"not significant with {row.samples} images"


def _quantized_reason(chosen: Summary, exact: Summary) -> str:
    """Return why a quantized model is chosen; `exact` is the fastest in floating point."""
    return (
        f"{_NAMES[chosen.precision]} is {_speedup(chosen, exact):.2f} times as fast as {_NAMES[exact.precision]} "
        f"(p50 {_p50(chosen)} and {_p50(exact)} ms) and {_size(chosen, exact)}; {loss_text(chosen)}."
    )


def _float_reason(chosen: Summary, exact: Summary, quantized: Summary) -> str:
    """Return why no quantized model is chosen; `quantized` and `exact` are the fastest of either kind."""
    name, other = _NAMES[chosen.precision], _NAMES[quantized.precision]
    text = (
        f"{other} is only {_speedup(quantized, exact):.2f} times as fast as {_NAMES[exact.precision]}; a quantized "
        f"model must be {WORTH:g} times as fast"
    )
    if chosen is not exact:
        benefit = _size(chosen, exact) if chosen.size_mb < exact.size_mb else "without its loss"
        text += (
            f"; {name} is about as fast as {_NAMES[exact.precision]} (p50 {_p50(chosen)} and {_p50(exact)} ms), "
            f"{benefit}"
        )
    size = (
        f"; if size matters more, {other} is {_size(quantized, chosen)}" if quantized.size_mb < chosen.size_mb else ""
    )
    return f"{text}; {name}: {loss_text(chosen)}{size}."


def _unrivalled_reason(chosen: Summary, rows: Sequence[Summary], budget: float) -> str:
    """Return why a model is chosen when all candidates are quantized, or none is."""
    name = _NAMES[chosen.precision]
    if len(rows) == 1:
        return f"{name} is the only model that was measured: p50 {_p50(chosen)} ms; {loss_text(chosen)}."
    others = sorted({_NAMES[row.precision] for row in rows if (row.precision in FLOAT) != (chosen.precision in FLOAT)})
    excluded = f"; excluded: {', '.join(others)}" if others else ""
    return (
        f"{name} is the best within {_points(budget)} of top-1: p50 {_p50(chosen)} ms; {loss_text(chosen)}{excluded}."
    )


def _undecided(rows: Sequence[Summary], budget: float) -> str:
    """Return why nothing is chosen."""
    if lost := _lost_by_baseline(rows[0]):
        return f"Not decided: {lost}."
    sound = [row for row in rows if not row.no_answer]
    accurate = [row for row in sound if row.loss <= budget]
    if not sound:
        return f"No measured model answers with numbers: {'; '.join(f'{r.artifact}: {_lost(r)}' for r in rows)}."
    if not accurate:
        nearest = min(sound, key=lambda row: row.loss)
        return (
            f"No measured model stays within {_points(budget)} of top-1; the nearest is {nearest.artifact}: "
            f"{loss_text(nearest, budget)}."
        )
    if all(row.stand_in or row.source == "emulated" for row in accurate):
        names = ", ".join(dict.fromkeys(_NAMES[row.precision] for row in accurate))
        return f"Not decided: no latency was measured in the device's own runtime; accurate enough: {names}."
    return "Not decided: every model that is accurate enough breaks a latency limit or has too few samples."


def _lost_to(row: Summary, chosen: Summary, fastest: Summary, exact: Summary | None) -> str:
    """Return why a candidate is not chosen.

    Args:
        fastest: fastest candidate of the kind of `chosen` (quantized or not). exact: fastest in floating point.
    """
    if (ratio := _speedup(chosen, row)) >= WORTH:
        time = f"{ratio:.2f} times as slow (p50 {_p50(row)} ms)"
    elif row.precision not in FLOAT and exact and (gain := _speedup(row, exact)) < WORTH:
        time = (
            f"p50 {_p50(row)} ms, {gain:.2f} times as fast as {_NAMES[exact.precision]}, the fastest in floating "
            f"point; at least {WORTH:g} is required"
        )
    elif (ratio := _speedup(fastest, row)) >= WORTH:
        time = f"{ratio:.2f} times as slow as {fastest.artifact} (p50 {_p50(row)} ms)"
    else:
        time = f"about as fast (p50 {_p50(row)} ms)"
    size = f", {row.size_mb / chosen.size_mb:.1f} times as large" if row.size_mb > 1.1 * chosen.size_mb else ""
    worse = f"; {loss_text(row)}" if is_significant_loss(row) else ""
    return f"{time}{size}{worse}"


def _doubts(chosen: Summary, rows: Sequence[Summary], budget: float, gates: Gates) -> list[Doubt]:
    """Return the reasons to doubt latencies, of those rows alone whose doubt could turn the decision."""
    turning = _turning(chosen, rows, budget, gates)
    found = []
    if busy := [row.artifact for row in turning if row.busy]:
        text = f"measured while other programs used the CPU, measure again: {first_names(busy)}"
        found.append(Doubt(DoubtKind.BUSY, text))
    if throttled := [row.artifact for row in turning if row.throttling]:
        found.append(Doubt(DoubtKind.THROTTLED, f"measured while the board was throttled: {first_names(throttled)}"))
    modes = sorted({_power_mode(row) for row in [chosen, *turning]})
    if len(modes) > 1:
        named = ", ".join(mode or "unknown" for mode in modes)
        found.append(Doubt(DoubtKind.POWER_MODES, f"measured in different power modes ({named})"))
    flagged = sorted(turning, key=lambda row: row is not chosen)
    flags = [f"latency of {row.artifact}: {flag}" for row in flagged for flag in doubtful_flags(row)]
    found += [Doubt(DoubtKind.FLAG, flag) for flag in flags[:_MOST_FLAGS]]
    if len(flags) > _MOST_FLAGS:
        text = f"{len(flags) - _MOST_FLAGS} more such flags, listed below the figures"
        found.append(Doubt(DoubtKind.MORE_FLAGS, text))
    return found


def _turning(chosen: Summary, rows: Sequence[Summary], budget: float, gates: Gates) -> list[Summary]:
    """Return the rows with a doubtful latency that, if it is as wrong as it may be, makes another row the choice.

    Each row is tried alone, slower and faster. If none turns the decision, all are tried at once, `chosen` slower and
    the others faster.
    """
    factors = {n: factor for n, row in enumerate(rows) if (factor := _off_by(row, chosen)) > 1}

    def turns(changed: dict[int, float]) -> bool:
        tried = [_scaled(row, changed[n]) if n in changed else row for n, row in enumerate(rows)]
        picked = _pick(tried, budget, gates)
        return picked is None or tried.index(picked) != rows.index(chosen)

    found = [n for n, factor in factors.items() if turns({n: factor}) or turns({n: 1 / factor})]
    if not found and turns({n: f if rows[n] is chosen else 1 / f for n, f in factors.items()}):
        found = list(factors)
    return [rows[n] for n in found]


def _off_by(row: Summary, chosen: Summary) -> float:
    """Return the factor by which the latency of a row may be wrong; 1 where there is no reason to doubt it."""
    if not has_own_latency(row):
        return 1.0
    disturbed = row.busy or bool(row.throttling) or _power_mode(row) != _power_mode(chosen)
    factors = [_DISTURBED if disturbed else 1.0]
    for flag in _flags(row):
        spread = row.p90_ms / row.p50_ms if row.p90_ms and row.p50_ms else _DISTURBED
        factors.append(spread if flag.kind == FlagKind.AUTOCORRELATED else flag.ratio)
    return max(factors)


def _scaled(row: Summary, factor: float) -> Summary:
    """Return the row as if each of its latencies were `factor` times as long."""

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    quantiles = tuple(replace(q, bound_ms=times(q.bound_ms)) for q in row.latency.quantiles) if row.latency else ()
    return replace(
        row,
        p50_ms=times(row.p50_ms),
        p90_ms=times(row.p90_ms),
        speedup=None if row.speedup is None else row.speedup / factor,
        latency=replace(row.latency, quantiles=quantiles) if row.latency else None,
    )


def _power_mode(row: Summary) -> str:
    return str(row.state.get("power_mode", ""))


def doubtful_flags(row: Summary) -> list[str]:
    """Return the flags of the series, except autocorrelation if the interval of the median takes it into account."""
    return [flag.text for flag in _flags(row)]


def _flags(row: Summary) -> list[Flag]:
    p50 = quantile(row, 50)
    has_interval = p50 is not None and p50.low_ms is not None and p50.high_ms is not None
    flags = row.latency.flags if row.latency else ()
    return [flag for flag in flags if not (has_interval and flag.kind == FlagKind.AUTOCORRELATED)]


def _cautions(chosen: Summary, candidates: Sequence[Summary], budget: float, gates: Gates) -> list[str]:
    """Return limits of the figures, besides doubtful latencies, that matter for the choice."""
    found = ["it answers the same class for every image"] if chosen.one_class else []
    if chosen.drop_high is not None and chosen.drop_high > budget:
        found.append(f"with {chosen.samples} images the loss may be up to {chosen.drop_high:.1f} points")
    if names := _overlapping(chosen, candidates):
        found.append(f"the 95 % interval of its p50 overlaps with that of {first_names(names)}")
    doubted = chosen.speedup is not None and chosen.speedup_doubtful
    if doubted and (chosen.speedup or 0.0) / _DISTURBED**2 < (gates.min_speedup or 0.0):
        found.append("the speed-up is doubtful: the machine was busy when this model or the baseline was measured")
    return found


def _overlapping(chosen: Summary, candidates: Sequence[Summary]) -> list[str]:
    """Return the artifacts whose interval of p50 per image overlaps with that of the chosen one."""
    own = _interval_per_image(chosen)
    if own is None:
        return []
    others = [(row.artifact, _interval_per_image(row)) for row in candidates if row is not chosen]
    return [name for name, other in others if other is not None and other[0] <= own[1] and own[0] <= other[1]]


def _interval_per_image(row: Summary) -> tuple[float, float] | None:
    found = quantile(row, 50)
    if found is None or found.low_ms is None or found.high_ms is None:
        return None
    return found.low_ms / row.batch, found.high_ms / row.batch


def first_names(names: Sequence[str]) -> str:
    """Return the first three names and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _points(budget: float) -> str:
    return f"{budget:g} point" + ("" if budget == 1 else "s")


def _speedup(row: Summary, other: Summary) -> float:
    """Return how many times as fast the row is as the other one."""
    assert row.p50_ms
    assert other.p50_ms
    return half_ns(other.p50_ms) * row.batch / (half_ns(row.p50_ms) * other.batch)


def _p50(row: Summary) -> str:
    return latency(row.p50_ms) + (f" for {row.batch} images" if row.batch > 1 else "")


def _size(row: Summary, other: Summary) -> str:
    ratio = other.size_mb / row.size_mb
    return f"{ratio:.1f} times smaller" if ratio >= 1.1 else f"{row.size_mb:.1f} MB large"


# Verdicts on the terminal, which the report repeats.

# A gain of dropout is claimed only from this many val images on.
LEAST_JUDGED = 100
# The range in which a temperature is fitted, without its ends.
_TEMPERATURES = 0.051, 19.9


def quantization_verdicts(rows: Sequence[Summary], gates: Gates | None = None) -> list[str]:
    """Return one line for each device that was measured itself: the model to ship, and why."""
    lines = []
    for found in decide(rows, gates):
        if found.on_device:
            choice = f"ship {found.chosen.precision}" if found.chosen else "nothing to ship"
            doubts = f" Doubtful: {'; '.join(map(str, found.doubts))}." if found.doubts else ""
            cautions = f" Note: {'; '.join(found.cautions)}." if found.cautions else ""
            lines.append(f"{found.device}: {choice}. {found.reason}{doubts}{cautions}")
    return lines


def training_verdicts(evaluation: Evaluation) -> list[str]:
    """Return lines about the trained network on the test split: accuracy, calibration, uncertainty.

    The first is a warning if the network tells no classes apart.
    """
    scores = evaluation.splits["test"].scores
    accuracy = (
        f"Test accuracy: {scores.top1:.1f} % of {scores.samples} images (95 % interval {scores.top1_low:.1f}-"
        f"{scores.top1_high:.1f}); mean over the classes: precision {scores.macro.precision:.1f} %, "
        f"recall {scores.macro.recall:.1f} % (balanced accuracy), F1 {scores.macro.f1:.1f} %"
    )
    if scores.absent:
        accuracy += f", without {scores.absent} of {len(evaluation.labels)} classes that have no test image"
    return [f"{line}." for line in (*_one_class(evaluation), accuracy, *_calibration(evaluation))]


def _calibration(evaluation: Evaluation) -> list[str]:
    """Return lines about the temperature and the dropout, as far as they were fitted."""
    test, dropout = evaluation.splits["test"], evaluation.dropout
    if evaluation.temperature is None or test.after is None:
        return ["Calibration: no temperature was fitted, because the data have no val split"]
    calibration = (
        f"Calibration: temperature {evaluation.temperature:.2f}, fitted on val, changes NLL on test from "
        f"{test.before.nll:.3f} to {test.after.nll:.3f} and ECE from {test.before.ece:.1f} % to {test.after.ece:.1f} %"
    )
    if not _TEMPERATURES[0] < evaluation.temperature < _TEMPERATURES[1]:
        calibration += "; the temperature is at its limit, as for a network that guesses or is always right"
    if dropout is None or test.dropout is None:
        return [calibration]
    gains = dropout.helps and dropout.fitted_on >= LEAST_JUDGED
    return [
        calibration,
        f"Uncertainty (predict --uncertainty): {dropout.samples} dropout samples at rate {dropout.rate:g} give NLL "
        f"{test.dropout.nll:.3f} on test, temperature alone {test.after.nll:.3f}; "
        f"{'a significant gain' if gains else 'no significant gain'} on val, where both were fitted",
    ]


def _one_class(evaluation: Evaluation) -> list[str]:
    """Return a warning if every test image got the same answer although they are of several classes."""
    scores = evaluation.splits["test"].scores
    given = [n for n, c in enumerate(scores.classes) if c.predicted]
    if len(given) != 1 or sum(c.support > 0 for c in scores.classes) < 2:
        return []
    return [
        f"warning: the network answers {visible(evaluation.labels[given[0]])} for each of the {scores.samples} test "
        "images, so it has learned no difference between the classes; check the data (edgekit data check), and train "
        "longer or with another --lr"
    ]

"""What the figures say, in sentences, and no more than they carry."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Summary
from edgekit.report.tables import SIGNIFICANT
from edgekit.scores import Evaluation

# When INT8 is worth it against FP16: times as fast, and points of top-1.
WORTH, BUDGET = 1.15, 1.0
# Of fewer val images nothing is claimed. And where a fitted temperature stops.
LEAST_JUDGED = 100
_LIMITS = 0.051, 19.9


def sentences(rows: Sequence[Summary]) -> list[str]:
    """One sentence per INT8 model and device: what it costs in accuracy, what it gains in size and time.

    Of a model that ran in its own runtime, what a stand-in said is left out.
    """
    own = {row.artifact for row in rows if not row.stand_in}
    chosen = [row for row in rows if row.precision == "int8" and not (row.stand_in and row.artifact in own)]
    return list(dict.fromkeys(_sentence(row, rows) for row in chosen))


def worth(rows: Sequence[Summary]) -> list[str]:
    """For each device that runs INT8 and FP16 engines: which of them is worth shipping, and why.

    INT8 is, where it is at least `WORTH` times as fast and costs at most `BUDGET` points of top-1. Where a latency is
    none of the device's own runtime, or not known, nothing is said; nor of browsers, nor of this machine, unless it
    has TensorRT.
    """
    lines = []
    for int8 in rows:
        fp16 = next((r for r in rows if (r.target, r.device, r.precision) == (int8.target, int8.device, "fp16")), None)
        ours = int8.source == "device" and not int8.ran_in.startswith("LiteRT.js")
        shown = int8.precision == "int8" and (ours or int8.compute_ms is not None)
        comparable = shown and fp16 is not None and not (int8.stand_in or fp16.stand_in)
        if comparable and fp16 is not None and int8.p50_ms and fp16.p50_ms:
            lines.append(_worth(int8, fp16, fp16.p50_ms / int8.p50_ms))
    return list(dict.fromkeys(lines))


def _worth(int8: Summary, fp16: Summary, ratio: float) -> str:
    fast, right = ratio >= WORTH, int8.drop <= BUDGET
    chosen = "int8" if fast and right else "fp16" if fp16.drop <= BUDGET else "fp32"
    times = f"INT8 is {ratio:.2f} times as fast as FP16 (p50 {int8.p50_ms:.3g} and {fp16.p50_ms:.3g} ms"
    times += ")" if fast else f"; at least {WORTH:g} is wanted)"
    side = "above" if int8.drop < 0 else "below"
    points = f"{abs(int8.drop):.1f} points of top-1 {side} the baseline (at most {BUDGET:g} below is allowed"
    points += ")" if int8.p_value < SIGNIFICANT else f"; {int8.samples} images do not tell it from none)"
    points += f"; FP16 is {fp16.drop:.1f} below, too far" if fp16.drop > BUDGET else ""
    doubt = "; measured while the board was slowed down, or busy" if _doubtful(int8) or _doubtful(fp16) else ""
    modes = [str(row.state.get("power_mode", "")) for row in (int8, fp16)]
    doubt += f"; measured in different power modes ({', '.join(modes)})" if modes[0] != modes[1] else ""
    return f"On {int8.device} ship {chosen}: {times}, {points}{doubt}."


def _doubtful(row: Summary) -> bool:
    return bool(row.throttling) or row.busy


def trained(evaluation: Evaluation) -> list[str]:
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


def _sentence(row: Summary, rows: Sequence[Summary]) -> str:
    if row.p_value < SIGNIFICANT:
        verb = "loses" if row.drop > 0 else "gains"
        accuracy = f"{verb} {abs(row.drop):.1f} points of top-1 (p = {row.p_value:.2g})"
    else:
        side = "below" if row.drop > 0 else "above"
        distance = f"{abs(row.drop):.1f} points {side} the baseline" if abs(row.drop) >= 0.05 else "like the baseline"
        accuracy = f"gives {row.top1:.1f} % top-1, {distance}: no difference that {row.samples} images can show"
    size = f"{row.size_mb:.1f} MB"
    peer = next((r for r in rows if (r.target, r.device, r.precision) == (row.target, row.device, "fp32")), None)
    if peer is not None:
        size += f", {peer.size_mb / row.size_mb:.1f} times smaller than FP32"
    time, where = "", "this machine" if row.source == "host" else row.device
    comparable = peer is not None and not (row.stand_in or row.busy or peer.busy)
    if comparable and peer is not None and row.p50_ms and peer.p50_ms:
        time = f"; {peer.p50_ms / row.p50_ms:.2f} times as fast as FP32 in {row.ran_in} on {where}"
    if row.stand_in:
        time = "; how fast it is must be measured on the device"
    on = f" on {row.device}" if row.source != "host" else ""
    return f"{row.artifact}{on} {accuracy}; {size}{time}."

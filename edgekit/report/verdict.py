"""What the figures say, in sentences, and no more than they carry."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Gates, Summary
from edgekit.report.decide import DEVICE, decide
from edgekit.scores import Evaluation

# Of fewer val images nothing is claimed. And where a fitted temperature stops.
LEAST_JUDGED = 100
_LIMITS = 0.051, 19.9


def worth(rows: Sequence[Summary], gates: Gates | None = None) -> list[str]:
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

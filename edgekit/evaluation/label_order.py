"""Check of the order of labels: another one may explain the answers of an imported network far better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.labels import visible
from edgekit.stats.proportions import answers, mcnemar

# Another order is suggested only if it is this many points better, on images that it was not fitted to, beyond chance.
LEAST_GAIN = 20.0
_LEVEL = 1e-3
_MOST_NAMED = 4


@dataclass(frozen=True)
class Order:
    """Another order of the labels.

    Attributes:
        outputs: for each label, the number of the output that answers for its images. as_is, reordered: top-1 in
            percent with either order, on images that this one was not fitted to.
    """

    outputs: tuple[int, ...]
    as_is: float
    reordered: float


def better_order(logits: np.ndarray, expected: np.ndarray) -> Order | None:
    """Return an order of the labels with which far more answers are right; None if there is none.

    The best order is the assignment of labels to outputs that makes the most answers right (Kuhn 1955). It is fitted
    to each half of the images, and judged on the other one, as with few images a class some order always fits better.

    Args:
        logits: float (N, classes). expected: labels, int (N,).
    """
    given, classes = answers(logits), logits.shape[1]
    half = np.zeros(len(expected), np.int64)
    for label in np.unique(expected):
        half[expected == label] = np.arange(int((expected == label).sum())) % 2
    right = np.zeros(len(expected), bool)
    for part in (0, 1):
        outputs = _assigned(given[half != part], expected[half != part], classes)
        right[half == part] = given[half == part] == outputs[expected[half == part]]
    as_is = given == expected
    gain = 100 * (right.mean() - as_is.mean()) if len(right) else 0.0
    if gain < LEAST_GAIN or mcnemar(as_is, right) > _LEVEL:
        return None
    outputs = _assigned(given, expected, classes)
    return Order(tuple(map(int, outputs)), 100 * float(as_is.mean()), 100 * float(right.mean()))


def _assigned(given: np.ndarray, expected: np.ndarray, classes: int) -> np.ndarray:
    """Return for each label the output with which most answers are right; labels without images keep their own."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes))
    sound = given >= 0
    np.add.at(counts, (expected[sound], given[sound]), 1.0)
    counts += 0.5 * np.eye(classes) / max(1, len(given))  # of equal ones, that which changes least
    return np.asarray(linear_sum_assignment(counts, maximize=True)[1])


def sentence(order: Order, labels: Sequence[str]) -> str:
    """Return a warning for users."""
    moved = [(label, output) for label, output in enumerate(order.outputs) if label != output]
    named = ", ".join(f"{visible(labels[n])} is output {output}, not {n}" for n, output in moved[:_MOST_NAMED])
    more = f", and {len(moved) - _MOST_NAMED} more" if len(moved) > _MOST_NAMED else ""
    return (
        f"the labels are probably in another order than the network's outputs: {order.as_is:.1f} % of the test images "
        f"are right as they are, {order.reordered:.1f} % in another order ({named}{more}); check labels.txt, and "
        "import again"
    )

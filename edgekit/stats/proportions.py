"""Answers against each other; pure functions of raw values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def top1(logits: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Whether each answer is right: bool (N,)."""
    return np.asarray(logits.argmax(1) == expected)


def agreement(logits: np.ndarray, reference: np.ndarray) -> float:
    """The share of samples on which two models give the same top-1, 0 to 1."""
    return float((logits.argmax(1) == reference.argmax(1)).mean())


def cosine(logits: np.ndarray, reference: np.ndarray) -> float:
    """The cosine of the angle between all logits and the reference's; 0 where one of them is nothing."""
    a, b = logits.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    lengths = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / lengths if lengths else 0.0


# Statistics of right and wrong answers; pure functions of counts.


def binomial_at_most(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes), X binomial."""
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(probability)
        + (trials - k) * math.log1p(-probability)
        for k in range(successes + 1)
    )
    return math.fsum(math.exp(value) for value in logs)


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), as fractions."""
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At 0 and 1 rounding would leave the share itself outside its interval.
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def paired_difference(only_a: int, only_b: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of the share that a has right less the share that b has right, of the same samples, as fractions.

    Args:
        only_a, only_b: how many only one of the two has right.

    The score interval (Tango 1998, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17). A bootstrap of the pairs is shorter, and was simulated to
    cover less in some cases where few answers differ, which is the rule under quantization: docs/statistics.md.
    """
    if total == 0:
        return -1.0, 1.0
    found = only_a - only_b

    def score(difference: float) -> float:
        """How many standard errors the data lie above `difference`; the larger it is, the fewer."""
        linear = (2 * total - found) * difference - only_a - only_b
        constant = -only_b * difference * (1 - difference)
        likeliest_b = (math.sqrt(max(0.0, linear * linear - 8 * total * constant)) - linear) / (4 * total)
        variance = total * (2 * likeliest_b + difference * (1 - difference))
        above = found - total * difference
        return above / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, above) if above else 0.0

    def where(wanted: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > wanted else (low, middle)
        return (low + high) / 2

    return where(z, -1.0, found / total), where(-z, found / total, 1.0)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided McNemar test of paired answers: how surprising the difference is, 0 to 1."""
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return min(1.0, 2 * binomial_at_most(min(only_a, only_b), only_a + only_b, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for how many were looked at (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, n in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[n]))
        corrected[n] = largest
    return corrected


SIGNIFICANT = 0.05

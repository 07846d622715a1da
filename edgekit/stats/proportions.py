"""Top-1 accuracy and agreement of answers, with intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Level below which a p-value is called significant.
SIGNIFICANT = 0.05


# The answer of a model whose scores are not all finite, such as those of a float16 model that overflows.
NO_ANSWER = -1


def answers(logits: np.ndarray) -> np.ndarray:
    """Return the top-1 of each sample, int64 (N,): the class with the highest score, or `NO_ANSWER`."""
    scores = np.asarray(logits)
    if not scores.size:
        return np.full(len(scores), NO_ANSWER, np.int64)
    return np.where(np.isfinite(scores).all(1), scores.argmax(1), NO_ANSWER)


def top1(logits: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return for each sample whether its top-1 answer is right: bool (N,); no answer is a wrong one."""
    found = answers(logits)
    return np.asarray((found == expected) & (found != NO_ANSWER))


def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each sample whether two models gave the same answer: bool (N,); without an answer they did not."""
    return np.asarray((one == other) & (one != NO_ANSWER))


def agreement(logits: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of samples on which two models give the same top-1, 0 to 1."""
    return float(same(answers(logits), answers(reference)).mean())


def cosine(logits: np.ndarray, reference: np.ndarray) -> float:
    """Return the cosine similarity of all logits, as one vector, and the reference's.

    It is 0 where either is all zeros, or holds values that are not finite.
    """
    a, b = logits.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    lengths = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / lengths if lengths and math.isfinite(lengths) else 0.0


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a proportion, as fractions (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At 0 and 1 rounding would leave the share itself outside its interval.
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def paired_difference(only_a: int, only_b: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two paired proportions, a less b, as fractions.

    It is the score interval of Tango (1998), "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 17. A bootstrap of the pairs is shorter, but in
    simulations it covered too little where few answers differ, as under quantization; see docs/statistics.md.

    Args:
        only_a, only_b: number of samples that only one of the two has right. total: of all samples.
    """
    if total == 0:
        return -1.0, 1.0
    found = only_a - only_b

    def score(difference: float) -> float:
        """Return how many standard errors the data lie above `difference`; falls as `difference` grows."""
        linear = (2 * total - found) * difference - only_a - only_b
        constant = -only_b * difference * (1 - difference)
        likeliest_b = (math.sqrt(max(0.0, linear * linear - 8 * total * constant)) - linear) / (4 * total)
        variance = total * (2 * likeliest_b + difference * (1 - difference))
        above = found - total * difference
        return above / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, above) if above else 0.0

    def difference_of(wanted: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > wanted else (low, middle)
        return (low + high) / 2

    return difference_of(z, -1.0, found / total), difference_of(-z, found / total, 1.0)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Return the p-value of the exact two-sided McNemar test of paired answers, bool (N,) each."""
    from scipy.special import bdtr

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); they keep their order."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, n in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[n]))
        corrected[n] = largest
    return corrected

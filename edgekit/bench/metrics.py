"""Statistics of latencies and answers; pure functions of raw values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.99


def _binomial_at_most(successes: int, trials: int, probability: float) -> float:
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


def early_stopping_rank(samples: int, percentile: int) -> int | None:
    """Which of the highest latencies estimates `percentile`: 1 is the highest; None is too few.

    The largest t for which, were the true percentile higher than the bound, at most t of `samples`
    would lie above it with probability 1 - 0.99 (MLPerf Inference rules, "early stopping").
    """
    over = 1 - percentile / 100
    if samples < 1 or _binomial_at_most(1, samples, over) > 1 - CONFIDENCE:
        return None
    low, high = 1, max(2, math.ceil(samples * over))
    while low + 1 < high:
        middle = (low + high) // 2
        if _binomial_at_most(middle, samples, over) <= 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return low


def percentile_ms(latencies_ns: Sequence[int], percentile: int) -> float | None:
    """A latency percentile in milliseconds, or None where the samples cannot carry it.

    p50 is the median (from 8 samples on); higher ones are early-stopping estimates, which lie
    above the true percentile with 99 % confidence if the samples are independent.
    """
    ordered = np.sort(np.asarray(latencies_ns, np.int64))
    if percentile == 50:
        return float(np.median(ordered)) / 1e6 if len(ordered) >= 8 else None
    rank = early_stopping_rank(len(ordered), percentile)
    return None if rank is None else float(ordered[len(ordered) - rank]) / 1e6


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), as fractions."""
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At 0 and 1 rounding would leave the share itself outside its interval.
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided McNemar test of paired answers: how surprising the difference is, 0 to 1."""
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return min(1.0, 2 * _binomial_at_most(min(only_a, only_b), only_a + only_b, 0.5))


def top1(logits: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Whether each answer is right: bool (N,)."""
    return np.asarray(logits.argmax(1) == expected)


def agreement(logits: np.ndarray, reference: np.ndarray) -> float:
    """The share of samples on which two models give the same top-1, 0 to 1."""
    return float((logits.argmax(1) == reference.argmax(1)).mean())

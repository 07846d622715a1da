"""Statistics of latencies, and of answers against each other; pure functions of raw values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from edgekit.statistics import binomial_at_most

CONFIDENCE = 0.99


@lru_cache(maxsize=4096)  # thousands of terms, and the history asks for the same numbers of samples again and again
def early_stopping_rank(samples: int, percentile: int) -> int | None:
    """Which of the highest latencies estimates `percentile`: 1 is the highest; None is too few.

    The largest t for which, were the true percentile higher than the bound, at most t of `samples`
    would lie above it with probability 1 - 0.99 (MLPerf Inference rules, "early stopping").
    """
    over = 1 - percentile / 100
    if samples < 1 or binomial_at_most(1, samples, over) > 1 - CONFIDENCE:
        return None
    low, high = 1, max(2, math.ceil(samples * over))
    while low + 1 < high:
        middle = (low + high) // 2
        if binomial_at_most(middle, samples, over) <= 1 - CONFIDENCE:
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

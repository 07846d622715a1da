"""Answers against each other; pure functions of raw values."""

from __future__ import annotations

import math

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

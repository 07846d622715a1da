"""Calibration of probabilities after training: temperature scaling, and Platt scaling of single scores.

Temperature scaling divides the logits by a temperature T > 0 that minimizes the negative log-likelihood
(NLL) on val (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, section
4.2); the predicted class never changes. Platt scaling maps one score to a probability, for readers of
LiteRT metadata, which see one score at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.evaluation import metrics

LOWEST, HIGHEST = 0.05, 20.0
_TOLERANCE = 1e-9  # of log T
_GRADIENT_TOLERANCE = 1e-8  # of Platt scaling, in nats


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimizes the NLL, between `LOWEST` and `HIGHEST`.

    The NLL is convex in 1/T; the root of its derivative is found with Brent's method. If every
    prediction is right, the NLL decreases towards T = 0 without a minimum, although N right predictions
    do not prove certainty. T is then chosen so that the mean confidence is (N + 1) / (N + 2), Laplace's
    rule of succession.

    Args:
        logits: float (N, classes). labels: int (N,).
    Returns:
        The temperature; 1.0 for fewer than two samples, or if no row has different logits.
    """
    rows = np.arange(len(labels))
    if len(labels) < 2 or not np.ptp(logits, axis=1).any():
        return 1.0
    shifted = np.asarray(logits, np.float64) - np.max(logits, 1, keepdims=True)
    if all_right(shifted, labels):
        return fit_confidence(lambda t: float(metrics.softmax(shifted, t).max(1).mean()), len(labels))
    of_label = shifted[rows, labels]
    # d NLL / d(1/T): the expected logit minus that of the label; it falls as T rises.
    return _root(lambda t: float(((metrics.softmax(shifted, t) * shifted).sum(1) - of_label).mean()))


def all_right(values: np.ndarray, labels: np.ndarray) -> bool:
    """Return True if the label has the largest value in every row, without ties."""
    rows = np.arange(len(labels))
    others = np.array(values, np.float64)
    others[rows, labels] = -np.inf
    return bool((np.asarray(values)[rows, labels] > others.max(1)).all())


def fit_confidence(confidence: Callable[[float], float], count: int) -> float:
    """Return the temperature at which `confidence`, a decreasing function, is (count + 1) / (count + 2)."""
    return _root(lambda t: confidence(t) - (count + 1) / (count + 2))


def _root(decreasing: Callable[[float], float]) -> float:
    """Return the temperature at which a decreasing function is zero, or the bound closest to it."""
    from scipy.optimize import brentq

    if decreasing(LOWEST) <= 0:
        return LOWEST
    if decreasing(HIGHEST) >= 0:
        return HIGHEST
    log_t = brentq(lambda x: decreasing(math.exp(x)), math.log(LOWEST), math.log(HIGHEST), xtol=_TOLERANCE)
    return float(np.clip(math.exp(log_t), LOWEST, HIGHEST))


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float] | None:
    """Fit ``sigmoid(slope * logit + offset)``, the probability that a class is the label given its score.

    Platt 1999, "Probabilistic Outputs for Support Vector Machines", with its targets (hits + 1) /
    (hits + 2) and 1 / (misses + 2) instead of 1 and 0.

    Args:
        logits: float (N, classes). labels: int (N,).
    Returns:
        Slope and offset, or None if the scores carry no information: fewer than two samples or classes, or a slope
        that is not positive.
    """
    from scipy.optimize import minimize

    if len(labels) < 2 or logits.shape[1] < 2:
        return None
    values = np.asarray(logits, np.float64).ravel()
    is_label = (np.arange(logits.shape[1]) == np.asarray(labels)[:, None]).ravel()
    hits, misses = int(is_label.sum()), int((~is_label).sum())
    center, width = values.mean(), values.std()
    if not width > 0:
        return None
    problem = _PlattLoss((values - center) / width, np.where(is_label, (hits + 1) / (hits + 2), 1 / (misses + 2)))
    start = [0.0, math.log((hits + 1) / (misses + 1))]
    derivatives: Any = {"jac": problem.gradient, "hess": problem.hessian}
    found = minimize(problem.loss, start, method="trust-exact", options={"gtol": _GRADIENT_TOLERANCE}, **derivatives)
    slope, offset = found.x
    if not slope > 0:
        return None
    return float(slope / width), float(offset - slope * center / width)


@dataclass(frozen=True)
class _PlattLoss:
    """NLL in nats of `targets` float64 (M,) under sigmoid(slope * scores + offset), and its derivatives."""

    scores: np.ndarray
    targets: np.ndarray

    def loss(self, parameters: np.ndarray) -> float:
        z = parameters[0] * self.scores + parameters[1]
        return float((np.logaddexp(0, z) - self.targets * z).sum())

    def gradient(self, parameters: np.ndarray) -> np.ndarray:
        error = self._probability(parameters) - self.targets
        return np.array([(error * self.scores).sum(), error.sum()])

    def hessian(self, parameters: np.ndarray) -> np.ndarray:
        probability = self._probability(parameters)
        variance = probability * (1 - probability)
        mixed = (variance * self.scores).sum()
        return np.array([[(variance * self.scores**2).sum(), mixed], [mixed, variance.sum()]])

    def _probability(self, parameters: np.ndarray) -> np.ndarray:
        z = parameters[0] * self.scores + parameters[1]
        return np.exp(-np.logaddexp(0, -z))

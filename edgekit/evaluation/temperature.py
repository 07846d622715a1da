"""Temperature scaling: one number that makes a network's probabilities mean what they say.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2: logits are
divided by T > 0, chosen to minimize the NLL on val. No answer changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgekit.evaluation import metrics

LOWEST, HIGHEST = 0.05, 20.0
_HALVINGS = 30  # of log T: to 1e-8


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature for float (N, classes) logits and int (N,) labels, from `LOWEST` to `HIGHEST`.

    The NLL is convex in 1/T, so its derivative is bisected. Where every answer is right the NLL has no
    minimum: it falls for ever as T does, though N right answers do not prove certainty. There T is the
    one at which the mean confidence is (N + 1) / (N + 2), Laplace's rule of succession. Fewer than two
    samples, or logits that do not differ, give 1.0.
    """
    rows = np.arange(len(labels))
    if len(labels) < 2 or not np.ptp(logits, axis=1).any():
        return 1.0
    shifted = np.asarray(logits, np.float64) - np.max(logits, 1, keepdims=True)
    of_label = shifted[rows, labels]
    if all_right(shifted, labels):
        return sure_as(lambda t: float(metrics.softmax(shifted, t).max(1).mean()), len(labels))
    # d NLL / d(1/T): the expected logit less that of the label; it falls as T rises.
    return _bisect(lambda t: float(((metrics.softmax(shifted, t) * shifted).sum(1) - of_label).mean()))


def all_right(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the label has the largest value in every row, and alone."""
    rows = np.arange(len(labels))
    others = np.array(values, np.float64)
    others[rows, labels] = -np.inf
    return bool((np.asarray(values)[rows, labels] > others.max(1)).all())


def sure_as(confidence: Callable[[float], float], count: int) -> float:
    """The temperature at which `confidence`, which falls as it rises, is (count + 1) / (count + 2)."""
    return _bisect(lambda t: confidence(t) - (count + 1) / (count + 2))


def _bisect(falling: Callable[[float], float]) -> float:
    """Where a function of the temperature that falls as it rises is zero; a bound if it is nowhere."""
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if falling(math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return float(np.clip(math.exp((low + high) / 2), LOWEST, HIGHEST))


# A probability for each score by itself: what readers of LiteRT metadata can compute from one score alone.

_STEPS = 100
_RIDGE = 1e-9
_STILL = 1e-10


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float] | None:
    """Slope and offset of ``sigmoid(slope * logit + offset)``, the chance that the class is the label.

    Args:
        logits: float (N, classes). labels: int (N,).
    None where the scores tell nothing: fewer than two samples or classes, or a slope that is not above zero.
    """
    if len(labels) < 2 or logits.shape[1] < 2:
        return None
    values = np.asarray(logits, np.float64).ravel()
    hit = (np.arange(logits.shape[1]) == np.asarray(labels)[:, None]).ravel()
    wanted = np.where(hit, (hit.sum() + 1) / (hit.sum() + 2), 1 / ((~hit).sum() + 2))
    center, width = values.mean(), values.std()
    if not width > 0:
        return None
    scaled = (values - center) / width
    slope, offset = 0.0, float(np.log((hit.sum() + 1) / ((~hit).sum() + 1)))
    loss = _loss(scaled, wanted, slope, offset)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(slope * scaled + offset)))
        off, spread = chance - wanted, chance * (1 - chance)
        gradient = np.array([(off * scaled).sum(), off.sum()])
        mixed = (spread * scaled).sum()
        curved = np.array([[(spread * scaled**2).sum() + _RIDGE, mixed], [mixed, spread.sum() + _RIDGE]])
        step = np.linalg.solve(curved, gradient)
        share = 1.0
        while (
            new := _loss(scaled, wanted, slope - share * step[0], offset - share * step[1])
        ) > loss and share > _STILL:
            share /= 2
        slope, offset = slope - share * step[0], offset - share * step[1]
        if loss - new < _STILL * max(1.0, loss):
            break
        loss = new
    if not slope > 0:
        return None
    return float(slope / width), float(offset - slope * center / width)


def _loss(scaled: np.ndarray, wanted: np.ndarray, slope: float, offset: float) -> float:
    """The negative log-likelihood, in nats."""
    z = slope * scaled + offset
    return float((np.logaddexp(0, z) - wanted * z).sum())

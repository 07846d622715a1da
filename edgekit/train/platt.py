"""A probability for each score by itself: what readers of LiteRT metadata can compute from one score alone.

Platt 1999, "Probabilistic Outputs for Support Vector Machines", with his targets, which keep separable scores finite;
solved by Newton's method (Lin, Lin and Weng 2007, Machine Learning 68), one slope and offset for all classes.
"""

from __future__ import annotations

import numpy as np

_STEPS = 100
_RIDGE = 1e-9
_STILL = 1e-10


def fit(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float] | None:
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

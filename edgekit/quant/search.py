"""The cheapest recipe that stays inside an accuracy budget, then layers in floating point, one by one.

The search knows neither files nor images: what a trial is worth is measured by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


_Z = 1.644854  # one-sided 95 %


@dataclass(frozen=True)
class Drop:
    """Points of top-1 that were lost, over the same images.

    Attributes:
        at_most: one-sided 95 % upper bound. agreement: images with the same top-1, percent.
    """

    points: float
    at_most: float
    agreement: float


@dataclass(frozen=True)
class Trial:
    """One model that was tried: its recipe, the layers that stay in floating point, and its worth."""

    recipe: str
    float_layers: tuple[str, ...]
    drop: Drop
    seconds: float


def paired_drop(before: np.ndarray, after: np.ndarray, expected: np.ndarray) -> Drop:
    """How much accuracy the answers `after` lost against `before`; class indices (N,), N above 0.

    The bound is of the paired difference with half a count added to each of the four cells (Agresti
    and Min 2005, Statistics in Medicine 24), which keeps it honest where no answer changed its worth.
    """
    right, still = before == expected, after == expected
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    total = len(expected)
    return Drop(100 * (lost - won) / total, 100 * _upper(lost, won, total), 100 * float((before == after).mean()))


def _upper(lost: int, won: int, total: int) -> float:
    share = (lost - won) / (total + 2)
    variance = ((lost + won + 1) / (total + 2) - share**2) / (total + 2)
    return share + _Z * math.sqrt(variance)


def check_budget(budget: float, images: int) -> None:
    """Refuse a budget that so few images could never show to be kept, whatever the model.

    Raises:
        UsageError: names the smallest budget for these images, and how many this one needs.
    """
    if not 0 < budget <= 100:
        raise UsageError("--max-drop takes points of top-1, above 0", "edgekit export --max-drop 0.5")
    if images == 0 or 100 * _upper(0, 0, images) > budget:
        least = 100 * _upper(0, 0, images) if images else 100.0
        needed = math.ceil(100 * _Z / budget) - 2
        raise UsageError(
            f"{images} val images cannot show a drop of at most {budget:g} points with 95 % confidence: "
            f"{least:.2f} is the least that they can",
            f"--max-drop {math.ceil(least * 10) / 10:g}, or a val split of {needed} images",
        )


def search(
    recipes: Iterable[str],
    budget: float,
    measure: Callable[[str, tuple[str, ...]], Trial],
    ranked: Callable[[str], list[str]],
    most_layers: int,
) -> Iterator[Trial]:
    """Yield every trial, until one keeps the budget or there is nothing left to try.

    Args:
        recipes: from cheap to dear. budget: points; a trial keeps it by its bound.
        measure: makes and judges a model. ranked: the layers of a recipe's model, the most sensitive first.
    """
    best: Trial | None = None
    for recipe in recipes:
        trial = measure(recipe, ())
        yield trial
        if trial.drop.at_most <= budget:
            return
        if best is None or trial.drop.at_most < best.drop.at_most:
            best = trial
    if best is None:
        return
    layers = ranked(best.recipe)
    for count in range(1, min(most_layers, len(layers)) + 1):
        trial = measure(best.recipe, tuple(layers[:count]))
        yield trial
        if trial.drop.at_most <= budget:
            return

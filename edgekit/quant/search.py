"""Search for a model within an accuracy budget: recipes from cheap to expensive, then layers in floating point.

The caller makes and measures the models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.stats import proportions

if TYPE_CHECKING:
    import numpy as np


_Z = 1.644854  # one-sided 95 %


@dataclass(frozen=True)
class Drop:
    """Loss of top-1 accuracy over the same images.

    Attributes:
        points: percentage points lost. at_most: their one-sided 95 % upper bound.
        agreement: share of images with the same top-1, percent.
        no_answer: number of answers that are not finite. Such a model keeps no budget: its `at_most` is 100.
        labelled: whether the images have labels. If not, the answers before count as right, and `points` is the share
            of other answers.
    """

    points: float
    at_most: float
    agreement: float
    no_answer: int = 0
    labelled: bool = True


@dataclass(frozen=True)
class Trial:
    """A model that was tried: its recipe, its layers in floating point, its drop, and how long it took."""

    recipe: str
    float_layers: tuple[str, ...]
    drop: Drop
    seconds: float


def paired_drop(before: np.ndarray, after: np.ndarray, labels: np.ndarray | None) -> Drop:
    """Return the accuracy that the answers `after` lose against `before`: (N,), N above 0, of `proportions.answers`.

    Without labels, the answers `before` count as right.

    The bound is of the paired difference with half a count added to each of the four cells (Agresti
    and Min 2005, Statistics in Medicine 24), so that it is not 0 when no answer became right or wrong.
    """
    expected = before if labels is None else labels
    right, still = before == expected, after == expected
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    total = len(expected)
    agreement = 100 * float(proportions.same(before, after).mean())
    no_answer = int((after == proportions.NO_ANSWER).sum())
    at_most = 100.0 if no_answer else 100 * _upper(lost, won, total)
    return Drop(100 * (lost - won) / total, at_most, agreement, no_answer, labels is not None)


def _upper(lost: int, won: int, total: int) -> float:
    share = (lost - won) / (total + 2)
    variance = ((lost + won + 1) / (total + 2) - share**2) / (total + 2)
    return share + _Z * math.sqrt(variance)


def _more_val(needed: int) -> str:
    return f", or a val split of {needed} images"


def check_budget(budget: float, images: int, kind: str = "val images", more: Callable[[int], str] = _more_val) -> None:
    """Check that a number of images can show that a model keeps a budget.

    Args:
        kind: of the images, for the message. more: returns the end of the hint, for the number of images needed.

    Raises:
        UsageError: it cannot; the message names the smallest budget for these images.
    """
    if not 0 < budget <= 100:
        raise UsageError("--max-drop takes points of top-1, above 0 and at most 100", "edgekit export --max-drop 0.5")
    if images == 0 or 100 * _upper(0, 0, images) > budget:
        least = 100 * _upper(0, 0, images) if images else 100.0
        needed = math.ceil(100 * _Z / budget) - 2
        raise UsageError(
            f"{images} {kind} cannot show a drop of at most {budget:g} points with 95 % confidence: "
            f"{least:.2f} is the smallest drop that they can show",
            f"--max-drop {math.ceil(least * 10) / 10:g}{more(needed)}",
        )


def search(
    recipes: Iterable[str],
    budget: float,
    measure: Callable[[str, tuple[str, ...]], Trial],
    ranked: Callable[[str], list[str]],
    most_layers: int,
) -> Iterator[Trial]:
    """Yield every trial, until the bound of one is within the budget or there is nothing left to try.

    Args:
        recipes: names, from cheap to expensive. budget: percentage points.
        measure: makes and measures the model of a recipe with some layers in floating point.
        ranked: returns the layers of a recipe's model, the most sensitive first.
        most_layers: limit of the layers in floating point.
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

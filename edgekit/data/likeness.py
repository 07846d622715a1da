"""Whether the calibration images look like those that the network is judged on, by the network's own features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.errors import DataError

# So much further apart than chance, in units of the evaluation data's variance, is another kind of image.
# A network pulls the images that it was trained on apart, so train and val differ by about 0.1.
MOST_EXCESS = 0.25
_SPLITS, _LEVEL = 199, 0.01


@dataclass(frozen=True)
class Likeness:
    """How far apart two sets of images are, in units of the evaluation data's total variance.

    Attributes:
        expected: the mean distance if the same images were dealt to the two sets by chance.
        unlike: further apart than chance explains, and by more than matters.
    """

    distance: float
    expected: float
    unlike: bool

    @property
    def ratio(self) -> float:
        """The distance in units of what chance would make it."""
        return self.distance / self.expected if self.expected > 0 else 1.0


def compare(calibration: np.ndarray, evaluation: np.ndarray, seed: int = 0) -> Likeness:
    """Compare the features of two sets of images, float32 (N, D) and (M, D).

    The distance is Frechet's between two normal distributions (Heusel et al. 2017, arXiv:1706.08500,
    equation 6) with diagonal covariances, which few images can carry. What chance makes of it is found
    by dealing all the images anew, 199 times (a permutation test). `unlike` needs both: p at most 0.01,
    and an excess over chance above `MOST_EXCESS`, because with enough images any difference is
    significant.

    Raises:
        DataError: an empty set, NaN or infinite features.
    """
    if not len(calibration) or not len(evaluation):
        raise DataError("no images to compare with the calibration set", "give the data set a val split")
    pooled = np.concatenate([calibration, evaluation]).astype(np.float64)
    if not np.isfinite(pooled).all():
        raise DataError("the network answers NaN or infinite features", "check the checkpoint")
    rng = np.random.default_rng(seed)
    members = np.zeros((1 + _SPLITS, len(pooled)))
    members[0, : len(calibration)] = 1
    members[1:] = rng.permuted(np.tile(members[0], (_SPLITS, 1)), axis=1)
    spread = max(float(evaluation.astype(np.float64).var(0).sum()), 1e-12)
    distances = _distances(pooled - pooled.mean(0), members) / spread
    distance, chance = float(distances[0]), distances[1:]
    p_value = (1 + int((chance >= distance).sum())) / (1 + _SPLITS)
    expected = float(chance.mean())
    return Likeness(distance, expected, p_value <= _LEVEL and distance - expected > MOST_EXCESS)


def _distances(features: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The distance between each row's members (1) and the others (0): (R,) for (N, D) and (R, N)."""
    moments = []
    for part in (members, 1 - members):
        weights = part / part.sum(1, keepdims=True)
        mean = weights @ features
        moments.append((mean, np.sqrt(np.maximum(weights @ features**2 - mean**2, 0))))
    (mean, deviation), (other_mean, other_deviation) = moments
    return ((mean - other_mean) ** 2 + (deviation - other_deviation) ** 2).sum(1)

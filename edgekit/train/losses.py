"""What is minimized: cross-entropy, weighted or focal; and what is done for rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgekit.train.options import TrainOptions

# Below this ratio of the largest to the smallest class nothing is done: on a data set with a ratio of 7
# neither weights nor focal raised macro F1 (benchmarks/results/strategies.json).
BALANCED = 10.0


@dataclass(frozen=True)
class Criterion:
    """A loss per image. `weights` (C,) or None; `gamma` above 0 makes it focal."""

    label_smoothing: float = 0.0
    weights: torch.Tensor | None = None
    gamma: float = 0.0

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """float32 (N,) of logits (N, C) and labels: int64 (N,), or probabilities (N, C) of mixed images.

        Focal loss (Lin et al. 2017, arXiv:1708.02002, section 3.2) multiplies the cross-entropy by
        (1 - p)^gamma, p being the probability of the label.
        """
        logits = logits.float()
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction="none")
        if self.weights is not None:
            # Of the image's own label: torch's `weight` would also weigh the smoothed share of every other
            # class, and rare classes would then pull common images over.
            loss = loss * (self.weights[target] if target.ndim == 1 else target @ self.weights)
        if self.gamma:
            right = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
            loss = loss * (1 - right).clamp(min=1e-6) ** self.gamma  # at 0 its gradient would be infinite
        return loss


def criterion(options: TrainOptions, labels: np.ndarray, classes: int, device: torch.device) -> Criterion:
    """The loss that `options` ask for; class weights come from the train split's `labels`."""
    weights = None
    if options.imbalance == "weights":
        weights = class_weights(np.bincount(labels, minlength=classes)).to(device)
    gamma = options.focal_gamma if options.imbalance == "focal" else 0.0
    return Criterion(options.label_smoothing, weights, gamma)


def class_weights(counts: Sequence[int] | np.ndarray) -> torch.Tensor:
    """float32 (C,): one over each class's count, scaled so that the mean over all images is 1."""
    counts = np.asarray(counts, np.float64)
    present = np.maximum(counts, 1)
    weights = counts.sum() / (np.count_nonzero(counts) * present)
    return torch.from_numpy(weights).float()


def decide_imbalance(counts: Sequence[int]) -> tuple[str, str]:
    """What ``--imbalance auto`` does, and why: weights from a ratio of `BALANCED` on.

    Args:
        counts: training images per class.
    """
    ratio = max(counts) / max(1, min(counts))
    said = f"the largest class has {ratio:.1f} times the images of the smallest ({max(counts)} and {min(counts)})"
    return ("weights" if ratio >= BALANCED else "none"), said

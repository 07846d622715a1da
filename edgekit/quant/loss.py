"""Loss of a quantized network: how far its scores are from those of the float network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

# INT8 leaves 20 to 30 dB: a smaller change of the float network adds at most a tenth to its error.
UNCHANGED_DB = 40.0


def relative(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the error of each image's scores, relative to their size (N,)."""
    return (scores - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1).clamp_min(1e-30)


def power(errors: list[torch.Tensor]) -> float:
    """Return the square of the mean relative error: one or two images would dominate a mean of squares."""
    return float(torch.cat(errors).double().mean() ** 2)


def of(run: Callable[[torch.Tensor], Any], chunks: Iterable[torch.Tensor], wanted: Iterable[torch.Tensor]) -> float:
    """Return the loss (`power`) of a network on chunks of images, against the scores of the float network."""
    return power([relative(torch.as_tensor(run(chunk)), scores) for chunk, scores in zip(chunks, wanted, strict=True)])

"""Loss of a quantized network: how far its scores are from those of the float network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from edgekit.quant import placement, simulate
from edgekit.quantization import CalibrationTable, QuantScheme

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


def rounded(
    network: fx.GraphModule,
    table: CalibrationTable,
    schemes: Iterable[QuantScheme],
    chunks: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    weights: simulate.Weights | None = None,
) -> float:
    """Return the loss of a network with rounded tensors, and perhaps other weights, summed over the schemes."""
    grids = [placement.place(network, table, scheme).rounded for scheme in schemes]
    return sum(of(simulate.Simulation(network, each, weights).run, chunks, wanted) for each in grids)

"""Which way each weight is rounded: so that errors cancel in what the layer writes."""

from __future__ import annotations

import torch

from edgekit.quant.affine import WEIGHT_QMAX

_BLOCK = 64
_SHRINKS = torch.linspace(1.0, 0.6, 17, dtype=torch.float64)


def nearest(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """To the nearest step, half to even. weight (G, O, K), scales (G, O); returns whole numbers as floats."""
    return (weight / scales[..., None]).round().clamp(-WEIGHT_QMAX, WEIGHT_QMAX)


def scales_by_error(weight: torch.Tensor, gram: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """The scale per output with the least squared error of nearest rounding, inputs weighing by their power.

    Nagel et al. 2021, arXiv:2106.08295, section 3.1 (range setting by MSE).

    Args:
        weight: (G, O, K). gram: (G, K, K). least: (G, O), no scale goes below.
    Returns (G, O).
    """
    full = torch.maximum(weight.abs().amax(2) / WEIGHT_QMAX, least)
    power = torch.diagonal(gram, dim1=1, dim2=2)[:, None, :]
    best, chosen = torch.full_like(full, torch.inf), full
    for shrink in _SHRINKS:
        scales = torch.maximum(full * shrink, least)
        error = ((nearest(weight, scales) * scales[..., None] - weight).square() * power).sum(2)
        chosen = torch.where(error < best, scales, chosen)
        best = torch.minimum(error, best)
    return chosen


def compensated(weight: torch.Tensor, gram: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """One weight after the other, each error made good by the weights that are still free.

    GPTQ (Frantar et al. 2022, arXiv:2210.17323), inputs of the greatest power first.

    Args:
        weight: (G, O, K). gram: (G, K, K), positive definite. scales: (G, O).
    Returns whole numbers as floats, (G, O, K).
    """
    groups, outputs, count = weight.shape
    order = torch.diagonal(gram, dim1=1, dim2=2).argsort(1, descending=True)
    rows = order[:, None, :].expand(groups, outputs, count)
    square = order[:, None, :].expand(groups, count, count)
    ordered = gram.gather(2, square).gather(1, square.transpose(1, 2))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, whole = weight.gather(2, rows), torch.empty_like(weight)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = torch.empty(groups, outputs, end - start, dtype=weight.dtype)
        for column in range(start, end):
            value = left[:, :, column]
            step = (value / scales).round().clamp(-WEIGHT_QMAX, WEIGHT_QMAX)
            whole[:, :, column] = step
            error = (value - step * scales) / factor[:, column, column][:, None]
            errors[:, :, column - start] = error
            left[:, :, column:end] -= error[..., None] * factor[:, column, column:end][:, None, :]
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return whole.gather(2, order.argsort(1)[:, None, :].expand(groups, outputs, count))

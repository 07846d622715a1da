"""Weights and integers of one layer: least squares against the float network, and rounding that cancels errors.

A layer is known by the second moments of its inputs and wanted outputs. With G groups, K weights per output and O
outputs per group, weights are float64 (G, O, K), scales (G, O).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from edgekit.quant.affine import WEIGHT_QMAX
from edgekit.quant.operators import Weighted

# Rows of the least-squares problem: at least so many, and so many per unknown, if there are that many.
_LEAST_ROWS, _ROWS_PER_WEIGHT = 65_536, 32
_BLOCK = 64  # columns that GPTQ rounds before it updates the others
_SHRINKS = torch.linspace(1.0, 0.6, 17, dtype=torch.float64)


@dataclass(frozen=True)
class Moments:
    """Centred second moments over images and positions, float64.

    Attributes:
        gram: (G, K, K), covariance of the inputs in the quantized network.
        cross: (G, O, K), covariance of the wanted outputs with these inputs.
        power: sum over all outputs of their variance.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    power: float

    def error(self, weight: torch.Tensor) -> float:
        """Return the mean squared error summed over outputs, without their means, which the bias corrects.

        Args:
            weight: (G, O, K), float64.
        """
        quadratic = torch.einsum("gok,gkl,gol->", weight, self.gram, weight)
        return float(self.power + quadratic - 2 * (weight * self.cross).sum())


def grouped(module: Weighted) -> tuple[int, int, int]:
    """Return the number of groups, outputs per group and weights per output."""
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    outputs = len(module.weight)
    return groups, outputs // groups, module.weight[0].numel()


@dataclass(frozen=True)
class Chunk:
    """A few images at one layer.

    Attributes:
        inputs: in the quantized network. wanted: outputs of the float network. weights: of each image (n,).
    """

    inputs: torch.Tensor
    wanted: torch.Tensor
    weights: torch.Tensor


def collect(module: Weighted, chunks: Sequence[Chunk]) -> Moments:
    """Return the moments over all chunks, each image counted by its weight; tensors are float32 in torch's layout.

    Positions are thinned evenly if there are more than the solution needs.
    """
    groups, outputs, weights = grouped(module)
    gram = torch.zeros(groups, weights, weights, dtype=torch.float64)
    cross = torch.zeros(groups, outputs, weights, dtype=torch.float64)
    total_in = torch.zeros(groups, weights, dtype=torch.float64)
    total_out = torch.zeros(groups, outputs, dtype=torch.float64)
    power = torch.zeros(groups, outputs, dtype=torch.float64)
    rows, wanted_rows = 0.0, max(_LEAST_ROWS, _ROWS_PER_WEIGHT * weights)
    images = sum(len(chunk.inputs) for chunk in chunks)
    shift: tuple[torch.Tensor, torch.Tensor] | None = None
    for number, chunk in enumerate(chunks):
        positions = _positions(module, chunk.wanted)
        step = max(1, positions * images // wanted_rows)
        a, y = _rows(module, chunk.inputs, chunk.wanted, slice(number % step, None, step))
        # About a fixed point near the mean: float32 products about zero lose a variance far below the mean.
        shift = shift or (a.mean(1, keepdim=True), y.mean(1, keepdim=True))
        a, y = a - shift[0], y - shift[1]
        weight = chunk.weights.repeat_interleave(a.shape[1] // len(chunk.weights))[:, None]
        weighted_a, weighted_y = a * weight, y * weight
        gram += torch.bmm(weighted_a.transpose(1, 2), a).double()
        cross += torch.bmm(weighted_y.transpose(1, 2), a).double()
        total_in += weighted_a.sum(1).double()
        total_out += weighted_y.sum(1).double()
        power += (y.double() * weighted_y).sum(1)
        rows += float(weight.sum())
    mean_in, mean_out = total_in / rows, total_out / rows
    return Moments(
        gram / rows - mean_in[:, :, None] * mean_in[:, None, :],
        cross / rows - mean_out[:, :, None] * mean_in[:, None, :],
        float((power / rows - mean_out.square()).sum()),
    )


def _positions(module: Weighted, wanted: torch.Tensor) -> int:
    """Return how often the layer's weights are applied to one image."""
    return wanted.shape[1:-1].numel() if isinstance(module, nn.Linear) else wanted.shape[2:].numel()


def _rows(
    module: Weighted, inputs: torch.Tensor, wanted: torch.Tensor, positions: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the layer as a matrix product: (G, rows, K) inputs and (G, rows, O) outputs."""
    groups, outputs, weights = grouped(module)
    if isinstance(module, nn.Linear):
        if wanted.ndim > 2:  # (n, positions, ...)
            inputs, wanted = (each.flatten(1, -2)[:, positions] for each in (inputs, wanted))
        return inputs.reshape(1, -1, weights), wanted.reshape(1, -1, outputs)
    y = wanted.flatten(2)[:, :, positions].reshape(len(wanted), groups, outputs, -1)
    pad, stride = module.padding, module.stride
    if weights * groups == inputs.shape[1] and pad in (0, (0, 0)):  # 1x1: no patches to extract
        patches = inputs[:, :, :: stride[0], :: stride[1]].flatten(2)[:, :, positions]
    else:
        patches = F.unfold(inputs, module.kernel_size, module.dilation, pad, stride)[:, :, positions]  # type: ignore[arg-type]
    a = patches.reshape(len(inputs), groups, weights, -1)
    return tuple(t.permute(1, 0, 3, 2).reshape(groups, -1, t.shape[2]) for t in (a, y))  # type: ignore[return-value]


def damped(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """Return `gram` (G, K, K) plus `damping` times the mean power of its inputs on the diagonal."""
    power = torch.diagonal(gram, dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return gram + torch.diag_embed(damping * power[:, None].expand(-1, gram.shape[-1]))


def least_squares(weight: torch.Tensor, seen: Moments, damping: float) -> torch.Tensor:
    """Return the weights that bring the output on rounded inputs nearest to the float network's.

    Minimises ``|Wx' - y|**2 + d |W - W0|**2``, where x' are the inputs in the quantized network, y the outputs of
    the float network and d the damping. The errors of all earlier layers are in x', so the part of them that
    correlates with it is corrected (asymmetric calibration: GPTAQ, Li et al. 2025, arXiv:2504.02692). The ridge
    towards the trained weights limits the influence of a few images.

    Args:
        weight: W0, float64 (G, O, K). damping: relative to the mean power of the inputs, above 0.
    """
    square = damped(seen.gram, damping)
    pull = (square - seen.gram) @ weight.transpose(1, 2)
    return torch.linalg.solve(square, seen.cross.transpose(1, 2) + pull).transpose(1, 2)


def nearest(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Round to the nearest step, half to even; return integers as floats (G, O, K)."""
    return (weight / scales[..., None]).round().clamp(-WEIGHT_QMAX, WEIGHT_QMAX)


def scales_by_error(weight: torch.Tensor, gram: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Return the scale per output with the least squared error of nearest rounding, weighted by the inputs' power.

    Nagel et al. 2021, arXiv:2106.08295, section 3.1 (range setting by MSE).

    Args:
        gram: (G, K, K). least: the smallest scales allowed (G, O).
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


def round_compensated(weight: torch.Tensor, gram: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Round one weight after the other, compensating each error by the weights not yet rounded.

    GPTQ (Frantar et al. 2022, arXiv:2210.17323), inputs of the greatest power first.

    Args:
        gram: (G, K, K), positive definite.
    Returns:
        Integers as floats (G, O, K).
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

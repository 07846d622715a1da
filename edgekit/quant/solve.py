"""Weights that expect rounded inputs: least squares against what the float network writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from edgekit.quant.affine import WEIGHT_QMAX
from edgekit.quant.placement import Weighted


def damped(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """`gram` (G, K, K) plus `damping` times the mean power of its inputs on the diagonal."""
    power = torch.diagonal(gram, dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return gram + torch.diag_embed(damping * power[:, None].expand(-1, gram.shape[-1]))


def solve_weights(weight: torch.Tensor, seen: Moments, damping: float) -> torch.Tensor:
    """The weights that bring the layer's output, from rounded inputs, nearest to the float network's.

    Minimises ``|Wx' - y|**2 + d |W - W0|**2``: x' the inputs as the quantized network has them, y the
    output that the float network has there, d the damping. The errors of all layers before are in x',
    so what correlates with it is undone here (asymmetric calibration: GPTAQ, Li et al. 2025,
    arXiv:2504.02692; the ridge towards the trained weights keeps few images from deciding much).

    Args:
        weight: (G, O, K), float64: W0. damping: relative to the mean power of the inputs, above 0.
    Returns (G, O, K).
    """
    square = damped(seen.gram, damping)
    pull = (square - seen.gram) @ weight.transpose(1, 2)
    return torch.linalg.solve(square, seen.cross.transpose(1, 2) + pull).transpose(1, 2)


# Second moments of what a layer reads and should write: all that the recovery steps need to know.

# Rows of the least-squares problem: at least so many, and so many for each unknown, where there are that many.
_LEAST_ROWS, _ROWS_PER_WEIGHT = 65_536, 32


@dataclass(frozen=True)
class Moments:
    """Centred second moments, float64, over images and places.

    With G groups, K weights per output and O outputs per group:

    Attributes:
        gram: (G, K, K), covariance of the inputs as the quantized network has them.
        cross: (G, O, K), covariance of the wanted outputs with these inputs.
        power: sum over all outputs of their variance.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    power: float

    def error(self, weight: torch.Tensor) -> float:
        """Mean squared error of the outputs, the mean left out (the bias takes it), summed over outputs.

        Args:
            weight: (G, O, K), float64.
        """
        quadratic = torch.einsum("gok,gkl,gol->", weight, self.gram, weight)
        return float(self.power + quadratic - 2 * (weight * self.cross).sum())


def grouped(module: Weighted) -> tuple[int, int, int]:
    """Groups, outputs per group, weights per output."""
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    outputs = len(module.weight)
    return groups, outputs // groups, module.weight[0].numel()


@dataclass(frozen=True)
class Chunk:
    """A few images at one layer: inputs as the quantized network has them, float outputs, weights (n,)."""

    inputs: torch.Tensor
    wanted: torch.Tensor
    weights: torch.Tensor


def collect(module: Weighted, chunks: Sequence[Chunk]) -> Moments:
    """Moments over all chunks, each image counted by its weight; tensors float32 in torch's layout.

    Places are thinned evenly where there are more than the solution can use.
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
        places = chunk.wanted.shape[2:].numel() if chunk.wanted.ndim == 4 else 1
        step = max(1, places * images // wanted_rows)
        a, y = _rows(module, chunk.inputs, chunk.wanted, slice(number % step, None, step))
        # About any fixed point near the mean: float32 products about zero lose a variance far below the mean.
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


def _rows(
    module: Weighted, inputs: torch.Tensor, wanted: torch.Tensor, places: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer as a matrix product: (G, rows, K) inputs and (G, rows, O) outputs."""
    groups, outputs, weights = grouped(module)
    if isinstance(module, nn.Linear):
        return inputs.reshape(1, -1, weights), wanted.reshape(1, -1, outputs)
    y = wanted.flatten(2)[:, :, places].reshape(len(wanted), groups, outputs, -1)
    pad, stride = module.padding, module.stride
    if weights * groups == inputs.shape[1] and pad in (0, (0, 0)):  # 1x1: no patches to cut out
        patches = inputs[:, :, :: stride[0], :: stride[1]].flatten(2)[:, :, places]
    else:
        patches = F.unfold(inputs, module.kernel_size, module.dilation, pad, stride)[:, :, places]  # type: ignore[arg-type]
    a = patches.reshape(len(inputs), groups, weights, -1)
    return tuple(t.permute(1, 0, 3, 2).reshape(groups, -1, t.shape[2]) for t in (a, y))  # type: ignore[return-value]


# Which way each weight is rounded: so that errors cancel in what the layer writes.

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

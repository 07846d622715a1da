"""Weights that expect rounded inputs: least squares against what the float network writes."""

from __future__ import annotations

import torch

from edgekit.quant.moments import Moments


def damped(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """`gram` (G, K, K) plus `damping` times the mean power of its inputs on the diagonal."""
    power = torch.diagonal(gram, dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return gram + torch.diag_embed(damping * power[:, None].expand(-1, gram.shape[-1]))


def solve(weight: torch.Tensor, seen: Moments, damping: float) -> torch.Tensor:
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

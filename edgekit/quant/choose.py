"""Which observer suits a network: no single one wins everywhere, so it is measured."""

from __future__ import annotations

import torch
from torch import fx

from edgekit.quant import simulate
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationTable

CANDIDATES = ("mse", "relative")
IMAGES = 32  # that are looked at
_CHUNK = 8


@torch.inference_mode()
def best(folded: fx.GraphModule, tables: list[CalibrationTable], images: torch.Tensor) -> CalibrationTable:
    """The table under which rounding the activations alone moves the scores least.

    Args:
        tables: one per observer. images: normalized float32 (N, 3, H, W).
    """
    chunks = images.split(_CHUNK)
    wanted = torch.cat([folded(chunk) for chunk in chunks])
    return min(tables, key=lambda table: error(folded, table, chunks, wanted))


def error(
    folded: fx.GraphModule, table: CalibrationTable, chunks: tuple[torch.Tensor, ...], wanted: torch.Tensor
) -> float:
    """How far rounded activations move the scores (N, classes), relative to each image's; mean over both schemes."""
    size = wanted.norm(dim=1).clamp_min(1e-30)
    means = []
    for scheme in (LITERT_SCHEME, TENSORRT_SCHEME):
        rounded = simulate.Simulation(folded, simulate.grids(folded, table, scheme))
        scores = torch.cat([rounded.run(chunk) for chunk in chunks])
        means.append(float(((scores - wanted).norm(dim=1) / size).mean()))
    return sum(means) / len(means)

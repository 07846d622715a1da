"""Search for the range of each tensor by what rounding it does to the scores.

No observer can know it: an error in one tensor disappears in the layers after it, in another it decides the answer.
The change of the scores by a small error d of a tensor is J d, with the derivative J of the scores. Its size is
estimated without J: for random r, backpropagation gives g = r J for all tensors at once, and the mean of the squares
of g d is the square of J d (Hutchinson's estimator). So a candidate costs one rounding and one product, not a run of
the network. Errors of tensors add up almost as if they were independent, so that each can be chosen by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from edgekit.quant import affine, placement, simulate
from edgekit.quant.naming import INPUT, tensor_names
from edgekit.quantization import CalibrationTable, Grid, Placement, QuantScheme, Range

IMAGES = 32
FACTORS = (0.18, 0.21, 0.25, 0.3, 0.35, 0.42, 0.5, 0.6, 0.71, 0.84, 1.0, 1.19, 1.41, 1.68, 2.0)
PROJECTIONS = 4  # random directions of the scores for each image
MOST_BYTES = 10**9  # of the values and derivatives of one chunk
_CHUNK = 8


def search(
    network: fx.GraphModule,
    table: CalibrationTable,
    schemes: Sequence[QuantScheme],
    images: torch.Tensor,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> CalibrationTable:
    """Return the table with each range multiplied by the one of `FACTORS` that moves the scores least.

    The error is relative to each image's scores, averaged over images, and its squares summed over the schemes. No
    range gets wider than what calibration saw. The input and the scores keep theirs.

    Args:
        images: normalized float32 (N, 3, H, W); the first `IMAGES` are used.
        update: called with the number of images done and in all.
    """
    names = tensor_names(network.graph)
    fixed = {INPUT, *(names.get(node, "") for node in network.graph.output_node().all_input_nodes)}
    placed = [(scheme, placement.place(network, table, scheme)) for scheme in schemes]
    spans = {n: candidates(table, n) for n in table.ranges if n not in fixed and any(n in p.rounded for _, p in placed)}
    grids = {n: [[_grid(span, n, table, *each) for each in placed] for span in tried] for n, tried in spans.items()}
    wanted = {n: {grid for row in rows for grid in row if grid is not None} for n, rows in grids.items()}
    found = errors(network, wanted, images[:IMAGES], update)
    chosen = {}
    for name, tried in spans.items():
        sums = [sum(found[name, grid] ** 2 for grid in row if grid is not None) for row in grids[name]]
        before = table.ranges[name]
        _, chosen[name] = min(zip(sums, tried, strict=True), key=lambda each: (each[0], each[1] != before))
    return replace(table, ranges={**table.ranges, **chosen})


def errors(
    network: fx.GraphModule,
    grids: Mapping[str, Collection[Grid]],
    images: torch.Tensor,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[str, Grid], float]:
    """Return the change of the scores when one tensor is rounded to a grid, relative to their size, mean over images.

    Args:
        grids: those to try for each tensor. images: normalized float32 (N, 3, H, W).
        update: called with the number of images done and in all.
    """
    found: dict[tuple[str, Grid], float] = defaultdict(float)
    done = 0
    for count, values, derivatives in _backpropagated(network, grids.keys(), images):
        for name, derivative in derivatives.items():
            for grid in grids[name]:
                off = (simulate.fake_quantize(values[name], grid) - values[name]).flatten(1)
                moved = torch.einsum("knm,nm->kn", derivative, off)
                found[name, grid] += float(moved.square().mean(0).sqrt().sum()) / len(images)
        done += count
        update(done, len(images))
    return found


def candidates(table: CalibrationTable, name: str) -> list[Range]:
    """Return the ranges to try for a tensor: multiples of its range, within what calibration saw."""
    span = table.ranges[name]
    seen = table.seen.get(name, span)
    found = [
        Range(max(span.low * factor, min(seen.low, 0.0)), min(span.high * factor, max(seen.high, 0.0)))
        for factor in FACTORS
    ]
    return list(dict.fromkeys(found))


def _grid(span: Range, name: str, table: CalibrationTable, scheme: QuantScheme, place: Placement) -> Grid | None:
    """Return the grid of another range of a tensor; None if the scheme does not round it."""
    if name not in place.rounded:
        return None
    shifted = scheme.shifted and place.grids[name] != affine.activation_grid(table.ranges[name], scheme.symmetric)
    return affine.tensor_grid(span, scheme.symmetric, shifted)


class _Keeping(simulate.Simulation):
    """Runs a network, and keeps some tensors as they are when they are made: operators may then work in place.

    Attributes:
        kept: those of the last run that have derivatives. size: number of all values of the last run.
    """

    def __init__(self, network: fx.GraphModule, wanted: Collection[str]) -> None:
        super().__init__(network, {})
        self.wanted, self.kept, self.size = wanted, dict[str, torch.Tensor](), 0

    def run_node(self, node: fx.Node) -> Any:
        value, name = super().run_node(node), self.names.get(node, "")
        if not isinstance(value, torch.Tensor):
            return value
        self.size += value.numel()
        if name not in self.wanted or not value.requires_grad:
            return value
        self.kept[name] = value
        return value.clone()


def _backpropagated(
    network: fx.GraphModule, wanted: Collection[str], images: torch.Tensor
) -> Iterator[tuple[int, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Yield a number of images, their wanted tensors, and derivatives (`PROJECTIONS`, N, values) of sums of the scores.

    The sums have random weights, and are of the scores of an image over their norm. What the scores do not depend on
    has no derivatives.
    """
    run, generator = _Keeping(network, wanted), torch.Generator().manual_seed(0)
    chunk = 1  # which tells how many fit
    while len(images):
        run.kept, run.size = {}, 0
        with torch.enable_grad():
            shown, images = images[:chunk].clone().requires_grad_(), images[chunk:]
            scores = torch.as_tensor(run.run(shown)).flatten(1)
            size = scores.detach().norm(dim=1, keepdim=True).clamp_min(1e-30)
            found = []
            for _ in range(PROJECTIONS if run.kept else 0):
                sums = (scores * torch.randn(scores.shape, generator=generator) / size).sum()
                found.append(torch.autograd.grad(sums, list(run.kept.values()), retain_graph=True, allow_unused=True))
        derivatives = {
            name: torch.stack([each[number].flatten(1) for each in found])
            for number, name in enumerate(run.kept)
            if found[0][number] is not None
        }
        if chunk == 1:
            held = 2 * run.size + (PROJECTIONS + 1) * sum(value.numel() for value in run.kept.values())
            chunk = max(1, min(_CHUNK, MOST_BYTES // (4 * held)))
        yield len(shown), {name: value.detach() for name, value in run.kept.items()}, derivatives

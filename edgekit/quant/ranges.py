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
        chosen[name] = tried[sums.index(min(sums))]
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
    for values, derivatives in _backpropagated(network, grids.keys(), images):
        for name, value in values.items():
            for grid in grids[name]:
                off = (simulate.fake_quantize(value, grid) - value).flatten(1)
                moved = torch.einsum("knm,nm->kn", derivatives[name], off)
                found[name, grid] += float(moved.square().mean(0).sqrt().sum()) / len(images)
        done += len(next(iter(values.values()))) if values else 0
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


def _backpropagated(
    network: fx.GraphModule, wanted: Collection[str], images: torch.Tensor
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Yield the wanted tensors of some images, and derivatives (`PROJECTIONS`, N, values) of random sums of the scores.

    The sums are of the scores of an image over their norm.
    """
    values: dict[str, torch.Tensor] = {}

    def see(name: str, value: torch.Tensor) -> None:
        if name in wanted and value.requires_grad:
            values[name] = value

    run, generator = simulate.Simulation(network, {}, see=see), torch.Generator().manual_seed(0)
    chunk = _CHUNK
    while len(images):
        with torch.enable_grad():
            shown = images[:chunk].clone().requires_grad_()
            scores = torch.as_tensor(run.run(shown)).flatten(1)
            needed = sum(value.numel() for value in values.values()) * 4 * (PROJECTIONS + 2)
            if needed > MOST_BYTES and len(shown) > 1:
                chunk = max(1, len(shown) * MOST_BYTES // needed)
                continue
            size = scores.detach().norm(dim=1, keepdim=True).clamp_min(1e-30)
            found = []
            for _ in range(PROJECTIONS):
                direction = torch.randn(scores.shape, generator=generator) / size
                found.append(torch.autograd.grad(scores, list(values.values()), direction, retain_graph=True))
        derivatives = {
            name: torch.stack([each[number].flatten(1) for each in found]) for number, name in enumerate(values)
        }
        yield {name: value.detach() for name, value in values.items()}, derivatives
        values.clear()
        images = images[len(shown) :]

"""Search for the range of each tensor by what rounding it does to the scores.

No observer can know it: an error in one tensor disappears in the layers after it, in another it decides the answer.
The change of the scores by a small error d of a tensor is J d, with the derivative J of the scores. Its size is
estimated without J: for random r, backpropagation gives g = r J for all tensors at once, and the mean of the squares
of g d is the square of J d (Hutchinson's estimator). So a candidate costs one rounding and one product, not a run of
the network. Errors of tensors add up almost as if they were independent, so that each can be chosen by itself.

A clipped value is no small error. Of the tensors that matter most, and of those that are clipped most, the estimated
best, the range before and wider ones are measured: the network runs on from the rounded tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import fx

from edgekit.quant import affine, loss, placement, simulate
from edgekit.quant.naming import INPUT, tensor_names
from edgekit.quantization import CalibrationTable, Grid, QuantScheme, Range

IMAGES = 32
FACTORS = (0.18, 0.21, 0.25, 0.3, 0.35, 0.42, 0.5, 0.6, 0.71, 0.84, 1.0, 1.19, 1.41, 1.68, 2.0)
MEASURING = 16  # images on which doubtful choices are measured
MOST_MEASURED = 12  # tensors of each scheme
PROJECTIONS = 4  # random directions of the scores for each image
MOST_BYTES = 10**9  # of the values and derivatives of one chunk
_CHUNK = 8
_CLIPPED = 0.65  # of the range before: what is narrower is measured
_SHARE = 0.01  # of the estimated error of all: what makes more is measured
_BETTER = 0.9  # times the error: what is measured to be better by less may be so by chance


@dataclass(frozen=True)
class _Choice:
    """A tensor that one scheme rounds.

    Attributes:
        spans: the ranges to choose from, from narrow to wide. grids: of each. now: number of the table's range.
    """

    name: str
    symmetric: bool
    spans: tuple[Range, ...]
    grids: tuple[Grid, ...]
    now: int


def search(
    network: fx.GraphModule,
    table: CalibrationTable,
    schemes: Sequence[QuantScheme],
    images: torch.Tensor,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[CalibrationTable, CalibrationTable]:
    """Return the table with each range multiplied by the one of `FACTORS` that moves the scores least: two proposals.

    One goes by the estimates alone, the other by measurements of what is doubtful. Neither is always better: measured
    alone, a clip does harm that it would not do behind tensors that are clipped as well.

    Symmetric grids get ranges of their own. The error is relative to each image's scores, averaged over images. No
    range gets wider than what calibration saw. The input and the scores keep theirs.

    Args:
        schemes: at most one that is symmetric, and one that is not.
        images: normalized float32 (N, 3, H, W); the first `IMAGES` are used.
        update: called with the parts of the work done and in all (`parts`).
    """
    images = images[:IMAGES]
    total = parts(len(images), len(schemes))
    choices = [choice for scheme in schemes for choice in _choices(network, table, scheme)]
    grids: dict[str, set[Grid]] = defaultdict(set)
    for choice in choices:
        grids[choice.name] |= {*choice.grids}
    found = errors(network, grids, images, lambda done, _: update(done, total))
    estimated = {choice: _least(choice, found) for choice in choices}
    measured, done = dict(estimated), len(images)
    for choice in _doubtful(estimated, found):
        measured[choice] = _measured(network, choice, estimated[choice], images[:MEASURING])
        done += 1
        update(done, total)
    if done < total:
        update(total, total)
    return _with(table, estimated), _with(table, measured)


def _with(table: CalibrationTable, chosen: Mapping[_Choice, int]) -> CalibrationTable:
    """Return the table with the chosen ranges."""
    spans: dict[bool, dict[str, Range]] = {False: {}, True: {}}
    for choice, number in chosen.items():
        spans[choice.symmetric][choice.name] = choice.spans[number]
    return replace(table, ranges={**table.ranges, **spans[False]}, symmetric={**table.symmetric, **spans[True]})


def parts(images: int, schemes: int) -> int:
    """Return the number of parts of the work of a search."""
    return min(images, IMAGES) + schemes * MOST_MEASURED


def _choices(network: fx.GraphModule, table: CalibrationTable, scheme: QuantScheme) -> Iterator[_Choice]:
    """Yield the tensors whose ranges are to be chosen."""
    names, place = tensor_names(network.graph), placement.place(network, table, scheme)
    fixed = {INPUT, *(names.get(node, "") for node in network.graph.output_node().all_input_nodes)}
    spans = table.spans(scheme.symmetric)
    for name in place.rounded:
        if name not in spans or name in fixed:
            continue
        span, seen = spans[name], table.seen.get(name, spans[name])
        tried = candidates(span, seen)
        shifted = scheme.shifted and place.grids[name] != affine.activation_grid(span, scheme.symmetric)
        grids = tuple(affine.tensor_grid(each, scheme.symmetric, shifted) for each in tried)
        nearest = min(range(len(tried)), key=lambda number: abs(_width(tried[number]) - _width(span)))
        yield _Choice(name, scheme.symmetric, tried, grids, nearest)


def candidates(span: Range, seen: Range) -> tuple[Range, ...]:
    """Return the ranges to try for a tensor: multiples of its range, within what calibration saw."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    found = [Range(max(span.low * factor, low), min(span.high * factor, high)) for factor in FACTORS]
    return tuple(dict.fromkeys(found))


def _width(span: Range) -> float:
    return span.high - span.low


def _least(choice: _Choice, found: Mapping[tuple[str, Grid], float]) -> int:
    """Return the number of the range with the least estimated error; the table's if none is better."""
    return min(range(len(choice.spans)), key=lambda n: (found[choice.name, choice.grids[n]], n != choice.now))


def _doubtful(best: Mapping[_Choice, int], found: Mapping[tuple[str, Grid], float]) -> list[_Choice]:
    """Return the tensors whose choice is to be measured: at most `MOST_MEASURED` of each scheme.

    These are the ones that are clipped much more than before, and those that make most of the error, before or after.
    """
    chosen = []
    for symmetric in (False, True):
        own = [choice for choice in best if choice.symmetric is symmetric]
        error = {c: max(found[c.name, c.grids[number]] for number in (best[c], c.now)) for c in own}
        total = sum(found[c.name, c.grids[best[c]]] ** 2 for c in own)
        clipped = {c for c in own if _width(c.spans[best[c]]) < _CLIPPED * _width(c.spans[c.now])}
        doubtful = [c for c in own if c in clipped or error[c] ** 2 > _SHARE * total]
        chosen += sorted(doubtful, key=lambda c: (c in clipped, error[c]), reverse=True)[:MOST_MEASURED]
    return chosen


@torch.inference_mode()
def _measured(network: fx.GraphModule, choice: _Choice, start: int, images: torch.Tensor) -> int:
    """Return the range with the least measured error: the estimated best, the table's, or wider ones.

    Narrower ones would be right for the values of these few images.
    """
    suffix = simulate.Suffix(network, choice.name, images)
    wanted = suffix.scores(suffix.value)

    @cache
    def error(number: int) -> float:
        scores = suffix.scores(simulate.fake_quantize(suffix.value, choice.grids[number]))
        return loss.power([loss.relative(scores, wanted)])

    best = min((start, choice.now), key=error)
    while best + 1 < len(choice.spans) and error(best + 1) < _BETTER * error(best):
        best += 1
    return best


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

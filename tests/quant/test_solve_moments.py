"""Moments against a direct computation: every output place, every patch, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.quant import solve
from edgekit.quant.solve import Chunk

LAYERS = {
    "1x1": lambda: nn.Conv2d(6, 5, 1),
    "1x1 stride 2": lambda: nn.Conv2d(6, 5, 1, 2),
    "1x1 padded": lambda: nn.Conv2d(6, 5, 1, padding=1),
    "3x3 stride 2": lambda: nn.Conv2d(6, 5, 3, 2, 1),
    "1x3": lambda: nn.Conv2d(6, 5, (1, 3), padding=(0, 1)),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, 1, 1, groups=6),
    "depthwise stride 2": lambda: nn.Conv2d(6, 12, 5, 2, 2, groups=6),
    "grouped": lambda: nn.Conv2d(6, 4, 3, 1, 1, groups=2),
    "grouped 1x1": lambda: nn.Conv2d(6, 4, 1, groups=2),
    "dilated": lambda: nn.Conv2d(6, 5, 3, 1, 2, dilation=2),
    "linear": lambda: nn.Linear(6, 5),
    "linear on tokens": lambda: nn.Linear(6, 5),
    "linear on places": lambda: nn.Linear(6, 5),
}
SHAPES = {"linear": (6,), "linear on tokens": (7, 6), "linear on places": (4, 3, 6)}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def chunks(inputs: torch.Tensor, wanted: torch.Tensor, size: int, weights: torch.Tensor | None = None) -> list[Chunk]:
    weights = torch.ones(len(inputs)) if weights is None else weights
    return [Chunk(*parts) for parts in zip(inputs.split(size), wanted.split(size), weights.split(size))]


@torch.no_grad()
def example(kind: str) -> tuple[nn.Conv2d | nn.Linear, list[Chunk]]:
    """A layer and two chunks, of 4 and 3 images: inputs with a mean of 2, wanted outputs, all weights 1."""
    torch.manual_seed(0)
    module = LAYERS[kind]()
    inputs = torch.randn(7, *SHAPES.get(kind, (6, 9, 8))) + 2
    wanted = module(inputs + 0.1 * torch.randn_like(inputs))
    return module, chunks(inputs, wanted, 4)


def apply(module: nn.Conv2d | nn.Linear, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The layer's outputs without a bias, float64, outputs last: (rows, outputs)."""
    if isinstance(module, nn.Linear):
        return F.linear(inputs.double(), weight).flatten(0, -2)
    padding, groups = module.padding, module.groups
    out = F.conv2d(inputs.double(), weight, None, module.stride, padding, module.dilation, groups)
    return out.movedim(1, -1).flatten(0, -2)


def rows(module: nn.Conv2d | nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """Wanted outputs as (rows, outputs)."""
    return (values if isinstance(module, nn.Linear) else values.movedim(1, -1)).flatten(0, -2).double()


@each_layer
def test_gram_and_cross_are_the_covariances_of_the_patches(kind: str) -> None:
    module, shown = example(kind)
    seen = solve.collect(module, shown)
    groups, outputs, count = solve.grouped(module)
    # A unit weight picks one entry of the patch: the layer itself cuts the patches out.
    patches = []
    for entry in range(count):
        unit = torch.zeros(groups, 1, count, dtype=torch.float64)
        unit[:, :, entry] = 1
        weight = unit.expand(groups, outputs, count).reshape(module.weight.shape)
        picked = torch.cat([apply(module, chunk.inputs, weight) for chunk in shown])
        patches.append(picked.reshape(len(picked), groups, outputs)[:, :, 0])
    x = torch.stack(patches, 2)
    y = torch.cat([rows(module, chunk.wanted) for chunk in shown]).reshape(len(x), groups, outputs)
    x, y = x - x.mean(0), y - y.mean(0)
    torch.testing.assert_close(seen.gram, torch.einsum("rgk,rgl->gkl", x, x) / len(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.cross, torch.einsum("rgo,rgk->gok", y, x) / len(x), rtol=1e-4, atol=1e-4)
    assert seen.power == pytest.approx(float(y.square().sum() / len(x)), rel=1e-4)


@each_layer
def test_the_error_is_the_mean_squared_error_without_the_mean(kind: str) -> None:
    module, shown = example(kind)
    weight = module.weight.detach().double() + 0.1 * torch.randn_like(module.weight).double()
    difference = torch.cat([apply(module, c.inputs, weight) - rows(module, c.wanted) for c in shown])
    expected = float((difference - difference.mean(0)).square().mean(0).sum())
    seen = solve.collect(module, shown)
    assert seen.error(weight.reshape(seen.cross.shape)) == pytest.approx(expected, rel=1e-4)


@each_layer
def test_a_whole_weight_counts_an_image_so_many_times(kind: str) -> None:
    module, (first, second) = example(kind)
    weighted = solve.collect(module, [replace(first, weights=torch.tensor([1.0, 2.0, 0.0, 1.0])), second])
    order = torch.tensor([0, 1, 1, 3])
    repeated = solve.collect(module, [Chunk(first.inputs[order], first.wanted[order], torch.ones(4)), second])
    torch.testing.assert_close(weighted.gram, repeated.gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weighted.cross, repeated.cross, rtol=1e-5, atol=1e-5)
    assert weighted.power == pytest.approx(repeated.power, rel=1e-5)


def test_weights_and_outputs_are_counted_per_group() -> None:
    assert solve.grouped(nn.Conv2d(6, 4, 3, groups=2)) == (2, 2, 27)
    assert solve.grouped(nn.Conv2d(6, 12, 5, groups=6)) == (6, 2, 25)
    assert solve.grouped(nn.Linear(6, 5)) == (1, 5, 6)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["1x1", "3x3 stride 2", "depthwise"])
def test_thinned_places_stay_inputs_and_outputs_of_the_same_place(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "_LEAST_ROWS", 100)
    monkeypatch.setattr(solve, "_ROWS_PER_WEIGHT", 1)
    torch.manual_seed(0)
    module = LAYERS[kind]()
    inputs = torch.randn(40, 6, 16, 16)
    shown = chunks(inputs, module(inputs), 8)
    looked: list[int] = []
    rows_of = solve._rows
    monkeypatch.setattr(solve, "_rows", lambda *a: looked.append((r := rows_of(*a))[0].shape[1]) or r)
    seen = solve.collect(module, shown)
    weight = module.weight.detach().double().reshape(seen.cross.shape)
    assert 100 <= sum(looked) < 250
    assert seen.error(weight) == pytest.approx(0, abs=1e-5 * seen.power)


@torch.no_grad()
def test_moments_are_centred_exactly_enough_where_the_mean_is_large() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(8, 4, 1, bias=False)
    inputs = torch.randn(16, 8, 20, 20) * 0.01 + 50
    seen = solve.collect(module, chunks(inputs, module(inputs), 8))
    variance = inputs.double().var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(torch.diagonal(seen.gram[0]), variance, rtol=1e-2, atol=0)
    assert float(torch.linalg.eigvalsh(seen.gram[0]).min()) > 0

"""Rounding: what is guaranteed, and what the literature promises on average."""

from __future__ import annotations

import pytest
import torch

from edgekit.quant import solve


def gram_of(groups: int, count: int, seed: int) -> torch.Tensor:
    """Covariances (groups, count, count) of strongly correlated inputs of unequal power."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, count, max(count // 3, 2), generator=generator, dtype=torch.float64)
    power = torch.rand(groups, count, 1, generator=generator, dtype=torch.float64) * 2 + 0.1
    mixing = mixing * power
    return mixing @ mixing.transpose(1, 2) + 0.1 * torch.eye(count, dtype=torch.float64)


def weights_of(groups: int, outputs: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights with heavy tails, and the scales that cover them."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, outputs, count, generator=generator, dtype=torch.float64) ** 3
    return weight, weight.abs().amax(2) / 127


def loss(whole: torch.Tensor, scales: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """The mean squared error of every output, (G, O)."""
    difference = whole * scales[..., None] - weight
    return torch.einsum("gok,gkl,gol->go", difference, gram, difference)


@pytest.mark.parametrize("shape", [(1, 24, 30), (1, 8, 150), (6, 1, 9), (2, 3, 64)])
def test_compensated_is_better_than_nearest_under_its_quadratic_form(shape: tuple[int, int, int]) -> None:
    better = []
    for seed in range(5):
        weight, scales = weights_of(*shape, seed)
        gram = gram_of(shape[0], shape[2], seed)
        plain = loss(solve.nearest(weight, scales), scales, weight, gram).sum()
        better.append(float(loss(solve.round_compensated(weight, gram, scales), scales, weight, gram).sum() / plain))
    assert max(better) <= 1
    assert sum(better) / len(better) < 0.9


@pytest.mark.parametrize("shape", [(1, 24, 30), (6, 1, 9), (1, 8, 150)])
def test_compensated_holds_whole_numbers_within_127_and_leaves_its_arguments(shape: tuple[int, int, int]) -> None:
    weight, scales = weights_of(*shape, 0)
    scales, gram = scales * 0.5, gram_of(shape[0], shape[2], 0)
    before = weight.clone(), gram.clone(), scales.clone()
    whole = solve.round_compensated(weight, gram, scales)
    assert whole.shape == weight.shape
    assert torch.equal(whole, whole.round())
    assert float(whole.abs().max()) == 127
    assert all(torch.equal(a, b) for a, b in zip(before, (weight, gram, scales)))


def test_inputs_without_correlation_leave_nothing_to_make_good() -> None:
    weight, scales = weights_of(3, 8, 100, 0)
    gram = torch.diag_embed(torch.rand(3, 100, dtype=torch.float64) + 0.1)
    assert torch.equal(solve.round_compensated(weight, gram, scales), solve.nearest(weight, scales))


def test_two_equal_inputs_share_their_errors() -> None:
    """0.3 + 0.3 of the same input is 1 step, not 0: the second weight takes up what the first one lost."""
    gram = torch.ones(1, 2, 2, dtype=torch.float64) + 1e-6 * torch.eye(2, dtype=torch.float64)
    whole = solve.round_compensated(torch.full((1, 1, 2), 0.3).double(), gram, torch.ones(1, 1).double())
    assert sorted(whole.flatten().tolist()) == [0, 1]


def test_the_order_of_the_inputs_does_not_matter() -> None:
    weight, scales = weights_of(1, 6, 40, 0)
    gram, order = gram_of(1, 40, 0), torch.randperm(40, generator=torch.Generator().manual_seed(0))
    moved = solve.round_compensated(weight[:, :, order], gram[:, order][:, :, order], scales)
    assert torch.equal(moved, solve.round_compensated(weight, gram, scales)[:, :, order])


def test_groups_are_rounded_apart() -> None:
    weight, scales = weights_of(4, 2, 20, 0)
    gram = gram_of(4, 20, 0)
    alone = [solve.round_compensated(weight[[g]], gram[[g]], scales[[g]]) for g in range(4)]
    assert torch.equal(solve.round_compensated(weight, gram, scales), torch.cat(alone))


def test_nearest_rounds_half_to_even_and_stops_at_127() -> None:
    weight = torch.tensor([[[0.5, 1.5, -2.5, 500, -500]]])
    assert solve.nearest(weight, torch.ones(1, 1)).flatten().tolist() == [0, 2, -2, 127, -127]


def test_scales_by_error_are_never_worse_than_the_full_scale() -> None:
    weight, full = weights_of(2, 32, 60, 0)
    gram = gram_of(2, 60, 1)
    gram[0, 7] = gram[0, :, 7] = 0  # an input that is always the same: its weight may clip
    weight[0, :, 7] = 3 * weight[0].abs().amax(1)
    full = weight.abs().amax(2) / 127
    scales = solve.scales_by_error(weight, gram, torch.zeros_like(full))
    powers = torch.diag_embed(torch.diagonal(gram, dim1=1, dim2=2))
    before, after = (loss(solve.nearest(weight, s), s, weight, powers) for s in (full, scales))
    assert (after <= before * (1 + 1e-12)).all()
    assert (after[0] < before[0] * 0.7).all()
    assert (scales <= full).all()


def test_no_scale_goes_below_the_least() -> None:
    weight, full = weights_of(1, 8, 60, 0)
    assert (solve.scales_by_error(weight, gram_of(1, 60, 0), full * 0.95) >= full * 0.95).all()
    assert torch.equal(solve.scales_by_error(weight, gram_of(1, 60, 0), full * 3), full * 3)

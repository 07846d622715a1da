"""The least-squares solution: its two limits, and that nothing near it is better."""

from __future__ import annotations

import pytest
import torch

from edgekit.quant import solve
from edgekit.quant.solve import Moments


def problem(groups: int = 2, outputs: int = 3, count: int = 12) -> tuple[torch.Tensor, Moments, Moments]:
    """Trained weights, moments that ask for other weights, and the moments of unrounded inputs."""
    torch.manual_seed(0)
    weight = torch.randn(groups, outputs, count, dtype=torch.float64)
    exact = torch.randn(groups, 500, count, dtype=torch.float64) @ torch.randn(groups, count, count).double()
    rounded = exact + 0.3 * torch.randn_like(exact)
    y = exact @ weight.transpose(1, 2)
    return weight, moments(rounded, y), moments(exact, y)


def moments(x: torch.Tensor, y: torch.Tensor) -> Moments:
    """Moments of inputs (G, rows, K) and outputs (G, rows, O), centred."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    rows = x.shape[1]
    return Moments(x.transpose(1, 2) @ x / rows, y.transpose(1, 2) @ x / rows, float(y.square().sum() / rows))


def test_huge_damping_keeps_the_trained_weights() -> None:
    weight, seen, _ = problem()
    torch.testing.assert_close(solve.least_squares(weight, seen, 1e9), weight, rtol=1e-6, atol=1e-6)


def test_tiny_damping_gives_least_squares() -> None:
    weight, seen, _ = problem()
    expected = torch.linalg.solve(seen.gram, seen.cross.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(solve.least_squares(weight, seen, 1e-9), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, weight, atol=1e-2)


@pytest.mark.parametrize("damping", [1e-6, 0.3, 100.0])
def test_inputs_without_error_need_no_other_weights(damping: float) -> None:
    weight, _, exact = problem()
    torch.testing.assert_close(solve.least_squares(weight, exact, damping), weight, rtol=1e-6, atol=1e-6)


def test_the_solution_is_the_minimum_of_the_damped_error() -> None:
    weight, seen, _ = problem(groups=1)
    ridge = 0.3 * float(torch.diagonal(seen.gram, dim1=1, dim2=2).mean())

    def objective(candidate: torch.Tensor) -> float:
        return seen.error(candidate) + ridge * float((candidate - weight).square().sum())

    solved = solve.least_squares(weight, seen, 0.3)
    assert objective(solved) < objective(weight)
    for step in 0.01 * torch.randn(20, *weight.shape, dtype=torch.float64):
        assert objective(solved) < objective(solved + step)


def test_less_damping_means_less_error() -> None:
    weight, seen, _ = problem()
    errors = [seen.error(solve.least_squares(weight, seen, damping)) for damping in (1e-6, 0.1, 1.0, 10.0)]
    assert errors == sorted(errors)
    assert errors[-1] < seen.error(weight)


def test_damping_is_relative_to_the_mean_power_of_each_group() -> None:
    gram = torch.stack([torch.diag(torch.tensor([1.0, 3.0])), torch.diag(torch.tensor([10.0, 30.0]))]).double()
    assert torch.diagonal(solve.damped(gram, 0.5), dim1=1, dim2=2).tolist() == [[2, 4], [20, 40]]


def test_inputs_that_never_vary_keep_the_trained_weights() -> None:
    weight, nothing = torch.randn(2, 3, 4, dtype=torch.float64), torch.zeros(2, 4, 4, dtype=torch.float64)
    solved = solve.least_squares(weight, Moments(nothing, torch.zeros(2, 3, 4, dtype=torch.float64), 0.0), 0.3)
    torch.testing.assert_close(solved, weight)

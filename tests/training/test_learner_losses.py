"""Losses, against torch and against what the papers say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.training.learner import BALANCED, Criterion, class_weights, criterion, decide_imbalance
from tests.training import small

pytestmark = pytest.mark.usefixtures("rows")
CPU = torch.device("cpu")


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 3] * 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_torchs_cross_entropy_per_image(logits: torch.Tensor, smoothing: float) -> None:
    found = Criterion(smoothing)(logits, LABELS)
    assert found.shape == (12,)
    torch.testing.assert_close(found.mean(), functional.cross_entropy(logits, LABELS, label_smoothing=smoothing))


def test_a_confident_wrong_answer_costs_what_it_should() -> None:
    found = Criterion()(torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]]), torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([math.log(4), math.log(4 / 3)]))


@pytest.mark.parametrize("counts", [[10, 10], [1, 99], [700, 20, 3], [5, 0, 15]])
def test_the_mean_weight_over_all_images_is_one_and_every_class_weighs_the_same(counts: list[int]) -> None:
    weights = class_weights(counts)
    assert weights.dtype == torch.float32
    mass = weights.numpy() * np.array(counts)
    assert mass.sum() / sum(counts) == pytest.approx(1)
    present = mass[np.array(counts) > 0]
    assert present == pytest.approx(np.full(len(present), present[0]))
    assert torch.isfinite(weights).all()


def test_weights_multiply_the_loss_of_their_class(logits: torch.Tensor) -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    plain, weighted = Criterion()(logits, LABELS), Criterion(weights=weights)(logits, LABELS)
    torch.testing.assert_close(weighted, plain * weights[LABELS])


def test_focal_with_gamma_0_is_cross_entropy(logits: torch.Tensor) -> None:
    options = small.options(imbalance="focal", focal_gamma=0.0, label_smoothing=0.0)
    found = criterion(options, LABELS.numpy(), 4, CPU)(logits, LABELS)
    torch.testing.assert_close(found, functional.cross_entropy(logits, LABELS, reduction="none"))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_is_the_papers_formula(logits: torch.Tensor, gamma: float) -> None:
    options = small.options(imbalance="focal", focal_gamma=gamma, label_smoothing=0.0)
    found = criterion(options, LABELS.numpy(), 4, CPU)(logits, LABELS)
    p = torch.tensor([math.exp(row[y]) / sum(math.exp(v) for v in row) for row, y in zip(logits.tolist(), LABELS)])
    torch.testing.assert_close(found, -((1 - p) ** gamma) * p.log())


def test_soft_targets_mix_the_losses_of_their_labels(logits: torch.Tensor) -> None:
    other = LABELS.roll(1)
    soft = 0.7 * functional.one_hot(LABELS, 4) + 0.3 * functional.one_hot(other, 4)
    expected = 0.7 * Criterion()(logits, LABELS) + 0.3 * Criterion()(logits, other)
    torch.testing.assert_close(Criterion()(logits, soft), expected)


def test_half_precision_logits_give_float32_losses(logits: torch.Tensor) -> None:
    assert Criterion(0.1)(logits.bfloat16(), LABELS).dtype == torch.float32


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_nan_and_infinite_logits_are_not_hidden(logits: torch.Tensor, gamma: float) -> None:
    logits[3, 0], logits[7, 2] = torch.nan, torch.inf
    found = torch.isfinite(Criterion(gamma=gamma)(logits, LABELS)).logical_not().nonzero().flatten().tolist()
    assert found == [3, 7]


def test_the_options_choose_weights_or_focal_or_neither() -> None:
    labels = np.repeat([0, 1], [30, 10])
    plain = small.options(label_smoothing=0.2)
    assert criterion(plain, labels, 2, CPU) == Criterion(0.2)
    assert criterion(replace(plain, imbalance="sampling"), labels, 2, CPU) == Criterion(0.2)
    assert criterion(replace(plain, imbalance="focal", focal_gamma=3.0), labels, 2, CPU) == Criterion(0.2, gamma=3.0)
    weights = criterion(replace(plain, imbalance="weights"), labels, 2, CPU).weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


@pytest.mark.parametrize(
    ("counts", "name"), [([10, 10], "none"), ([999, 100], "none"), ([1000, 100], "weights"), ([50, 0, 20], "weights")]
)
def test_auto_takes_weights_from_a_ratio_of_ten_on_and_names_the_numbers(counts: list[int], name: str) -> None:
    assert BALANCED == 10.0
    found, why = decide_imbalance(counts)
    assert found == name
    assert f"({max(counts)} and {min(counts)})" in why
    assert f"{max(counts) / max(1, min(counts)):.1f} times" in why


@pytest.mark.parametrize("counts", [(24, 1), (100, 1)])
def test_weights_and_smoothing_together_leave_the_best_answer_right(counts: tuple[int, int]) -> None:
    """torch's own `weight` weighs the smoothed share of every other class too: rare ones would win."""
    labels = torch.tensor([0] * counts[0] + [1] * counts[1])
    logits = torch.zeros(len(labels), 2, requires_grad=True)
    loss = Criterion(0.1, class_weights(counts))
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits, labels).sum()
        value.backward()
        return value

    optimizer.step(closure)
    right = logits.softmax(1).gather(1, labels[:, None])
    torch.testing.assert_close(right, torch.full_like(right, 0.95), atol=1e-3, rtol=0)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_has_a_finite_gradient_where_the_answer_is_sure(gamma: float) -> None:
    logits = torch.tensor([[60.0, -60.0], [0.0, 0.0]], requires_grad=True)
    Criterion(gamma=gamma)(logits, torch.tensor([0, 1])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()

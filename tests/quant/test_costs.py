"""Costs of layers against networks that are counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.convert.fold import fold
from edgekit.quant.costs import costs


def by_name(model: nn.Module, size: int = 8) -> dict[str, tuple[int, int, int, int, int]]:
    """(macs, weights, biases, read, written) of every operation."""
    return {c.name: (c.macs, c.weights, c.biases, c.read, c.written) for c in costs(fold(model.eval(), size), size)}


def test_a_convolution_has_its_kernel_for_every_output() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())  # 8 x 8 to 4 x 4
    assert by_name(model) == {"0": (4 * 4 * 4 * 3 * 3 * 3, 4 * 3 * 9, 4, 3 * 8 * 8, 4 * 4 * 4)}


def test_a_depthwise_and_a_grouped_convolution_read_their_own_channels_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 12, 3, padding=1, groups=2),
    )
    found = by_name(model)
    assert found["0"] == (6 * 64 * 3, 18, 0, 3 * 64, 6 * 64)
    assert found["1"] == (6 * 64 * 9 * 1, 6 * 9, 6, 6 * 64, 6 * 64)
    assert found["2"] == (12 * 64 * 9 * 3, 12 * 3 * 9, 12, 6 * 64, 12 * 64)


def test_a_linear_layer_after_a_pool() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))
    found = by_name(model)
    assert list(found) == ["0", "1", "3"]
    assert found["1"] == (0, 0, 0, 5 * 64, 5)
    assert found["3"] == (35, 35, 7, 5, 7)


class Residual(nn.Module):
    """conv, ReLU6, conv, and the input of both added; a ReLU behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.relu6, self.relu = nn.ReLU6(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.relu(x + self.conv2(self.relu6(self.conv1(x))))


def test_a_residual_sum_reads_both_and_activations_are_of_what_they_follow() -> None:
    found = costs(fold(Residual().eval(), 8), 8)
    assert [(c.name, c.layer, c.kind) for c in found] == [
        ("stem", "stem", "conv 1x1"), ("conv1", "conv1", "conv 3x3"), ("conv2", "conv2", "conv 1x1"),
        ("add", "conv2", "add"),
    ]  # fmt: skip
    assert (found[3].macs, found[3].read, found[3].written) == (0, 2 * 4 * 64, 4 * 64)
    assert found[1].tensors == ("conv1", "relu6")
    assert found[3].tensors == ("add", "relu")


class Attention(nn.Module):
    """One product of matrices behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.flatten(self.conv(x), 2)  # 1 x 4 x 64
        return torch.matmul(rows, rows.transpose(1, 2))  # 1 x 4 x 4


def test_a_product_of_matrices_has_its_inner_dimension_for_every_output() -> None:
    assert by_name(Attention())["matmul"][0] == 4 * 4 * 64

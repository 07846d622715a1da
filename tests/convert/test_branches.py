"""Convolutions of one tensor whose outputs are summed become one, exactly; others stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.convert.fold import fold
from edgekit.models import program
from tests.nets import relative_error, settle

IMAGES = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(0))
Sum = Callable[["Block", torch.Tensor], torch.Tensor]


def conv(kernel: Any = 3, outputs: int = 8, **options: Any) -> nn.Conv2d:
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return nn.Conv2d(8, outputs, kernel, **{"padding": tuple(side // 2 for side in sides), **options})


class Block(nn.Module):
    """A stem, and branches of its output that `sum_of` sums; by default the first has a batch norm behind it."""

    def __init__(self, *branches: nn.Module, sum_of: Sum | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.sum_of = nn.Conv2d(3, 8, 3), sum_of
        self.branches, self.norm = nn.ModuleList(branches), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        if self.sum_of is None:
            first, *others = self.branches
            y = self.norm(first(x))
            for other in others:
                y = y + other(x)
        else:
            y = self.sum_of(self, x)
        return torch.relu(y).mean((2, 3))


def left(model: nn.Module) -> int:
    """The number of convolutions behind the stem in the folded graph, which must compute what the model does."""
    settle(model, IMAGES)
    graph = fold(model)
    with torch.inference_mode():
        assert relative_error(graph(IMAGES).numpy(), model(IMAGES).numpy()) < 1e-5
    return sum(isinstance(module, nn.Conv2d) for module in graph.modules()) - 1


@pytest.mark.parametrize(
    "branches",
    [
        (conv(3), conv(1)),
        (conv(1), conv(3)),
        (conv(3), conv(3, bias=False)),
        (conv(3), nn.BatchNorm2d(8)),
        (conv(3), conv(1), nn.BatchNorm2d(8)),
        (conv(1, groups=8), nn.BatchNorm2d(8)),
        (conv(3, stride=2), conv(1, stride=2)),
        (conv(3, groups=8), conv(1, groups=8), nn.BatchNorm2d(8)),
        (conv(3, groups=2), nn.BatchNorm2d(8)),
        (conv((3, 1)), conv(3), conv((1, 3))),
        (conv(3, dilation=2, padding=2), conv(1)),
        (conv(5, dilation=2, padding=4), conv(3, dilation=2, padding=2)),
        (conv(3, dilation=2, padding=2), conv(1, dilation=3)),
        (conv(5, padding=1), conv(3, padding=0)),
    ],
)
def test_branches_become_one(branches: tuple[nn.Module, ...]) -> None:
    assert left(Block(*branches)) == 1


@pytest.mark.parametrize(
    "branches",
    [
        (conv(8, padding=0), conv(3, stride=2)),
        (conv(3, stride=2), conv(2, stride=2, padding=1)),  # one row more above than below
        (conv(3), conv(3, dilation=2, padding=2)),
        (conv(3, groups=2), conv(1)),
        (conv(3, groups=8), conv(1)),  # a dense 3 x 3 layer would have more weights
        (conv(3, padding_mode="reflect"), conv(1)),
        (conv(3, padding="same"), conv(1)),
        (conv((3, 1)), conv((1, 3))),
        (conv(3), nn.MaxPool2d(3, 1, 1), conv(1)),
        (nn.Sequential(conv(3), nn.ReLU(), conv(1)), conv(3)),
    ],
)
def test_other_branches_stay(branches: tuple[nn.Module, ...]) -> None:
    convolutions = sum(isinstance(module, nn.Conv2d) for branch in branches for module in branch.modules())
    assert left(Block(*branches)) == convolutions


def with_another_reader(block: Block, x: torch.Tensor) -> torch.Tensor:
    y = block.branches[1](x)
    return (block.branches[0](x) + y) * torch.sigmoid(y)


def with_one_layer_twice(block: Block, x: torch.Tensor) -> torch.Tensor:
    return block.branches[0](x) + block.branches[1](x) + block.branches[1](torch.relu(x - 1))


@pytest.mark.parametrize(
    ("sum_of", "layers"),
    [
        (lambda block, x: sum(branch(x) for branch in block.branches), 1),
        (lambda block, x: torch.add(block.branches[0](x), block.norm(block.branches[1](x))), 1),
        (lambda block, x: torch.add(block.branches[0](x), block.branches[1](x), alpha=2), 2),
        (lambda block, x: block.branches[0](x) - block.branches[1](x), 2),
        (lambda block, x: block.branches[0](x) + torch.relu(block.branches[1](x)), 2),
        (lambda block, x: block.branches[0](x) + block.branches[1](torch.relu(x - 1)), 2),
        (lambda block, x: block.branches[0](x) + 1 + x, 1),
        (with_another_reader, 2),
        (with_one_layer_twice, 2),
    ],
)
def test_only_a_sum_of_branches_is_one_layer(sum_of: Sum, layers: int) -> None:
    assert left(Block(conv(3), conv(1), sum_of=sum_of)) == layers


def test_a_traced_network_has_its_branches_summed_too() -> None:
    model = settle(Block(conv(3), conv(1), nn.BatchNorm2d(8)), IMAGES)
    graph = fold(program.trace(model, 17), 17)
    assert [name for name, module in graph.named_modules() if isinstance(module, nn.Conv2d)] == ["stem", "branches.0"]
    with torch.inference_mode():
        assert relative_error(graph(IMAGES).numpy(), model(IMAGES).numpy()) < 1e-5

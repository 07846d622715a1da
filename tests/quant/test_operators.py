"""Operators by kind: what only moves values, what has an integer kernel, which products are of two activations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.quant import operators


class One(nn.Module):
    """A single operation."""

    def __init__(self, do: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.do = do

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.do(x)


def last(do: Callable[[torch.Tensor], torch.Tensor]) -> tuple[fx.GraphModule, fx.Node]:
    """The graph of a function, and its last operation."""
    traced = fx.symbolic_trace(One(do))
    return traced, traced.graph.output_node().all_input_nodes[0]


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x.reshape(1, -1),
        lambda x: torch.permute(x, (0, 2, 1)),
        lambda x: x.transpose(1, 2),
        lambda x: x[:, 1:],
        lambda x: x.chunk(2)[0],
        lambda x: torch.unsqueeze(x, 1),
        lambda x: F.pad(x, (0, 0, 1, 0)),
        lambda x: F.pad(x, (0, 0, 1, 0), "constant", 0.0),
    ],
)
def test_values_that_only_move_keep_their_grid(do: Callable) -> None:
    traced, node = last(do)
    assert operators.moves(traced, node)
    assert operators.has_integer_kernel(traced, node)
    assert operators.origin(traced, node).op == "placeholder"


@pytest.mark.parametrize(
    "do",
    [
        lambda x: F.pad(x, (1, 1), "reflect"),
        lambda x: F.pad(x, (1, 1), "constant", 3.0),
        lambda x: F.pad(x, (1, 1), value=2.0),
    ],
)
def test_padding_with_anything_but_zeros_is_no_move(do: Callable) -> None:
    assert not operators.moves(*last(do))


@pytest.mark.parametrize(
    "do", [lambda x: x + x.mean(1), lambda x: 0.5 * x, torch.tanh, torch.sigmoid, lambda x: x - x.relu()]
)
def test_operators_with_an_integer_kernel(do: Callable) -> None:
    traced, node = last(do)
    assert operators.has_integer_kernel(traced, node)
    assert not operators.moves(traced, node)


@pytest.mark.parametrize("do", [F.gelu, lambda x: x.softmax(-1), torch.exp, lambda x: x / x.sum(), torch.cumsum])
def test_operators_without_one(do: Callable) -> None:
    traced, node = last(lambda x: do(x, 1) if do is torch.cumsum else do(x))
    assert not operators.has_integer_kernel(traced, node)


def test_a_function_that_is_not_torchs_has_no_kind() -> None:
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    graph = fx.Graph()
    node = graph.call_function(add, (graph.placeholder("x"),))
    assert operators.kind(fx.GraphModule(nn.Module(), graph), node) == ""


def test_a_product_is_of_two_tensors_that_depend_on_the_image() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    assert operators.is_product(*last(lambda x: x @ x.transpose(0, 1)))
    assert operators.is_product(*last(lambda x: torch.bmm(x, x + 1)))
    traced = fx.symbolic_trace(Weighted())
    assert not operators.is_product(traced, traced.graph.output_node().all_input_nodes[0])


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (nn.Conv2d(3, 4, 1), True),
        (nn.Linear(3, 4), True),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv1d(3, 4, 1), False),
        (nn.ConvTranspose2d(3, 4, 1), False),
        (None, False),
    ],
)
def test_layers_whose_weights_are_rounded(module: nn.Module | None, wanted: bool) -> None:
    assert operators.is_layer(module) is wanted

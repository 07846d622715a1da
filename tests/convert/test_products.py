"""Products with a constant per channel go into the layer before them; others stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.convert.fold import fold


class Scaled(nn.Module):
    """A convolution and a linear layer, each with a scale behind it, as asked for."""

    def __init__(self, shape: tuple[int, ...], order: tuple[int, ...] | None = None, twice: bool = False) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv2d(3, 6, 1), nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.randn(shape))
        self.order, self.twice = order, twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.line(self.conv(x).permute(0, 2, 3, 1))
        y = x if self.order is None else x.permute(self.order)
        y = y * self.scale
        return y + (x if self.order is None else x.permute(self.order)) if self.twice else y


IMAGES = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "order", "twice", "products"),
    [
        ((6,), None, False, 0),
        ((6, 1, 1), (0, 3, 1, 2), False, 0),
        ((1, 6, 1, 1), (0, -1, 1, 2), False, 0),
        ((1,), None, False, 0),
        ((5, 1, 1), None, False, 1),  # per row
        ((4,), (0, 3, 1, 2), False, 1),  # per column
        ((6,), None, True, 1),  # the sum reads the layer as it is
    ],
)
def test_a_product_goes_into_the_layer_if_it_is_per_channel(
    shape: tuple[int, ...], order: tuple[int, ...] | None, twice: bool, products: int
) -> None:
    torch.manual_seed(0)
    network = Scaled(shape, order, twice).eval()
    weight = network.line.weight.detach().clone()
    folded = fold(network)
    assert sum("mul" in node.name for node in folded.graph.nodes) == products
    with torch.inference_mode():
        assert torch.allclose(folded(IMAGES), network(IMAGES), atol=1e-5)
    assert torch.equal(network.line.weight, weight)


def test_a_convolution_takes_a_product_too() -> None:
    class Gained(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 6, 1, bias=False))
            self.gain = nn.Parameter(torch.randn(6, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * super().forward(x)

    network = Gained().eval()
    folded = fold(network)
    assert [node.op for node in folded.graph.nodes] == ["placeholder", "call_module", "output"]
    with torch.inference_mode():
        assert torch.allclose(folded(IMAGES), network(IMAGES), atol=1e-5)


def test_a_layer_that_is_called_twice_keeps_its_weights() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gain = nn.Conv2d(3, 3, 1), nn.Parameter(torch.randn(3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x)) * self.gain

    network = Shared().eval()
    with torch.inference_mode():
        assert torch.allclose(fold(network)(IMAGES), network(IMAGES), atol=1e-5)

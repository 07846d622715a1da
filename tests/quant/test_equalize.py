"""Equalization: channels use the range of their tensor, and the float network stays the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.quant import equalize, loss, placement, simulate
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationTable, LayerWeights
from tests import nets

SCHEMES = (LITERT_SCHEME, TENSORRT_SCHEME)
CHANNELS = 16


class Uneven(nn.Module):
    """A wide convolution, a depthwise and a 1x1 one; the channels between the first two differ by 100 times."""

    def __init__(self, active: nn.Module, widest: float = 3.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.first, self.active = nn.Conv2d(CHANNELS, CHANNELS, 1), active
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, groups=CHANNELS)
        self.last = nn.Conv2d(CHANNELS, 16, 1)
        with torch.no_grad():
            scales = widest * torch.logspace(-2, 0, CHANNELS)
            self.first.weight *= scales.view(-1, 1, 1, 1)
            self.first.bias *= scales
            self.depthwise.weight /= scales.view(-1, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.depthwise(self.active(self.first(self.stem(x))))).mean((2, 3))


def made(active: nn.Module, widest: float = 3.0) -> tuple[fx.GraphModule, CalibrationTable, torch.Tensor]:
    torch.manual_seed(0)
    folded, images = fold(Uneven(active, widest).eval(), 32), nets.random_images(80, 32)
    return folded, nets.observe(folded, images), images


def names(folded: fx.GraphModule) -> list[str]:
    return [pair.first for pair in equalize.pairs(folded)]


@pytest.mark.parametrize(
    ("active", "limit"), [(nn.ReLU(), float("inf")), (nn.ReLU6(), 6.0), (nn.Hardtanh(0.0, 4.0), 4.0)]
)
def test_a_convolution_whose_activation_only_a_depthwise_one_reads_is_found(active: nn.Module, limit: float) -> None:
    (pair,) = equalize.pairs(made(active)[0])
    assert (pair.first, pair.depthwise, pair.limit) == ("first", "depthwise", limit)


@pytest.mark.parametrize("active", [nn.Hardswish(), nn.Hardtanh(-1.0, 1.0), nn.Identity(), nn.SiLU()])
def test_other_activations_do_not_scale(active: nn.Module) -> None:
    assert names(made(active)[0]) == []


class Twice(Uneven):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.active(self.first(self.stem(x)))
        return self.last(self.depthwise(y) + y).mean((2, 3))


class Again(Uneven):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        return self.last(self.depthwise(self.active(self.first(x)))).mean((2, 3))


@pytest.mark.parametrize("kind", [Twice, Again], ids=["another reader", "a layer that is called twice"])
def test_what_something_else_reads_or_calls_is_left(kind: type[Uneven]) -> None:
    torch.manual_seed(0)
    assert names(fold(kind(nn.ReLU()).eval(), 32)) == []


def test_each_channel_fills_the_range_with_room_and_none_is_scaled_down() -> None:
    largest = torch.tensor([4.0, 2.0, 1.0, 0.01, 0.0, -1.0])
    exact = [1.0, 4 / 3, 4 / 1.5, equalize.MOST, 1.0, 1.0]
    assert equalize.channel_scales(largest, float("inf")).tolist() == pytest.approx(exact)
    # 5 x 1.5 is above the limit of 6, where the activation stops it: it may be scaled to that only.
    assert equalize.channel_scales(torch.tensor([6.0, 5.0, 2.0]), 6.0).tolist() == pytest.approx([1.0, 1.0, 2.0])


@pytest.mark.parametrize("active", [nn.ReLU(), nn.ReLU6()])
def test_the_float_network_is_the_same_and_rounding_costs_less(active: nn.Module) -> None:
    folded, table, images = made(active)
    changed, layers = equalize.equalized(folded, table, SCHEMES, images)
    assert sorted(layers) == ["depthwise", "first"]
    network = placement.with_weights(folded, layers)
    with torch.inference_mode():
        wanted = folded(images)
        assert nets.relative_error(network(images).numpy(), wanted.numpy()) < 1e-5
        before, after = (
            rounded(graph, spans, images, wanted) for graph, spans in ((folded, table), (network, changed))
        )
    assert after < before / 4


def rounded(graph: fx.GraphModule, table: CalibrationTable, images: torch.Tensor, wanted: torch.Tensor) -> float:
    """The loss if the tensor before the depthwise convolution alone is rounded."""
    (pair,) = equalize.pairs(graph)
    grid = placement.place(graph, table, LITERT_SCHEME).grids[pair.tensor]
    return loss.of(simulate.Simulation(graph, {pair.tensor: grid}).run, [images], [wanted])


def test_the_range_of_a_scaled_tensor_holds_all_that_was_seen_and_float16_knows_what_is_before_it() -> None:
    folded, _, images = made(nn.ReLU())
    table = nets.observe(folded, images, "percentile")
    (pair,) = equalize.pairs(folded)
    changed, layers = equalize.equalized(folded, table, SCHEMES, images)
    assert table.ranges[pair.tensor].high < table.seen[pair.tensor].high
    assert changed.ranges[pair.tensor] == table.seen[pair.tensor]
    others = table.ranges.keys() - {pair.tensor, pair.first}
    assert all(changed.ranges[name] == table.ranges[name] for name in others)
    tensors: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        network = placement.with_weights(folded, layers)
        simulate.Simulation(network, {}, see=lambda name, value: tensors.update({name: value})).run(images)
    assert changed.seen[pair.first].high >= float(tensors[pair.first].max())
    assert changed.seen[pair.first].low <= float(tensors[pair.first].min())


def test_a_network_that_it_would_change_stays() -> None:
    """Images to judge on whose values go beyond the room, where a ReLU6 stops scaled channels earlier."""
    folded, table, images = made(nn.ReLU6(), 2.0)
    assert equalize.equalized(folded, table, SCHEMES, images)[1]
    judging = torch.cat([3 * images[: equalize.JUDGING], images[equalize.JUDGING :]])
    assert equalize.equalized(folded, table, SCHEMES, judging) == (table, {})


def test_what_moves_the_float_network_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, table, images = made(nn.ReLU())
    monkeypatch.setattr(loss, "UNCHANGED_DB", 400.0)
    assert equalize.equalized(folded, table, SCHEMES, images) == (table, {})


def test_without_ranges_or_images_nothing_is_done() -> None:
    folded, table, images = made(nn.ReLU())
    assert equalize.equalized(folded, table, SCHEMES, images[:0]) == (table, {})
    none = nets.table_of()
    assert equalize.equalized(folded, none, SCHEMES, images) == (none, {})


def test_weights_are_scaled_by_channel() -> None:
    folded, table, images = made(nn.ReLU())
    layers = equalize.equalized(folded, table, SCHEMES, images)[1]
    trained = placement.trained_weights(folded)

    def ratio(name: str) -> np.ndarray:
        def largest(layer: LayerWeights) -> np.ndarray:
            return np.abs(layer.weight).reshape(CHANNELS, -1).max(1)

        return largest(layers[name]) / largest(trained[name])

    assert ratio("first") * ratio("depthwise") == pytest.approx(1)
    assert ratio("first").max() > 10
    assert ratio("first").min() == 1

"""The search for ranges: estimates of what rounding does to the scores, and ranges chosen by them."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.quant import affine, loss, placement, ranges, recover, simulate
from edgekit.quant.naming import INPUT
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationRecipe, CalibrationTable, Grid, Range
from tests import nets
from tests.quant.test_recover import ALL, fragile, pictures, same

SCHEMES = (LITERT_SCHEME, TENSORRT_SCHEME)


class Deaf(nn.Module):
    """Two convolutions; a channel between them is 50 times as large as the others, and nothing comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.active = nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU()
        self.second, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 5)
        with torch.no_grad():
            self.first.weight[0] *= 50
            self.second.weight[:, 0] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(self.active(self.first(x)))).mean((2, 3)))


def deaf() -> tuple[fx.GraphModule, CalibrationTable, torch.Tensor]:
    torch.manual_seed(0)
    folded, images = fold(Deaf().eval(), 32), nets.random_images(80, 32)
    return folded, nets.observe(folded, images), images


def estimated(*arguments: Any) -> CalibrationTable:
    """What the search proposes by its estimates alone."""
    return ranges.search(*arguments)[0]


def rounded_loss(folded: fx.GraphModule, table: CalibrationTable, images: torch.Tensor) -> float:
    """The loss with rounded activations, over both schemes."""
    with torch.inference_mode():
        runs = [simulate.Simulation(folded, placement.place(folded, table, s).rounded) for s in SCHEMES]
        return sum(loss.of(run.run, [images], [folded(images)]) for run in runs)


@pytest.mark.parametrize("steps", [40, 100])
def test_the_estimate_is_the_error_that_rounding_makes(steps: int) -> None:
    folded, images, table = fragile()
    most = max(abs(table.ranges["first.2"].low), table.ranges["first.2"].high)
    grid = Grid(most / steps, -128)
    found = ranges.errors(folded, {"first.2": {grid}}, images)
    with torch.inference_mode():
        wanted = folded(images)
        real = loss.relative(simulate.Simulation(folded, {"first.2": grid}).run(images), wanted)
    assert float(real.mean()) > 1e-3
    assert found["first.2", grid] == pytest.approx(float(real.mean()), rel=0.25)


def test_a_range_leaves_out_what_the_scores_do_not_hear() -> None:
    folded, table, images = deaf()
    found = estimated(folded, table, SCHEMES, images[:32])
    assert found.ranges["active"].high < 0.3 * table.ranges["active"].high
    assert rounded_loss(folded, found, images[32:]) < 0.5 * rounded_loss(folded, table, images[32:])


def test_no_range_gets_wider_than_what_was_seen_and_those_at_the_ends_stay() -> None:
    folded, images, table = fragile()
    found = estimated(folded, table, SCHEMES, images)
    ends = (INPUT, "head")
    for spans in (found.ranges, found.spans(symmetric=True)):
        assert [spans[name] for name in ends] == [table.ranges[name] for name in ends]
        for name, span in spans.items():
            assert table.seen[name].low <= span.low <= 0.0 <= span.high <= table.seen[name].high
    assert found.ranges != table.ranges
    assert (found.seen, found.samples, found.observer) == (table.seen, table.samples, table.observer)


def test_the_image_and_the_scores_are_never_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, images, table = fragile()

    def finest(_network: object, grids: dict, *_: object) -> dict[tuple[str, Grid], float]:
        return {(name, grid): grid.scale for name, each in grids.items() for grid in each}

    monkeypatch.setattr(ranges, "errors", finest)
    found = estimated(folded, table, SCHEMES, images)
    rounded = {name for scheme in SCHEMES for name in placement.place(folded, table, scheme).rounded}
    assert {name for name in rounded if found.ranges[name] == table.ranges[name]} == {INPUT, "head"}
    assert {name for name in found.symmetric if found.symmetric[name] == table.ranges[name]} == set()


def test_a_narrow_range_may_get_wider() -> None:
    found = ranges.candidates(Range(-1.0, 2.0), seen=Range(-1.2, 9.0))
    assert Range(-1.0, 2.0) in found
    assert max(span.high for span in found) == pytest.approx(4.0)
    assert min(span.low for span in found) == pytest.approx(-1.2)
    assert max(span.high for span in ranges.candidates(Range(0.0, 2.0), seen=Range(0.0, 2.0))) == 2.0


class Gate(nn.Module):
    """A tensor of which one half is nearly empty, as after SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.active = nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU()
        self.second, self.head = nn.Conv2d(16, 16, 3, 1, 1), nn.Linear(16, 5)
        with torch.no_grad():
            self.first.weight *= 8
            self.second.weight[:, 0] = 0
            self.first.weight[0] *= 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(self.active(self.first(x)))).mean((2, 3)))


def test_symmetric_grids_get_ranges_of_their_own() -> None:
    torch.manual_seed(0)
    folded, images = fold(Gate().eval(), 32), nets.random_images(80, 32)
    table = nets.observe(folded, images)
    found = estimated(folded, table, SCHEMES, images[:32])
    assert found.spans(symmetric=True)["mul"] == found.symmetric["mul"] != found.ranges["mul"]
    for scheme in SCHEMES:
        alone = estimated(folded, table, (scheme,), images[:32])
        assert alone.spans(scheme.symmetric)["mul"] == found.spans(scheme.symmetric)["mul"]
        grid = placement.place(folded, found, scheme).grids["mul"]
        span = found.spans(scheme.symmetric)["mul"]
        assert grid.scale == affine.activation_grid(span, scheme.symmetric).scale


@pytest.mark.parametrize(("start", "best"), [(4, 6), (5, 6), (6, 6), (7, 7), (0, 8), (10, 8)])
def test_a_doubtful_choice_is_measured(start: int, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the better of the estimated best and the table's range, as long as a wider one is better by a tenth."""
    folded, images, _ = fragile()
    spans = tuple(Range(0.0, 1.0 + number) for number in range(11))
    grids = tuple(affine.activation_grid(span, False) for span in spans)
    choice = ranges._Choice("first.2", False, spans, grids, now=8)
    errors = [9.0, 8.5, 8.2, 8.1, 3.5, 3.0, 1.0, 2.0, 4.0, 4.2, 4.3]
    rounded: list[Grid] = []

    def measure(values: torch.Tensor, grid: Grid) -> torch.Tensor:
        rounded.append(grid)
        return values

    monkeypatch.setattr(simulate, "fake_quantize", measure)
    monkeypatch.setattr(loss, "power", lambda _: errors[grids.index(rounded[-1])])
    assert ranges._measured(folded, choice, start, images[:4]) == best
    assert len(rounded) == len(set(rounded)) <= 6  # each once


def test_the_range_of_a_tensor_without_positive_values_is_known_among_its_candidates() -> None:
    folded, _, table = fragile()
    low = table.seen["add"].low - 1.0
    negative = dataclasses.replace(
        table, ranges={**table.ranges, "add": Range(low, 0.0)}, seen={**table.seen, "add": Range(2 * low, 0.0)}
    )
    (choice,) = (each for each in ranges._choices(folded, negative, LITERT_SCHEME) if each.name == "add")
    assert choice.spans[choice.now] == Range(low, 0.0)


def test_what_is_clipped_much_or_matters_most_is_measured() -> None:
    spans = tuple(Range(0.0, high) for high in (1.0, 2.0, 4.0))
    grids = tuple(affine.activation_grid(span, False) for span in spans)
    names = ("clipped", "large", "large before", "small")  # the first and the third get narrower by half or more
    choices = [ranges._Choice(name, False, spans, grids, now=2) for name in names]
    best = dict(zip(choices, (0, 2, 1, 2), strict=True))
    found = {(name, grid): 1e-3 for name in names for grid in grids}
    found |= {("large", grids[2]): 1.0, ("large before", grids[2]): 0.5}
    assert [choice.name for choice in ranges._doubtful(best, found)] == ["large before", "clipped", "large"]


def test_the_images_are_taken_in_parts_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, table, images = deaf()
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(ranges, "MOST_BYTES", 1)
    ranges.search(folded, table, SCHEMES, images[:5], lambda *each: done.append(each))
    parts = ranges.parts(5, len(SCHEMES))
    assert done[:5] == [(n, parts) for n in range(1, 6)]
    assert done[-1] == (parts, parts)
    assert parts == 5 + 2 * ranges.MOST_MEASURED
    assert done == sorted(done)


def test_twice_gives_the_same_and_leaves_the_network_as_it_was() -> None:
    folded, table, images = deaf()
    before = {name: value.clone() for name, value in folded.state_dict().items()}
    found = [ranges.search(folded, table, SCHEMES, images) for _ in range(2)]
    assert found[0] == found[1]
    assert all(torch.equal(before[name], value) for name, value in folded.state_dict().items())
    assert all(value.grad is None for value in folded.parameters())


class Overwritten(nn.Module):
    """A tensor that a ReLU6 overwrites, or an addition after a convolution has read it; one that nothing comes of."""

    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, 5)
        self.active, self.unused, self.adds = nn.ReLU6(inplace=True), nn.Conv2d(16, 16, 1), adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x) + 6.5
        y = self.second(x) if self.adds else x
        x = x.add_(y) if self.adds else self.active(x)
        return self.head(x.mean((2, 3)) + 0 * self.unused(x).detach().mean((2, 3)))


def overwritten(adds: bool) -> tuple[fx.GraphModule, CalibrationTable, torch.Tensor]:
    torch.manual_seed(0)
    folded, images = fx.symbolic_trace(Overwritten(adds).eval()), nets.random_images(80, 32)
    return folded, nets.observe(folded, images), images


def test_a_tensor_that_is_overwritten_is_judged_as_it_was_and_one_without_effect_keeps_its_range() -> None:
    folded, table, images = overwritten(adds=False)
    grid = Grid(0.7, -100)  # 6 becomes 6.3, but most values are larger, and the ReLU6 makes 6 of them afterwards
    found = ranges.errors(folded, {"add": {grid}, "unused": {grid}, "no such tensor": {grid}}, images)
    with torch.inference_mode():
        real = loss.relative(simulate.Simulation(folded, {"add": grid}).run(images.clone()), folded(images.clone()))
    assert found["add", grid] == pytest.approx(float(real.mean()), rel=0.5)
    assert ("unused", grid) not in found
    assert ranges.errors(folded, {}, images) == {}
    assert estimated(folded, table, SCHEMES, images).ranges["unused"] == table.ranges["unused"]


# As a step of recovery.


def test_the_step_is_kept_where_it_lowers_the_loss_on_other_images() -> None:
    folded, table, images = deaf()
    recipe = CalibrationRecipe("r", steps=("ranges",))
    model = recover.recover(folded, table, recipe, LITERT_SCHEME, images)
    assert model.steps == ("ranges",)
    assert model.table.ranges["active"].high < 0.3 * table.ranges["active"].high
    scale = affine.activation_grid(model.table.ranges["active"], False).scale
    assert model.placement(LITERT_SCHEME).grids["active"].scale == scale


def test_ranges_that_lose_on_other_images_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, table, images = deaf()
    worse = table.with_ranges({"active": Range(0.0, table.ranges["active"].high * 1e-3)})
    monkeypatch.setattr(ranges, "search", lambda *_: (worse, worse))
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=("ranges",)), LITERT_SCHEME, images)
    assert (model.steps, model.table) == ((), table)


@pytest.mark.parametrize("good", [0, 1], ids=["estimated", "measured"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_better_proposal_is_taken_for_each_scheme(
    good: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded, table, images = deaf()
    better = ranges.search(folded, table, SCHEMES, images[:32])[0]
    high = table.ranges["active"].high * 1e-3
    worse = table.with_ranges({"active": Range(0.0, high)}, {"active": Range(0.0, high)})
    mixed = (
        dataclasses.replace(worse, symmetric=better.symmetric)
        if symmetric
        else dataclasses.replace(worse, ranges=better.ranges)
    )
    proposals = (mixed, worse) if good == 0 else (worse, mixed)
    monkeypatch.setattr(ranges, "search", lambda *_: proposals)
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=("ranges",)), LITERT_SCHEME, images)
    assert model.steps == ("ranges",)
    assert model.table.spans(symmetric) == better.spans(symmetric)
    assert model.table.spans(not symmetric) == table.ranges


def test_a_network_without_derivatives_keeps_its_ranges(caplog: pytest.LogCaptureFixture) -> None:
    folded, table, images = overwritten(adds=True)
    with pytest.raises(RuntimeError, match="inplace"):
        ranges.search(folded, table, SCHEMES, images)
    with caplog.at_level(logging.INFO, "edgekit"):
        model = recover.recover(folded, table, CalibrationRecipe("r", steps=("ranges",)), LITERT_SCHEME, images)
    assert (model.steps, model.table) == ((), table)
    assert "ranges are not searched, since backpropagation fails: one of the variables" in caplog.text


def test_compensation_is_left_out_where_the_scores_lose_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, _, table = fragile()
    images = pictures(96, 1)
    plain = recover.recover(folded, table, CalibrationRecipe("r", steps=ALL[1:]), LITERT_SCHEME, images[:64])
    losses = iter([0.5, 2.0, 1.0])  # of rounded activations alone, with compensation, and without it
    monkeypatch.setattr(recover._Work, "_loss", lambda *_: next(losses))
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=ALL), LITERT_SCHEME, images)
    assert model.steps == ALL[1:]
    assert all(same(plain.layers[name], layer) for name, layer in model.layers.items())


@pytest.mark.parametrize("losses", [(0.5, 1.0, 2.0), (0.5, 0.4)], ids=["it loses less", "the weights cost nothing"])
def test_compensation_is_kept_where_it_pays(losses: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    folded, _, table = fragile()
    left = iter(losses)
    monkeypatch.setattr(recover._Work, "_loss", lambda *_: next(left))
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=ALL), LITERT_SCHEME, pictures(96, 1))
    assert model.steps == ALL
    assert list(left) == []  # with weights that cost nothing, the other way is not tried


@pytest.mark.parametrize("measured", [1, ranges.MOST_MEASURED], ids=["as many as allowed", "fewer"])
def test_progress_counts_every_part_of_the_work_once(measured: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MOST_MEASURED", measured)
    folded, table, images = deaf()
    done: list[tuple[int, int]] = []
    recipe = CalibrationRecipe("r", steps=("ranges", *ALL))
    recover.recover(folded, table, recipe, LITERT_SCHEME, images, lambda *each: done.append(each))
    total = ranges.parts(ranges.IMAGES, len(SCHEMES)) + 2 * len(placement.layers(folded))
    assert {whole for _, whole in done} == {total}
    assert [part for part, _ in done] == sorted({part for part, _ in done})
    assert done[-1] == (total, total)
    most = max(8 + len(placement.layers(folded)), ranges.parts(0, len(SCHEMES)))
    assert np.diff([part for part, _ in done]).max() <= most

"""Distillation: the quantized network trained to give the float network's scores."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.models import build
from edgekit.quant import distill, placement, recover, simulate
from edgekit.quant.naming import INPUT
from edgekit.quantization import (
    LITERT_SCHEME,
    TENSORRT_SCHEME,
    CalibrationRecipe,
    QuantizedModel,
    QuantScheme,
)
from tests import nets
from tests.quant.test_recover import fragile, pictures

SCHEMES = (LITERT_SCHEME, TENSORRT_SCHEME)
STEPS = 60


class Stopped(Exception):
    pass


class InPlace(nn.Module):
    """A rounded tensor that an activation overwrites, as in torchvision's MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 5)
        self.active = nn.Hardswish(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.active(self.second(self.active(self.first(x)))).mean((2, 3)))


def rounded(folded: fx.GraphModule, images: torch.Tensor) -> QuantizedModel:
    """A model with weights rounded to nearest."""
    scheme = QuantScheme(False, everywhere=True)
    return recover.recover(folded, nets.observe(folded, images), CalibrationRecipe("x"), scheme, images)


def trained(
    folded: fx.GraphModule, model: QuantizedModel, images: torch.Tensor, steps: int = STEPS, **options: Any
) -> distill.Distilled:
    return distill.distill(folded, model.table, model.layers, SCHEMES, images, steps, **options)


def error(folded: fx.GraphModule, made: Any, images: torch.Tensor) -> list[float]:
    """The relative squared error of the scores, for each scheme."""
    weights = simulate.tensors_of(made.layers)
    with torch.inference_mode():
        wanted = folded(images)
        grids = [placement.place(folded, made.table, scheme).rounded for scheme in SCHEMES]
        runs = [simulate.Simulation(folded, each, weights).run(images) for each in grids]
    return [float((run - wanted).square().sum() / wanted.square().sum()) for run in runs]


def same(one: distill.Distilled, two: distill.Distilled) -> bool:
    return one.table == two.table and all(
        np.array_equal(one.layers[name].weight, two.layers[name].weight)
        and np.array_equal(one.layers[name].bias, two.layers[name].bias)  # type: ignore[arg-type]
        for name in one.layers
    )


def test_the_scores_of_images_that_were_not_seen_come_nearer_on_both_runtimes() -> None:
    folded, images, _ = fragile()
    model = rounded(folded, images)
    found, others = trained(folded, model, images), pictures(64, seed=9)
    for before, after in zip(error(folded, model, others), error(folded, found, others), strict=True):
        assert after < 0.6 * before


def test_what_the_files_need_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are whole multiples of scales that stay; the first layer, the input's and the scores' ranges stay."""
    monkeypatch.setattr(distill, "WEIGHT_RATE", 0.05)  # so that weights move by more than half a step
    folded, images, _ = fragile()
    model = rounded(folded, images)
    found = trained(folded, model, images)
    first, *others = model.layers
    assert np.array_equal(found.layers[first].weight, model.layers[first].weight)
    assert np.array_equal(found.layers[first].bias, model.layers[first].bias)  # type: ignore[arg-type]
    for name in others:
        layer, scales = found.layers[name], model.layers[name].scales
        assert scales is not None
        assert np.array_equal(layer.scales, scales)
        whole = layer.weight / scales.reshape(-1, *[1] * (layer.weight.ndim - 1))
        assert np.abs(whole - whole.round()).max() < 1e-3
        assert np.abs(whole).max() < 127.01
    assert any(not np.array_equal(found.layers[name].weight, model.layers[name].weight) for name in others)
    for name in (INPUT, "head"):
        assert found.table.ranges[name] == model.table.ranges[name]
    assert found.table.ranges != model.table.ranges
    assert found.table.symmetric
    assert any(span != found.table.ranges[name] for name, span in found.table.symmetric.items())


def test_ranges_move_by_no_more_than_int32_biases_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "RATE", 0.2)
    folded, images, _ = fragile()
    model = rounded(folded, images)
    found = trained(folded, model, images)
    moved = [
        span.high / model.table.spans(symmetric)[name].high
        for symmetric in (False, True)
        for name, span in found.table.spans(symmetric).items()
    ]
    assert all(1 / 1.61 <= factor <= 1.61 for factor in moved)
    assert min(moved) < 0.7 or max(moved) > 1.5


def test_the_network_the_model_and_the_images_are_left_as_they_were() -> None:
    folded, images, _ = fragile()
    model = rounded(folded, images)
    before = images.clone(), {n: p.clone() for n, p in folded.state_dict().items()}, model.layers["head"].weight.copy()
    trainable = [parameter.requires_grad for parameter in folded.parameters()]
    trained(folded, model, images, steps=4)
    assert torch.equal(images, before[0])
    assert np.array_equal(model.layers["head"].weight, before[2])
    for name, value in folded.state_dict().items():
        assert torch.equal(value, before[1][name])
    assert [parameter.requires_grad for parameter in folded.parameters()] == trainable


@pytest.mark.parametrize(("crashes", "layout"), [(True, torch.contiguous_format), (False, torch.channels_last)])
def test_networks_that_would_crash_in_channels_last_are_contiguous(
    crashes: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded, images, _ = fragile()
    model, seen = rounded(folded, images), list[torch.Tensor]()
    run = distill._Student.run
    monkeypatch.setattr(distill._Student, "run", lambda self, shown: seen.append(shown) or run(self, shown))
    monkeypatch.setattr(build, "crashes_in_channels_last", lambda _: crashes)
    trained(folded, model, images, steps=1)
    assert all(shown.is_contiguous(memory_format=layout) for shown in seen if len(shown) > 1)
    assert any(len(shown) > 1 for shown in seen)


def test_operators_that_overwrite_what_they_read_are_trained_too() -> None:
    torch.manual_seed(2)
    folded, images = fold(InPlace().eval(), 32), nets.random_images(32, 32)
    model = rounded(folded, images)
    found = trained(folded, model, images, 2 * STEPS)
    assert sum(error(folded, found, images)) < sum(error(folded, model, images))


def test_the_gradients_are_those_of_the_straight_through_estimator() -> None:
    """Of a value: 1 if it is not clipped. Of the logarithm of a scale (LSQ): the rounded value less one not clipped."""
    torch.manual_seed(0)
    values, weights, scale = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), 0.02
    given, factor = values.clone().requires_grad_(), torch.zeros(1, requires_grad=True)
    made = distill._Rounded.apply(given, factor, scale, -88, 167)
    (made * weights).sum().backward()
    steps = (values / scale).round()
    inside = (steps >= -88) & (steps <= 167)
    rounded = steps.clamp(-88, 167) * scale
    assert 0 < int((~inside).sum()) < 20
    assert torch.allclose(made, rounded, atol=1e-6)
    assert torch.equal(given.grad, weights * inside)  # type: ignore[arg-type]
    assert factor.grad is not None
    assert float(factor.grad) == pytest.approx(float((weights * (rounded - values * inside)).sum()), rel=1e-4)


def test_a_training_that_was_ended_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distill, "SAVE_SECONDS", 0.0)
    folded, images, _ = fragile()
    model, state = rounded(folded, images), tmp_path / "part.pt"
    whole = trained(folded, model, images, steps=9)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    with pytest.raises(Stopped):
        trained(folded, model, images, steps=9, state=state, update=stop)
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, "edgekit"):
        found = trained(folded, model, images, steps=9, state=state, update=lambda *each: seen.append(each))
    assert "distillation continues after step 5" in caplog.text
    assert seen == [(6, 9), (7, 9), (8, 9), (9, 9)]
    assert same(whole, found)


@pytest.mark.parametrize("other", ["steps", "images"])
def test_the_state_of_another_training_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr(distill, "SAVE_SECONDS", 0.0)
    folded, images, _ = fragile()
    model, state = rounded(folded, images), tmp_path / "part.pt"
    trained(folded, model, images, steps=3, state=state)
    seen: list[tuple[int, int]] = []
    images, steps = (images + 0.1, 3) if other == "images" else (images, 4)
    trained(folded, model, images, steps=steps, state=state, update=lambda *each: seen.append(each))
    assert seen[0] == (1, steps)


def test_a_damaged_state_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distill, "SAVE_SECONDS", 0.0)
    folded, images, _ = fragile()
    model, state = rounded(folded, images), tmp_path / "part.pt"
    trained(folded, model, images, steps=3, state=state)
    state.write_bytes(state.read_bytes()[:-100])
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, "edgekit"):
        trained(folded, model, images, steps=3, state=state, update=lambda *each: seen.append(each))
    assert "is damaged" in caplog.text
    assert seen[0] == (1, 3)


def test_a_state_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "SAVE_SECONDS", 0.0)
    folded, images, _ = fragile()
    model, state = rounded(folded, images), tmp_path / "part.pt"
    whole = trained(folded, model, images, steps=3)
    trained(folded, model, images, steps=3, state=state)
    content = torch.load(state, weights_only=True)
    content["parameters"] = [value + 1 for value in content["parameters"][:-1]]
    torch.save(content, state)
    assert same(whole, trained(folded, model, images, steps=3, state=state))


def test_every_image_is_seen_equally_often_and_its_scores_are_those_of_what_is_shown() -> None:
    folded, images, _ = fragile()
    shown = distill._Shown(folded, images, torch.contiguous_format)
    count = len(images) // 4
    keys = [[shown._key(place) for place in range(step * count, (step + 1) * count)] for step in range(8)]
    assert sorted(image for image, _ in itertools.chain(*keys[:4])) == list(range(len(images)))
    with torch.inference_mode():
        for step in (0, 5, 5):
            inputs, wanted = shown.batch(step, count)
            assert torch.allclose(folded(inputs), wanted, atol=1e-5)
    assert not torch.equal(shown.batch(0, count)[0], images[[image for image, _ in keys[0]]])


def test_fewer_images_at_a_time_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, images, _ = fragile()
    assert distill._batch(folded, images) == distill.BATCH
    monkeypatch.setattr(distill, "MOST_BYTES", 1)
    assert distill._batch(folded, images) == 1


def test_a_training_that_gains_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, images, _ = fragile()
    model = rounded(folded, images)
    kept = recover.distilled(folded, model, images, STEPS)
    assert kept.steps == ("distill",)
    assert kept.table.ranges != model.table.ranges
    monkeypatch.setattr(distill, "WEIGHT_RATE", 50.0)
    assert recover.distilled(folded, model, images, 5) is model


def test_networks_without_derivatives_are_left_as_they_were(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("derivative for aten::example is not implemented\nmore")

    folded, images, _ = fragile()
    model = rounded(folded, images)
    monkeypatch.setattr(distill, "distill", fail)
    with caplog.at_level(logging.INFO, "edgekit"):
        assert recover.distilled(folded, model, images, 5) is model
    assert (
        "no distillation, since backpropagation fails: derivative for aten::example is not implemented" in caplog.text
    )

"""The recovery engine: what it promises for every layer, and that it helps on images it never saw."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.errors import DataError, UsageError
from edgekit.quant import affine, naming, placement, recover, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quantization import (
    LITERT_SCHEME,
    TENSORRT_SCHEME,
    CalibrationRecipe,
    CalibrationTable,
    LayerWeights,
    QuantizedModel,
)
from tests.nets import TINY, observe, photographs, plain, random_images, settle, tiny

SIZE = 32
ALL = ("compensate", "rounding", "bias")


def pictures(count: int, seed: int) -> torch.Tensor:
    """Crops of photographs, normalized to about one standard deviation, float32 (count, 3, SIZE, SIZE)."""
    pixels = torch.from_numpy(photographs(count, replace(TINY.preprocess, image_size=SIZE), seed)).permute(0, 3, 1, 2)
    return (pixels.float() / 255 - 0.45) / 0.23


class Fragile(nn.Module):
    """Depthwise convolutions, ReLU6 and weights with outliers, as in a MobileNet whose rounding hurts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.first = self.block(16, 24, 1)
        self.second = self.block(24, 24, 1)
        self.third = self.block(24, 32, 2)
        self.head = nn.Linear(32, 10)

    @staticmethod
    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        wide = 2 * inputs
        expand = [nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        depthwise = [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        return nn.Sequential(*expand, *depthwise, nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        x = self.third(x + self.second(x))
        return self.head(x.mean((2, 3)))


class Odd(nn.Module):
    """A constant, a method, a Linear over places, several inputs, a dilated convolution, no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.one = nn.Conv2d(3, 8, 3, padding=2, dilation=2, bias=False)
        self.two = nn.Conv2d(8, 8, 1, stride=2)
        self.three = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
        self.places = nn.Linear(16, 16)
        self.last = nn.Linear(16 * 16, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(x)) * self.gain
        x = torch.cat([self.two(x), self.three(x)], 1)
        x = self.places(x.permute(0, 2, 3, 1)).relu()
        x = nn.functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2).contiguous(), 4)
        return self.last(torch.flatten(x, 1))


@torch.no_grad()
def outliers(model: nn.Module) -> nn.Module:
    """A few weights of every channel made large: then few steps are left for the others."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            flat = module.weight.view(len(module.weight), -1)
            places = torch.randint(flat.shape[1], (len(flat), 1), generator=generator)
            flat.scatter_(1, places, flat.gather(1, places) * 12)
    return model


@cache
def fragile() -> tuple[fx.GraphModule, torch.Tensor, CalibrationTable]:
    """The folded network, the images it was calibrated on, and the table."""
    torch.manual_seed(0)
    images = pictures(64, 0)
    folded = fold(settle(outliers(Fragile()), images))
    return folded, images, observe(folded, images, "mse")


@cache
def odd() -> tuple[fx.GraphModule, torch.Tensor, CalibrationTable]:
    """As `fragile`, for odd operators."""
    torch.manual_seed(0)
    folded, images = fold(Odd().eval()), random_images(32, 16)
    return folded, images, observe(folded, images)


NETWORKS = {"fragile": fragile, "odd": odd}
each_network = pytest.mark.parametrize("network", NETWORKS)


@cache
def recovered(network: str, steps: tuple[str, ...]) -> QuantizedModel:
    """The quantized model of a network after some steps."""
    folded, images, table = NETWORKS[network]()
    return recover.recover(folded, table, CalibrationRecipe("r", steps=steps), LITERT_SCHEME, images)


@torch.no_grad()
def logits(folded: fx.GraphModule, model: QuantizedModel, images: torch.Tensor) -> torch.Tensor:
    return simulate.simulation(folded, model, LITERT_SCHEME).run(images)


def scaled(layer: LayerWeights) -> np.ndarray:
    """The scales, shaped to the weight."""
    assert layer.scales is not None
    return layer.scales.reshape(-1, *[1] * (layer.weight.ndim - 1))


def same(one: LayerWeights, two: LayerWeights) -> bool:
    """Whether two layers are the same to the bit."""
    pairs = [(one.weight, two.weight), (one.bias, two.bias), (one.scales, two.scales)]
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


@each_network
@pytest.mark.parametrize("scheme", [LITERT_SCHEME, TENSORRT_SCHEME])
def test_without_steps_every_weight_is_rounded_to_nearest(network: str, scheme: object) -> None:
    folded, images, table = NETWORKS[network]()
    grids = placement.place(folded, table, scheme).rounded
    model = recover.recover(folded, table, CalibrationRecipe("r"), scheme, images)
    for name, (node, module) in placement.layers(folded).items():
        grid = grids.get(naming.tensor_names(folded.graph)[node.all_input_nodes[0]])
        weight, bias = module.weight.numpy(), None if module.bias is None else module.bias.numpy()
        scales = affine.weight_scales(weight, bias, grid.scale if grid else 1.0)
        layer = model.layers[name]
        assert np.array_equal(layer.scales, scales)
        assert np.array_equal(layer.integers, LayerWeights(weight, None, scales).integers)
        assert np.array_equal(layer.bias, bias) if bias is not None else layer.bias is None


@each_network
@pytest.mark.parametrize("steps", [(), ("bias",), ("rounding",), ("compensate",), ALL])
def test_every_weight_is_a_whole_multiple_of_its_scale(network: str, steps: tuple[str, ...]) -> None:
    folded, _, table = NETWORKS[network]()
    model = recovered(network, steps)
    assert model.steps in (steps, tuple(step for step in steps if step != "compensate"))
    assert (model.table, list(model.layers)) == (table, list(placement.layers(folded)))
    for name, (_, module) in placement.layers(folded).items():
        layer = model.layers[name]
        assert layer.weight.dtype == layer.scales.dtype == np.float32
        assert layer.weight.shape == tuple(module.weight.shape)
        assert layer.scales.min() >= affine.LEAST_SCALE
        assert np.array_equal(layer.weight, layer.integers.astype(np.float32) * scaled(layer))
        assert (layer.bias is None) == (module.bias is None)


@each_network
@pytest.mark.parametrize("steps", [("bias",), ALL])
def test_the_mean_error_of_every_layer_with_a_bias_all_but_vanishes(network: str, steps: tuple[str, ...]) -> None:
    folded, images, _ = NETWORKS[network]()
    after, exact = mean_outputs(folded, recovered(network, steps), images)
    before, _ = mean_outputs(folded, recovered(network, ()), images)
    errors = {}
    for name, (_, module) in placement.layers(folded).items():
        errors[name] = [float((each[name] - exact[name]).abs().max()) for each in (before, after)]
        if module.bias is not None:
            assert errors[name][1] < max(2e-5, 0.3 * errors[name][0]), name  # images do not count alike
    assert max(first for first, _ in errors.values()) > 1e-3


@torch.no_grad()
def mean_outputs(
    folded: fx.GraphModule, model: QuantizedModel, images: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Every layer's mean output in the simulation, before it is rounded, and in the float network."""
    rounded, exact = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    layers, weights = placement.layers(folded), simulate.tensors_of(model.layers)
    inputs = dict[str, torch.Tensor]()
    see = inputs.__setitem__
    simulate.Simulation(folded, placement.place(folded, model.table, LITERT_SCHEME).rounded, weights, see).run(images)
    names = tensor_names(folded.graph)
    for name, (node, module) in layers.items():
        value = simulate.apply(module, inputs[names[node.all_input_nodes[0]]], *weights[name])
        rounded[name] = outputs_last(module, value).mean(0)
    simulate.Simulation(folded, {}, see=see).run(images)
    for name, (_, module) in layers.items():
        exact[name] = outputs_last(module, inputs[name]).mean(0)
    return rounded, exact


def outputs_last(module: nn.Module, value: torch.Tensor) -> torch.Tensor:
    return (value.movedim(1, -1) if isinstance(module, nn.Conv2d) else value).flatten(0, -2).double()


@torch.no_grad()
def test_every_step_lowers_the_error_of_the_logits_on_images_that_were_not_seen() -> None:
    folded, _, table = fragile()
    unseen = pictures(48, 9)
    exact = folded(unseen)

    def error(got: torch.Tensor) -> float:
        return float((got - exact).square().mean())

    grids = placement.place(folded, table, LITERT_SCHEME).rounded
    floor = error(simulate.Simulation(folded, grids).run(unseen))  # activations rounded, weights not
    steps = ((), ("bias",), ("rounding", "bias"), ALL)
    nearest, bias, rounding, everything = (error(logits(folded, recovered("fragile", s), unseen)) for s in steps)
    assert nearest > 5 * floor  # rounding hurts here
    assert everything < rounding < bias < nearest
    assert everything < 0.3 * nearest
    assert everything < 0.8 * bias
    assert everything < 1.3 * floor


def test_twice_gives_the_same_bytes_whatever_ran_before() -> None:
    folded, images, table = fragile()
    again = recover.recover(folded, table, CalibrationRecipe("r", steps=ALL), LITERT_SCHEME, images)
    first = recovered("fragile", ALL)
    assert all(same(first.layers[name], layer) for name, layer in again.layers.items())


def test_the_network_and_the_images_are_left_as_they_were() -> None:
    folded, images, table = fragile()
    before = {name: value.clone() for name, value in folded.state_dict().items()}
    shown = images.clone()
    recover.recover(folded, table, CalibrationRecipe("r", steps=ALL), LITERT_SCHEME, images)
    assert all(torch.equal(before[name], value) for name, value in folded.state_dict().items())
    assert torch.equal(shown, images)


def test_the_number_of_threads_changes_next_to_nothing() -> None:
    folded, images, table = odd()
    images, recipe, threads = images[:16], CalibrationRecipe("r", steps=("rounding", "bias")), torch.get_num_threads()
    first = recover.recover(folded, table, recipe, LITERT_SCHEME, images)
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        other = recover.recover(folded, table, recipe, LITERT_SCHEME, images)
    finally:
        torch.set_num_threads(threads)
    one, two, exact = logits(folded, first, images), logits(folded, other, images), folded(images)
    assert float((one - two).square().mean()) < 0.5 * float((one - exact).square().mean())


def test_layers_with_too_many_weights_keep_nearest_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, images, table = fragile()
    monkeypatch.setattr(recover, "MOST_WEIGHTS", 30)  # the 1x1 convolutions behind a depthwise one have more
    recipe = CalibrationRecipe("r", steps=("compensate", "rounding"))
    model = recover.recover(folded, table, recipe, LITERT_SCHEME, images)
    nearest = plain(folded, table)
    counts = {name: module.weight[0].numel() for name, (_, module) in placement.layers(folded).items()}
    assert all(same(model.layers[name], nearest.layers[name]) for name, count in counts.items() if count > 30)
    assert any(not same(model.layers[name], nearest.layers[name]) for name, count in counts.items() if count <= 30)


@pytest.mark.parametrize("count", [1, 8, 9, 31])
def test_few_images_are_enough_to_run(count: int) -> None:
    folded, images, table = odd()
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=ALL), LITERT_SCHEME, images[:count])
    assert all(np.isfinite(layer.weight).all() for layer in model.layers.values())


@pytest.mark.parametrize("colour", [0.0, 1.7])
def test_images_without_any_difference_do_not_break_the_solution(colour: float) -> None:
    folded, _, _ = fragile()
    images = torch.full((32, 3, SIZE, SIZE), colour)
    table = observe(folded, images)
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=ALL), LITERT_SCHEME, images)
    assert all(np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all() for layer in model.layers.values())


@torch.no_grad()
def test_the_bias_of_a_channel_that_is_nearly_dead_stays_within_int32() -> None:
    torch.manual_seed(0)
    folded, images = fold(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).eval()), random_images(64, 8)
    layer = folded.get_submodule("1")
    layer.weight[2] *= 1e-9
    layer.bias.fill_(5.0)
    recipe = CalibrationRecipe("r", steps=ALL)
    model = recover.recover(folded, observe(folded, images), recipe, LITERT_SCHEME, images)
    grid, carried = placement.place(folded, model.table, LITERT_SCHEME).rounded["0"], model.layers["1"]
    assert np.abs(carried.bias / (carried.scales * grid.scale)).max() < 2**31 - 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("steps", [(), ALL])
def test_weights_that_are_no_numbers_are_refused(value: float, steps: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    folded, images = fold(tiny(5).eval()), random_images(8, SIZE)
    table = observe(folded, images)
    folded.get_submodule("5").weight[1, 2] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        recover.recover(folded, table, CalibrationRecipe("r", steps=steps), LITERT_SCHEME, images)


def test_a_step_that_is_not_in_the_table_is_refused() -> None:
    folded, images, table = odd()
    with pytest.raises(UsageError, match="'magic'") as caught:
        recover.recover(folded, table, CalibrationRecipe("r", steps=("magic",)), LITERT_SCHEME, images)
    assert "rounding" in caught.value.hint


def test_progress_counts_the_layers() -> None:
    folded, images, table = odd()
    seen: list[tuple[int, int]] = []
    recipe = CalibrationRecipe("r", steps=("bias",))
    recover.recover(folded, table, recipe, LITERT_SCHEME, images[:8], lambda *done: seen.append(done))
    assert seen == [(number, 5) for number in range(1, 6)]


def test_memory_bounds_how_many_images_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, _, _ = fragile()
    sizes = {side: torch.zeros(1000, 3, 1, 1).expand(1000, 3, side, side) for side in (16, 32, 64)}
    monkeypatch.setattr(recover, "MOST_BYTES", 20 * 10**6)
    counts = {side: recover.most_images(folded, images) for side, images in sizes.items()}
    assert 1000 > counts[16] > 3 * counts[32] > 9 * counts[64] > 0
    widest = 16 * 16 * (32 + 32)  # the first depthwise convolution reads and writes 32 channels at half the side
    assert counts[32] <= 20 * 10**6 // (widest * 4 * 2)
    monkeypatch.setattr(recover, "MOST_BYTES", 1)
    assert recover.most_images(folded, sizes[64]) == recover.CHUNK
    monkeypatch.setattr(recover, "MOST_BYTES", 10**12)
    assert recover.most_images(folded, sizes[16]) == 1000
    assert recover.most_images(folded, sizes[16][:0]) == 0


def test_images_above_the_bound_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, images, table = odd()
    monkeypatch.setattr(recover, "MOST_BYTES", 1)
    recipe = CalibrationRecipe("r", steps=("bias",))
    some, eight = (recover.recover(folded, table, recipe, LITERT_SCHEME, i) for i in (images, images[: recover.CHUNK]))
    assert all(same(layer, eight.layers[name]) for name, layer in some.layers.items())


def test_an_image_that_the_ranges_leave_out_does_not_decide() -> None:
    folded, images, table = fragile()
    unlike = images.clone()
    unlike[::16] = images[::16] * 100  # 4 of 64, far beyond the ranges of the table
    recipe, judged = CalibrationRecipe("r", steps=ALL), pictures(64, 1)
    wanted = folded(judged)
    errors = [
        float((logits(folded, recover.recover(folded, table, recipe, LITERT_SCHEME, shown), judged) - wanted).norm())
        for shown in (images, unlike)
    ]
    assert errors[1] < 1.3 * errors[0]

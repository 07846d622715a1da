"""What is said of each layer and tensor, against runs of the whole network with just that quantized."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.errors import DataError
from edgekit.quant import debug, placement, simulate
from edgekit.quant.debug import EXACT_DB, Agreement, PairSums
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, QuantizedModel, Range
from tests import nets

SIZE = 12


class Block(nn.Module):
    """A stem, a residual with a depthwise convolution, a squeeze-and-excitation gate, a head."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inplace = inplace
        self.stem, self.act = nn.Conv2d(3, 16, 3), nn.ReLU6(inplace)
        self.wide, self.wide_act = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(inplace)
        self.short = nn.Conv2d(16, 16, 1)
        self.squeeze, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        y = self.wide_act(self.wide(x))
        side = self.short(x)
        y = y.add_(side) if self.inplace else y + side
        y = F.relu(y, inplace=self.inplace)
        y = y * torch.sigmoid(self.gate(self.squeeze(y)))
        return self.head(y.mean((2, 3)))


@cache
def network(inplace: bool = False) -> tuple[fx.GraphModule, QuantizedModel, torch.Tensor]:
    folded, images = fold(Block(inplace).eval()), nets.random_images(12, SIZE)
    return folded, nets.plain(folded, nets.observe(folded, images, "percentile")), images


@cache
def inspected(everywhere: bool = True, inplace: bool = False, batch: int = 5) -> debug.Inspection:
    folded, model, images = network(inplace)
    return debug.inspect(folded, model, LITERT_SCHEME if everywhere else TENSORRT_SCHEME, images.split(batch))


def agreement(got: torch.Tensor, wanted: torch.Tensor) -> Agreement:
    sums = PairSums()
    sums.add(got, wanted)
    return sums.result()


def close(got: Agreement, wanted: Agreement) -> bool:
    return got.sqnr_db == pytest.approx(wanted.sqnr_db, abs=1e-3) and got.cosine == pytest.approx(wanted.cosine)


def layers(found: debug.Inspection) -> dict[str, debug.LayerReport]:
    return {layer.name: layer for layer in found.layers}


@torch.inference_mode()
def outputs(simulation: fx.Interpreter, tensor: str) -> torch.Tensor:
    """What `tensor` holds in a run over all images, before it is rounded."""
    assert isinstance(simulation, simulate.Simulation)
    seen: dict[str, torch.Tensor] = {}
    unrounded = {name: grid for name, grid in simulation.rounded.items() if name != tensor}
    watched = simulate.Simulation(
        simulation.module, unrounded, simulation.weights, lambda n, v: seen.setdefault(n, v.clone())
    )
    watched.run(network()[2])
    return seen[tensor]


# Layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["stem", "gate", "head"])
def test_alone_is_a_run_with_this_layer_s_weights_and_input_rounded(layer: str) -> None:
    """These layers are the only readers of their input."""
    folded, model, _ = network()
    whole = simulate.simulation(folded, model, LITERT_SCHEME)
    source = {"stem": "image", "gate": "squeeze", "head": "mean"}[layer]
    alone = simulate.Simulation(folded, {source: whole.rounded[source]}, {layer: whole.weights[layer]})
    plain = simulate.Simulation(folded, {})
    end = {"stem": "act"}.get(layer, layer)
    found = layers(inspected())[layer]
    assert close(found.alone, agreement(outputs(alone, end), outputs(plain, end)))
    assert close(found.effect.logits, agreement(outputs(alone, "head"), outputs(plain, "head")))


def test_an_input_that_others_read_too_is_rounded_for_this_layer_only() -> None:
    folded, model, images = network()
    whole = simulate.simulation(folded, model, LITERT_SCHEME)
    with torch.inference_mode():
        read = outputs(simulate.Simulation(folded, {}), "act")
        side = simulate.apply(
            folded.get_submodule("short"), simulate.fake_quantize(read, whole.rounded["act"]), *whole.weights["short"]
        )
        y = F.relu(folded.get_submodule("wide_act")(folded.get_submodule("wide")(read)) + side)
        gate = folded.get_submodule("gate")(y.mean((2, 3), keepdim=True))
        logits = folded.get_submodule("head")((y * torch.sigmoid(gate)).mean((2, 3)))
        assert close(layers(inspected())["short"].effect.logits, agreement(logits, folded(images)))


@pytest.mark.parametrize("layer", ["stem", "wide", "short", "gate", "head"])
@pytest.mark.parametrize("scheme", [LITERT_SCHEME, TENSORRT_SCHEME])
def test_accumulated_is_the_run_of_the_quantized_network_up_to_here(layer: str, scheme: object) -> None:
    folded, model, _ = network()
    end = {"stem": "act", "wide": "wide_act"}.get(layer, layer)
    wanted = agreement(
        outputs(simulate.simulation(folded, model, scheme), end), outputs(simulate.Simulation(folded, {}), end)
    )
    assert close(layers(inspected(scheme is LITERT_SCHEME))[layer].accumulated, wanted)


def test_weights_are_compared_with_those_of_the_float_network() -> None:
    folded, model, _ = network()
    for name, (_, module) in placement.layers(folded).items():
        step = model.layers[name].scales.max()
        found = layers(inspected())[name].weight
        assert found == agreement(torch.from_numpy(model.layers[name].weight), module.weight)
        # At most half a step off, of 127 to the largest.
        assert float(np.abs(model.layers[name].weight - module.weight.numpy()).max()) <= step / 2 * 1.001
        assert 30 < found.sqnr_db < 60


def test_layers_are_named_as_in_torch_and_ranked_by_what_they_do_to_the_logits() -> None:
    found = inspected().layers
    names = list(placement.layers(network()[0]))
    assert sorted(found, key=lambda layer: layer.position) == [layers(inspected())[name] for name in names]
    effects = [layer.effect.logits.sqnr_db for layer in found]
    assert effects == sorted(effects)
    kinds = {layer.name: layer.kind for layer in found}
    assert kinds == {
        "stem": "conv 3x3",
        "wide": "depthwise 3x3",
        "short": "conv 1x1",
        "gate": "conv 1x1",
        "head": "linear",
    }


def test_a_layer_that_stays_float_with_a_float_input_is_exact() -> None:
    folded, model, images = network()
    kept = {**model.layers, "stem": placement.trained_weights(folded)["stem"]}
    found = debug.inspect(folded, placement.with_changes(folded, model, kept), TENSORRT_SCHEME, [images])
    stem = layers(found)["stem"]
    assert not stem.int8
    assert {stem.weight, stem.alone, stem.accumulated, stem.effect.logits} == {Agreement(EXACT_DB, 1.0)}
    assert found.layers[-1] == stem


def test_int8_is_what_has_a_kernel_and_is_not_kept_in_float() -> None:
    """The stem, of 3 channels, and the depthwise convolution behind it have no INT8 kernel worth taking."""
    folded, model, images = network()
    mixed = {**model.layers, "short": placement.trained_weights(folded)["short"]}
    kept = placement.with_changes(folded, model, mixed)
    for scheme, in_float in ((LITERT_SCHEME, {"short"}), (TENSORRT_SCHEME, {"stem", "wide", "short"})):
        found = debug.inspect(folded, kept, scheme, [images], tensors=False).layers
        assert {layer.name for layer in found if not layer.int8} == in_float
    assert layers(inspected(everywhere=False))["stem"].weight.sqnr_db < EXACT_DB  # rounded all the same


def test_a_spoilt_layer_comes_first_and_is_blamed_alone() -> None:
    folded, model, images = network()
    layer = model.layers["short"]
    assert layer.scales is not None
    coarse = np.rint(layer.integers / 32.0) * 32 * layer.scales.reshape(-1, 1, 1, 1)  # 3 bits
    spoilt = replace(model, layers={**model.layers, "short": replace(layer, weight=coarse.astype(np.float32))})
    found, sound = debug.inspect(folded, spoilt, LITERT_SCHEME, images.split(5)), layers(inspected())
    assert inspected().layers[0].name != "short"
    assert found.layers[0].name == "short"
    assert found.layers[0].alone.sqnr_db < sound["short"].alone.sqnr_db - 10
    assert layers(found)["head"].alone == sound["head"].alone
    assert layers(found)["head"].accumulated.sqnr_db < sound["head"].accumulated.sqnr_db


def test_the_whole_is_the_simulation_of_the_whole() -> None:
    folded, model, images = network()
    with torch.inference_mode():
        got = simulate.simulation(folded, model, LITERT_SCHEME).run(images)
        wanted = folded(images)
    assert close(inspected().effect.logits, agreement(got, wanted))
    assert inspected().effect.changed == float((got.argmax(1) != wanted.argmax(1)).float().mean())
    assert inspected().images == len(images)


def test_networks_that_work_in_place_give_the_same_figures() -> None:
    def figures(found: debug.Inspection) -> list[float]:
        by_position = sorted(found.layers, key=lambda layer: layer.position)
        return [a.sqnr_db for x in by_position for a in (x.weight, x.alone, x.accumulated, x.effect.logits)]

    assert figures(inspected(inplace=True)) == pytest.approx(figures(inspected()), abs=1e-3)
    assert [t.clipped for t in inspected(inplace=True).tensors] == [t.clipped for t in inspected().tensors]


def test_batches_do_not_matter_and_every_layer_of_each_is_counted() -> None:
    folded, model, images = network()
    counted: list[tuple[int, int]] = []
    found = debug.inspect(folded, model, LITERT_SCHEME, images.split(6), lambda *at: counted.append(at))
    assert counted == [(n, 10) for n in range(1, 11)]
    for name, layer in layers(found).items():
        assert close(layer.accumulated, layers(inspected())[name].accumulated)
        assert close(layer.effect.logits, layers(inspected())[name].effect.logits)


def test_without_tensors_the_layers_are_the_same() -> None:
    folded, model, images = network()
    found = debug.inspect(folded, model, LITERT_SCHEME, images.split(5), tensors=False)
    assert found == replace(inspected(), tensors=())


# Tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("everywhere", [True, False])
def test_every_tensor_that_is_rounded_is_there(everywhere: bool) -> None:
    scheme = LITERT_SCHEME if everywhere else TENSORRT_SCHEME
    names = placement.quantized_tensors(network()[0], scheme)
    assert {tensor.name for tensor in inspected(everywhere).tensors} == names


def test_a_tensor_s_effect_is_a_run_with_nothing_but_it_rounded() -> None:
    folded, model, images = network()
    grids = simulate.simulation(folded, model, LITERT_SCHEME).rounded
    for tensor in inspected().tensors:
        with torch.inference_mode():
            got = simulate.Simulation(folded, {tensor.name: grids[tensor.name]}).run(images)
            assert close(tensor.effect.logits, agreement(got, folded(images)))
    effects = [tensor.effect.logits.sqnr_db for tensor in inspected().tensors]
    assert effects == sorted(effects)


def test_a_tensor_has_its_range_what_it_was_seen_to_hold_and_what_is_clipped() -> None:
    folded, model, images = network()
    narrow = replace(model.table, ranges={**model.table.ranges, "image": Range(-1.0, 0.5)})
    found = debug.inspect(folded, placement.with_changes(folded, model, table=narrow), LITERT_SCHEME, images.split(5))
    image = next(tensor for tensor in found.tensors if tensor.name == "image")
    step = 1.5 / 255
    assert (image.low, image.high) == (pytest.approx(-1, abs=step), pytest.approx(0.5, abs=step))
    assert (image.seen_low, image.seen_high) == (float(images.min()), float(images.max()))
    outside = (images < image.low - step / 2) | (images > image.high + step / 2)
    assert image.clipped == pytest.approx(float(outside.float().mean()))
    assert 0.2 < image.clipped < 0.9


def test_a_range_that_holds_all_clips_nothing() -> None:
    folded, model, images = network()
    wide = placement.with_changes(folded, model, table=nets.observe(folded, images))
    assert {tensor.clipped for tensor in debug.inspect(folded, wide, LITERT_SCHEME, [images]).tensors} == {0.0}


def test_the_histogram_counts_every_value_between_the_extremes() -> None:
    image = next(tensor for tensor in inspected().tensors if tensor.name == "image")
    bins, images = image.bins, network()[2]
    assert sum(bins.counts) == images.numel()
    assert len(bins.counts) <= debug.MOST_BINS
    assert bins.counts[0] > 0
    assert bins.start <= image.seen_low < bins.start + bins.width
    last = bins.start + bins.width * len(bins.counts)
    assert image.seen_high <= last + 1e-6
    middle = bins.start + bins.width * (len(bins.counts) // 2)
    below = sum(bins.counts[: len(bins.counts) // 2])
    assert below == pytest.approx(int((images < middle).sum()), abs=2)


# What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 3, SIZE, SIZE)]])
def test_no_images_are_refused(batches: list[torch.Tensor]) -> None:
    folded, model, _ = network()
    with pytest.raises(DataError, match="no images"):
        debug.inspect(folded, model, LITERT_SCHEME, batches)


def test_nan_names_the_tensor() -> None:
    folded, model, images = network()
    with pytest.raises(DataError, match="'image'"):
        debug.inspect(folded, model, LITERT_SCHEME, [images * float("nan")])

"""Dead channels that carry copies: the float network stays, rounding costs less, and nothing alive is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

from edgekit.convert import onnx, tflite
from edgekit.convert.fold import fold
from edgekit.quant import cache, dead_channels, debug, litert, loss, placement, qdq, recover, simulate
from edgekit.quantization import LITERT_SCHEME, CalibrationRecipe, LayerWeights, QuantizedModel, QuantScheme
from tests import nets

SIZE, DEAD = 16, [3, 9, 12]
RECIPE = CalibrationRecipe("c", steps=("copies",))


class Sensitive(nn.Module):
    """Channel 0 decides the scores by small differences of neighbours; three channels of 16 are dead."""

    def __init__(self, padding: int = 0, active: nn.Module | None = None, behind: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.active = nn.Conv2d(3, 16, 3), active or nn.ReLU6()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=padding, groups=16)
        self.behind = behind or nn.Identity()
        self.last, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8 * (12 + 2 * padding) ** 2, 5)
        with torch.no_grad():
            self.first.weight *= 0.05
            self.first.weight[1] *= 10
            self.first.bias.fill_(3.0)  # far from where the activation clips
            self.first.weight[DEAD], self.first.bias[DEAD] = 1e-6, -0.1
            self.depthwise.weight *= 0.2
            self.depthwise.weight[0, 0] = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.1, -1.0], [0.0, -1.0, 0.0]])
            self.last.weight[:, 0] *= 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(self.behind(self.depthwise(self.active(self.first(x)))))
        return self.head(torch.relu(x).flatten(1))


class OtherReader(Sensitive):
    """Something else reads the tensor too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.active(self.first(x))
        return self.head(self.last(self.depthwise(x)).flatten(1)) + x.mean((2, 3))[:, :5]


IMAGES = nets.random_images(32, SIZE) * 0.5


def folded_of(model: nn.Module) -> fx.GraphModule:
    return fold(model.eval(), SIZE)


def rewritten(folded: fx.GraphModule, images: torch.Tensor = IMAGES) -> dict[str, LayerWeights]:
    table = nets.observe(folded, images)
    return dead_channels.rewritten(folded, table, placement.place(folded, table, LITERT_SCHEME).rounded, images)


def forced(folded: fx.GraphModule, plan: dict[int, list[int]], step: float) -> fx.GraphModule:
    """The network with a plan's copies, whatever they are good for."""
    (triple,) = dead_channels.triples(folded)
    return placement.with_weights(folded, dead_channels.with_copies(folded, triple, plan, step))


@pytest.mark.parametrize("behind", [None, nn.ReLU()])
@torch.no_grad()
def test_the_float_network_stays_as_it_was(behind: nn.Module | None) -> None:
    folded = folded_of(Sensitive(behind=behind))
    folded.get_submodule("depthwise").bias[DEAD] = 2.0  # what dead channels hold is not nothing
    changed = forced(folded, {0: DEAD[:2], 5: DEAD[2:]}, 0.02)
    assert nets.relative_error(changed(IMAGES).numpy(), folded(IMAGES).numpy()) < 1e-5
    assert not torch.equal(changed.get_submodule("first").weight, folded.get_submodule("first").weight)


@torch.no_grad()
def test_offsets_cancel_in_the_padding_and_where_the_activation_clips() -> None:
    folded = folded_of(Sensitive(padding=1))
    for bias in (3.0, -20.0, 20.0):  # in between, always 0, always 6
        folded.get_submodule("first").bias[0] = bias
        changed = forced(folded, {0: DEAD}, 0.05)
        assert nets.relative_error(changed(IMAGES).numpy(), folded(IMAGES).numpy()) < 1e-5


def test_all_dead_channels_go_to_the_sensitive_one_and_the_network_that_was_given_stays() -> None:
    folded = folded_of(Sensitive(padding=1))
    before = {name: value.clone() for name, value in folded.state_dict().items()}
    found = rewritten(folded)
    assert list(found) == ["first", "depthwise", "last"]
    weight = found["first"].weight
    assert all(np.array_equal(weight[slot], weight[0]) for slot in DEAD)
    assert len(set(found["first"].bias[[0, *DEAD]])) == 4
    assert all(torch.equal(before[name], value) for name, value in folded.state_dict().items())


@torch.no_grad()
def test_n_copies_take_about_n_squared_from_the_power_of_the_error() -> None:
    folded = folded_of(Sensitive(padding=1))
    grid = placement.place(folded, nets.observe(folded, IMAGES), LITERT_SCHEME).rounded["active"]
    errors = {}
    for count in (1, 2, 4):
        network = forced(folded, {0: DEAD[: count - 1]}, grid.scale)
        moved = simulate.Simulation(network, {"active": grid}).run(IMAGES) - folded(IMAGES)
        errors[count] = float(moved.square().sum())
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.5)
    assert errors[1] / errors[4] == pytest.approx(16, rel=0.5)


@torch.no_grad()
def test_a_channel_that_could_wake_up_is_never_taken() -> None:
    folded = folded_of(Sensitive())
    table = nets.observe(folded, IMAGES)
    (triple,) = dead_channels.triples(folded)
    assert dead_channels.dead_channels(folded, table, triple) == DEAD
    reach = 2 * max(-table.seen["image"].low, table.seen["image"].high)
    first = folded.get_submodule("first")
    first.weight[3] = 0.1 / (reach * 27) * 0.99  # cannot
    assert dead_channels.dead_channels(folded, table, triple) == DEAD
    first.weight[3] = 0.1 / (reach * 27) * 1.5  # it can, though no image that was seen does it
    assert float((first(IMAGES)[:, 3]).max()) < 0
    assert dead_channels.dead_channels(folded, table, triple) == DEAD[1:]


@torch.no_grad()
def test_without_dead_channels_nothing_changes() -> None:
    folded = folded_of(Sensitive())
    folded.get_submodule("first").bias[DEAD] = 0.5
    assert rewritten(folded) == {}
    assert placement.with_weights(folded, {}) is folded
    table, without = nets.observe(folded, IMAGES), CalibrationRecipe("c", steps=("bias",))
    models = [
        recover.recover(folded, table, recipe, LITERT_SCHEME, IMAGES)
        for recipe in (without, replace(without, steps=("copies", "bias")))
    ]
    assert all(np.array_equal(models[0].layers[n].weight, layer.weight) for n, layer in models[1].layers.items())


@pytest.mark.parametrize(
    "model",
    [
        OtherReader(),
        Sensitive(active=nn.Identity()),
        Sensitive(active=nn.Hardswish()),
        Sensitive(active=nn.Hardtanh(-1, 6)),
        Sensitive(behind=nn.Sigmoid()),
    ],
)
def test_what_is_no_triple_is_left(model: nn.Module) -> None:
    assert dead_channels.triples(folded_of(model)) == []
    assert rewritten(folded_of(model)) == {}


def test_a_tensor_that_costs_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_channels, "LEAST_SHARE", 1e6)
    assert rewritten(folded_of(Sensitive())) == {}


def test_what_moves_the_float_network_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = folded_of(Sensitive())
    assert rewritten(folded)
    monkeypatch.setattr(loss, "UNCHANGED_DB", 400.0)
    assert rewritten(folded) == {}


def test_one_image_is_none_to_judge_on() -> None:
    assert rewritten(folded_of(Sensitive()), IMAGES[:1]) == {}
    assert rewritten(folded_of(Sensitive()), IMAGES[:2])


def recovered(folded: fx.GraphModule, steps: tuple[str, ...], symmetric: bool = False) -> QuantizedModel:
    recipe = replace(RECIPE, steps=steps)
    return recover.recover(folded, nets.observe(folded, IMAGES), recipe, QuantScheme(symmetric, True), IMAGES)


@torch.no_grad()
def test_recovery_gains_and_layers_in_floating_point_take_the_rewritten_weights() -> None:
    folded = folded_of(Sensitive(padding=1))
    rest = ("compensate", "rounding", "bias")
    unseen = nets.random_images(64, SIZE, 7) * 0.5
    plain, model = recovered(folded, rest), recovered(folded, ("copies", *rest))
    wanted = folded(unseen)

    def error(tried: QuantizedModel) -> float:
        return float((simulate.simulation(folded, tried, LITERT_SCHEME).run(unseen) - wanted).square().sum())

    assert error(model) < 0.75 * error(plain)
    for name in ("first", "last"):
        mixed = {**model.layers, name: model.rewritten[name]}
        assert error(placement.with_changes(folded, model, mixed)) < error(plain)
        broken = {**model.layers, name: placement.trained_weights(folded)[name]}
        assert error(placement.with_changes(folded, model, broken)) > 10 * error(plain)


def test_debug_compares_with_the_rewritten_network() -> None:
    folded = folded_of(Sensitive(padding=1))
    found = debug.inspect(folded, recovered(folded, RECIPE.steps), LITERT_SCHEME, IMAGES[:8].split(8), tensors=False)
    assert min(layer.weight.sqnr_db for layer in found.layers) > 25


def test_what_was_rewritten_is_kept(tmp_path: Path) -> None:
    model = recovered(folded_of(Sensitive(padding=1)), RECIPE.steps)
    cache.save(tmp_path / "kept.npz", cache.Weights(model.layers, model.rewritten), {"by": "this"})
    kept = cache.load(tmp_path / "kept.npz", {"by": "this"})
    assert kept is not None
    layers, again = kept.layers, kept.rewritten
    assert (list(layers), list(again)) == (list(model.layers), list(model.rewritten))
    for name, layer in model.rewritten.items():
        assert np.array_equal(again[name].weight, layer.weight)
        assert np.array_equal(again[name].bias, layer.bias)
        assert again[name].scales is None
        assert np.array_equal(layers[name].weight, model.layers[name].weight)


@pytest.mark.xdist_group("litert")
@pytest.mark.filterwarnings("ignore")
def test_both_files_answer_like_the_simulation(tmp_path: Path) -> None:
    folded = folded_of(Sensitive(padding=1))
    model = recovered(folded, ("copies", "rounding", "bias"), symmetric=True)
    assert model.rewritten
    source, path = nets.emit_float_tflite(folded, SIZE, tmp_path), nets.emit_float_onnx(folded, SIZE, tmp_path)
    graph = ir.load(path)
    qdq.quantize(graph, model, nets.naming(folded, onnx.run_all(path, IMAGES[:1].numpy()), IMAGES), everywhere=True)
    onnx.save(graph, tmp_path / "int8.onnx")
    naming = nets.naming(folded, tflite.run_all(source, IMAGES[:1].numpy()), IMAGES)
    with tflite.quiet():
        litert.quantize(source, model, naming, tmp_path / "int8.tflite")
    with torch.no_grad():
        wanted = simulate.simulation(folded, model, LITERT_SCHEME).run(IMAGES).numpy()
    assert nets.relative_error(nets.run_tflite(tmp_path / "int8.tflite", IMAGES), wanted) < 0.02
    assert nets.relative_error(nets.run_onnx(tmp_path / "int8.onnx", IMAGES, optimize=False), wanted) < 0.02

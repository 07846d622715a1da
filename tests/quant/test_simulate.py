"""The simulation in torch against arithmetic by hand, and against the ONNX file in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgekit.convert import onnx
from edgekit.convert.fold import fold
from edgekit.quant import affine, placement, qdq, recover, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationRecipe, LayerWeights
from tests.nets import cosine, naming, observe, plain, random_images, run_onnx, settle, table_of


class Small(nn.Module):
    """A float stem, INT8 convolutions with and without groups, a residual, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.narrow = nn.Conv2d(32, 16, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.narrow(self.depthwise(self.wide(x)))
        return self.head(torch.flatten(self.pool(x), 1))


def small():
    """The folded network, images, and the table."""
    torch.manual_seed(0)
    images = random_images(64, 32)
    folded = fold(settle(Small(), images))
    return folded, images, observe(folded, images)


@pytest.mark.parametrize("steps", [(), ("compensate", "rounding", "bias")])
def test_the_onnx_file_answers_as_the_simulation_does(tmp_path: Path, steps: tuple[str, ...]) -> None:
    folded, images, table = small()
    model = recover.recover(folded, table, CalibrationRecipe("r", steps=steps), TENSORRT_SCHEME, images)
    path = tmp_path / "model.onnx"
    onnx.export(folded, 32, "weights", path, tmp_path / "dynamic.onnx")
    graph = ir.load(path)
    qdq.quantize(graph, model, naming(folded, onnx.run_all(path, images[:1].numpy()), images))
    onnx.save(graph, tmp_path / "int8.onnx")
    unseen = random_images(24, 32, 5)
    with torch.no_grad():
        got, exact = simulate.simulation(folded, model, TENSORRT_SCHEME).run(unseen).numpy(), folded(unseen).numpy()
    # Without fusion, the float layers carry float weights in the file, the grid's in the simulation.
    file = run_onnx(tmp_path / "int8.onnx", unseen, optimize=False)
    assert cosine(got, file) > 0.999
    assert np.square(got - file).mean() < 0.3 * np.square(got - exact).mean()


def by_hand() -> nn.Module:
    """One convolution with a ReLU; weights 1 and -0.5, bias 0.25."""
    conv = nn.Conv2d(1, 1, (1, 2))
    conv.load_state_dict({"weight": torch.tensor([[[[1.0, -0.5]]]]), "bias": torch.tensor([0.25])})
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten())


@torch.no_grad()
def test_inputs_are_rounded_weights_replaced_and_fused_activations_rounded_once() -> None:
    folded = fold(by_hand())
    table = table_of(**{"image": (-1.0, 1.55), "0": (-1, 1), "1": (0, 2.55), "2": (0, 2.55)})
    weight = np.array([[[[2.0, -1.0]]]], np.float32)
    model = placement.quantized_model(
        folded, table, {"0": LayerWeights(weight, np.array([0.5], np.float32), np.ones(1, np.float32))}
    )
    image = torch.tensor([[[[0.123, 0.518], [5.0, -5.0]]]])
    # The grid's step is 0.01 and stops at -1 and 1.55: 2 * 0.12 - 0.52 + 0.5 and 2 * 1.55 + 1 + 0.5, which 2.55 ends.
    assert simulate.simulation(folded, model, LITERT_SCHEME).run(image).flatten().tolist() == pytest.approx(
        [0.22, 2.55]
    )


@torch.no_grad()
def test_without_grids_and_weights_it_is_the_network() -> None:
    folded, images, _ = small()
    assert torch.equal(simulate.Simulation(folded, {}).run(images), folded(images))


@torch.no_grad()
def test_every_tensor_is_seen_once_by_its_name_as_it_is_read() -> None:
    folded, images, table = small()
    seen: list[str] = []
    values: dict[str, torch.Tensor] = {}
    grids = placement.place(folded, table, LITERT_SCHEME).rounded

    def see(name: str, value: torch.Tensor) -> None:
        seen.append(name)
        values[name] = value

    simulate.Simulation(folded, grids, see=see).run(images[:2])
    assert [name for name in seen if name] == list(tensor_names(folded.graph).values())
    for name, grid in grids.items():
        steps = values[name] / grid.scale
        assert torch.allclose(steps, steps.round(), atol=2e-3)
        assert int(steps.min().round()) + grid.zero_point >= affine.QMIN
        assert int(steps.max().round()) + grid.zero_point <= affine.QMAX


def test_strict_makes_every_zero_point_zero() -> None:
    folded, _, table = small()
    model = plain(folded, table)
    strict = placement.quantized_model(folded, table, model.layers, symmetric=True)
    assert {g.zero_point for g in simulate.simulation(folded, strict, LITERT_SCHEME).rounded.values()} == {0}
    assert {g.zero_point for g in simulate.simulation(folded, model, LITERT_SCHEME).rounded.values()} != {0}


@torch.no_grad()
def test_a_layer_in_floating_point_reads_what_was_not_rounded() -> None:
    folded, _, table = small()
    layers = dict(plain(folded, table).layers)
    layers["head"] = LayerWeights(folded.get_submodule("head").weight.numpy(), layers["head"].bias)
    simulation = simulate.simulation(folded, placement.quantized_model(folded, table, layers), LITERT_SCHEME)
    assert "flatten" not in simulation.rounded
    assert "image" in simulation.rounded


@pytest.mark.parametrize(
    "module", [nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.Conv2d(4, 4, 3, dilation=2, padding=2), nn.Linear(4, 3)]
)
@torch.no_grad()
def test_apply_is_the_layer_with_other_weights(module: nn.Module) -> None:
    inputs = torch.randn(2, 4, 9, 9) if isinstance(module, nn.Conv2d) else torch.randn(2, 4)
    assert torch.equal(simulate.apply(module, inputs, module.weight, module.bias), module(inputs))
    assert torch.equal(simulate.apply(module, inputs, module.weight * 0, module.bias * 0), module(inputs) * 0)


def test_fake_quantize_rounds_half_to_even_and_stops_at_the_ends() -> None:
    grid = affine.Grid(0.5, -28)
    values = torch.tensor([0.25, 0.75, 0.3, -100.0, 100.0])
    assert simulate.fake_quantize(values, grid).tolist() == [0.0, 1.0, 0.5, grid.low, grid.high]

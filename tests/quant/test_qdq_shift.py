"""Zero points in biases, one rule at a time, on hand-made graphs and on a network that is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgekit.convert import onnx as exporter
from edgekit.convert.fold import fold
from edgekit.quant import affine, qdq, simulate
from edgekit.quantization import TENSORRT_SCHEME, Range
from tests.nets import emit_float_onnx, naming, observe, plain, random_images, relative_error, run_onnx
from tests.quant.graphs import conv, gemm, graph, layers_of, naming_of, node, op, quantized_of

SIX = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
ONE_SIDED, TWO_SIDED = (0.0, 6.0), (-6.0, 6.0)


def quantized(model: ir.Model, strict: bool = False, **ranges: tuple[float, float]) -> ir.Model:
    """`model` with Q/DQ; every tensor that is not named lies within [-6, 6]."""
    tensors = ["image", *(each.outputs[0].name for each in model.graph)]
    known = quantized_of(model, symmetric=strict, **{**dict.fromkeys(tensors, TWO_SIDED), **ranges})
    qdq.quantize(model, known, naming_of(model))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def scale_read_by(model: ir.Model, name: str) -> float:
    """The scale of what a node reads through its pair."""
    return float(node(model, name).inputs[0].producer().inputs[1].const_value.numpy())


def kinds(model: ir.Model) -> list[str]:
    return [each.op_type for each in model.graph]


def bias_of(model: ir.Model, name: str) -> np.ndarray:
    return node(model, name).inputs[2].const_value.numpy()


def clip(source: str, target: str) -> tuple:
    return op("Clip", [source, *SIX], target)


def test_a_relu6_between_two_layers_becomes_biases_and_saturation() -> None:
    model = graph(conv("image", "first"), clip("first", "act"), conv("act", "second"), extra=SIX)
    before = {name: bias_of(model, name).copy() for name in ("first", "second")}
    rounded = layers_of(model)["second"]
    quantized(model, act=ONE_SIDED)
    assert "Clip" not in kinds(model)
    assert scale_read_by(model, "second") == pytest.approx(6 / 255)
    offset = 128 * 6 / 255
    assert bias_of(model, "first") == pytest.approx(before["first"] - offset, abs=1e-5)
    taken = offset * rounded.weight.reshape(16, -1).sum(1)
    assert bias_of(model, "second") == pytest.approx(before["second"] + taken, abs=1e-4)


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 1, 1]])
def test_a_reader_with_zeros_beside_the_image_prevents_it(pads: list[int]) -> None:
    second = conv("act", "second")
    second[0].attribute.append(onnx.helper.make_attribute("pads", pads))
    model = quantized(graph(conv("image", "first"), clip("first", "act"), second, extra=SIX), act=ONE_SIDED)
    assert "Clip" in kinds(model)
    assert scale_read_by(model, "second") == pytest.approx(6 / 127)


def test_a_reader_that_is_no_int8_layer_prevents_it() -> None:
    parts = [conv("image", "first"), clip("first", "act"), conv("act", "second"), op("Add", ["second", "act"], "sum")]
    model = quantized(graph(*parts, extra=SIX), act=ONE_SIDED)
    assert scale_read_by(model, "second") == pytest.approx(6 / 127)


def test_a_clip_that_is_tighter_than_the_grid_stays() -> None:
    model = graph(conv("image", "first"), clip("first", "act"), conv("act", "second"), extra=SIX)
    assert "Clip" in kinds(quantized(model, act=(0.0, 7.0)))
    assert scale_read_by(model, "second") == pytest.approx(7 / 255)
    assert node(model, "act_shifted").op_type == "Add"


def test_behind_another_operator_the_constant_is_added() -> None:
    model = graph(conv("image", "first"), op("HardSwish", ["first"], "act"), conv("act", "second"))
    quantized(model, act=(-0.5, 5.5))
    assert node(model, "act_shifted").op_type == "Add"
    grid = affine.activation_grid(Range(-0.5, 5.5), symmetric=False)
    constant = node(model, "act_shifted").inputs[1].const_value.numpy()
    assert (constant, constant.dtype) == (pytest.approx(grid.scale * grid.zero_point), np.float32)


def residual(*behind: tuple, reads: str = "sum") -> ir.Model:
    """A layer, a second one, their sum, nodes behind it, and a layer that reads `reads`."""
    parts = [conv("image", "first"), conv("first", "second"), op("Add", ["first", "second"], "sum"), *behind]
    return graph(*parts, conv(reads, "third"))


def test_the_constant_of_a_residual_sum_goes_into_the_layer_that_it_reads_as_it_is() -> None:
    model = residual()
    before = {name: bias_of(model, name).copy() for name in ("first", "second")}
    quantized(model, sum=(-1.0, 6.0))
    grid = affine.activation_grid(Range(-1.0, 6.0), symmetric=False)
    assert scale_read_by(model, "third") == pytest.approx(7 / 255)
    assert kinds(model).count("Add") == 1
    assert bias_of(model, "second") == pytest.approx(before["second"] + grid.scale * grid.zero_point, abs=1e-5)
    assert bias_of(model, "first") == pytest.approx(before["first"])
    assert [value.producer().op_type for value in node(model, "sum").inputs] == ["DequantizeLinear", "Conv"]


def test_an_activation_behind_a_residual_sum_becomes_saturation() -> None:
    model = quantized(residual(op("Relu", ["sum"], "act"), reads="act"), act=ONE_SIDED)
    assert scale_read_by(model, "third") == pytest.approx(6 / 255)
    assert "Relu" not in kinds(model)
    (quantizer,) = (use.node for use in node(model, "sum").outputs[0].uses())
    assert quantizer.op_type == "QuantizeLinear"


def test_of_two_layers_that_are_summed_the_rounded_one_keeps_its_bias() -> None:
    """A ResNet's downsampling: rounding must not see the constant."""
    parts = [conv("image", "narrow"), op("Relu", ["image"], "act"), conv("act", "down")]
    model = graph(*parts, op("Add", ["narrow", "down"], "sum"), conv("sum", "third"))
    before = {name: bias_of(model, name).copy() for name in ("narrow", "down")}
    quantized(model, sum=(-1.0, 6.0))
    (rounded,) = (v.producer().name for v in node(model, "sum").inputs if v.producer().op_type == "DequantizeLinear")
    assert rounded == "down_dequantize"
    assert kinds(model).count("Add") == 1
    assert bias_of(model, "down") == pytest.approx(before["down"])
    assert (bias_of(model, "narrow") - before["narrow"]).min() < -1


def test_behind_a_sum_of_no_layer_the_constant_is_added() -> None:
    parts = [conv("image", "first"), op("HardSwish", ["first"], "act"), op("Add", ["first", "act"], "sum")]
    model = quantized(graph(*parts, conv("sum", "second")), sum=(-1.0, 6.0))
    assert node(model, "sum_shifted").op_type == "Add"


@pytest.mark.parametrize("kind", ["Pad", "MaxPool", "Concat"])
def test_behind_what_only_moves_values_nothing_is_added(kind: str) -> None:
    ends = {"ends": np.zeros(8, np.int64)}
    between = {
        "Pad": op("Pad", ["relu", "ends"], "moved"),
        "MaxPool": op("MaxPool", ["relu"], "moved", kernel_shape=[2, 2]),
        "Concat": op("Concat", ["relu", "relu"], "moved", axis=1),
    }[kind]
    inputs = 32 if kind == "Concat" else 16
    parts = conv("image", "first"), op("Relu", ["first"], "relu"), between, conv("moved", "second", inputs)
    model = quantized(graph(*parts, extra=ends if kind == "Pad" else None), moved=ONE_SIDED)
    assert "Add" not in kinds(model)
    assert scale_read_by(model, "second") == pytest.approx(6 / 127)


@pytest.mark.parametrize(("high", "finer"), [(6.0, False), (4.9, False), (4.7, True)])
def test_only_where_steps_become_finer_by_a_tenth(high: float, finer: bool) -> None:
    model = quantized(graph(conv("image", "first"), conv("first", "second")), first=(-6.0 if high < 6 else -high, high))
    wanted = (6 + high) / 255 if finer else 6 / 127
    assert scale_read_by(model, "second") == pytest.approx(wanted)


def test_a_layer_may_both_write_and_read_shifted_tensors_and_strict_parity_has_none() -> None:
    parts = [conv("image", "first"), clip("first", "act"), conv("act", "second"), clip("second", "act2")]
    parts += [op("Flatten", ["act2"], "flat"), gemm("flat", "head", 256)]
    spans = {"act": ONE_SIDED, "act2": ONE_SIDED, "flat": ONE_SIDED}
    model = quantized(graph(*parts, extra=SIX), **spans)
    assert [scale_read_by(model, name) for name in ("second", "head")] == pytest.approx([6 / 255] * 2)
    strict = quantized(graph(*parts, extra=SIX), strict=True, **spans)
    assert [scale_read_by(strict, name) for name in ("second", "head")] == pytest.approx([6 / 127] * 2)
    assert kinds(strict).count("Clip") == 2


class Bottleneck(nn.Module):
    """An inverted residual with a ReLU6 on either side of its depthwise convolution; the narrow bias is zero."""

    def __init__(self, act: type[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), act())
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1), act())
        self.deep = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), act())
        self.narrow = nn.Conv2d(32, 16, 1)
        self.last = nn.Conv2d(16, 16, 1)
        self.pool, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.narrow(self.deep(self.wide(x)))
        return self.head(self.flatten(self.pool(self.last(x))))


@pytest.mark.parametrize("act", [nn.ReLU6, nn.ReLU, nn.Hardswish, nn.SiLU])
def test_the_file_computes_what_the_simulation_says(act: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = random_images(8, 16)
    folded = fold(Bottleneck(act).eval(), 16)
    model = plain(folded, observe(folded, images))
    source = emit_float_onnx(folded, 16, tmp_path)
    graph_ = ir.load(source)
    qdq.quantize(graph_, model, naming(folded, exporter.run_all(source, images[:1].numpy()), images))
    exporter.save(graph_, tmp_path / "int8.onnx")
    simulation = simulate.simulation(folded, model, TENSORRT_SCHEME)
    assert any(grid.zero_point for grid in simulation.rounded.values())
    with torch.inference_mode():
        wanted, exact = simulation.run(images).numpy(), folded(images).numpy()
    assert simulation.rounded["add"].zero_point
    assert not [name for each in graph_.graph if (name := str(each.name)).startswith("add") and "shifted" in name]
    got = run_onnx(tmp_path / "int8.onnx", images, optimize=False)
    assert relative_error(got, wanted) < 0.1 * relative_error(wanted, exact)
    assert relative_error(got, exact) < 0.1

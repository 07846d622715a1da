"""The rules of `edgekit.quant.qdq`, one by one, on hand-made graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgekit.convert.fold import fold
from edgekit.errors import EdgekitError
from edgekit.quant import placement, qdq
from edgekit.quant.naming import Naming
from edgekit.quantization import LayerWeights
from tests.nets import emit_onnx, random_images, relative_error, run_onnx
from tests.quant.graphs import Folded, conv, gemm, graph, naming_of, node, op, paired, quantize, quantized_of

RELU = op("Relu", ["image"], "relu")


@pytest.mark.parametrize(
    "weighted", [[conv("image", "layer")], [op("Flatten", ["image"], "flat"), gemm("flat", "layer", 256)]]
)
def test_rule_1_conv_and_gemm_read_int8_data_and_weights_and_float_bias(weighted: list) -> None:
    model = graph(*weighted)
    weight, bias = (weighted[-1][1][f"layer_{kind}"] for kind in "wb")
    assert quantize(model) == ["layer"]
    layer = node(model, "layer")
    assert paired(model, "layer") == [0]
    restored = layer.inputs[1].producer()
    assert restored.op_type == "DequantizeLinear"
    assert restored.attributes["axis"].as_int() == 0
    integers, scales = (restored.inputs[i].const_value.numpy() for i in (0, 1))
    assert (integers.dtype, scales.shape) == (np.int8, (len(weight),))
    back = integers * scales.reshape(-1, *[1] * (weight.ndim - 1))
    assert np.abs(back - weight).max() <= scales.max() * 0.501
    assert layer.inputs[2].producer() is None
    assert np.array_equal(layer.inputs[2].const_value.numpy(), bias)
    assert "layer_w" not in model.graph.initializers


@pytest.mark.parametrize(
    ("inputs", "outputs", "group", "in_int8"),
    [
        (16, 16, 1, True),
        (20, 18, 1, True),  # at least 16 of both
        (3, 32, 1, False),
        (16, 12, 1, False),
        (12, 16, 1, False),
        (8, 16, 1, True),  # under 16, but multiples of 8
        (8, 8, 1, True),
        (8, 20, 1, False),
        (32, 32, 4, True),
        (16, 16, 16, True),
        (8, 8, 8, True),
        (20, 20, 20, False),  # depthwise needs a multiple of 8
    ],
)
def test_rule_2_which_convolutions_stay_float(inputs: int, outputs: int, group: int, in_int8: bool) -> None:
    model = graph(conv("image", "layer", inputs, outputs, group), channels=inputs)
    assert quantize(model) == (["layer"] if in_int8 else [])
    assert paired(model, "layer") == ([0] if in_int8 else [])
    assert ("layer_w" in model.graph.initializers) is not in_int8


@pytest.mark.parametrize(("inputs", "in_int8"), [(3, False), (16, True)])
@pytest.mark.parametrize("activation", ["Relu", "Clip", "HardSwish"])
def test_rule_3_depthwise_behind_a_float_convolution_stays_float(inputs: int, in_int8: bool, activation: str) -> None:
    stem, depthwise = conv("image", "stem", inputs, 16), conv("act", "depthwise", group=16)
    model = graph(stem, op(activation, ["stem"], "act"), depthwise, conv("depthwise", "project"), channels=inputs)
    wanted = ["stem", "depthwise", "project"] if in_int8 else ["project"]
    assert quantize(model) == wanted


def test_rule_3_any_other_convolution_behind_a_float_one_is_quantized() -> None:
    assert quantize(graph(conv("image", "stem", 3, 16), conv("stem", "next"), channels=3)) == ["next"]


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "HardSwish", "Clip"])
def test_rule_4_no_pair_between_conv_and_activation_nor_on_outputs(activation: str) -> None:
    model = graph(conv("image", "c1"), op(activation, ["c1"], "act"), conv("act", "c2"))
    quantize(model)
    assert node(model, "act").inputs[0].producer() is node(model, "c1")
    assert paired(model, "c2") == [0]
    assert model.graph.outputs[0].producer() is node(model, "c2")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [(["c1", "relu"], [1]), (["relu", "c1"], [0]), (["c1", "c2"], [1]), (["c2", "c1"], [1]), (["relu", "image"], [])],
)
def test_rule_5_residual_add_has_a_pair_on_its_shortcut_only(inputs: list[str], expected: list[int]) -> None:
    model = graph(RELU, conv("relu", "c1"), conv("relu", "c2"), op("Add", inputs, "sum"))
    quantize(model)
    assert paired(model, "sum") == expected


@pytest.mark.parametrize("inputs", [["trunk", "branch"], ["branch", "trunk"]])
def test_rule_5_of_two_convs_the_one_with_other_readers_is_the_shortcut(inputs: list[str]) -> None:
    model = graph(conv("image", "trunk"), conv("trunk", "branch"), op("Add", inputs, "sum"))
    quantize(model)
    assert paired(model, "sum") == [inputs.index("trunk")]


def test_rule_5_an_add_of_a_constant_is_no_residual() -> None:
    model = graph(conv("image", "c1"), op("Add", ["c1", "k"], "sum"), extra={"k": np.ones((1, 16, 1, 1), np.float32)})
    quantize(model)
    assert paired(model, "sum") == []


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_rule_6_squeeze_and_excitation(gate: str) -> None:
    model = graph(
        RELU,
        op("GlobalAveragePool", ["relu"], "pool"),
        conv("pool", "squeeze"),
        op(gate, ["squeeze"], "gate"),
        op("Mul", ["gate", "relu"], "scaled"),
        conv("scaled", "next"),
    )
    quantize(model)
    assert (paired(model, "pool"), paired(model, "scaled")) == ([0], [0, 1])


def test_rule_6_the_last_pool_and_silu_stay_float() -> None:
    model = graph(
        conv("image", "c1"),
        op("Sigmoid", ["c1"], "sigmoid"),
        op("Mul", ["c1", "sigmoid"], "silu"),
        op("GlobalAveragePool", ["silu"], "pool"),
        op("Flatten", ["pool"], "flat"),
        gemm("flat", "scores"),
    )
    quantize(model)
    assert (paired(model, "silu"), paired(model, "pool"), paired(model, "scores")) == ([], [], [0])


def test_rule_7_a_layer_in_floating_point_has_no_pair_and_its_own_weights() -> None:
    model = graph(conv("image", "c1"), conv("c1", "c2"))
    weight, bias = np.ones((16, 16, 1, 1), np.float32), np.ones(16, np.float32)
    assert quantize(model, c1=LayerWeights(weight, bias)) == ["c2"]
    assert (paired(model, "c1"), paired(model, "c2")) == ([], [0])
    inputs = node(model, "c1").inputs
    assert all(np.array_equal(inputs[n + 1].const_value.numpy(), a) for n, a in enumerate((weight, bias)))


def test_weights_and_biases_are_those_of_the_quantized_model() -> None:
    model = graph(conv("image", "c1"))
    scales = np.full(16, 0.5, np.float32)
    weight, bias = np.full((16, 16, 1, 1), 1.5, np.float32), np.full(16, 7.0, np.float32)
    quantize(model, c1=LayerWeights(weight, bias, scales))
    restored, held = node(model, "c1").inputs[1].producer(), node(model, "c1").inputs[2]
    assert (restored.inputs[0].const_value.numpy() == 3).all()
    assert np.array_equal(restored.inputs[1].const_value.numpy(), scales)
    assert np.array_equal(held.const_value.numpy(), bias)


def test_rule_8_all_readers_share_one_pair() -> None:
    model = graph(RELU, conv("relu", "c1"), conv("relu", "c2"), op("Add", ["c1", "relu"], "sum"))
    quantize(model)
    assert node(model, "c1").inputs[0] is node(model, "c2").inputs[0] is node(model, "sum").inputs[1]
    assert sum(n.op_type == "QuantizeLinear" for n in model.graph) == 1


def test_rule_8_scales_are_float32_and_zero_points_written_out_as_zero() -> None:
    model = graph(conv("image", "c1"), op("Relu", ["c1"], "act"), conv("act", "c2"))
    quantize(model)
    pairs = [n for n in model.graph if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 6
    for each in pairs:
        scale, zero = (each.inputs[i].const_value.numpy() for i in (1, 2))
        assert (scale.dtype, zero.dtype, zero.shape) == (np.float32, np.int8, scale.shape)
        assert not zero.any()


def test_scale_of_an_activation_is_that_of_the_table() -> None:
    model = graph(conv("image", "c1"), conv("c1", "c2"))
    in_torch = graph(conv("image", "torch_name"), conv("torch_name", "c2"))
    quantized = quantized_of(in_torch, image=(-1.0, 1.0), torch_name=(-2.9, 3.0), c2=(-1.0, 1.0))
    names = {"image": "image", "c1": "torch_name", "c2": "c2"}
    qdq.quantize(model, quantized, Naming(names, names))
    assert model.graph.initializers["c1_scale"].const_value.numpy() == np.float32(3.0 / 127)


def test_of_tensors_with_equal_values_the_one_that_is_rounded_gives_the_scale() -> None:
    """The probe had nothing below zero: what the ReLU writes is known by the name of what it reads."""
    model = graph(conv("image", "c1"), op("Relu", ["c1"], "act"), conv("act", "c2"))
    plain = {"image": (-1.0, 1.0), "c1": (-9.0, 2.0), "act": (0.0, 2.0), "c2": (-1.0, 1.0)}
    own = {name: name for name in plain}
    naming = Naming({**own, "act": "c1"}, own, equal={"act": "c1"})
    qdq.quantize(model, quantized_of(model, symmetric=True, **plain), naming)
    assert paired(model, "act") == []
    assert paired(model, "c2") == [0]
    assert model.graph.initializers["act_scale"].const_value.numpy() == np.float32(2.0 / 127)


def test_a_layer_without_a_range_for_its_input_stays_float() -> None:
    model = graph(conv("image", "c1"))
    assert qdq.quantize(model, quantized_of(model, other=(-1.0, 1.0)), naming_of(model)) == []
    assert paired(model, "c1") == []


def test_a_layer_whose_input_is_not_found_stays_float_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model = graph(conv("image", "c1"), conv("c1", "c2"))
    quantized, naming = quantized_of(model), naming_of(model)
    with caplog.at_level("INFO", "edgekit"):
        found = qdq.quantize(model, quantized, replace(naming, tensors={"c1": "c1", "c2": "c2"}))
    assert found == ["c2"]
    assert "not found in the ONNX graph, so in floating point: c1" in caplog.text


def test_a_convolution_that_is_no_layer_of_the_network_stays_as_it_is() -> None:
    model = graph(conv("image", "c1"), conv("c1", "c2"))
    naming = replace(naming_of(model), layers={"c2": "c2"})
    assert qdq.quantize(model, quantized_of(model), naming) == ["c2"]
    assert "c1_w" in model.graph.initializers


def test_a_layer_without_weights_is_named() -> None:
    model = graph(conv("image", "c1"))
    quantized = placement.quantized_model(Folded(model).graph, quantized_of(model).table, {})
    with pytest.raises(EdgekitError, match="'c1'"):
        qdq.quantize(model, quantized, naming_of(model))


def test_a_gemm_with_its_weight_the_other_way_round_is_refused() -> None:
    part = op("Gemm", ["flat", "w"], "scores")
    model = graph(op("Flatten", ["image"], "flat"), part, extra={"w": np.ones((256, 4), np.float32)})
    with pytest.raises(EdgekitError, match="scores"):
        quantize(model)


class Residual(nn.Module):
    """A stem that stays float, a residual block and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.block(x)))


def test_a_padding_that_the_exporter_folds_into_a_layer_keeps_it_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    padded = [nn.Conv2d(3, 16, 1), nn.ReLU6(), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(16, 16, 3, 2), nn.ReLU6()]
    model = nn.Sequential(*padded, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    images = random_images(16, 32)
    emitted = emit_onnx(fold(model), 32, tmp_path, images)
    assert emitted.int8_nodes == ["3", "7"]
    graph = ir.load(emitted.path("int8.onnx"))
    assert paired(graph, "3") == [0]
    scale = float(node(graph, "3").inputs[0].producer().inputs[1].const_value.numpy())
    assert scale == np.float32(emitted.table.ranges["1"].high / 127)
    assert relative_error(run_onnx(emitted.path("int8.onnx"), images), model(images).detach().numpy()) < 0.05


def test_a_quantized_network_still_answers_like_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = Residual().eval(), random_images(16, 32)
    emitted = emit_onnx(fold(model), 32, tmp_path, images)
    assert len(emitted.int8_nodes) == 3
    expected = model(images).detach().numpy()
    assert relative_error(run_onnx(emitted.path("int8.onnx"), images), expected) < 0.03
    assert relative_error(run_onnx(emitted.path("fp16.onnx"), images), expected) < 0.003

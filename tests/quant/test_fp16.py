"""The rules of `edgekit.quant.fp16`."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgekit.errors import EdgekitError
from edgekit.quant.fp16 import to_fp16
from tests.quant.graphs import conv, graph, op, quantize


def run(model: ir.Model) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    image = np.random.default_rng(1).uniform(-1, 1, (1, 16, 4, 4)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"image": image})[0]


def network() -> ir.Model:
    return graph(conv("image", "c1"), op("Relu", ["c1"], "act"), conv("act", "c2"))


def test_rule_1_inputs_and_outputs_stay_float32_behind_one_cast_each() -> None:
    model = network()
    to_fp16(model)
    graph_ = model.graph
    assert (graph_.inputs[0].name, graph_.outputs[0].name) == ("image", "c2")
    assert {v.dtype for v in (*graph_.inputs, *graph_.outputs)} == {ir.DataType.FLOAT}
    casts = [n for n in graph_ if n.op_type == "Cast"]
    assert [c.attributes["to"].as_int() for c in casts] == [ir.DataType.FLOAT16, ir.DataType.FLOAT]
    assert [use.node for use in graph_.inputs[0].uses()] == [casts[0]]
    assert graph_.outputs[0].producer() is casts[1]


def test_rule_1_a_network_that_reads_its_input_twice_has_one_cast() -> None:
    model = graph(conv("image", "c1"), op("Add", ["c1", "image"], "sum"))
    to_fp16(model)
    assert len(model.graph.inputs[0].uses()) == 1


def test_rule_2_every_float_initializer_becomes_float16() -> None:
    model = network()
    to_fp16(model)
    assert {v.const_value.dtype for v in model.graph.initializers.values()} == {ir.DataType.FLOAT16}


def test_rule_2_integer_initializers_stay() -> None:
    model = graph(op("Reshape", ["image", "shape"], "flat"), extra={"shape": np.array([1, -1], np.int64)})
    to_fp16(model)
    assert model.graph.initializers["shape"].const_value.numpy().tolist() == [1, -1]


@pytest.mark.parametrize("value", [65_520.0, -1e6, np.inf, np.nan])
def test_rule_2_a_value_that_float16_cannot_hold_is_refused(value: float) -> None:
    model = network()
    model.graph.initializers["c1_b"].const_value = ir.tensor(np.full(16, value, np.float32))
    with pytest.raises(EdgekitError, match="'c1_b'"):
        to_fp16(model)


def test_rule_2_the_largest_float16_is_accepted() -> None:
    model = network()
    model.graph.initializers["c1_b"].const_value = ir.tensor(np.full(16, -65_504.0, np.float32))
    to_fp16(model)
    assert model.graph.initializers["c1_b"].const_value.numpy()[0] == -65_504.0


def test_rule_3_with_pairs_the_scales_are_float16_and_the_opset_is_19() -> None:
    model = network()
    quantize(model)
    to_fp16(model)
    scales = [n.inputs[1].const_value for n in model.graph if n.op_type.endswith("Linear")]
    assert {s.dtype for s in scales} == {ir.DataType.FLOAT16}
    assert (model.graph.opset_imports[""], model.ir_version) == (19, 9)


def test_rule_3_without_pairs_the_opset_stays() -> None:
    model = network()
    to_fp16(model)
    assert (model.graph.opset_imports[""], model.ir_version) == (17, 8)


def test_scales_stay_above_zero() -> None:
    model = network()
    model.graph.initializers["c1_w"].const_value = ir.tensor(np.full((16, 16, 1, 1), 1e-9, np.float32))
    quantize(model)
    to_fp16(model)
    assert model.graph.initializers["c1_w_scale"].const_value.numpy().min() > 0


def test_a_weight_is_not_taken_for_a_scale_by_its_name() -> None:
    arrays = {"layer_scale": np.full((1, 16, 1, 1), -0.5, np.float32)}
    model = graph(op("Mul", ["image", "layer_scale"], "out"), extra=arrays)
    to_fp16(model)
    assert model.graph.initializers["layer_scale"].const_value.numpy().max() == -0.5


@pytest.mark.parametrize("pairs", [False, True])
def test_it_computes_nearly_the_same(pairs: bool) -> None:
    model = network()
    if pairs:
        quantize(model)
    expected = run(model)
    to_fp16(model)
    half = run(model)
    assert half.dtype == np.float32
    assert np.abs(half - expected).max() < (0.05 if pairs else 0.005) * np.abs(expected).max()

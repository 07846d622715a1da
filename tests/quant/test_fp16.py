"""The rules of `edgekit.quant.fp16`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from edgekit.convert import onnx as export
from edgekit.convert.fold import fold
from edgekit.errors import DataError
from edgekit.quant import calibrate, naming, qdq
from edgekit.quant.fp16 import to_fp16
from edgekit.quantization import CalibrationTable, Range
from tests import nets, rtx
from tests.nets import table_of
from tests.quant.graphs import conv, graph, node, op

HUGE, TINY, USUAL = (-1e5, 1e5), (0.0, 1e-5), (-1.0, 1.0)


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


def test_rule_4_every_float_initializer_becomes_float16() -> None:
    model = network()
    to_fp16(model)
    assert {v.const_value.dtype for v in model.graph.initializers.values()} == {ir.DataType.FLOAT16}


def test_rule_4_integer_initializers_stay() -> None:
    model = graph(op("Reshape", ["image", "shape"], "flat"), extra={"shape": np.array([1, -1], np.int64)})
    to_fp16(model)
    assert model.graph.initializers["shape"].const_value.numpy().tolist() == [1, -1]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_initializer_without_finite_values_is_refused(value: float) -> None:
    model = network()
    model.graph.initializers["c1_b"].const_value = ir.tensor(np.full(16, value, np.float32))
    with pytest.raises(DataError, match="'c1_b'"):
        to_fp16(model)


def with_initializer(name: str, array: np.ndarray) -> ir.Model:
    model = network()
    model.graph.initializers[name].const_value = ir.tensor(array.astype(np.float32))
    return model


def types(model: ir.Model) -> dict[str, str]:
    """Node -> the float types that it reads and writes, inferred by ONNX; no two Casts follow each other."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    known |= {t.name: t.data_type for t in inferred.initializer}
    short = {onnx.TensorProto.FLOAT: "32", onnx.TensorProto.FLOAT16: "16"}
    casts = {n.output[0] for n in proto.graph.node if n.op_type == "Cast"}
    assert not [n.name for n in proto.graph.node if n.op_type == "Cast" and n.input[0] in casts]
    found = {}
    for each in proto.graph.node:
        kinds = {short[known[t]] for t in (*each.input, *each.output) if known.get(t) in short}
        found[each.name] = "/".join(sorted(kinds))
    return found


def casts(model: ir.Model) -> list[tuple[str, str]]:
    """What every Cast reads and writes, in order."""
    return [(str(n.inputs[0].name), str(n.outputs[0].name)) for n in model.graph if n.op_type == "Cast"]


@pytest.mark.parametrize("value", [65_520.0, -1e6])
def test_rule_2a_a_node_whose_initializer_overflows_stays_float32(value: float) -> None:
    model = with_initializer("c1_b", np.full(16, value))
    assert to_fp16(model) == ["c1"]
    assert {k: v for k, v in types(model).items() if "cast" not in k} == {"c1": "32", "act": "16", "c2": "16"}
    assert casts(model) == [("c1", "c1_fp16"), ("c2_fp16", "c2")]


def test_rule_2a_the_largest_float16_is_accepted() -> None:
    model = with_initializer("c1_b", np.full(16, -65_504.0))
    assert to_fp16(model) == []
    assert model.graph.initializers["c1_b"].const_value.numpy()[0] == -65_504.0


@pytest.mark.parametrize(("value", "kept"), [(1e-9, ["out"]), (1e-6, []), (0.0, [])])
def test_rule_2a_a_constant_that_would_become_zero_stays_float32(value: float, kept: list[str]) -> None:
    model = graph(op("Add", ["image", "epsilon"], "out"), extra={"epsilon": np.array(value, np.float32)})
    assert to_fp16(model) == kept


def test_rule_2a_a_bias_may_become_zero() -> None:
    assert to_fp16(with_initializer("c1_b", np.full(16, 1e-9))) == []


def channel(value: float, bias: float) -> ir.Model:
    """c1 with one channel whose weights are +-`value`."""
    model = network()
    for name, entry in (("c1_w", value * np.resize([1, -1], (16, 1, 1))), ("c1_b", bias)):
        array = model.graph.initializers[name].const_value.numpy().copy()
        array[3] = entry
        model.graph.initializers[name].const_value = ir.tensor(array.astype(np.float32))
    return model


@pytest.mark.parametrize(
    ("value", "bias", "kept"),
    [
        (1.7e-6, 0.0, ["c1"]),  # 3.5 % are rounded off
        (1.7e-6, 1.0, []),  # of so large a bias float16 rounds off more
        (5e-5, 0.0, []),  # below the smallest normal, and hardly rounded
        (1e-12, 0.0, []),  # a dead channel
        (0.0, 0.0, []),
    ],
)
def test_rule_2b_a_channel_whose_weights_vanish(value: float, bias: float, kept: list[str]) -> None:
    assert to_fp16(channel(value, bias)) == kept


def test_rule_2b_a_layer_whose_weights_all_vanish_is_not_dead() -> None:
    model = with_initializer("c1_w", np.full((16, 16, 1, 1), 1e-9))
    model.graph.initializers["c1_b"].const_value = ir.tensor(np.zeros(16, np.float32))
    assert to_fp16(model) == ["c1"]


def test_rule_2b_what_the_inputs_were_seen_to_be_counts() -> None:
    large = table_of(image=(-1000.0, 1000.0))
    assert to_fp16(channel(1.7e-6, 0.01)) == []
    assert to_fp16(channel(1.7e-6, 0.01), large, {"image": "image"}) == ["c1"]


def test_rule_2b_outputs_of_a_gemm_are_its_first_axis_and_of_a_matmul_its_last() -> None:
    flat = op("Reshape", ["image", "shape"], "flat"), {"shape": np.array([-1, 16], np.int64)}
    weight = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    weight[:, 2] = 1.7e-6
    extra = {"w": weight, "shape": flat[1]["shape"]}
    assert to_fp16(graph(flat[0], op("MatMul", ["flat", "w"], "out"), extra=extra)) == ["out"]
    transposed = {**extra, "w": np.ascontiguousarray(weight.T)}
    assert to_fp16(graph(flat[0], op("Gemm", ["flat", "w"], "out", transB=1), extra=transposed)) == ["out"]


def chain() -> ir.Model:
    names = ("c1", "c2", "c3", "c4")
    return graph(*(conv(source, name) for source, name in zip(("image", *names), names)))


def told(**ranges: tuple[float, float]) -> dict[str, object]:
    """Keyword arguments with a table in which every other tensor of `chain` is usual."""
    every = {**dict.fromkeys(("image", "c1", "c2", "c3", "c4"), USUAL), **ranges}
    return {"table": table_of(**every), "names": {name: name for name in every}}


@pytest.mark.parametrize("span", [HUGE, (-33_000.0, 0.0), (0.0, 33_000.0), TINY, (-6e-5, 0.0)])
def test_rule_2c_the_nodes_around_a_tensor_that_does_not_fit_stay_float32(span: tuple[float, float]) -> None:
    model = chain()
    assert to_fp16(model, **told(c2=span)) == ["c2", "c3"]
    assert {k: v for k, v in types(model).items() if "cast" not in k} == {
        "c1": "16",
        "c2": "32",
        "c3": "32",
        "c4": "16",
    }
    assert casts(model) == [("image", "image_fp16"), ("c1", "c1_fp32"), ("c3", "c3_fp16"), ("c4_fp16", "c4")]


@pytest.mark.parametrize("span", [(-32_000.0, 32_000.0), (0.0, 0.0), (0.0, 1e-4)])
def test_rule_2c_a_tensor_that_fits_changes_nothing(span: tuple[float, float]) -> None:
    assert to_fp16(chain(), **told(c2=span)) == []


def test_rule_1_a_node_in_float32_at_the_border_needs_no_cast() -> None:
    model = chain()
    assert to_fp16(model, **told(image=HUGE, c4=HUGE)) == ["c1", "c4"]
    assert casts(model) == [("c1", "c1_fp16"), ("c3", "c3_fp32")]


def test_rule_4_readers_of_one_type_share_a_cast_and_initializers_are_split() -> None:
    model = graph(
        conv("image", "c1"),
        op("Mul", ["c1", "factor"], "big"),
        op("Mul", ["c1", "factor"], "small"),
        op("Add", ["big", "c1"], "sum"),
        extra={"factor": np.array(0.1, np.float32)},
    )
    assert to_fp16(model, table_of(big=HUGE), {"big": "big"}) == ["big", "sum"]
    assert types(model)["small"] == "16"
    assert casts(model) == [("image", "image_fp16"), ("c1", "c1_fp32")]
    assert {n: v.const_value.dtype.name for n, v in model.graph.initializers.items() if "factor" in n} == {
        "factor": "FLOAT16",
        "factor_fp32": "FLOAT",
    }


def test_what_the_observer_left_out_counts_too() -> None:
    model = graph(
        conv("image", "c1"),
        op("Mul", ["c1", "factor"], "big"),
        op("Mul", ["c1", "factor"], "small"),
        op("Add", ["big", "c1"], "sum"),
        extra={"factor": np.array(0.1, np.float32)},
    )
    assert to_fp16(model, replace(table_of(big=USUAL), seen={"big": Range(*HUGE)}), {"big": "big"}) == ["big", "sum"]
    assert types(model)["small"] == "16"
    assert casts(model) == [("image", "image_fp16"), ("c1", "c1_fp32")]
    assert {n: v.const_value.dtype.name for n, v in model.graph.initializers.items() if "factor" in n} == {
        "factor": "FLOAT16",
        "factor_fp32": "FLOAT",
    }


def with_pairs(
    model: ir.Model, ranges: dict[str, tuple[float, float]] | None = None, biases: bool = False, **more: object
) -> dict:
    """Give every Conv and Gemm Q/DQ on its input and an int8 weight; returns what `to_fp16` is told.

    Tensors have the range that `ranges` or a keyword names, else the usual one. Without `biases`, those of the layers
    are taken off: rule 2e is of layers that have one.
    """
    known: dict[str, object] = {**(ranges or {}), **more}
    graph_, pairs = model.graph, {}

    def constant(name: str, array: np.ndarray) -> ir.Value:
        return qdq.constant(graph_, name, array)

    def dequantized(source: ir.Value, scale: ir.Value, zero: ir.Value, **attributes: int) -> ir.Node:
        made = ir.node("DequantizeLinear", [source, scale, zero], attributes, name=f"{scale.name[:-6]}_dequantize")
        made.outputs[0].name = f"{scale.name[:-6]}_dequantized"
        return made

    for each in [n for n in graph_ if n.op_type in ("Conv", "Gemm")]:
        source, weight = each.inputs[:2]
        if source not in pairs:
            scale = constant(f"{source.name}_scale", np.array(max(map(abs, known.get(source.name, USUAL))) / 127, "f"))
            zero = constant(f"{source.name}_zero", np.array(0, np.int8))
            quantized = ir.node("QuantizeLinear", [source, scale, zero], name=f"{source.name}_quantize")
            quantized.outputs[0].name = f"{source.name}_int8"
            pairs[source] = dequantized(quantized.outputs[0], scale, zero)
            graph_.extend([quantized, pairs[source]])
        each.replace_input_with(0, pairs[source].outputs[0])
        array = weight.const_value.numpy()
        steps = np.abs(array.reshape(len(array), -1)).max(1) / 127
        integers = np.rint(array / steps.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
        made = [constant(f"{weight.name}_int8", integers), constant(f"{weight.name}_scale", steps.astype("f"))]
        restored = dequantized(*made, constant(f"{weight.name}_zero", np.zeros(len(array), np.int8)), axis=0)
        graph_.append(restored)
        each.replace_input_with(1, restored.outputs[0])
        each.resize_inputs(len(each.inputs) if biases else 2)
        del graph_.initializers[weight.name]
    graph_.sort()
    tensors = ["image", *(str(n.outputs[0].name) for n in graph_ if "quantize" not in n.name)]
    every = {**dict.fromkeys(tensors, USUAL), **known}
    return {"table": table_of(**every), "names": {name: name for name in every}}


def test_rule_3_pairs_have_the_type_of_their_conv() -> None:
    model = chain()
    kept = to_fp16(model, **with_pairs(model, c2=HUGE))
    pairs = {"c1_dequantize", "c2_w_dequantize", "c2_quantize", "c2_dequantize", "c3_w_dequantize", "c3_quantize"}
    assert set(kept) == {"c2", "c3", *pairs}
    assert {k: v for k, v in types(model).items() if "cast" in k} == {k: "16/32" for k in types(model) if "cast" in k}
    assert [types(model)[name] for name in ("c1_quantize", "c1_dequantize", "c2", "c2_quantize", "c3_quantize")] == [
        "16",
        "32",
        "32",
        "32",
        "32",
    ]
    for name in ("c2", "c3", "c4"):
        producers = {value.producer().op_type for value in node(model, name).inputs if value.producer() is not None}
        assert producers == {"DequantizeLinear"}


def test_rule_3_a_tensor_with_readers_of_both_types_is_dequantized_twice() -> None:
    model = graph(conv("image", "c1"), conv("c1", "c2"), conv("c1", "c3"), op("Add", ["c2", "c3"], "sum"))
    kept = to_fp16(model, **with_pairs(model, c2=HUGE))
    found = types(model)
    assert "c1_dequantize_fp32" in kept
    assert (found["c1_quantize"], found["c1_dequantize"], found["c1_dequantize_fp32"]) == ("16", "16", "32")
    assert (found["c2"], found["c3"], found["sum"]) == ("32", "16", "32")


def test_rule_2d_a_scale_that_float16_cannot_hold_keeps_its_reader_in_float32() -> None:
    model = chain()
    with_pairs(model)
    model.graph.initializers["c2_w_scale"].const_value = ir.tensor(np.full(16, 1e-8, np.float32))
    kept = to_fp16(model)
    assert {"c2_w_dequantize", "c2"} <= set(kept)
    assert not {"c1", "c3", "c4"} & set(kept)
    assert types(model)["c2"] == "32"


def test_rule_2d_a_scale_above_float16_as_well() -> None:
    model = chain()
    told_ = with_pairs(model, c2=(-1e7, 1e7))
    assert {"c2_quantize", "c2_dequantize", "c3"} <= set(to_fp16(model, **told_))
    types(model)


def quiet_chain() -> ir.Model:
    """Two layers in INT8 with nothing but an activation before the next pair, and one whose output is added."""
    model = graph(
        conv("image", "c1"),
        op("Relu", ["c1"], "act"),
        conv("act", "c2"),
        conv("c2", "c3"),
        op("Add", ["c3", "c2"], "sum"),
    )
    with_pairs(model, biases=True, act=(0.0, 8.0))
    for value in model.graph.initializers.values():
        if "_scale" in value.name and value.const_value.shape.rank():
            value.const_value = ir.tensor(value.const_value.numpy() / 500)  # far below 1, as in a trained network
    return model


def test_rule_2e_int8_layers_up_to_the_next_pair_stay_float32() -> None:
    model = quiet_chain()
    kept = to_fp16(model)
    assert {"c1", "act", "act_quantize"} <= set(kept)
    assert not {"c2", "c3", "sum"} & set(kept)  # "c2" is read by a sum too, so its output is no integer
    assert types(model)["c1"] == "32"
    layer = node(model, "c1")
    assert {value.producer().op_type for value in layer.inputs[:2]} == {"DequantizeLinear"}


@pytest.mark.parametrize("without", ["bias", "integers"])
def test_rule_2e_is_for_int8_layers_with_a_bias(without: str) -> None:
    model = graph(conv("image", "c1"), op("Relu", ["c1"], "act"), conv("act", "c2"))
    weight = node(model, "c1").inputs[1]
    with_pairs(model, biases=without != "bias")
    if without == "integers":
        model.graph.register_initializer(weight)
        node(model, "c1").replace_input_with(1, weight)
    assert "c1" not in to_fp16(model)


def test_rule_2e_onnx_runtime_s_optimizer_leaves_the_answers_as_they_are() -> None:
    model = quiet_chain()
    to_fp16(model)
    content = ir.to_proto(model).SerializeToString()
    image = np.random.default_rng(1).uniform(-1, 1, (1, 16, 4, 4)).astype(np.float32)
    plain, optimized = (
        export.session(content, optimize=optimize).run(None, {"image": image})[0] for optimize in (False, True)
    )
    assert np.abs(optimized - plain).max() < 0.01 * np.abs(plain).max()


def test_rule_5_with_pairs_the_scales_are_float16_and_the_opset_is_19() -> None:
    model = network()
    with_pairs(model)
    to_fp16(model)
    scales = [n.inputs[1].const_value for n in model.graph if n.op_type.endswith("Linear")]
    assert {s.dtype for s in scales} == {ir.DataType.FLOAT16}
    assert (model.graph.opset_imports[""], model.ir_version) == (19, 9)


def test_rule_5_without_pairs_the_opset_stays() -> None:
    model = network()
    to_fp16(model)
    assert (model.graph.opset_imports[""], model.ir_version) == (17, 8)


def test_scales_stay_above_zero() -> None:
    model = network()
    model.graph.initializers["c1_w"].const_value = ir.tensor(np.full((16, 16, 1, 1), 1e-9, np.float32))
    with_pairs(model)
    to_fp16(model)
    assert model.graph.initializers["c1_w_scale"].const_value.numpy().min() > 0


def test_a_weight_is_not_taken_for_a_scale_by_its_name() -> None:
    arrays = {"layer_scale": np.full((1, 16, 1, 1), -0.5, np.float32)}
    model = graph(op("Mul", ["image", "layer_scale"], "out"), extra=arrays)
    to_fp16(model)
    assert model.graph.initializers["layer_scale"].const_value.numpy().max() == -0.5


def test_rule_5_a_mean_carries_its_axes_as_its_opset_wants_them() -> None:
    model = graph(conv("image", "c1"), op("ReduceMean", ["c1"], "mean", axes=[2, 3], keepdims=0))
    expected = run(model)
    told_ = with_pairs(model, biases=True)
    to_fp16(model, **told_)
    assert run(model) == pytest.approx(expected, abs=0.05)
    plain = graph(conv("image", "c1"), op("ReduceMean", ["c1"], "mean", axes=[2, 3], keepdims=0))
    expected = run(plain)
    to_fp16(plain)
    assert plain.graph.opset_imports[""] == 17
    assert run(plain) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("pairs", [False, True])
def test_it_computes_nearly_the_same(pairs: bool) -> None:
    model = network()
    if pairs:
        with_pairs(model)
    expected = run(model)
    to_fp16(model)
    half = run(model)
    assert half.dtype == np.float32
    assert np.abs(half - expected).max() < (0.05 if pairs else 0.005) * np.abs(expected).max()


# End to end -----------------------------------------------------------------------------------


class Loud(nn.Module):
    """A small network whose middle holds values around 1e5, or around 1e-8."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(n, 16, 3, 2, 1) for n in (3, 16, 16))
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            for layer, factor in ((self.first, 1.0), (self.second, gain), (self.third, 1 / gain)):
                nn.init.kaiming_normal_(layer.weight).mul_(factor)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(torch.relu(self.third(middle)).mean((2, 3)))


@dataclass(frozen=True)
class Exported:
    """A `Loud` network as ONNX, what its tensors were seen to hold, and what it answers."""

    path: Path
    table: CalibrationTable
    names: dict[str, str]
    images: torch.Tensor
    expected: np.ndarray


@pytest.fixture(scope="module", params=[1e5, 1e-8], ids=["overflow", "vanish"])
def loud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    folded, images = fold(Loud(request.param).eval(), 32), nets.random_images(32, 32)
    path = tmp_path_factory.mktemp("loud") / "model.fp32.onnx"
    export.export(folded, 32, "weights", path, path.with_name("dynamic.onnx"))
    names = naming.name_exported(
        calibrate.run_all(folded, images[:1]), {}, {}, export.run_all(path, images[:1].numpy())
    ).tensors
    with torch.inference_mode():
        return Exported(path, nets.observe(folded, images), names, images, folded(images).numpy())


@pytest.mark.parametrize("pairs", [False, True], ids=["fp16", "int8"])
def test_a_network_that_float16_alone_would_ruin(loud: Exported, tmp_path: Path, pairs: bool) -> None:
    half, table, names, images = tmp_path / "half.onnx", loud.table, loud.names, loud.images
    for arguments in ((), (table, names)):
        model = ir.load(loud.path)
        if pairs:
            with_pairs(model, {name: (table.ranges[n].low, table.ranges[n].high) for name, n in names.items()}, True)
        kept = to_fp16(model, *arguments)
        export.save(model, half)
        assert rtx.build(half)
        exact = nets.relative_error(run_exactly(half, images[:4]), loud.expected[:4])
        if not arguments:
            assert not exact < 0.5
    least = 0.1 if pairs else 3e-3
    assert exact < least
    assert nets.relative_error(nets.run_onnx(half, images, optimize=False), loud.expected) < least
    assert 0 < len(kept) < len(list(model.graph)) / 2


def run_exactly(path: Path, images: torch.Tensor) -> np.ndarray:
    """The outputs with every float16 tensor rounded: ONNX Runtime's CPU computes a chain of them in float32."""
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))
    with np.errstate(all="ignore"):
        return np.concatenate([session.run(None, {"image": image[None].numpy()})[0] for image in images])


class Enlarged(nn.Module):
    """Attention at half the resolution, as in GhostNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        gate = torch.sigmoid(self.gate(nn.functional.avg_pool2d(x, 2, 2)))
        return self.head((x * nn.functional.interpolate(gate, size=x.shape[-2:])).mean((2, 3)))


def test_a_network_that_enlarges_a_tensor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folded, images = fold(Enlarged().eval(), 32), nets.random_images(8, 32)
    export.export(folded, 32, "weights", tmp_path / "float.onnx", tmp_path / "dynamic.onnx")
    model = ir.load(tmp_path / "float.onnx")
    assert any("Resize" in name for name in to_fp16(model))
    export.save(model, tmp_path / "half.onnx")
    got = nets.run_onnx(tmp_path / "half.onnx", images)
    with torch.inference_mode():
        assert nets.relative_error(got, folded(images).numpy()) < 5e-3

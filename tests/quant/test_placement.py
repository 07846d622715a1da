"""Which tensors hold integers: the rules of `placement` one by one, and the same answer as the ONNX emitter's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgekit.convert import onnx
from edgekit.convert.fold import fold
from edgekit.models import build
from edgekit.quant import placement, qdq
from edgekit.quant.naming import tensor_names
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME
from tests.nets import naming, observe, plain, random_images, settle


class Net(nn.Module):
    """A float stem, a depthwise convolution behind it, another one behind an INT8 one, a residual, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.act = nn.ReLU6()
        self.first = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.act2 = nn.ReLU()
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.first(self.act(self.stem(x))))
        x = self.act2(self.point(x))
        return self.head(torch.flatten(self.pool(x + self.second(x)), 1))


class Gated(nn.Module):
    """Squeeze-and-excitation, and a SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)
        self.silu = nn.SiLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(16, 16, 1)
        self.gate = nn.Sigmoid()
        self.last = nn.Conv2d(16, 8, 1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.silu(self.conv(x))
        return self.last(self.gate(self.reduce(self.pool(x))) * x + 1)


NET, GATED = fold(Net()), fold(Gated())


def test_litert_rounds_every_tensor_but_what_a_fused_activation_takes() -> None:
    """Rule 1: not "stem", "first" and "point"."""
    expected = {"image", "act", "act:2", "act2", "second", "add", "pool", "flatten", "head"}
    assert placement.quantized_tensors(NET, LITERT_SCHEME) == expected


def test_an_activation_that_is_not_fused_is_rounded_on_both_sides() -> None:
    every = set(tensor_names(GATED.graph).values())
    assert placement.quantized_tensors(GATED, LITERT_SCHEME) == every
    assert {"conv", "reduce", "gate"} < every


def test_a_tensor_that_something_else_reads_too_is_rounded_before_its_activation() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.last = nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.last(self.act(x) + x)

    assert placement.quantized_tensors(fold(Shared()), LITERT_SCHEME) == {"image", "conv", "act", "add", "last"}


def test_tensorrt_rounds_what_int8_layers_read() -> None:
    """Rule 2: not the image (3 channels), nor what the depthwise convolution behind a float one reads."""
    assert placement.quantized_tensors(NET, TENSORRT_SCHEME) == {"act:2", "act2", "flatten"}


def test_tensorrt_rounds_both_sides_of_a_channel_gate() -> None:
    """Rule 2, squeeze-and-excitation: a gate by name, and what it scales; the SiLU's product is none."""
    chosen = placement.quantized_tensors(GATED, TENSORRT_SCHEME)
    names = tensor_names(GATED.graph)
    product = next(n for n in GATED.graph.nodes if names.get(n) == "gate").users
    sides = {names[source] for user in product for source in user.all_input_nodes}
    assert "gate" in sides
    assert sides <= chosen
    silu = {names[n] for n in GATED.graph.nodes if n.target is torch.sigmoid}
    assert not silu & chosen


def test_a_tensor_that_only_float_layers_read_stays_float() -> None:
    """Rule 3, in both schemes; one that something else reads too does not."""
    for scheme in (LITERT_SCHEME, TENSORRT_SCHEME):
        before = placement.quantized_tensors(NET, scheme)
        assert before - placement.quantized_tensors(NET, scheme, ("point",)) == {"act:2"}
        assert before - placement.quantized_tensors(NET, scheme, ("head",)) == {"flatten"}
    assert "act2" in placement.quantized_tensors(NET, LITERT_SCHEME, ("second",))  # the residual reads it
    assert "act2" not in placement.quantized_tensors(NET, TENSORRT_SCHEME, ("second",))


@pytest.mark.parametrize(
    ("outputs", "inputs", "groups", "runs"),
    [
        (16, 16, 1, True),
        (17, 19, 1, True),
        (16, 3, 1, False),
        (15, 16, 1, False),
        (8, 8, 1, True),
        (8, 24, 1, True),
        (8, 12, 1, False),
        (24, 24, 24, True),
        (20, 20, 20, False),
        (8, 8, 8, True),
        (1, 1, 1, False),
    ],
)
def test_which_convolutions_run_in_int8(outputs: int, inputs: int, groups: int, runs: bool) -> None:
    assert placement.conv_runs_in_int8(outputs, inputs, groups) is runs


def test_a_depthwise_convolution_behind_a_float_one_stays_float_in_tensorrt_alone() -> None:
    layers = placement.layers(NET)
    runs = {name: placement.runs_in_int8(NET, node, TENSORRT_SCHEME) for name, (node, _) in layers.items()}
    assert runs == {"stem": False, "first": False, "point": True, "second": True, "head": True}
    assert all(placement.runs_in_int8(NET, node, LITERT_SCHEME) for node, _ in layers.values())


def test_layers_come_in_order_with_the_weights_they_have() -> None:
    trained = placement.trained_weights(NET)
    assert list(trained) == list(placement.layers(NET)) == ["stem", "first", "point", "second", "head"]
    assert np.array_equal(trained["point"].weight, NET.get_submodule("point").weight)
    assert trained["point"].scales is None


def test_a_tensor_is_written_by_a_layer_or_its_fused_activation() -> None:
    written = placement.written_by(NET)
    layers = {name: name for name in placement.layers(NET)}
    assert written == {**layers, "act": "stem", "act:2": "first", "act2": "point"}
    assert placement.written_by(GATED).keys() == placement.layers(GATED).keys()


AGREEING = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")


@pytest.fixture(scope="module", params=[pytest.param(a, marks=pytest.mark.xdist_group(a)) for a in AGREEING])
def emitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A network's folded graph, its INT8 ONNX graph, the nodes in INT8, and what its tensors are in torch."""
    torch.manual_seed(0)
    images = random_images(16, 64)
    folded = fold(settle(build.build(request.param, 10, 64), images), 64)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    onnx.export(folded, 64, "weights", path, path.with_name("dynamic.onnx"))
    graph = ir.load(path)
    names = naming(folded, onnx.run_all(path, images[:1].numpy()), images)
    return folded, graph, qdq.quantize(graph, plain(folded, observe(folded, images)), names), names


@pytest.mark.slow
def test_torch_and_onnx_agree_on_which_layers_run_in_int8(emitted) -> None:
    folded, graph, nodes, names = emitted
    written = {str(node.name): names.layers.get(str(node.outputs[0].name)) for node in graph.graph}
    layers = placement.layers(folded)
    expected = [name for name, (node, _) in layers.items() if placement.runs_in_int8(folded, node, TENSORRT_SCHEME)]
    assert sorted(str(written[node]) for node in nodes) == sorted(expected)
    assert 0 < len(nodes) < len(layers)


@pytest.mark.slow
def test_torch_and_onnx_agree_on_which_tensors_are_rounded(emitted) -> None:
    """All but the shortcuts of residual Adds, which `quantized_tensors` says that it leaves out."""
    folded, graph, _, names = emitted
    torch_names = tensor_names(folded.graph)
    flat = {torch_names[n]: torch_names[n.all_input_nodes[0]] for n in folded.graph.nodes if n.target is torch.flatten}
    expected = {flat.get(name, name) for name in placement.quantized_tensors(folded, TENSORRT_SCHEME)}
    found = {}
    for node in graph.graph:
        if node.op_type == "QuantizeLinear":
            (dequantize,) = node.outputs[0].consumers()
            known = names.tensors[str(node.outputs[0].name).removesuffix("_int8")]
            found[flat.get(known, known)] = {use.node.op_type for use in dequantize.outputs[0].uses()}
    assert expected <= set(found)
    assert all(readers == {"Add"} for name, readers in found.items() if name not in expected)


@pytest.mark.slow
def test_torch_and_onnx_agree_on_which_tensors_are_shifted(emitted) -> None:
    folded, graph, _, names = emitted
    torch_names = tensor_names(folded.graph)
    flat = {torch_names[n]: torch_names[n.all_input_nodes[0]] for n in folded.graph.nodes if n.target is torch.flatten}
    grids = placement.place(folded, observe(folded, random_images(16, 64)), TENSORRT_SCHEME).rounded
    expected = {flat.get(name, name): grid.scale for name, grid in grids.items()}
    found = {}
    for node in graph.graph:
        if node.op_type == "QuantizeLinear":
            known = names.tensors[str(node.outputs[0].name).removesuffix("_int8")]
            found[flat.get(known, known)] = float(node.inputs[1].const_value.numpy())
    assert {name: scale for name, scale in found.items() if name in expected} == expected
    assert any(grid.zero_point for grid in grids.values())

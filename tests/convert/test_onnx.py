"""FP32 ONNX: what `lower` rewrites and refuses, and that the files compute what torch does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekit.convert import onnx as export_onnx
from edgekit.convert.fold import fold
from edgekit.errors import EdgekitError, ParityError
from edgekit.files import sha256_file
from edgekit.records import OnnxModel
from tests.nets import random_images, relative_error

pytestmark = pytest.mark.xdist_group("onnx")
SIZE = 16


def network() -> nn.Module:
    """A convolution, SiLU, the mean over height and width, a head."""
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(8, 5)).eval()


@dataclass(frozen=True)
class Exported:
    model: nn.Module
    record: OnnxModel
    dynamic: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model, folder = network(), tmp_path_factory.mktemp("onnx")
    record = export_onnx.export(fold(model), SIZE, "weights", folder / "static.onnx", folder / "dynamic.onnx")
    return Exported(model, record, folder / "dynamic.onnx")


def reduce_mean(axes: list[int], keepdims: int = 1) -> ir.Model:
    """A graph of one ReduceMean, in opset 18."""
    node = helper.make_node("ReduceMean", ["image", "axes"], ["scores"], name="mean", keepdims=keepdims)
    return model_of(node, {"axes": np.array(axes, np.int64)})


def model_of(node: onnx.NodeProto, arrays: dict[str, np.ndarray] | None = None) -> ir.Model:
    image, scores = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3, 4, 4]) for n in ("image", "scores"))
    initializers = [numpy_helper.from_array(array, name) for name, array in (arrays or {}).items()]
    graph = helper.make_graph([node], "g", [image], [scores], initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def test_both_files_declare_opset_17_and_its_ir_version(exported: Exported) -> None:
    for path in (exported.record.path, exported.dynamic):
        proto = onnx.load(path)
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", 17)]
        assert proto.ir_version == 8
        onnx.checker.check_model(proto, full_check=True)


def test_names_types_and_shapes_of_input_and_output(exported: Exported) -> None:
    graph = onnx.load(exported.record.path).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
    assert shapes == {"image": [1, 3, SIZE, SIZE], "scores": [1, 5]}
    assert onnx.load(exported.dynamic).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_record_leads_from_the_file_to_the_checkpoint(exported: Exported) -> None:
    assert exported.record == OnnxModel(exported.record.path, 17, sha256_file(exported.record.path), "weights")


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_dynamic_file_runs_with_any_batch(exported: Exported, batch: int) -> None:
    images = random_images(batch, SIZE)
    (got,) = export_onnx.session(exported.dynamic).run(None, {"image": images.numpy()})
    assert relative_error(got, exported.model(images).detach().numpy()) < 1e-4


def test_static_file_refuses_another_batch(exported: Exported) -> None:
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        export_onnx.session(exported.record.path).run(None, {"image": random_images(2, SIZE).numpy()})


def test_files_are_self_contained(exported: Exported) -> None:
    assert sorted(p.name for p in exported.dynamic.parent.iterdir()) == ["dynamic.onnx", "static.onnx"]
    assert not any(i.external_data for i in onnx.load(exported.dynamic, load_external_data=False).graph.initializer)


def test_a_model_over_the_limit_is_refused(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "MAX_BYTES", 100)
    with pytest.raises(EdgekitError, match="2 GB"):
        export_onnx.save(ir.load(exported.dynamic), tmp_path / "big.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, 2]])
def test_rule_1_a_mean_over_height_and_width_becomes_a_global_pool(axes: list[int]) -> None:
    model = reduce_mean(axes)
    export_onnx.lower(model)
    assert [node.op_type for node in model.graph] == ["GlobalAveragePool"]
    assert model.graph.outputs[0].name == "scores"
    assert not model.graph.initializers


@pytest.mark.parametrize(("axes", "keepdims"), [([1], 1), ([1, 2], 1), ([-1], 0), ([1, 2, 3], 1), ([2, 3], 0)])
def test_rule_1_any_other_mean_carries_its_axes_as_an_attribute(axes: list[int], keepdims: int) -> None:
    model = reduce_mean(axes, keepdims)
    export_onnx.lower(model)
    (node,) = model.graph
    assert (node.op_type, len(node.inputs)) == ("ReduceMean", 1)
    assert node.attributes["axes"].as_ints() == tuple(sorted(axes))
    assert node.attributes["keepdims"].as_int() == keepdims
    images = random_images(2, 4).numpy()
    expected = images.mean(tuple(axes), keepdims=bool(keepdims))
    model.graph.outputs[0].shape = ir.Shape(expected.shape)  # it was the image's
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    (got,) = export_onnx.session(proto.SerializeToString()).run(None, {"image": images})
    assert np.allclose(got, expected, atol=1e-6)


def test_rule_1_a_mean_over_computed_axes_is_refused() -> None:
    node = helper.make_node("ReduceMean", ["image"], ["scores"], name="mean")
    with pytest.raises(EdgekitError, match="axes of a mean must be constant"):
        export_onnx.lower(model_of(node))


@pytest.mark.parametrize(("kind", "function"), [("ReduceMax", np.max), ("ReduceMin", np.min), ("ReduceL2", None)])
def test_rule_1_other_reductions_carry_their_axes_as_an_attribute(kind: str, function: object) -> None:
    node = helper.make_node(kind, ["image", "axes"], ["scores"], name="reduction", keepdims=1)
    model = model_of(node, {"axes": np.array([1], np.int64)})
    export_onnx.lower(model)
    images = random_images(2, 4).numpy()
    expected = function(images, 1, keepdims=True) if function else np.linalg.norm(images, axis=1, keepdims=True)
    model.graph.outputs[0].shape = ir.Shape(expected.shape)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    (got,) = export_onnx.session(proto.SerializeToString()).run(None, {"image": images})
    assert np.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(("antialias", "kept"), [(0, True), (1, False)])
def test_rule_1_a_resize_loses_what_is_new_in_18_if_it_has_no_effect(antialias: int, kept: bool) -> None:
    node = helper.make_node(
        "Resize", ["image", "", "scales"], ["scores"], "the node", mode="linear", antialias=antialias
    )
    model = model_of(node, {"scales": np.array([1, 1, 1, 1], np.float32)})
    if not kept:
        with pytest.raises(EdgekitError, match="the node: edgekit does not know whether Resize means"):
            export_onnx.lower(model)
        return
    export_onnx.lower(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize(("kind", "batch"), [("Reshape", -1), ("Expand", 1)])
def test_rule_5_sizes_that_depend_on_the_batch_become_constants(kind: str, batch: int) -> None:
    """Shape -> Slice -> Concat -> Reshape, as torch writes it."""
    model = model_of(helper.make_node("Relu", ["image"], ["unused"]))
    graph = model.graph
    image, scores = graph.inputs[0], ir.Value(name="s", shape=ir.Shape(["batch", 3, 4, 4]), type=image_type(graph))
    sizes = ir.node("Shape", [image])
    node = ir.Node("", kind, [image, sizes.outputs[0]], outputs=[scores])
    graph.extend([sizes, node])
    graph.outputs[0] = scores
    image.shape = ir.Shape(["batch", 3, 4, 4])
    export_onnx.lower(model)
    assert [n.op_type for n in graph] == [kind]
    assert ir.convenience.get_const_tensor(node.inputs[1]).numpy().tolist() == [batch, 3, 4, 4]


def image_type(graph: ir.Graph) -> ir.TypeProtocol:
    assert graph.inputs[0].type is not None
    return graph.inputs[0].type


def test_rule_2_the_batch_is_called_batch_and_inner_shapes_are_dropped(exported: Exported) -> None:
    model = reduce_mean([2, 3])
    export_onnx.lower(model)
    assert [str(v.shape[0]) for v in (*model.graph.inputs, *model.graph.outputs)] == ["batch", "batch"]
    assert not onnx.load(exported.record.path).graph.value_info


@pytest.mark.parametrize("kind", ["Gelu", "Split", "NonZero", "ScatterND", "Shape"])
def test_rule_3_an_operator_that_may_have_changed_is_refused_by_name(kind: str) -> None:
    model = model_of(helper.make_node(kind, ["image"], ["scores"], name="the node"))
    with pytest.raises(EdgekitError, match=f"the node: edgekit does not know whether {kind} means") as caught:
        export_onnx.lower(model)
    assert "Conv" in caught.value.hint


def test_rule_3_padding_of_some_axes_only_is_refused() -> None:
    """Opset 17 has no axes."""
    node = helper.make_node("Pad", ["image", "pads", "", "axes"], ["scores"], name="the node")
    arrays = {"pads": np.array([0, 0], np.int64), "axes": np.array([1], np.int64)}
    with pytest.raises(EdgekitError, match="the node: edgekit does not know whether Pad means"):
        export_onnx.lower(model_of(node, arrays))


def test_nodes_that_nothing_reads_are_left_out() -> None:
    model = model_of(helper.make_node("Relu", ["image"], ["scores"], name="read"))
    model.graph.append(ir.node("Shape", [model.graph.inputs[0]], name="unread"))
    export_onnx.lower(model)
    assert [node.op_type for node in model.graph] == ["Relu"]


class Tokens(nn.Module):
    """A Linear over three dimensions, whose weights torch transposes and renames."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp, self.head = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 2)
        self.patches = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(torch.flatten(self.patches(x), 2).transpose(1, 2))
        return self.head(self.mlp(tokens)[:, 0])


def test_a_product_whose_weights_lost_their_name_is_called_as_its_module(tmp_path: Path) -> None:
    export_onnx.export(fold(Tokens().eval(), 32), 32, "parent", tmp_path / "s.onnx", tmp_path / "d.onnx")
    nodes = {node.name: node.op_type for node in onnx.load(tmp_path / "s.onnx").graph.node}
    assert (nodes["mlp.0"], nodes["mlp.0/Relu"], nodes["norm"]) == ("MatMul", "Relu", "LayerNormalization")


def test_nodes_are_called_as_the_modules_of_the_network(tmp_path: Path) -> None:
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1), nn.ReLU())
    model = fold(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    )
    export_onnx.export(model, 32, "parent", tmp_path / "static.onnx", tmp_path / "dynamic.onnx")
    names = [node.name for node in onnx.load(tmp_path / "static.onnx").graph.node]
    assert names == ["0", "0/Relu", "2.0", "2.0/Clip", "2.2", "2.2/Relu", "2.2/GlobalAveragePool", "2.2/Reshape", "5"]


def test_every_operator_that_is_let_through_means_the_same_in_both_opsets() -> None:
    for kind in export_onnx._SAME_IN_17 - {"Pad"}:  # rule 4 looks at its inputs
        newest, declared = (onnx.defs.get_schema(kind, opset, "") for opset in (18, export_onnx.OPSET))
        assert newest.since_version == declared.since_version


def test_a_network_with_such_an_operator_leaves_no_file(tmp_path: Path) -> None:
    model = fold(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardshrink(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(EdgekitError, match=r"does not know whether \w+ means the same"):
        export_onnx.export(model, SIZE, "weights", tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [1.0, float("nan")])
def test_other_weights_are_a_parity_error(exported: Exported, bad: float) -> None:
    changed = fold(exported.model)
    changed.get_submodule("5").weight.data[0, 0] += bad
    with pytest.raises(ParityError, match=r"dynamic.onnx disagrees with torch"):
        export_onnx.check_parity(changed, exported.dynamic, SIZE, 3)


def test_parity_of_the_same_weights_is_far_below_the_limit(exported: Exported) -> None:
    assert export_onnx.check_parity(fold(exported.model), exported.dynamic, SIZE, 3) < export_onnx.PARITY / 10


def test_run_all_gives_inner_tensors_and_the_output(exported: Exported) -> None:
    images = random_images(1, SIZE)
    tensors = export_onnx.run_all(exported.record.path, images.numpy())
    assert np.array_equal(tensors["image"], images.numpy())
    assert (1, 8, SIZE - 2, SIZE - 2) in {tensor.shape for tensor in tensors.values()}
    assert relative_error(tensors["scores"], exported.model(images).detach().numpy()) < 1e-4


def test_a_file_of_batch_1_becomes_one_of_another_batch(tmp_path: Path) -> None:
    model = fold(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    export_onnx.export(model, 32, "parent", tmp_path / "static.onnx", tmp_path / "dynamic.onnx")
    runtime = export_onnx.session(export_onnx.with_batch(tmp_path / "static.onnx", 3))
    assert [value.shape for value in (*runtime.get_inputs(), *runtime.get_outputs())] == [[3, 3, 32, 32], [3, 2]]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ReduceMean", ["image"], ["scores"], axes=[0, 2, 3], keepdims=0),  # one row for all
        helper.make_node("Softmax", ["image"], ["scores"], axis=0),  # each image depends on the others
    ],
)
def test_a_network_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path, node: onnx.NodeProto) -> None:
    shape = [1, 3, 4, 4] if node.op_type == "Softmax" else [3]
    image, scores = (
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
        for n, s in (("image", [1, 3, 4, 4]), ("scores", shape))
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", [image], [scores]), opset_imports=opset, ir_version=8),
        tmp_path / "m.onnx",
    )
    with pytest.raises(EdgekitError, match="batches of 2"):
        export_onnx.with_batch(tmp_path / "m.onnx", 2)


def test_a_batch_for_which_memory_is_too_short_is_not_blamed_on_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 4294967296")

    node = helper.make_node("Relu", ["image"], ["scores"])
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3]) for n in ("image", "scores")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(export_onnx, "session", lambda *_, **__: Full())
    with pytest.raises(EdgekitError, match=r"out of memory while running m\.onnx in batches of 2"):
        export_onnx.with_batch(tmp_path / "m.onnx", 2)

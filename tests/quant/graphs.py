"""Hand-made ONNX graphs, quantized with a range of [-1, 1] for every tensor."""

from __future__ import annotations

import operator
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import fx, nn

from edgekit.quant import affine, placement, qdq
from edgekit.quant.naming import Naming, tensor_names
from edgekit.quantization import LayerWeights, QuantizedModel
from tests.nets import table_of

RNG = np.random.default_rng(0)


def conv(source: str, target: str, inputs: int = 16, outputs: int = 16, group: int = 1) -> tuple[NodeProto, dict]:
    """A 1x1 Conv named after its output, with its weight and bias."""
    weight = RNG.normal(size=(outputs, inputs // group, 1, 1)).astype(np.float32)
    arrays = {f"{target}_w": weight, f"{target}_b": RNG.normal(size=outputs).astype(np.float32)}
    node = helper.make_node("Conv", [source, *arrays], [target], name=target, group=group)
    return node, arrays


def gemm(source: str, target: str, inputs: int = 16, outputs: int = 10) -> tuple[NodeProto, dict]:
    """A Gemm as torch writes it (transB=1)."""
    arrays = {
        f"{target}_w": RNG.normal(size=(outputs, inputs)).astype(np.float32),
        f"{target}_b": RNG.normal(size=outputs).astype(np.float32),
    }
    return helper.make_node("Gemm", [source, *arrays], [target], name=target, transB=1), arrays


def op(kind: str, sources: list[str], target: str, **attributes: object) -> tuple[NodeProto, dict]:
    """Any other node."""
    return helper.make_node(kind, sources, [target], name=target, **attributes), {}


def graph(*parts: tuple[NodeProto, dict], channels: int = 16, extra: dict | None = None, side: int = 4) -> ir.Model:
    """A model from (node, arrays): input ``image`` (1, channels, side, side), output of the last node."""
    arrays = {**{k: v for _, held in parts for k, v in held.items()}, **(extra or {})}
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, side, side])
    last = helper.make_tensor_value_info(parts[-1][0].output[0], TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    proto = helper.make_graph([node for node, _ in parts], "g", [image], [last], initializers)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    del model.graph.value_info[:]
    return ir.from_proto(model)


def layers_of(model: ir.Model) -> dict[str, LayerWeights]:
    """Every Conv and Gemm with a constant weight, by its name, rounded to nearest."""
    found = {}
    for each in model.graph:
        if each.op_type in ("Conv", "Gemm") and each.inputs[1].const_value is not None:
            arrays = [v.const_value.numpy() for v in each.inputs[1:]]
            scales = affine.weight_scales(arrays[0], None, 1.0)
            exact = LayerWeights(arrays[0], arrays[1] if len(arrays) > 1 else None, scales)
            rounded = exact.integers * scales.reshape(-1, *[1] * (arrays[0].ndim - 1))
            found[each.name] = replace(exact, weight=rounded)
    return found


class Folded:
    """The torch graph of a hand-made ONNX graph, built node by node.

    Attributes:
        graph: with the geometry of the ONNX graph; the weights of its layers are not those.
        names: ONNX tensor -> its name in the torch graph.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model, self.traced = model, fx.Graph()
        self.modules = nn.Module()
        self.nodes = {"image": self.traced.placeholder("image")}
        for each in model.graph:
            self.nodes[each.outputs[0].name] = self._add(each)
        self.traced.output(self.nodes[model.graph.outputs[0].name])
        self.graph = fx.GraphModule(self.modules, self.traced)
        torch_names = tensor_names(self.graph.graph)
        for theirs, ours in zip(self.nodes, (n for n in self.graph.graph.nodes if n.op != "output"), strict=True):
            self.nodes[theirs] = ours
        self.names = {theirs: torch_names[ours] for theirs, ours in self.nodes.items()}

    def _add(self, each: ir.Node) -> fx.Node:
        sources = [self.nodes[v.name] for v in each.inputs if v is not None and v.name in self.nodes]
        calls = {"Add": operator.add, "Mul": operator.mul, "Concat": torch.cat}
        if each.op_type in calls:
            arguments = ((tuple(sources), 1),) if each.op_type == "Concat" else (*sources, 1.0)[:2]
            return self.traced.call_function(calls[each.op_type], tuple(arguments))
        self.modules.add_module(each.outputs[0].name, self._module(each))
        return self.traced.call_module(each.outputs[0].name, (sources[0],))

    def _module(self, each: ir.Node) -> nn.Module:
        if each.op_type == "Conv":
            outputs, inputs = each.inputs[1].const_value.numpy().shape[:2]
            groups = each.attributes["group"].as_int()
            padding = max(each.attributes["pads"].as_ints()) if "pads" in each.attributes else 0
            return nn.Conv2d(inputs * groups, outputs, 1, padding=padding, groups=groups)
        if each.op_type == "Gemm":
            return nn.Linear(1, 1)
        return {
            "Relu": nn.ReLU(),
            "Clip": nn.ReLU6(),
            "HardSwish": nn.Hardswish(),
            "Sigmoid": nn.Sigmoid(),
            "HardSigmoid": nn.Hardsigmoid(),
            "GlobalAveragePool": nn.AdaptiveAvgPool2d(1),
            "Flatten": nn.Flatten(),
            "Pad": nn.ZeroPad2d(0),
            "MaxPool": nn.MaxPool2d(2),
        }[each.op_type]


def quantized_of(
    model: ir.Model, symmetric: bool = False, layers: dict[str, LayerWeights] | None = None, **ranges: tuple
) -> QuantizedModel:
    """The model with the table that is given, or a range of [-1, 1] for every tensor; some layers may be replaced."""
    folded = Folded(model)
    table = table_of(**{folded.names.get(n, n): span for n, span in ranges.items()})
    if not ranges:
        table = table_of(**dict.fromkeys(folded.names.values(), (-1.0, 1.0)))
    carried = {**layers_of(model), **(layers or {})}
    return placement.quantized_model(folded.graph, table, carried, symmetric)


def naming_of(model: ir.Model, tensors: dict[str, str] | None = None) -> Naming:
    """Every tensor under its name in torch, every layer under its own."""
    names = Folded(model).names
    return Naming(names if tensors is None else tensors, {name: name for name in names})


def quantize(model: ir.Model, **layers: LayerWeights) -> list[str]:
    """Run the pass under test; every tensor has the range [-1, 1], some layers other weights."""
    nodes = qdq.quantize(model, quantized_of(model, layers=layers), naming_of(model))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return nodes


def node(model: ir.Model, name: str) -> ir.Node:
    return next(n for n in model.graph if n.name == name)


def paired(model: ir.Model, name: str) -> list[int]:
    """Which inputs of a node come from an activation through QuantizeLinear and DequantizeLinear."""
    return [
        index
        for index, value in enumerate(node(model, name).inputs)
        if (dq := value.producer()) is not None
        and dq.op_type == "DequantizeLinear"
        and (q := dq.inputs[0].producer()) is not None
        and q.op_type == "QuantizeLinear"
    ]

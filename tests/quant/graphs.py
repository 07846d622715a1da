"""Hand-made ONNX graphs, quantized with a range of [-1, 1] for every tensor."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgekit.quant import affine, qdq
from edgekit.quant.naming import Naming
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


def graph(*parts: tuple[NodeProto, dict], channels: int = 16, extra: dict | None = None) -> ir.Model:
    """A model from (node, arrays): input ``image`` (1, channels, 4, 4), output of the last node."""
    arrays = {**{k: v for _, held in parts for k, v in held.items()}, **(extra or {})}
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, 4, 4])
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
            shape = (-1, *[1] * (arrays[0].ndim - 1))
            rounded = affine.quantize_weight(arrays[0], scales) * scales.reshape(shape)
            found[each.name] = LayerWeights(rounded, arrays[1] if len(arrays) > 1 else None, scales)
    return found


def quantized_of(model: ir.Model, **ranges: tuple[float, float]) -> QuantizedModel:
    """The model with the table that is given, or a range of [-1, 1] for every tensor."""
    tensors = ["image", *(node.outputs[0].name for node in model.graph)]
    return QuantizedModel(table_of(**(ranges or dict.fromkeys(tensors, (-1.0, 1.0)))), layers_of(model))


def naming_of(model: ir.Model, tensors: dict[str, str] | None = None) -> Naming:
    """Every tensor and layer under its own name."""
    own = {t: t for t in ["image", *(node.outputs[0].name for node in model.graph)]}
    return Naming(own if tensors is None else tensors, own)


def quantize(model: ir.Model, **layers: LayerWeights) -> list[str]:
    """Run the pass under test; every tensor has the range [-1, 1], some layers other weights."""
    quantized = quantized_of(model)
    nodes = qdq.quantize(model, QuantizedModel(quantized.table, {**quantized.layers, **layers}), naming_of(model))
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

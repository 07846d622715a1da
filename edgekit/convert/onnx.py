"""Export of the folded torch graph to FP32 ONNX that TensorRT 8.5 to 11 and ONNX Runtime read."""

from __future__ import annotations

import ast
import itertools
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import fx

from edgekit import files
from edgekit.errors import EdgekitError, ParityError, is_out_of_memory, out_of_memory
from edgekit.records import OnnxModel

# TensorRT 8.5 supports opset 17. Every operator left after `lower` means the same in 17.
OPSET = 17
_EXPORT_OPSET = 18  # the lowest that torch's exporter supports
_IR_VERSION = 8  # ONNX 1.12: the one that came with opset 17
_SAME_IN_17 = frozenset(
    ("Add", "AveragePool", "Clip", "Concat", "Conv", "Div", "Erf", "Flatten", "Gather", "Gemm", "GlobalAveragePool")
    + ("HardSigmoid", "HardSwish", "LayerNormalization", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape")
    + ("Sigmoid", "Slice", "Softmax", "Transpose")
    + ("Abs", "Cos", "Elu", "Exp", "Expand", "InstanceNormalization", "LeakyRelu", "Log", "LogSoftmax", "Max", "Min")
    + ("Neg", "PRelu", "Pow", "Reciprocal", "ReduceSum", "Sin", "Softplus", "Sqrt", "Squeeze", "Sub", "Tanh")
    + ("Unsqueeze", "Where")
)
# Opset 18 moved the axes of these into an input, which TensorRT 8.5 would ignore.
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
_RESIZE_OF_18 = {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}  # new attributes of Resize and their defaults
_PAD_INPUTS = 3  # opset 18 added the axes as a fourth
MAX_BYTES = 2**31 - 1
PARITY = 1e-3  # largest difference from torch, relative to the largest logit


def export(folded: fx.GraphModule, image_size: int, parent: str, static: Path, dynamic: Path) -> OnnxModel:
    """Write the model twice: batch 1 to `static`, any batch to `dynamic`, both checked against torch.

    Input ``image`` float32 (N, 3, image_size, image_size), output ``scores`` float32 (N, classes).

    Args:
        parent: sha256 of the checkpoint.
    Raises:
        EdgekitError: an operator that TensorRT 8.5 would read differently, or a model over 2 GB.
        ParityError: the file disagrees with torch.
    """
    model = _trace(folded, image_size)
    lower(model)
    for path, batch in ((dynamic, None), (static, 1)):
        if batch is not None:
            _fix_batch(model, batch)
        save(model, path)
        check_parity(folded, path, image_size, batch or 3)
    return OnnxModel(static, OPSET, files.sha256_file(static), parent)


def _trace(folded: fx.GraphModule, image_size: int) -> ir.Model:
    """Export with torch's own exporter, quietly."""
    example = torch.zeros(2, 3, image_size, image_size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            folded,
            (example,),
            dynamo=True,
            opset_version=_EXPORT_OPSET,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model


def lower(model: ir.Model) -> None:
    """Rewrite a model of opset 18 to opset 17, in place.

    Rules:
    1. ReduceMean over the two spatial axes becomes GlobalAveragePool; over other axes it has them as an
       attribute, and so have other reductions: opset 18 moved them into an input, which TensorRT 8.5 would ignore.
       Resize loses the attributes that are new in 18, if they have no effect.
    2. The batch dimension is named ``batch``; intermediate shapes are removed (runtimes infer them).
    3. Nodes are named after the network's modules: the node with the weight is ``features.1.conv.0``, the next one
       ``features.1.conv.0/Clip``, so that profiles of every runtime are readable. Weights that torch transposed
       (of a Linear over more than two dimensions) have lost their name: there the exporter's module name is used.
    4. Any other operator must be one that, as torch writes it, means the same in opset 17 and 18.
       Only LayerNormalization is as new as 17 (TensorRT supports it from 8.6 on).
    5. Sizes that torch computes from the batch are constants: -1 in a Reshape, 1 in an Expand.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type in ("Reshape", "Expand"):
            _fix_sizes(graph, node)
    RemoveUnusedNodesPass()(model)  # torch leaves unused index arithmetic in the graph
    for node in list(graph):
        if node.op_type in _REDUCTIONS:
            _lower_reduction(graph, node)
        elif node.op_type == "Resize" and _lower_resize(node):
            continue
        elif node.op_type not in _SAME_IN_17 or (node.op_type == "Pad" and len(node.inputs) > _PAD_INPUTS):
            raise EdgekitError(
                f"{node.name}: edgekit does not know whether {node.op_type} means the same in opset {OPSET}",
                f"edgekit exports networks made of {', '.join(sorted(_SAME_IN_17))}",
            )
    _name_nodes(graph)
    for node in graph:
        node.metadata_props.clear()
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name]
    for tensor in (*graph.inputs, *graph.outputs):
        assert tensor.shape is not None
        tensor.shape = ir.Shape(["batch", *tensor.shape[1:]])
    graph.metadata_props.clear()
    graph.opset_imports[""] = OPSET
    model.ir_version = _IR_VERSION
    model.producer_name, model.producer_version = "edgekit", ""


def _name_nodes(graph: ir.Graph) -> None:
    """Apply rule 3."""
    module, taken = "", set()
    for node in graph:
        weights = [v.name or "" for v in node.inputs if v is not None and v.is_initializer()]
        own = next((name.removesuffix(".weight") for name in weights if name.endswith(".weight")), "")
        own = own or (_module_of(node) if weights and node.op_type == "MatMul" else "")
        module = own or module
        wanted = own or f"{module}/{node.op_type}".lstrip("/")
        numbered = (f"{wanted}_{k}" for k in itertools.count(1))
        name = next(n for n in itertools.chain([wanted], numbered) if n not in taken)
        taken.add(name)
        node.name = name


def _module_of(node: ir.Node) -> str:
    """Return the module that torch's exporter made a node for, or "" if it is not recorded."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    except (SyntaxError, ValueError):
        return ""
    return str(scopes[-2]) if len(scopes) > 1 else ""


def _lower_reduction(graph: ir.Graph, node: ir.Node) -> None:
    """Apply rule 1."""
    axes = ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if axes is None:
        raise EdgekitError(f"{node.name}: the axes of a {node.op_type.removeprefix('Reduce').lower()} must be constant")
    kept, over = node.attributes.get("keepdims"), sorted(int(a) for a in axes.numpy())
    keeps, shape = kept is None or bool(kept.as_int()), node.inputs[0].shape if node.inputs[0] else None
    spatial = shape is not None and len(shape) == 4 and sorted(a % 4 for a in over) == [2, 3]
    kind, attributes = (
        ("GlobalAveragePool", {})
        if spatial and keeps and node.op_type == "ReduceMean"
        else (node.op_type, {"axes": over, "keepdims": int(keeps)})
    )
    lowered = ir.node(kind, [node.inputs[0]], attributes, name=node.name)
    lowered.outputs[0].name = node.outputs[0].name
    lowered.outputs[0].shape, lowered.outputs[0].dtype = node.outputs[0].shape, node.outputs[0].dtype
    graph.insert_before(node, lowered)
    ir.convenience.replace_all_uses_with(node.outputs[0], lowered.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _lower_resize(node: ir.Node) -> bool:
    """Take the attributes of opset 18 away; return False if one of them has an effect."""
    if "axes" in node.attributes or any(
        name in node.attributes and node.attributes[name].value != default for name, default in _RESIZE_OF_18.items()
    ):
        return False
    for name in _RESIZE_OF_18:
        node.attributes.pop(name, None)
    return True


def _fix_sizes(graph: ir.Graph, node: ir.Node) -> None:
    """Apply rule 5."""
    sizes, shape = node.inputs[1], node.outputs[0].shape
    if sizes is None or shape is None or ir.convenience.get_const_tensor(sizes) is not None:
        return
    known = [side if isinstance(side, int) else None for side in shape]
    if known.count(None) > 1:
        return
    batch = -1 if node.op_type == "Reshape" else 1
    array = np.array([batch if side is None else side for side in known], np.int64)
    value = ir.Value(name=f"{node.outputs[0].name}_sizes", const_value=ir.tensor(array))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.INT64
    graph.register_initializer(value)
    node.replace_input_with(1, value)


def _fix_batch(model: ir.Model, batch: int) -> None:
    """Set the batch size of inputs and outputs."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([batch, *value.shape[1:]])


def with_batch(path: Path, batch: int) -> bytes:
    """Return the model of a batch-1 file for another batch size; each row must equal the output for its image alone.

    Raises:
        EdgekitError: the network mixes the images of a batch, or fixes the batch size.
    """
    model = ir.load(path)
    _fix_batch(model, batch)
    content = ir.to_proto(model).SerializeToString()
    shape = [int(side) for side in model.graph.inputs[0].shape or ()]
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    refused = EdgekitError(f"{path.name} cannot be run in batches of {batch}", "leave `batch` out of the device's file")
    try:
        (rows,) = session(content, optimize=False).run(None, {"image": images})
    except Exception as error:  # ONNX Runtime raises a dozen kinds
        if is_out_of_memory(error):
            raise out_of_memory(f"running {path.name} in batches of {batch}") from error
        raise refused from error
    alone = session(path, optimize=False)
    wanted = np.concatenate([alone.run(None, {"image": image[None]})[0] for image in images])
    if rows.shape != wanted.shape or not np.abs(rows - wanted).max() <= PARITY * (np.abs(wanted).max() + 1e-12):
        raise refused
    return content


def save(model: ir.Model, path: Path) -> None:
    """Check (with shape inference) and write one self-contained file.

    Raises:
        EdgekitError: the model is over 2 GB, for which ONNX needs external data.
    """
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape, output.type = None, None  # runtimes infer them
    proto = ir.to_proto(model)
    if proto.ByteSize() > MAX_BYTES:
        raise EdgekitError("the model is over 2 GB, more than one ONNX file can hold")
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    files.save_bytes(path, proto.SerializeToString())


def session(model: Path | bytes, optimize: bool = True) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session on the CPU; `optimize=False` runs the graph exactly as it is in the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # else CPUs without VNNI saturate
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def check_parity(folded: fx.GraphModule, path: Path, image_size: int, batch: int) -> float:
    """Compare a file with torch on one seeded random batch; return the largest relative difference.

    Raises:
        ParityError: the difference is above `PARITY`.
    """
    images = torch.randn(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = folded(images).numpy()
    (got,) = session(path).run(None, {"image": images.numpy()})
    difference = float(np.abs(got - expected).max() / (np.abs(expected).max() + 1e-12))
    if not difference <= PARITY:
        raise ParityError(f"{path.name} disagrees with torch by {difference:.2g} (relative), allowed {PARITY}")
    return difference


def run_all(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return every tensor of the graph by name, for one input batch, float32 (NCHW)."""
    proto = onnx.load(path)
    wanted: Iterable[str] = [name for node in proto.graph.node for name in node.output]
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted if name not in present
    )
    runtime = session(proto.SerializeToString(), optimize=False)
    names = [value.name for value in runtime.get_outputs()]
    return {"image": images, **dict(zip(names, runtime.run(names, {"image": images})))}

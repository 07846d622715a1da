"""An ONNX file as it is, but for its ends: one input ``image``, float32 (N, 3, S, S), and one output ``scores``."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

from edgekit.importing.onnx_border import Front, Input
from edgekit.importing.onnx_graph import needed

_IMAGE, _SCORES = "image", "scores"


def bordered(
    proto: onnx.ModelProto, given: Input, front: Front, logits: str, size: int, classes: int, batch: int | None
) -> bytes:
    """Return the file from the tensor behind `front` to `logits`, as one self-contained ONNX file.

    Args:
        batch: the only batch size that the file takes; None for any.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    nodes = needed(graph, front.tensor, logits)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    _rename(kept, graph, {_IMAGE: "image_inside", _SCORES: "scores_inside"})
    source, result = (f"{n}_inside" if n in (_IMAGE, _SCORES) else n for n in (front.tensor, logits))
    begin, end = _begin(given, front, source), _end(given, result)
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend([*begin, *kept, *end])
    used = {name for node in _all_nodes(graph.node) for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    rows = batch or "batch"
    graph.input.append(helper.make_tensor_value_info(_IMAGE, TensorProto.FLOAT, [rows, 3, size, size]))
    graph.output.append(helper.make_tensor_value_info(_SCORES, TensorProto.FLOAT, [rows, classes]))
    del model.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "edgekit", "", ""
    return bytes(model.SerializeToString())


def _begin(given: Input, front: Front, source: str) -> list[onnx.NodeProto]:
    """Return the nodes from ``image`` to the tensor that the network reads."""
    steps: list[tuple[str, dict[str, object]]] = []
    if front.layout == "NHWC":
        steps.append(("Transpose", {"perm": [0, 2, 3, 1]}))
    if front.tensor == given.name and given.dtype != "float32":
        if not given.is_float:
            steps += [("Add", {}), ("Floor", {})]  # casts cut off, and 2.9999998 is a 3
        number = helper.np_dtype_to_tensor_dtype(_numpy(given.dtype))
        steps.append(("Cast", {"to": number}))
    return _chain(steps or [("Identity", {})], _IMAGE, source)


def _end(given: Input, result: str) -> list[onnx.NodeProto]:
    """Return the nodes from the logits to ``scores``: float32 (N, classes)."""
    return _chain([("Flatten", {"axis": 1}), ("Cast", {"to": TensorProto.FLOAT})], result, _SCORES)


def _chain(steps: list[tuple[str, dict[str, object]]], source: str, result: str) -> list[onnx.NodeProto]:
    nodes, name = [], source
    for number, (kind, attributes) in enumerate(steps):
        after = result if number == len(steps) - 1 else f"{source}_{result}_{kind.lower()}"
        inputs = [name]
        if kind == "Add":
            half = f"{source}_half"
            value = helper.make_tensor(half, TensorProto.FLOAT, [], [0.5])
            nodes.append(helper.make_node("Constant", [], [half], half, value=value))
            inputs.append(half)
        nodes.append(helper.make_node(kind, inputs, [after], f"edgekit_{source}_{kind.lower()}", **attributes))
        name = after
    return nodes


def _numpy(dtype: str) -> object:
    import numpy as np

    return np.dtype(dtype)


def _all_nodes(nodes: object) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of the graphs inside them."""
    waiting = list(nodes)  # type: ignore[call-overload]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)
                # Outputs of a branch read tensors of the outer graph too.
                yield from (helper.make_node("Identity", [value.name], [""]) for value in graph.output)


def _rename(nodes: list[onnx.NodeProto], graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename tensors, in place."""
    for node in _all_nodes(nodes):
        for values in (node.input, node.output):
            for number, name in enumerate(values):
                values[number] = names.get(name, name)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)

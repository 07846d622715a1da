"""What ONNX Runtime's nodes are in the ONNX file that was given to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# What its optimizer appends to the names of tensors and nodes that it makes new ones of.
_MADE = re.compile(r"(?:_nchwc|_nhwc|_token_\d+|_bias_dq|_(?:de)?quantized?|_int8|\.(?:weight|bias)|_\d+)$")
# And what it puts before the names of tensors that it keeps in float32 in a file of float16.
_WIDENED = "InsertedPrecisionFreeCast_"


def named(layers: Sequence[tuple[str, float]], path: Path) -> tuple[tuple[str, float], ...]:
    """The layers by the names of the file's nodes, where they are of one; of other files than ONNX as they are.

    A node that the optimizer fused is called after the node of the file that writes what it writes: a convolution
    with its activation after the activation, ``features.0.0/Clip``, which is of the layer ``features.0.0``.
    """
    if path.suffix != ".onnx" or not layers:
        return tuple(layers)
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    nodes = {node.name for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    writer = {value: node.name for node in graph.node for value in node.output if node.name in nodes}
    return tuple((_node(name, nodes, writer), ms) for name, ms in layers)


def _node(name: str, nodes: set[str], writer: dict[str, str]) -> str:
    """The node that `name` is, or was made of; else `name`."""
    found, kind = name.removeprefix(_WIDENED), ""
    while True:
        if found in nodes:
            return found + kind
        if found in writer:
            return writer[found] + kind
        shorter = _MADE.sub("", found)
        if shorter == found:
            return name
        made = found[len(shorter) :]
        if re.search(r"quant|_dq", made):
            kind = "/DequantizeLinear" if "_dq" in made or "dequant" in made else "/QuantizeLinear"
        found = shorter

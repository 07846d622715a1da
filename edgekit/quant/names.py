"""What tensors and layers are called everywhere: after the folded torch graph."""

from __future__ import annotations

from collections import Counter

from torch import fx

INPUT = "image"


def tensor_names(graph: fx.Graph) -> dict[fx.Node, str]:
    """A stable name for the output of each node: the module's path, or the function's name.

    A module that is called again gets ``:2``, ``:3``; the input is called ``image``.
    """
    names, calls = {}, Counter[str]()
    for node in graph.nodes:
        if node.op in ("call_module", "call_function", "call_method"):
            base = str(node.target) if node.op == "call_module" else node.name
            calls[base] += 1
            names[node] = base if calls[base] == 1 else f"{base}:{calls[base]}"
        elif node.op == "placeholder":
            names[node] = INPUT
    return names

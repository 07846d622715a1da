"""What follows one tensor of a network, run as often as asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.quant.names import tensor_names


class Behind:
    """A few images at one tensor: its `value`, and the scores that follow from any other.

    Only what is still needed there is in memory.
    """

    def __init__(self, network: fx.GraphModule, tensor: str, images: torch.Tensor) -> None:
        """
        Args:
            tensor: its name (`names.tensor_names`). images: normalized float32 (N, 3, H, W).
        """
        names, run = tensor_names(network.graph), fx.Interpreter(network)
        self.rest = fx.Interpreter(network)
        self.before: dict[fx.Node, Any] = {}
        for node in network.graph.nodes:
            run.env[node] = images if node.op == "placeholder" else run.run_node(node)
            for used_up in run.user_to_last_uses.get(node, ()):
                del run.env[used_up]
            self.before[node], self.node = None, node
            if names.get(node) == tensor:
                break
        self.before |= run.env
        self.value: torch.Tensor = run.env[self.node]

    def scores(self, value: torch.Tensor) -> torch.Tensor:
        """The network's output with `value` in place of the tensor."""
        kept = {node: fx.node.map_aggregate(held, _copy) for node, held in self.before.items()}
        return torch.as_tensor(self.rest.run(initial_env={**kept, self.node: value.clone()}))


def _copy(value: Any) -> Any:
    """What follows may work in place."""
    return value.clone() if isinstance(value, torch.Tensor) else value

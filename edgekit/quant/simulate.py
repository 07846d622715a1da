"""Simulation of the quantized network in torch, with the same integers as the files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.quant import operators
from edgekit.quant.naming import tensor_names
from edgekit.quantization import QMAX, QMIN, Grid, LayerWeights, QuantizedModel, QuantScheme

Weights = dict[str, tuple[torch.Tensor, torch.Tensor | None]]


def fake_quantize(values: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Round float32 values to a grid."""
    return torch.fake_quantize_per_tensor_affine(values, grid.scale, grid.zero_point, QMIN, QMAX)


def apply(module: nn.Module, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the output of a Conv2d or Linear with other weights."""
    if isinstance(module, nn.Linear):
        return F.linear(inputs, weight, bias)
    assert isinstance(module, nn.Conv2d)
    padding: Any = module.padding
    return F.conv2d(inputs, weight, bias, module.stride, padding, module.dilation, module.groups)


class Simulation(fx.Interpreter):
    """Runs a folded graph with other weights and rounded tensors: ``run(images)``.

    Args:
        rounded: tensor name -> grid. weights: layer name -> weight and bias, float32.
        see: called with the name and the value of every tensor.
    """

    def __init__(
        self,
        folded: fx.GraphModule,
        rounded: dict[str, Grid],
        weights: Weights | None = None,
        see: Callable[[str, torch.Tensor], None] | None = None,
    ) -> None:
        super().__init__(folded)
        self.names = tensor_names(folded.graph)
        self.rounded, self.weights, self.see = rounded, weights or {}, see

    def run_node(self, node: fx.Node) -> Any:
        name = self.names.get(node, "")
        if name in self.weights:
            inputs: Any = self.map_nodes_to_values(node.all_input_nodes[0], node)
            module = operators.module_of(self.module, node)  # type: ignore[arg-type]
            assert module is not None
            value = apply(module, inputs, *self.weights[name])
        else:
            value = super().run_node(node)
        if name in self.rounded and isinstance(value, torch.Tensor):
            value = fake_quantize(value, self.rounded[name])
        if self.see is not None and isinstance(value, torch.Tensor):
            self.see(name, value)
        return value


def tensors_of(layers: dict[str, LayerWeights]) -> Weights:
    """Return the weights and biases of layers as torch tensors."""
    return {
        name: (torch.from_numpy(layer.weight), None if layer.bias is None else torch.from_numpy(layer.bias))
        for name, layer in layers.items()
    }


def simulation(folded: fx.GraphModule, model: QuantizedModel, native: QuantScheme) -> Simulation:
    """Return the simulation of `model` as a runtime with the scheme `native` runs it."""
    return Simulation(folded, model.placement(native).rounded, tensors_of(model.layers))


class Suffix:
    """The part of a network that follows one tensor, run on other values of it as often as wanted.

    Only the tensors that this part reads are in memory.

    Attributes:
        value: the tensor for the images that were given.
    """

    def __init__(self, network: fx.GraphModule, tensor: str, images: torch.Tensor) -> None:
        """
        Args:
            tensor: its name (`naming.tensor_names`). images: normalized float32 (N, 3, H, W).
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
        """Return the network's output with `value` in place of the tensor."""
        kept = {node: fx.node.map_aggregate(held, _copy) for node, held in self.before.items()}
        return torch.as_tensor(self.rest.run(initial_env={**kept, self.node: value.clone()}))


def _copy(value: Any) -> Any:
    """Return a copy of a tensor: operations that follow may work in place."""
    return value.clone() if isinstance(value, torch.Tensor) else value

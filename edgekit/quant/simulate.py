"""The quantized network in torch: the same integers as in the files, to decide with and to look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.quant import affine, placement
from edgekit.quant.naming import tensor_names
from edgekit.quantization import CalibrationTable, LayerWeights, QuantizedModel, QuantScheme

Weights = dict[str, tuple[torch.Tensor, torch.Tensor | None]]


def fake_quantize(values: torch.Tensor, grid: affine.Grid) -> torch.Tensor:
    """Round to the grid and back, float32."""
    return torch.fake_quantize_per_tensor_affine(values, grid.scale, grid.zero_point, affine.QMIN, affine.QMAX)


def grids(
    folded: fx.GraphModule, table: CalibrationTable, scheme: QuantScheme, float_layers: tuple[str, ...] = ()
) -> dict[str, affine.Grid]:
    """Tensor name -> its int8 grid, for every tensor that `scheme` rounds."""
    chosen = placement.quantized_tensors(folded, scheme, float_layers)
    shifted = placement.shifted_tensors(folded, scheme, float_layers)
    known = [n for n in chosen if n in table.ranges]
    return {n: affine.tensor_grid(table.ranges[n], scheme.symmetric, n in shifted) for n in known}


def apply(module: nn.Module, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What `module`, a Conv2d or Linear, computes with other weights."""
    if isinstance(module, nn.Linear):
        return F.linear(inputs, weight, bias)
    assert isinstance(module, nn.Conv2d)
    padding: Any = module.padding
    return F.conv2d(inputs, weight, bias, module.stride, padding, module.dilation, module.groups)


class Simulation(fx.Interpreter):
    """Runs a folded graph with other weights, tensors rounded to their grids; ``run(images)``.

    Args:
        rounded: tensor name -> grid. weights: layer name -> weight and bias, float32.
        see: called with the name and the value of every tensor.
    """

    def __init__(
        self,
        folded: fx.GraphModule,
        rounded: dict[str, affine.Grid],
        weights: Weights | None = None,
        see: Callable[[str, torch.Tensor], None] | None = None,
    ) -> None:
        super().__init__(folded)
        self.names = tensor_names(folded.graph)
        self.rounded, self.weights, self.see = rounded, weights or {}, see

    def run_node(self, node: fx.Node) -> Any:
        name = self.names.get(node, "")
        if name in self.weights:
            inputs: Any = self.map_nodes_to_values(node.args[0], node)
            module = placement.module_of(self.module, node)  # type: ignore[arg-type]
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
    """The weights and biases of `layers` as torch tensors."""
    return {
        name: (torch.from_numpy(layer.weight), None if layer.bias is None else torch.from_numpy(layer.bias))
        for name, layer in layers.items()
    }


def of(folded: fx.GraphModule, model: QuantizedModel, native: QuantScheme) -> Simulation:
    """The simulation of `model` as the runtime with the scheme `native` runs it."""
    rounded = grids(folded, model.table, model.scheme(native), model.float_layers)
    return Simulation(folded, rounded, tensors_of(model.layers))


# What follows one tensor of a network, run as often as asked.


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

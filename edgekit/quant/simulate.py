"""The quantized network in torch: the same integers as in the files, to decide with and to look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.quant import affine, placement
from edgekit.quant.names import tensor_names
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

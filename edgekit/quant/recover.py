"""The weights of the quantized model: layer by layer, each step kept where it proves itself.

Every Conv2d and Linear is seen once, in the order of the graph, with its inputs as the quantized
network has them (all layers before it rounded already) and its outputs as the float network has them.
A layer is solved on three of four images and judged on the fourth; what does not lower the error there
is dropped for this layer. Both emitters write what is decided here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from edgekit.errors import unknown
from edgekit.quant import affine, dead_channels, simulate, solve
from edgekit.quant.naming import tensor_names
from edgekit.quant.placement import Weighted, layers, with_weights
from edgekit.quant.solve import Chunk, Moments, collect, grouped
from edgekit.quantization import CalibrationRecipe, CalibrationTable, LayerWeights, QuantizedModel, QuantScheme

STEPS = {
    "copies": "dead channels made copies of the most sensitive ones (edgekit.quant.copies)",
    "compensate": "least squares against the float network's outputs (edgekit.quant.compensate)",
    "rounding": "weights rounded so that errors cancel, scales by least error (edgekit.quant.rounding)",
    "bias": "every output's mean made that of the float network (Nagel et al. 2019, arXiv:1906.04721, section 4.2)",
}
CHUNK = 8  # images at a time
# Layers with more weights per output than this keep nearest rounding: solving would take minutes each,
# and where so many products are added up, rounding errors even out.
MOST_WEIGHTS = 2304
MOST_BYTES = 2 * 10**9  # of tensors held between two layers
_HELD_OUT = 4  # every fourth chunk judges
_DAMPINGS = (0.3, 1.0, 3.0)  # times the recipe's


def check(steps: tuple[str, ...]) -> None:
    """Refuse a step that is not in the table; names those that are."""
    for step in steps:
        if step not in STEPS:
            raise unknown("recovery step", step, STEPS)


def recover(
    folded: fx.GraphModule,
    table: CalibrationTable,
    recipe: CalibrationRecipe,
    scheme: QuantScheme,
    images: torch.Tensor,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> QuantizedModel:
    """Decide the integers, scales and biases of every layer.

    Args:
        scheme: how activations are rounded meanwhile: `everywhere` shows each layer all that can come.
        images: normalized float32 (N, 3, H, W), from the calibration set. Memory is constant above
            `most_images`; without steps none are needed.
    Raises:
        DataError: NaN or infinite weights.
    """
    check(recipe.steps)
    grids = simulate.grids(folded, table, scheme)
    shown = images[: most_images(folded, images)] if recipe.steps else images[:0]
    rewritten = dead_channels.rewritten(folded, table, grids, shown) if "copies" in recipe.steps else {}
    sweep = _Sweep(with_weights(folded, rewritten), grids, recipe, shown)
    return QuantizedModel(table, sweep.run(update), scheme.symmetric, recipe.steps, rewritten)


def most_images(folded: fx.GraphModule, images: torch.Tensor) -> int:
    """How many images the steps can hold at once within `MOST_BYTES`; at least one chunk."""
    if not len(images):
        return 0
    sizes = []
    with torch.inference_mode():
        simulate.Simulation(folded, {}, see=lambda _, value: sizes.append(value.numel())).run(images[:1])
    widest = max(a + b for a, b in itertools.pairwise(sizes)) * 4 * 2  # float32; the float and the quantized network
    return max(CHUNK, min(len(images), MOST_BYTES // widest))


class _Sweep:
    """Runs the float and the quantized network side by side, one node after the other."""

    def __init__(
        self, folded: fx.GraphModule, grids: dict[str, affine.Grid], recipe: CalibrationRecipe, images: torch.Tensor
    ) -> None:
        self.folded, self.grids, self.recipe = folded, grids, recipe
        self.names = tensor_names(folded.graph)
        self.images = list(images.split(CHUNK)) if len(images) else []
        self.exact: dict[fx.Node, list[torch.Tensor]] = {}
        self.rounded: dict[fx.Node, list[torch.Tensor]] = {}

    @torch.inference_mode()
    def run(self, update: Callable[[int, int], None]) -> dict[str, LayerWeights]:
        weighted, decided = layers(self.folded), dict[str, LayerWeights]()
        last = {source: node for node in self.folded.graph.nodes for source in node.all_input_nodes}
        for node in self.folded.graph.nodes:
            name = self.names.get(node, "")
            if name in weighted:
                decided[name] = self._layer(node, weighted[name][1])
                update(len(decided), len(weighted))
            elif self.images and node.op != "output":
                self.exact[node] = [self._value(node, self.exact, n) for n in range(len(self.images))]
                self.rounded[node] = [self._value(node, self.rounded, n) for n in range(len(self.images))]
            if name in self.grids and node in self.rounded:
                self.rounded[node] = [simulate.fake_quantize(v, self.grids[name]) for v in self.rounded[node]]
            for source in node.all_input_nodes:
                if last[source] is node:
                    self.exact.pop(source, None)
                    self.rounded.pop(source, None)
        return decided

    def _value(self, node: fx.Node, values: dict[fx.Node, list[torch.Tensor]], number: int) -> Any:
        """What a node without weights gives, for one chunk."""
        if node.op == "placeholder":
            return self.images[number]
        arguments = fx.node.map_arg(node.args, lambda source: values[source][number])
        keywords = fx.node.map_arg(node.kwargs, lambda source: values[source][number])
        if node.op == "get_attr":
            return fx.graph_module._get_attr(self.folded, str(node.target))
        if node.op == "call_module":
            return self.folded.get_submodule(str(node.target))(*arguments, **keywords)
        if node.op == "call_method":
            return getattr(arguments[0], str(node.target))(*arguments[1:], **keywords)
        assert callable(node.target)
        return node.target(*arguments, **keywords)

    def _layer(self, node: fx.Node, module: Weighted) -> LayerWeights:
        """Decide one layer, and give both networks its outputs."""
        source = node.all_input_nodes[0]
        wanted = self.exact[node] = [module(values) for values in self.exact.get(source, [])]
        if len(source.users) == 1:
            self.exact.pop(source, None)
        inputs = self.rounded.get(source, [])
        grid = self.grids.get(self.names[source])
        decide = _Decision(module, grid.scale if grid else 1.0, self.recipe)
        chunks = decide.weighted(inputs, wanted) if self.recipe.steps else []
        weight, scales = decide.weight(chunks)
        bias = module.bias
        outputs = [simulate.apply(module, values, weight, None) for values in inputs]
        if bias is not None:
            if "bias" in self.recipe.steps and outputs:
                shares = [chunk.weights for chunk in chunks]
                bias = _mean_outputs(module, wanted, shares) - _mean_outputs(module, outputs, shares)
            outputs = [values.add_(_as_outputs(module, bias)) for values in outputs]
        self.rounded[node] = outputs
        return LayerWeights(weight.numpy(), None if bias is None else bias.detach().numpy(), scales.numpy())


def _as_outputs(module: Weighted, values: torch.Tensor) -> torch.Tensor:
    """One value for each output, shaped to be added to the layer's outputs."""
    return values.view((1, -1, 1, 1) if isinstance(module, nn.Conv2d) else (1, -1))


def _mean_outputs(module: Weighted, chunks: list[torch.Tensor], shares: list[torch.Tensor]) -> torch.Tensor:
    """The mean of every output over images, counted by their shares, and places; float32 (outputs,)."""
    axis = 1 if isinstance(module, nn.Conv2d) else -1
    means = [c.movedim(axis, 1).flatten(2).double().mean(2) if c.ndim > 2 else c.double() for c in chunks]
    weights = torch.cat(shares).double()[:, None]
    return ((torch.cat(means) * weights).sum(0) / weights.sum()).float()


# Weights before rounding, their scales, and the whole numbers.
_Candidate = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Decision:
    """How one layer's weight becomes integers."""

    module: Weighted
    input_scale: float
    recipe: CalibrationRecipe

    def weighted(self, inputs: list[torch.Tensor], wanted: list[torch.Tensor]) -> list[Chunk]:
        """Chunks whose images count less, the larger their error is beside that of the median image.

        Errors are heavy-tailed where a range leaves out what a few images hold; without weights,
        these few would decide every sum of squares (Geman and McClure's weights, one step).
        """
        plain = _Decision(self.module, self.input_scale, replace(self.recipe, steps=()))
        weight, _ = plain.weight([])
        errors = []
        for values, target in zip(inputs, wanted):
            off = simulate.apply(self.module, values, weight, self.module.bias) - target
            errors.append(off.flatten(1).square().mean(1))
        middle = torch.cat(errors).median().clamp_min(1e-30)
        return [Chunk(x, y, 1 / (1 + error / middle)) for x, y, error in zip(inputs, wanted, errors)]

    def weight(self, chunks: list[Chunk]) -> tuple[torch.Tensor, torch.Tensor]:
        """The weight on its grid, float32 as torch has it, and the scales (outputs,)."""
        array = self.module.weight.detach().numpy()
        bias = None if self.module.bias is None else self.module.bias.detach().numpy()
        plain = affine.weight_scales(array, bias, self.input_scale)
        groups, outputs, count = grouped(self.module)
        solving = {"compensate", "rounding"} & set(self.recipe.steps)
        scales = torch.from_numpy(plain).double().reshape(groups, outputs)
        start = torch.from_numpy(array).double().reshape(groups, outputs, count)
        chosen: _Candidate = start, scales, solve.nearest(start, scales)
        if solving and chunks and count <= MOST_WEIGHTS:
            chosen = self._solved(start, scales, chunks)
        _, scales, whole = chosen
        exact = scales.float()
        weight = (whole.float() * exact[..., None]).reshape(self.module.weight.shape)
        return weight, exact.flatten()

    def _solved(self, start: torch.Tensor, plain: torch.Tensor, chunks: list[Chunk]) -> _Candidate:
        """The candidate with the least error on the images that none was solved on, solved on all."""
        judging = chunks[_HELD_OUT - 1 :: _HELD_OUT]
        solving = [chunk for number, chunk in enumerate(chunks) if number % _HELD_OUT != _HELD_OUT - 1]
        fit = collect(self.module, solving)
        if not judging:
            return self._candidate(start, plain, fit, None)
        held_out = collect(self.module, judging)
        errors = {}
        for damping in self._dampings():
            _, scales, whole = self._candidate(start, plain, fit, damping)
            errors[damping] = held_out.error(whole * scales[..., None])
        nearest = solve.nearest(start, plain)
        best = min(errors, key=lambda damping: errors[damping])
        if held_out.error(nearest * plain[..., None]) <= errors[best]:
            return start, plain, nearest
        share = len(judging) / len(chunks)
        return self._candidate(start, plain, _joined(fit, held_out, share), best)

    def _dampings(self) -> list[float | None]:
        """The dampings to try; None stands for the trained weights as they are."""
        if "compensate" not in self.recipe.steps:
            return [None]
        return [None, *(self.recipe.damping * factor for factor in _DAMPINGS)]

    def _candidate(self, start: torch.Tensor, plain: torch.Tensor, seen: Moments, damping: float | None) -> _Candidate:
        """What one way of solving gives; a `damping` of None leaves the weights as they were trained."""
        wanted = start if damping is None else solve.solve_weights(start, seen, damping)
        least = _least_scales(plain, start)
        if "rounding" not in self.recipe.steps:
            scales = torch.maximum(wanted.abs().amax(2) / affine.WEIGHT_QMAX, least)
            return wanted, scales, solve.nearest(wanted, scales)
        square = solve.damped(seen.gram, self.recipe.damping)
        scales = solve.scales_by_error(wanted, square, least).float().double()
        return wanted, scales, solve.compensated(wanted, square, scales)


def _least_scales(plain: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Where `plain` was raised above what the weights need (a nearly dead channel), that; else float16's least."""
    needed = start.abs().amax(2) / affine.WEIGHT_QMAX
    return torch.where(plain > needed * 1.001, plain, torch.full_like(plain, affine.LEAST_SCALE))


def _joined(a: Moments, b: Moments, share: float) -> Moments:
    """The moments of two sets, `share` of the images in `b`."""
    return Moments(
        a.gram * (1 - share) + b.gram * share,
        a.cross * (1 - share) + b.cross * share,
        a.power * (1 - share) + b.power * share,
    )

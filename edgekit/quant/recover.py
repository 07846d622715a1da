"""Recovery: ranges and weights of the quantized model, each step kept only where it lowers the error.

What changes ranges or whole weights is judged by the scores on held-out images (`JUDGING`), and so is `compensate`: it
fits layers to outputs that clipped tensors before them may no longer allow.

Every Conv2d and Linear is visited once, in the order of the graph, with its inputs in the quantized network (all
earlier layers already rounded) and its outputs in the float network. A layer is solved on three of four chunks of
images and judged on the fourth; a step that does not lower the error there is dropped for this layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from edgekit import progress
from edgekit.errors import unknown
from edgekit.quant import affine, dead_channels, distill, equalize, loss, placement, ranges, simulate, solve
from edgekit.quant.naming import tensor_names
from edgekit.quant.operators import Weighted
from edgekit.quant.placement import layers, with_weights
from edgekit.quant.solve import Chunk, Moments, collect, grouped
from edgekit.quantization import (
    LITERT_SCHEME,
    TENSORRT_SCHEME,
    CalibrationRecipe,
    CalibrationTable,
    Grid,
    LayerWeights,
    QuantizedModel,
    QuantScheme,
)

STEPS = {
    "equalize": "channels scaled to the range of their tensor where that is free (edgekit.quant.equalize)",
    "ranges": "range of each tensor by what rounding it does to the scores (edgekit.quant.ranges)",
    "copies": "dead channels made copies of the most sensitive ones (edgekit.quant.dead_channels)",
    "compensate": "least squares against the float network's outputs (edgekit.quant.solve)",
    "rounding": "weights rounded so that errors cancel, scales by least error (edgekit.quant.solve)",
    "bias": "mean of every output made that of the float network (Nagel et al. 2019, arXiv:1906.04721, section 4.2)",
    "distill": "weights, biases and ranges trained to give the float network's scores (edgekit.quant.distill)",
}
_BY_LAYER = ("compensate", "rounding", "bias")
CHUNK = 8  # images at a time
# Layers with more weights per output keep nearest rounding: solving would take minutes each, and over so
# many products rounding errors average out.
MOST_WEIGHTS = 2304
MOST_BYTES = 2 * 10**9  # of tensors held at a time
JUDGING = 32  # images that judge steps by the scores; with fewer than twice as many, nothing is held out
_HELD_OUT = 4  # every fourth chunk is for judging
_DAMPINGS = (0.3, 1.0, 3.0)  # multiples of the recipe's


def check(steps: tuple[str, ...]) -> None:
    """Check the names of recovery steps.

    Raises:
        UsageError: a step is unknown; the message lists the known ones.
    """
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
    """Return the quantized model with the integers, scales and biases of every layer.

    Args:
        scheme: rounding of the activations while layers are solved; `everywhere` exposes each layer to all errors.
        images: normalized float32 (N, 3, H, W), from the calibration set. At most `most_images` are used;
            without steps none are needed.
        update: called with the parts of the work done and in all.
    Raises:
        DataError: NaN or infinite weights.
    """
    check(recipe.steps)
    work = _Work(folded, recipe, scheme, images if recipe.steps else images[:0], update, bool(table.ranges))
    kept: list[str] = []
    rewritten: dict[str, LayerWeights] = {}
    if "equalize" in recipe.steps:
        table, rewritten = equalize.equalized(folded, table, work.schemes, work.images)
        kept += ["equalize"] if rewritten else []
    if "ranges" in recipe.steps and (better := work.searched(table, rewritten)) is not None:
        table = better
        kept.append("ranges")
    if "copies" in recipe.steps:
        grids = placement.place(folded, table, scheme).rounded
        copied = dead_channels.rewritten(with_weights(folded, rewritten), table, grids, work.images)
        rewritten |= copied
        kept += ["copies"] if copied else []
    steps, solved = work.solved(table, rewritten)
    kept += [step for step in recipe.steps if step in steps]
    return placement.quantized_model(folded, table, solved, scheme.symmetric, tuple(kept), rewritten)


@torch.inference_mode(False)
def distilled(
    folded: fx.GraphModule,
    model: QuantizedModel,
    images: torch.Tensor,
    steps: int,
    update: Callable[[int, int], None] = lambda done, total: None,
    state: Path | None = None,
) -> QuantizedModel:
    """Return a recovered model after distillation, or `model` itself where held-out images lose by it.

    Args:
        images: normalized float32 (N, 3, H, W), from the calibration set. The last `JUDGING` are held out, if there
            are at least twice as many.
        steps: of the training. update: called with the number of steps done and in all.
        state: a file for the state of the training; a training that was ended early is continued.
    """
    training, judging = (images[:-JUDGING], images[-JUDGING:]) if len(images) >= 2 * JUDGING else (images, images)
    network = with_weights(folded, model.rewritten)
    tried = schemes(model.symmetric)
    try:
        found = distill.distill(network, model.table, model.layers, tried, training, steps, update, state)
    except RuntimeError as error:  # an operator without derivatives, or one that overwrites what they need
        progress.note(f"no distillation, since backpropagation fails: {str(error).splitlines()[0]}")
        return model
    with torch.inference_mode():
        judged = _judged(folded, judging)
        before, after = (
            loss.rounded(network, table, tried, *judged, simulate.tensors_of(layers))
            for table, layers in ((model.table, model.layers), (found.table, found.layers))
        )
    if after >= before:
        return model
    kept = (*model.steps, "distill")
    return placement.quantized_model(folded, found.table, found.layers, model.symmetric, kept, model.rewritten)


def schemes(symmetric: bool) -> tuple[QuantScheme, ...]:
    """Return those that a model is for: of both runtimes, or the one of strict parity."""
    return (QuantScheme(True, everywhere=True),) if symmetric else (LITERT_SCHEME, TENSORRT_SCHEME)


def most_images(folded: fx.GraphModule, images: torch.Tensor) -> int:
    """Return how many images the steps can hold within `MOST_BYTES`; at least one chunk."""
    if not len(images):
        return 0
    sizes = []
    with torch.inference_mode():
        simulate.Simulation(folded, {}, see=lambda _, value: sizes.append(value.numel())).run(images[:1])
    widest = max(a + b for a, b in itertools.pairwise(sizes)) * 4 * 2  # float32; the float and the quantized network
    return max(CHUNK, min(len(images), MOST_BYTES // widest))


def _judged(folded: fx.GraphModule, images: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], list[torch.Tensor]]:
    """Return chunks of the images to judge on, and the scores of the float network."""
    chunks = images.split(CHUNK)
    return chunks, [torch.as_tensor(folded(chunk)) for chunk in chunks]


class _Work:
    """The steps, judged by the scores on held-out images.

    Attributes:
        schemes: those that the model is for. images: as many as can be held, to solve on.
        judging: others, if there are enough. ways: choices of the steps by layer, the first that costs nothing wins.
    """

    def __init__(
        self,
        folded: fx.GraphModule,
        recipe: CalibrationRecipe,
        scheme: QuantScheme,
        images: torch.Tensor,
        update: Callable[[int, int], None],
        rounds: bool,
    ) -> None:
        """
        Args:
            rounds: activations are rounded; else only weights are.
        """
        self.folded, self.recipe, self.scheme, self.update = folded, recipe, scheme, update
        self.schemes, self.rounds = schemes(scheme.symmetric), rounds
        judged = rounds and bool({"ranges", "compensate"} & {*recipe.steps})
        apart = judged and len(images) >= 2 * JUDGING
        most = min(most_images(folded, images), len(images) - (JUDGING if apart else 0))
        self.images, self.judging = images[:most], images[most:][:JUDGING] if apart else images[:most]
        steps = tuple(step for step in recipe.steps if step in _BY_LAYER)
        without = tuple(step for step in steps if step != "compensate")
        self.ways = [steps, without] if apart and without != steps else [steps]
        searches = rounds and "ranges" in recipe.steps
        searched = ranges.parts(len(self.images), len(self.schemes)) if searches else 0
        self.done, self.parts = 0, searched + len(self.ways) * len(layers(folded))

    def _did(self, done: int, total: int) -> None:
        self.update(self.done + done, self.parts)
        self.done += total if done == total else 0

    @cached_property
    def _judged(self) -> tuple[tuple[torch.Tensor, ...], list[torch.Tensor]]:
        return _judged(self.folded, self.judging)

    @torch.inference_mode()
    def _loss(
        self,
        table: CalibrationTable,
        rewritten: dict[str, LayerWeights],
        quantized: dict[str, LayerWeights] | None = None,
        schemes: tuple[QuantScheme, ...] = (),
    ) -> float:
        """Return the loss of a model on held-out images, summed over `schemes`, or over all."""
        network, weights = with_weights(self.folded, rewritten), simulate.tensors_of(quantized or {})
        return loss.rounded(network, table, schemes or self.schemes, *self._judged, weights)

    def searched(self, table: CalibrationTable, rewritten: dict[str, LayerWeights]) -> CalibrationTable | None:
        """Return a table with the ranges that move the scores least, for each scheme that loses less by them.

        None if no scheme does.
        """
        if not self.rounds or not len(self.images):
            return None
        network = with_weights(self.folded, rewritten)
        try:
            found = ranges.search(network, table, self.schemes, self.images, self._did)
        except RuntimeError as error:  # an operator without derivatives, or one that overwrites what they need
            progress.note(f"ranges are not searched, since backpropagation fails: {str(error).splitlines()[0]}")
            return None
        plain = symmetric = table
        for scheme in self.schemes:
            part = "symmetric" if scheme.symmetric else "ranges"
            tried = [table, *(replace(table, **{part: getattr(each, part)}) for each in found)]
            best = min(tried, key=lambda each: self._loss(each, rewritten, None, (scheme,)))
            plain, symmetric = (plain, best) if scheme.symmetric else (best, symmetric)
        if plain is symmetric is table:
            return None
        spans = {name: span for name, span in symmetric.spans(True).items() if span != plain.ranges[name]}
        return replace(table, ranges=plain.ranges, symmetric=spans)

    def solved(
        self, table: CalibrationTable, rewritten: dict[str, LayerWeights]
    ) -> tuple[tuple[str, ...], dict[str, LayerWeights]]:
        """Return the weights of every layer, and the steps that made them: those that lose least.

        `compensate` is left out on trial only where the weights add to the loss of the rounded activations.
        """
        grids = placement.place(self.folded, table, self.scheme).rounded
        network = with_weights(self.folded, rewritten)
        several = len(self.ways) > 1
        aim = self._loss(table, rewritten) if several else 0.0
        found = []
        for steps in self.ways:
            made = _Sweep(network, grids, replace(self.recipe, steps=steps), self.images).run(self._did)
            found.append((self._loss(table, rewritten, made) if several else 0.0, steps, made))
            if found[-1][0] <= aim:
                break
        if self.done < self.parts:
            self.update(self.parts, self.parts)
        _, steps, made = min(found, key=lambda each: each[0])
        return steps, made


class _Sweep:
    """Runs the float and the quantized network side by side, node by node."""

    def __init__(
        self, folded: fx.GraphModule, grids: dict[str, Grid], recipe: CalibrationRecipe, images: torch.Tensor
    ) -> None:
        self.folded, self.grids, self.recipe = folded, grids, recipe
        self.names = tensor_names(folded.graph)
        self.images = list(images.split(CHUNK)) if len(images) else []
        self.exact: dict[fx.Node, list[torch.Tensor]] = {}
        self.rounded: dict[fx.Node, list[torch.Tensor]] = {}

    @torch.inference_mode()
    def run(self, update: Callable[[int, int], None]) -> dict[str, LayerWeights]:
        weighted, done = layers(self.folded), dict[str, LayerWeights]()
        last = {source: node for node in self.folded.graph.nodes for source in node.all_input_nodes}
        for node in self.folded.graph.nodes:
            name = self.names.get(node, "")
            if name in weighted:
                done[name] = self._layer(node, weighted[name][1])
                update(len(done), len(weighted))
            elif self.images and node.op != "output":
                self.exact[node] = [self._value(node, self.exact, n) for n in range(len(self.images))]
                self.rounded[node] = [self._value(node, self.rounded, n) for n in range(len(self.images))]
            if name in self.grids and node in self.rounded:
                self.rounded[node] = [simulate.fake_quantize(v, self.grids[name]) for v in self.rounded[node]]
            for source in node.all_input_nodes:
                if last[source] is node:
                    self.exact.pop(source, None)
                    self.rounded.pop(source, None)
        return done

    def _value(self, node: fx.Node, values: dict[fx.Node, list[torch.Tensor]], number: int) -> Any:
        """Return the output of a node without weights for one chunk."""
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
        """Quantize one layer, and store its outputs in both networks."""
        source = node.all_input_nodes[0]
        wanted = self.exact[node] = [module(values) for values in self.exact.get(source, [])]
        if len(source.users) == 1:
            self.exact.pop(source, None)
        inputs = self.rounded.get(source, [])
        grid = self.grids.get(self.names.get(source, ""))
        quantizer = _Quantizer(module, grid.scale if grid else 1.0, self.recipe)
        chunks = quantizer.weighted(inputs, wanted) if self.recipe.steps else []
        weight, scales = quantizer.weight(chunks)
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
    """Return one value per output, shaped to be added to the layer's outputs."""
    return values.view((1, -1, 1, 1) if isinstance(module, nn.Conv2d) else (1, -1))


def _mean_outputs(module: Weighted, chunks: list[torch.Tensor], shares: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean of every output over positions and weighted images; float32 (outputs,)."""
    axis = 1 if isinstance(module, nn.Conv2d) else -1
    means = [c.movedim(axis, 1).flatten(2).double().mean(2) if c.ndim > 2 else c.double() for c in chunks]
    weights = torch.cat(shares).double()[:, None]
    return ((torch.cat(means) * weights).sum(0) / weights.sum()).float()


@dataclass(frozen=True)
class _Rounded:
    """Scales (G, O) and integers (G, O, K) of a layer's weight, as float64."""

    scales: torch.Tensor
    integers: torch.Tensor

    @property
    def values(self) -> torch.Tensor:
        """The weights that the integers stand for (G, O, K)."""
        return self.integers * self.scales[..., None]


@dataclass(frozen=True)
class _Quantizer:
    """Quantizes one layer's weight."""

    module: Weighted
    input_scale: float
    recipe: CalibrationRecipe

    def weighted(self, inputs: list[torch.Tensor], wanted: list[torch.Tensor]) -> list[Chunk]:
        """Return chunks in which images count less, the larger their error is compared with the median image's.

        Errors are heavy-tailed where a range clips values of a few images; without weights, these few
        would dominate every sum of squares (Geman and McClure's weights, one step).
        """
        plain = _Quantizer(self.module, self.input_scale, replace(self.recipe, steps=()))
        weight, _ = plain.weight([])
        errors = []
        for values, target in zip(inputs, wanted):
            off = simulate.apply(self.module, values, weight, self.module.bias) - target
            errors.append(off.flatten(1).square().mean(1))
        median = torch.cat(errors).median().clamp_min(1e-30)
        return [Chunk(x, y, 1 / (1 + error / median)) for x, y, error in zip(inputs, wanted, errors)]

    def weight(self, chunks: list[Chunk]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rounded weight, float32 in torch's layout, and the scales (outputs,)."""
        array = self.module.weight.detach().numpy()
        bias = None if self.module.bias is None else self.module.bias.detach().numpy()
        plain = affine.weight_scales(array, bias, self.input_scale)
        groups, outputs, count = grouped(self.module)
        solving = {"compensate", "rounding"} & set(self.recipe.steps)
        scales = torch.from_numpy(plain).double().reshape(groups, outputs)
        start = torch.from_numpy(array).double().reshape(groups, outputs, count)
        chosen = _Rounded(scales, solve.nearest(start, scales))
        if solving and chunks and count <= MOST_WEIGHTS:
            chosen = self._solved(start, scales, chunks)
        exact = chosen.scales.float()
        weight = (chosen.integers.float() * exact[..., None]).reshape(self.module.weight.shape)
        return weight, exact.flatten()

    def _solved(self, start: torch.Tensor, plain: torch.Tensor, chunks: list[Chunk]) -> _Rounded:
        """Return the candidate with the least error on held-out images, solved again on all."""
        judging = chunks[_HELD_OUT - 1 :: _HELD_OUT]
        solving = [chunk for number, chunk in enumerate(chunks) if number % _HELD_OUT != _HELD_OUT - 1]
        fit = collect(self.module, solving)
        if not judging:
            return self._candidate(start, plain, fit, None)
        held_out = collect(self.module, judging)
        errors = {d: held_out.error(self._candidate(start, plain, fit, d).values) for d in self._dampings()}
        nearest = _Rounded(plain, solve.nearest(start, plain))
        best = min(errors, key=lambda damping: errors[damping])
        if held_out.error(nearest.values) <= errors[best]:
            return nearest
        share = len(judging) / len(chunks)
        return self._candidate(start, plain, _joined(fit, held_out, share), best)

    def _dampings(self) -> list[float | None]:
        """Return the dampings to try; None stands for the trained weights, not solved."""
        if "compensate" not in self.recipe.steps:
            return [None]
        return [None, *(self.recipe.damping * factor for factor in _DAMPINGS)]

    def _candidate(self, start: torch.Tensor, plain: torch.Tensor, seen: Moments, damping: float | None) -> _Rounded:
        """Solve and round with one damping; None leaves the weights as they were trained."""
        wanted = start if damping is None else solve.least_squares(start, seen, damping)
        least = _least_scales(plain, start)
        if "rounding" not in self.recipe.steps:
            scales = torch.maximum(wanted.abs().amax(2) / affine.WEIGHT_QMAX, least)
            return _Rounded(scales, solve.nearest(wanted, scales))
        square = solve.damped(seen.gram, self.recipe.damping)
        scales = solve.scales_by_error(wanted, square, least).float().double()
        return _Rounded(scales, solve.round_compensated(wanted, square, scales))


def _least_scales(plain: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return the smallest scales allowed: those of nearly dead channels, which were raised, else float16's least."""
    needed = start.abs().amax(2) / affine.WEIGHT_QMAX
    return torch.where(plain > needed * 1.001, plain, torch.full_like(plain, affine.LEAST_SCALE))


def _joined(a: Moments, b: Moments, share: float) -> Moments:
    """Return the moments of two sets together; `share` of the images are in `b`."""
    return Moments(
        a.gram * (1 - share) + b.gram * share,
        a.cross * (1 - share) + b.cross * share,
        a.power * (1 - share) + b.power * share,
    )

"""Sources of a quantized network's error: every layer and every rounded tensor, one by one.

The float and the quantized network run through the folded graph side by side, so that only the values
still needed are in memory. The effect of quantizing one thing alone is measured by running what follows
it again in floating point: about half a forward pass per layer and tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgekit.errors import DataError
from edgekit.quant import operators, placement, simulate
from edgekit.quant.observers import Histogram
from edgekit.quantization import Grid, QuantizedModel, QuantScheme

MOST_BINS = 128
# More than float32 can resolve; stands for no error (and, negative, for no signal).
EXACT_DB = 150.0


@dataclass(frozen=True)
class Agreement:
    """Agreement of quantized values with float ones.

    Attributes:
        sqnr_db: signal to quantization noise, 10 log10(sum(float ** 2) / sum((quantized - float) ** 2)),
            at most `EXACT_DB`, which means equality.
        cosine: of the angle between them; 1 means equal up to a factor.
    """

    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class Effect:
    """Effect on the network's answers: agreement of the logits, and the share of images whose top-1 changes."""

    logits: Agreement
    changed: float


class PairSums:
    """Running sums over pairs of tensors, for their agreement."""

    def __init__(self) -> None:
        self.signal = self.noise = self.power = self.product = 0.0

    def add(self, got: torch.Tensor, wanted: torch.Tensor) -> None:
        """Add two tensors of one shape, the quantized and the float one."""
        a, b = got.flatten().double(), wanted.flatten().double()
        self.signal += float(b @ b)
        self.power += float(a @ a)
        self.product += float(a @ b)
        self.noise += float((a - b).square().sum())

    def result(self) -> Agreement:
        """Return the agreement of everything added."""
        if self.noise == 0:
            return Agreement(EXACT_DB, 1.0)
        if self.signal == 0 or self.power == 0:
            return Agreement(-EXACT_DB if self.signal == 0 else 0.0, 0.0)
        ratio = 10 * math.log10(self.signal / self.noise)
        return Agreement(min(max(ratio, -EXACT_DB), EXACT_DB), self.product / math.sqrt(self.signal * self.power))


@dataclass
class EffectSums:
    """Running sums over batches of logits."""

    logits: PairSums = field(default_factory=PairSums)
    changed: int = 0
    images: int = 0

    def add(self, got: torch.Tensor, wanted: torch.Tensor) -> None:
        """Add logits (N, classes), the quantized and the float ones."""
        self.logits.add(got, wanted)
        self.changed += int((got.argmax(1) != wanted.argmax(1)).sum())
        self.images += len(got)

    def result(self) -> Effect:
        """Return the effect on everything added."""
        return Effect(self.logits.result(), self.changed / max(1, self.images))


@dataclass(frozen=True)
class LayerReport:
    """Error of one Conv2d or Linear.

    Activations are the layer's outputs after the activation fused into it, before rounding.

    Attributes:
        position: from 0, in the order of the graph.
        int8: whether it runs in INT8 on this runtime. A layer without a kernel still has rounded weights, and so
            an error; one that is kept in floating point has none.
        weight: its weights against those of the float network; recovery steps move weights on purpose.
        alone: its activations, with only its weights and its input quantized.
        accumulated: its activations, with everything before it quantized too.
        effect: of quantizing only its weights and its input.
    """

    name: str
    kind: str
    position: int
    int8: bool
    weight: Agreement
    alone: Agreement
    accumulated: Agreement
    effect: Effect


@dataclass(frozen=True)
class Bins:
    """A histogram: `counts` of adjacent bins of `width`, the first from `start` on."""

    start: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TensorReport:
    """Error of one tensor that is rounded to int8.

    Attributes:
        low, high: smallest and largest number that its grid holds.
        seen_low, seen_high: smallest and largest value over the images.
        clipped: share of values outside the grid by more than half a step (less is rounding).
        rounding: the rounded against the float values. effect: of rounding only this tensor.
    """

    name: str
    low: float
    high: float
    seen_low: float
    seen_high: float
    clipped: float
    rounding: Agreement
    effect: Effect
    bins: Bins


@dataclass(frozen=True)
class Inspection:
    """Errors of a quantized network.

    Attributes:
        images: number of images measured on. effect: of the whole quantized network.
        layers, tensors: with the greatest effect first.
    """

    images: int
    effect: Effect
    layers: tuple[LayerReport, ...]
    tensors: tuple[TensorReport, ...]


@torch.inference_mode()
def inspect(
    folded: fx.GraphModule,
    model: QuantizedModel,
    native: QuantScheme,
    batches: Sequence[torch.Tensor],
    update: Callable[[int, int], None] = lambda done, total: None,
    tensors: bool = True,
) -> Inspection:
    """Compare `model`, as the runtime with the scheme `native` runs it, with the float network.

    Args:
        batches: normalized float32 images (N, 3, H, W). Memory does not grow with their number.
        update: called with the number of layers done and in all, over all batches.
        tensors: measure the rounded tensors too, which takes as long as the layers.
    Raises:
        DataError: there are no images, or NaN or infinite activations.
    """
    if not sum(map(len, batches)):
        raise DataError("there are no images to compare the networks on", "edgekit quant debug --images 32")
    folded = placement.with_weights(folded, model.rewritten)  # else copies in dead channels would count as errors
    quantized = simulate.simulation(folded, model, native)
    layers = placement.layers(folded)
    sums = _Sums(
        {name: _LayerSums() for name in layers},
        {name: _TensorSums() for name in quantized.rounded if tensors},
    )
    done, total = 0, len(layers) * len(batches)

    def count() -> None:
        nonlocal done
        done += 1
        update(done, total)

    for images in batches:
        _Walk(folded, quantized, sums, count).run(images)
    in_int8 = model.placement(native).int8_layers
    reports = []
    for position, (name, (_, module)) in enumerate(layers.items()):
        seen, carried = sums.layers[name], model.layers[name]
        weight = PairSums()
        weight.add(torch.from_numpy(carried.weight), module.weight)
        found = weight.result(), seen.alone.result(), seen.accumulated.result(), seen.effect.result()
        reports.append(LayerReport(name, kind(module), position, name in in_int8, *found))
    rounded = [_tensor_report(name, seen, quantized.rounded[name]) for name, seen in sums.tensors.items()]
    return Inspection(
        sum(map(len, batches)), sums.effect.result(), tuple(_worst_first(reports)), tuple(_worst_first(rounded))
    )


def kind(module: nn.Module) -> str:
    """Return the kind of a layer: ``conv 3x3``, ``depthwise 5x5``, ``linear``."""
    if not isinstance(module, nn.Conv2d):
        return "linear"
    size = "x".join(map(str, module.kernel_size))
    return f"{'depthwise' if placement.is_depthwise(module.in_channels, module.groups) else 'conv'} {size}"


def _worst_first(reports: Iterable[Any]) -> list[Any]:
    return sorted(reports, key=lambda report: report.effect.logits.sqnr_db)


@dataclass
class _LayerSums:
    alone: PairSums = field(default_factory=PairSums)
    accumulated: PairSums = field(default_factory=PairSums)
    effect: EffectSums = field(default_factory=EffectSums)


@dataclass
class _TensorSums:
    rounding: PairSums = field(default_factory=PairSums)
    effect: EffectSums = field(default_factory=EffectSums)
    seen: Histogram = field(default_factory=Histogram)
    clipped: int = 0
    values: int = 0


@dataclass
class _Sums:
    layers: dict[str, _LayerSums]
    tensors: dict[str, _TensorSums]
    effect: EffectSums = field(default_factory=EffectSums)


class _Walk(simulate.Simulation):
    """One batch through the float network; `twin` follows node by node with everything quantized."""

    def __init__(
        self, folded: fx.GraphModule, quantized: simulate.Simulation, sums: _Sums, count: Callable[[], None]
    ) -> None:
        super().__init__(folded, {})
        self.grids, self.quantized, self.sums, self.count = quantized.rounded, quantized.weights, sums, count
        self.twin = simulate.Simulation(folded, {}, quantized.weights)
        self.rest, self.fused = fx.Interpreter(folded), fx.Interpreter(folded)
        self.layers = {node: name for name, (node, _) in placement.layers(folded).items()}
        # Layer -> the last tensor that it writes: the activation fused into it, else its own output.
        self.ends = {layer: tensor for tensor, layer in placement.written_by(folded).items()}
        self.layer_of = {tensor: layer for layer, tensor in self.ends.items()}
        self.logits = torch.empty(0)

    def run(self, images: torch.Tensor) -> Any:  # type: ignore[override]
        self.logits = self.rest.run(images)
        self.twin.env = {}
        return super().run(images)

    def run_node(self, node: fx.Node) -> Any:
        value, name = super().run_node(node), self.names.get(node, "")
        twin = value if node.op == "placeholder" else self.twin.run_node(node)
        if node.op == "output":
            self.sums.effect.add(twin, value)
            return value
        if name in self.layer_of:
            self.sums.layers[self.layer_of[name]].accumulated.add(twin, value)
        if node in self.layers:
            self._measure_layer(node, value)
        if name in self.sums.tensors:
            self._measure_tensor(node, value)
        if name in self.grids:
            twin = simulate.fake_quantize(twin, self.grids[name])
        self.twin.env[node] = twin
        for used_up in self.user_to_last_uses.get(node, ()):
            del self.twin.env[used_up]
        return value

    def _measure_layer(self, node: fx.Node, value: torch.Tensor) -> None:
        name, source = self.layers[node], node.all_input_nodes[0]
        inputs = self.env[source]
        if self.names[source] in self.grids:
            inputs = simulate.fake_quantize(inputs, self.grids[self.names[source]])
        module = operators.module_of(self.module, node)  # type: ignore[arg-type]
        assert module is not None
        alone = simulate.apply(module, inputs, *self.quantized[name])
        sums = self.sums.layers[name]
        sums.alone.add(self._activated(node, alone), self._activated(node, value))
        sums.effect.add(self._logits(node, alone), self.logits)
        self.count()

    def _measure_tensor(self, node: fx.Node, value: torch.Tensor) -> None:
        name = self.names[node]
        sums, grid = self.sums.tensors[name], self.grids[name]
        try:
            sums.seen.update(value)
        except DataError as error:
            raise DataError(f"{error.message} in tensor {name!r}", "check the checkpoint") from None
        half = grid.scale / 2
        sums.clipped += int(((value < grid.low - half) | (value > grid.high + half)).sum())
        sums.values += value.numel()
        rounded = simulate.fake_quantize(value, grid)
        sums.rounding.add(rounded, value)
        sums.effect.add(self._logits(node, rounded), self.logits)

    def _activated(self, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
        """Apply the activation that is fused into the layer `node`, if there is one, to its output."""
        if self.ends[self.names[node]] == self.names[node]:
            return value
        self.fused.env = {node: value.clone()}  # it may work in place
        return self.fused.run_node(next(iter(node.users)))

    def _logits(self, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
        """Return the logits with `value` as the output of `node`, and everything after it in floating point."""
        before: dict[fx.Node, Any] = {}
        for earlier in self.module.graph.nodes:  # type: ignore[union-attr]
            if earlier is node:
                break
            before[earlier] = fx.node.map_aggregate(self.env.get(earlier), _copy)
        return self.rest.run(initial_env={**before, node: value})


def _copy(value: Any) -> Any:
    """Return a copy of a tensor: operations that follow may work in place."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def _tensor_report(name: str, sums: _TensorSums, grid: Grid) -> TensorReport:
    return TensorReport(
        name, grid.low, grid.high, sums.seen.low, sums.seen.high, sums.clipped / max(1, sums.values),
        sums.rounding.result(), sums.effect.result(), _bins(sums.seen),
    )  # fmt: skip


def _bins(seen: Histogram) -> Bins:
    """Return the occupied part of a histogram in at most `MOST_BINS` bins."""
    width = 2 * seen.limit / len(seen.counts)
    occupied = np.flatnonzero(seen.counts)
    first, last = int(occupied[0]), int(occupied[-1])
    together = -(-(last + 1 - first) // MOST_BINS)
    part = seen.counts[first : last + 1]
    counts = np.pad(part, (0, -len(part) % together)).reshape(-1, together).sum(1)
    return Bins(-seen.limit + first * width, together * width, tuple(map(int, counts)))

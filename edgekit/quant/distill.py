"""Distillation: the quantized network trained, without labels, to give the scores of the float network.

Recovery layer by layer cannot see what the rounding of other tensors makes of a layer's outputs; the scores do.
Weights stay whole multiples of their scales: gradients pass through the rounding (Bengio et al. 2013, arXiv:1308.3432)
to a float copy of the integers. Each range has a factor, learned as in Esser et al. 2020 (LSQ, arXiv:1902.08153). The
schemes of both runtimes take turns, so that one set of weights serves both. The input and the scores keep their ranges,
and the first layer its weights, because LiteRT files that take bytes have their own version of it. The images are those
of the calibration, shifted a little and half of them mirrored; magnified ones, for which the ranges were not made,
would teach the network what it is never asked.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit import files, progress
from edgekit.errors import raise_if_not_damage
from edgekit.models import build
from edgekit.quant import operators, placement, simulate
from edgekit.quant.affine import WEIGHT_QMAX
from edgekit.quant.naming import INPUT, tensor_names
from edgekit.quantization import QMAX, QMIN, CalibrationTable, Grid, LayerWeights, QuantScheme, Range

BATCH = 16
WEIGHT_RATE, RATE = 0.006, 0.002  # of Adam: in steps of a weight; in parts of a range, and of a layer's mean bias
MOST_BYTES = 2 * 10**9  # of the tensors of one batch
SAVE_SECONDS = 30.0  # between two saved states
_FORM = 1  # of the saved state
_WARMUP = 10  # steps
_MOST_FACTOR = 1.6  # of a range, either way: int32 biases have twice the room that they need
_LAST_SHARE = 0.02  # of the rate, at the end
_ERROR_SHARE = 10.0  # of the relative squared error in the loss, beside the KL divergence
_MOST_SHIFT = 0.1  # of an image's side
_VERSIONS = 8  # of each image; the float network's scores of each are computed once


@dataclass(frozen=True)
class Distilled:
    """Result of a distillation: a table with other ranges, and other weights and biases."""

    table: CalibrationTable
    layers: dict[str, LayerWeights]


def distill(
    network: fx.GraphModule,
    table: CalibrationTable,
    layers: dict[str, LayerWeights],
    schemes: Sequence[QuantScheme],
    images: torch.Tensor,
    steps: int,
    update: Callable[[int, int], None] = lambda done, total: None,
    state: Path | None = None,
) -> Distilled:
    """Return the quantized network after some steps of training.

    Args:
        network: the float network that `layers` were made from; it gives the scores to reach.
        images: normalized float32 (N, 3, H, W).
        update: called with the number of steps done and in all.
        state: a file that keeps the state of the training; one of the same training is continued.
    Raises:
        RuntimeError: an operator has no derivative.
    """
    last = not build.crashes_in_channels_last(network)
    layout = torch.channels_last if last else torch.contiguous_format
    network = copy.deepcopy(network).requires_grad_(False).to(memory_format=layout)
    floats = tuple(name for name, layer in layers.items() if layer.scales is None)
    placed = [placement.place(network, table, scheme, floats).rounded for scheme in schemes]
    student, shown = _Student(network, layers, placed), _Shown(network, images, layout)
    student.find_overwritten(images[:1].to(memory_format=layout))
    optimizer = torch.optim.Adam(
        [
            {"params": [*student.integers.values()], "lr": WEIGHT_RATE, "base": WEIGHT_RATE},
            {"params": student.others(), "lr": RATE, "base": RATE},
        ],
        betas=(0.9, 0.99),
    )
    batch = _batch(network, images)
    training = _Training(student, optimizer, state, _digest(table, layers, schemes, images, steps, batch))
    for step in range(training.resume(), steps):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * _share(step, steps)
        inputs, wanted = shown.batch(step, batch)
        with torch.enable_grad():
            loss = _loss(torch.as_tensor(student.at(step % len(schemes)).run(inputs)), wanted)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        student.limit()
        training.save(step + 1)
        update(step + 1, steps)
    return student.result(table, layers, schemes)


def _share(step: int, steps: int) -> float:
    """Return the part of the rates at one step: a short rise, then half a cosine."""
    return min(1.0, (step + 1) / _WARMUP) * (_LAST_SHARE + 0.5 * (1 + math.cos(math.pi * step / steps)))


def _loss(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the relative squared error of the scores, and the divergence of their probabilities, summed."""
    error = (scores - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30)
    divergence = F.kl_div(F.log_softmax(scores, -1), F.log_softmax(wanted, -1), reduction="batchmean", log_target=True)
    return _ERROR_SHARE * error + divergence


def _batch(network: fx.GraphModule, images: torch.Tensor) -> int:
    """Return the number of images whose tensors, held for the derivatives, fit into `MOST_BYTES`."""
    sizes: list[int] = []
    with torch.no_grad():
        simulate.Simulation(network, {}, see=lambda _, value: sizes.append(value.numel())).run(images[:1].clone())
    return max(1, min(BATCH, MOST_BYTES // (sum(sizes) * 4 * 3)))


def _digest(
    table: CalibrationTable,
    layers: dict[str, LayerWeights],
    schemes: Sequence[QuantScheme],
    images: torch.Tensor,
    steps: int,
    batch: int,
) -> str:
    """Return a hash of everything that a training depends on."""
    found = hashlib.sha256(
        repr(
            (
                _FORM,
                sorted(table.ranges.items()),
                sorted(table.symmetric.items()),
                schemes,
                tuple(images.shape),
                steps,
                batch,
            )
        ).encode()
    )
    found.update(images.contiguous().numpy().tobytes())
    for name, layer in layers.items():
        for part in (layer.weight, layer.bias, layer.scales):
            found.update(name.encode() + (b"" if part is None else part.tobytes()))
    return found.hexdigest()


class _Shown:
    """The images that the network sees at each step, and the float network's scores of them.

    Both depend on the number of the step alone, so that a training that continues sees what it would have seen.
    """

    def __init__(self, network: fx.GraphModule, images: torch.Tensor, layout: torch.memory_format) -> None:
        self.network, self.images, self.layout = network, images, layout
        self.scores: dict[tuple[int, int], torch.Tensor] = {}
        self.orders: dict[int, list[int]] = {}
        self.moves: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def batch(self, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images of a step, and their scores."""
        keys = [self._key(place) for place in range(step * count, (step + 1) * count)]
        chosen = self.images[[image for image, _ in keys]]
        moves = torch.stack([self._moves(version)[image] for image, version in keys])
        grid = F.affine_grid(moves, list(chosen.shape), align_corners=False)
        shown = F.grid_sample(chosen, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        shown = shown.to(memory_format=self.layout)
        missing = [number for number, key in enumerate(keys) if key not in self.scores]
        if missing:
            found = torch.as_tensor(self.network(shown[missing]))
            self.scores |= {keys[number]: scores for number, scores in zip(missing, found, strict=True)}
        return shown, torch.stack([self.scores[key] for key in keys])

    def _key(self, place: int) -> tuple[int, int]:
        """Return which image, in which version, has a place in the order of all."""
        turn, place = divmod(place, len(self.images))
        if turn not in self.orders:
            self.orders[turn] = torch.randperm(len(self.images), generator=_random(turn)).tolist()
        return self.orders[turn][place], turn % _VERSIONS

    def _moves(self, version: int) -> torch.Tensor:
        """Return the matrices (N, 2, 3) that shift each image by whole pixels, and mirror half of them."""
        if version not in self.moves:
            count, generator = len(self.images), _random(-1 - version)
            sides = torch.tensor(self.images.shape[:1:-1])  # width, height
            most = (sides * _MOST_SHIFT).long()
            pixels = [torch.randint(-int(side), int(side) + 1, (count,), generator=generator) for side in most]
            mirrored = 1 - 2 * torch.randint(2, (count,), generator=generator)
            matrices = torch.zeros(count, 2, 3)
            matrices[:, 0, 0], matrices[:, 1, 1] = mirrored, 1.0
            matrices[:, :, 2] = torch.stack(pixels, 1) * 2 / sides  # the image is from -1 to 1
            self.moves[version] = matrices
        return self.moves[version]


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _Rounded(torch.autograd.Function):
    """Rounding to a grid whose scale has a learned factor; gradients pass through what is not clipped.

    torch's own function takes ten times as long: it is not vectorized.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, factor: torch.Tensor, scale: float, low: int, high: int
    ) -> torch.Tensor:
        step = scale * math.exp(float(factor))
        rounded = (values * (1 / step)).round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(values, rounded)
        ctx.ends = (low - 0.5) * step, (high + 0.5) * step
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, rounded = ctx.saved_tensors
        inner = torch.ops.aten.hardtanh_backward(gradients[0], values, *ctx.ends)
        factor = _product(gradients[0], rounded) - _product(inner, values)
        return inner, factor.reshape(1), None, None, None


def _product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the sum of the products of two tensors' values."""
    if one.ndim == 4:  # channels_last has its values in this order
        one, other = one.permute(0, 2, 3, 1), other.permute(0, 2, 3, 1)
    return torch.dot(one.reshape(-1), other.reshape(-1))


@dataclass
class _Training:
    """State of a training: parameters and optimizer, kept in a file."""

    student: _Student
    optimizer: torch.optim.Optimizer
    path: Path | None
    digest: str
    saved: float = field(default_factory=time.monotonic)

    def resume(self) -> int:
        """Continue the training in the file if it is this one; return the number of steps done."""
        if self.path is None or not self.path.is_file():
            return 0
        try:
            content = torch.load(io.BytesIO(self.path.read_bytes()), map_location="cpu", weights_only=True)
            if content["digest"] != self.digest:
                return 0
            step, values, parameters = int(content["step"]), content["parameters"], self.student.parameters()
            if [value.shape for value in values] != [parameter.shape for parameter in parameters]:
                raise ValueError("its parameters have other shapes")
            self.optimizer.load_state_dict(content["optimizer"])
        except Exception as error:  # torch.load raises many kinds of errors for damaged files
            raise_if_not_damage(error, self.path)
            progress.note(f"distillation starts again: {self.path} is damaged")
            self.path.unlink()
            return 0
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)
        progress.note(f"distillation continues after step {step}")
        return step

    def save(self, step: int) -> None:
        """Save the state, unless that was done a short time ago."""
        if self.path is None or time.monotonic() - self.saved < SAVE_SECONDS:
            return
        buffer = io.BytesIO()
        values = [parameter.detach() for parameter in self.student.parameters()]
        state = self.optimizer.state_dict()
        torch.save({"digest": self.digest, "step": step, "parameters": values, "optimizer": state}, buffer)
        files.save_bytes(self.path, buffer.getvalue())
        self.saved = time.monotonic()


class _Student(fx.Interpreter):
    """Runs the quantized network with parameters: integers, biases, and factors of the ranges.

    Attributes:
        integers: float copies of the weights in steps of their scales. biases: in parts of `sizes`.
        factors: for each scheme, logarithm of the factor of each range (1,).
    """

    def __init__(
        self, network: fx.GraphModule, layers: dict[str, LayerWeights], grids: Sequence[dict[str, Grid]]
    ) -> None:
        super().__init__(network)
        self.names, self.grids, self.scheme = tensor_names(network.graph), grids, 0
        self.scales: dict[str, torch.Tensor] = {}
        self.integers: dict[str, nn.Parameter] = {}
        self.fixed: simulate.Weights = {}
        self.biases: dict[str, nn.Parameter] = {}
        self.sizes: dict[str, float] = {}
        for number, (name, layer) in enumerate(layers.items()):
            if layer.scales is None or number == 0:
                self.fixed |= simulate.tensors_of({name: layer})
                continue
            self.scales[name] = torch.from_numpy(layer.scales).view(-1, *[1] * (layer.weight.ndim - 1))
            self.integers[name] = nn.Parameter(torch.from_numpy(layer.weight) / self.scales[name])
            if layer.bias is not None:
                bias = torch.from_numpy(layer.bias)
                self.sizes[name] = float(bias.abs().mean()) + 1e-3
                self.biases[name] = nn.Parameter(bias / self.sizes[name])
        kept = {INPUT, *(self.names.get(node, "") for node in network.graph.output_node().all_input_nodes)}
        self.factors = [{name: nn.Parameter(torch.zeros(1)) for name in each if name not in kept} for each in grids]
        self.overwritten: set[str] = set()
        self.versions: dict[str, tuple[torch.Tensor, int]] = {}

    def at(self, scheme: int) -> _Student:
        """Return itself, set to the grids of one scheme."""
        self.scheme = scheme
        return self

    def others(self) -> list[nn.Parameter]:
        """Return the parameters that are no weights."""
        return [*self.biases.values(), *(factor for each in self.factors for factor in each.values())]

    def parameters(self) -> list[nn.Parameter]:
        return [*self.integers.values(), *self.others()]

    @torch.no_grad()
    def limit(self) -> None:
        """Keep the factors of the ranges within `_MOST_FACTOR`."""
        most = math.log(_MOST_FACTOR)
        for factor in (factor for each in self.factors for factor in each.values()):
            factor.clamp_(-most, most)

    def find_overwritten(self, images: torch.Tensor) -> None:
        """Find the rounded tensors that operators overwrite: these get copies, as derivatives need their values."""
        with torch.no_grad():
            for scheme in range(len(self.grids)):
                self.versions = {}
                self.at(scheme).run(images.clone())
                self.overwritten |= {name for name, (value, was) in self.versions.items() if value._version != was}
        self.versions = {}

    def run_node(self, node: fx.Node) -> Any:
        name = self.names.get(node, "")
        if name in self.integers or name in self.fixed:
            module = operators.module_of(self.module, node)  # type: ignore[arg-type]
            assert module is not None
            inputs: Any = self.map_nodes_to_values(node.all_input_nodes[0], node)
            value = simulate.apply(module, inputs, *self._weights(name))
        else:
            value = super().run_node(node)
        grid = self.grids[self.scheme].get(name)
        if grid is None or not isinstance(value, torch.Tensor):
            return value
        factor = self.factors[self.scheme].get(name)
        if factor is None:
            return simulate.fake_quantize(value, grid)
        ends = QMIN - grid.zero_point, QMAX - grid.zero_point
        value = _Rounded.apply(value, factor, grid.scale, *ends)
        if not torch.is_grad_enabled():
            self.versions[name] = value, value._version
        return value.clone() if name in self.overwritten else value

    def _weights(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        if name in self.fixed:
            return self.fixed[name]
        held = self.integers[name]
        whole = held + (held.round().clamp(-WEIGHT_QMAX, WEIGHT_QMAX) - held).detach()
        return whole * self.scales[name], self.biases[name] * self.sizes[name] if name in self.biases else None

    @torch.no_grad()
    def result(
        self, table: CalibrationTable, layers: dict[str, LayerWeights], schemes: Sequence[QuantScheme]
    ) -> Distilled:
        """Return the table and the layers with what was learned."""
        made = dict(layers)
        for name in self.integers:
            weight, bias = self._weights(name)
            made[name] = LayerWeights(weight.numpy(), None if bias is None else bias.numpy(), layers[name].scales)
        learned: dict[bool, dict[str, Range]] = {False: {}, True: {}}
        for scheme, factors in zip(schemes, self.factors, strict=True):
            spans = table.spans(scheme.symmetric)
            for name, factor in factors.items():
                size = math.exp(float(factor))
                learned[scheme.symmetric][name] = Range(spans[name].low * size, spans[name].high * size)
        return Distilled(table.with_ranges(learned[False], {**table.symmetric, **learned[True]}), made)

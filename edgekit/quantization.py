"""Records of quantization: calibration recipes and tables, schemes of runtimes, quantized models.

Tensors and layers have the names of the folded torch graph (`quant.naming.tensor_names`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgekit.errors import DataError, EdgekitError, UsageError, unknown
from edgekit.records import INPUTS, Sample

if TYPE_CHECKING:
    import numpy as np


# Calibration with fewer samples gives a warning.
FEW_SAMPLES = 32


@dataclass(frozen=True)
class CalibrationRecipe:
    """Contents of a ``calibration/*.toml``: calibration samples, observer and recovery steps.

    Attributes:
        samples: number of calibration samples. seed: of their choice.
        observer: of the activations, a name in `quant.observers.OBSERVERS` or "measured".
        steps: recovery steps in order, names in `quant.recover.STEPS`; with none, weights are rounded to nearest.
        recovery_samples: number of samples for the steps, whose memory grows with it.
        damping: of the steps that solve for weights, relative to the mean power of the inputs.
        distillation: number of training steps of the step "distill".
    """

    name: str
    samples: int = 256
    seed: int = 0
    observer: str = "percentile"
    steps: tuple[str, ...] = ()
    recovery_samples: int = 256
    damping: float = 0.3
    distillation: int = 400
    description: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 100_000:
            raise UsageError(f"calibration recipe {self.name!r}: samples must be 1 to 100000")
        if not 1 <= self.recovery_samples <= 1024:
            raise UsageError(f"calibration recipe {self.name!r}: recovery_samples must be 1 to 1024")
        if not 1e-3 <= self.damping <= 1000:
            raise UsageError(f"calibration recipe {self.name!r}: damping must be 0.001 to 1000")
        if not 1 <= self.distillation <= 1_000_000:
            raise UsageError(f"calibration recipe {self.name!r}: distillation must be 1 to 1000000 steps")


@dataclass(frozen=True)
class CalibrationSet:
    """The samples that observers see, in order."""

    samples: tuple[Sample, ...]
    fingerprint: str


@dataclass(frozen=True)
class Range:
    """The interval of real numbers that a tensor's integers cover; it contains zero."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low <= 0.0 <= self.high):
            raise DataError(f"a quantization range must contain zero, got [{self.low}, {self.high}]")


# The limits of int8.
QMIN, QMAX = -128, 127


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of one activation tensor; `low` and `high` are those of int8."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The smallest real number that the grid holds."""
        return (QMIN - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest real number that the grid holds."""
        return (QMAX - self.zero_point) * self.scale


@dataclass(frozen=True)
class CalibrationTable:
    """Ranges of the tensors of a folded torch graph.

    Attributes:
        ranges: tensor -> the range that the observer chose.
        observer, recipe: their names. samples: fingerprint of the calibration set. parent: sha256 of the checkpoint.
        seen: tensor -> the range of all its values.
        symmetric: tensor -> the range for symmetric grids, where it is another than that in `ranges`. What is right
            for 255 steps from end to end is too wide where one half has nothing to hold.
    """

    ranges: dict[str, Range]
    observer: str
    recipe: str
    samples: str
    parent: str
    seen: dict[str, Range] = field(default_factory=dict)
    symmetric: dict[str, Range] = field(default_factory=dict)

    def spans(self, symmetric: bool) -> dict[str, Range]:
        """Return the range of each tensor for symmetric grids, or for others."""
        return {**self.ranges, **self.symmetric} if symmetric else self.ranges

    def with_ranges(self, ranges: dict[str, Range], symmetric: dict[str, Range] | None = None) -> CalibrationTable:
        """Return a table with other ranges for some tensors, whose layers were rewritten so that they hold them.

        Args:
            symmetric: those for symmetric grids, where they are others.
        """
        seen, given = dict(self.seen), (ranges, symmetric or {})
        for name, span in (each for spans in given for each in spans.items()):
            if name in seen:
                seen[name] = Range(min(seen[name].low, span.low), max(seen[name].high, span.high))
        kept = {name: span for name, span in self.symmetric.items() if name not in ranges}
        return replace(self, ranges={**self.ranges, **ranges}, seen=seen, symmetric={**kept, **given[1]})


@dataclass(frozen=True)
class QuantScheme:
    """The quantization that a runtime wants for its activations.

    Attributes:
        symmetric: all zero points are 0; otherwise they are free.
        everywhere: every tensor holds integers (LiteRT); otherwise only those that INT8 layers read (TensorRT).
        shifted: biases move a one-sided tensor to the middle of its grid where they can, so that a zero
            point of 0 costs nothing there (`quant.qdq`, rule 9).
        few_kernels: convolutions with few channels have no INT8 kernel and compute in floating point, even
            where everything around them holds integers.
    """

    symmetric: bool
    everywhere: bool
    shifted: bool = False
    few_kernels: bool = False


TENSORRT_SCHEME = QuantScheme(symmetric=True, everywhere=False, shifted=True, few_kernels=True)
LITERT_SCHEME = QuantScheme(symmetric=False, everywhere=True)
# With ``--parity strict``: TensorRT rounds every tensor that LiteRT rounds, to the same grid.
STRICT_TENSORRT_SCHEME = QuantScheme(symmetric=True, everywhere=True, few_kernels=True)


@dataclass(frozen=True)
class Placement:
    """Tensors that a runtime holds as integers, and their grids, in terms of the folded torch graph.

    Made once by `quant.placement.place`; emitters write it, the simulation runs it.

    Attributes:
        grids: the int8 grid of every tensor in the calibration table.
        integers: names of the tensors that are rounded to their grid, in the order of the graph.
        reads: pairs (tensor, operation that reads it rounded); an operation has the name of its output. Of a tensor
            that is padded with zeros there is a pair before and after the padding, which a runtime may do either way.
        int8_layers: names of the layers that compute with int8 weights on int8 inputs.
        int8_products: names of the products of two matrices that both are rounded.
        float_operators: names of the operators that read and write tensors as they are, where all others work on
            integers (LiteRT).
    """

    grids: dict[str, Grid]
    integers: tuple[str, ...]
    reads: frozenset[tuple[str, str]]
    int8_layers: frozenset[str]
    int8_products: frozenset[str] = frozenset()
    float_operators: frozenset[str] = frozenset()

    @property
    def rounded(self) -> dict[str, Grid]:
        """Name and grid of every tensor that is rounded."""
        return {name: self.grids[name] for name in self.integers if name in self.grids}


PARITIES = ("best", "strict")
# Types of the output of a LiteRT file.
OUTPUTS = ("float32", "int8", "uint8")


@dataclass(frozen=True)
class Border:
    """Input and output type of a LiteRT file: a row of `INPUTS`, and one of `OUTPUTS`."""

    input: str = "float32"
    output: str = "float32"

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise unknown("input", self.input, INPUTS)
        if self.output not in OUTPUTS:
            raise unknown("output", self.output, OUTPUTS)


@dataclass(frozen=True)
class LayerWeights:
    """Weights of a Conv2d or Linear in the quantized model, in torch's layout.

    Attributes:
        weight: float32 (outputs, ...); with `scales`, integer multiples of them, at most 127 times.
        bias: float32 (outputs,) or None.
        scales: float32 (outputs,), or None if the layer stays in floating point.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    scales: np.ndarray | None = None

    @property
    def integers(self) -> np.ndarray:
        """The weight in steps of its scales, int8, with the shape of the weight."""
        import numpy as np

        if self.scales is None:
            raise DataError("a layer in floating point has no integers")
        steps = self.weight / self.scales.reshape(-1, *[1] * (self.weight.ndim - 1))
        return np.clip(np.rint(steps), -127, 127).astype(np.int8)


@dataclass(frozen=True)
class QuantizedModel:
    """Everything that the emitters write: one calibration table, one set of weights, one placement per scheme.

    `quant.placement.quantized_model` makes it.

    Attributes:
        layers: weights of every Conv2d and Linear by name; layers without scales stay in floating point.
        symmetric: activations have zero point 0 on every target (``--parity strict``).
        steps: the recovery steps that were applied.
        rewritten: float weights that `layers` were made from, where they differ from the trained ones
            (`quant.dead_channels`): the same function with other weights.
        placements: where integers are held, for each scheme that a target may have.
    """

    table: CalibrationTable
    layers: dict[str, LayerWeights]
    symmetric: bool = False
    steps: tuple[str, ...] = field(default=())
    rewritten: dict[str, LayerWeights] = field(default_factory=dict)
    placements: dict[QuantScheme, Placement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Raises:
            DataError: a placement is of other layers or of another table (after `dataclasses.replace`).
        """
        for placement in self.placements.values():
            if placement.int8_layers & set(self.float_layers) or placement.grids.keys() != self.table.ranges.keys():
                raise DataError("the placements of a quantized model are not of its layers and its table")

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the layers that stay in floating point, in the order of the graph."""
        return tuple(name for name, layer in self.layers.items() if layer.scales is None)

    def scheme(self, native: QuantScheme) -> QuantScheme:
        """Return the scheme for a runtime: its native one, or its symmetric variant under strict parity."""
        return QuantScheme(True, native.everywhere, few_kernels=native.few_kernels) if self.symmetric else native

    def placement(self, native: QuantScheme) -> Placement:
        """Return where a runtime with the scheme `native` holds integers.

        Raises:
            EdgekitError: the model was made without placements for it.
        """
        scheme = self.scheme(native)
        if scheme not in self.placements:
            raise EdgekitError(f"this quantized model has no placement for {scheme}")
        return self.placements[scheme]


def check_parity_mode(name: str) -> None:
    """Check a value of ``--parity``.

    Raises:
        UsageError: it is unknown.
    """
    if name not in PARITIES:
        raise unknown("parity", name, PARITIES)

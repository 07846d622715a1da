"""The nouns of quantization: what was observed, what was decided, and what a runtime takes.

Tensors and layers are named as in the folded torch graph (`quant.names.tensor_names`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.errors import DataError, UsageError, unknown
from edgekit.records import INPUTS, Sample

if TYPE_CHECKING:
    import numpy as np


# The least that ranges may be taken from without a warning.
FEW_SAMPLES = 32


@dataclass(frozen=True)
class CalibrationRecipe:
    """A ``calibration/*.toml``: which samples are shown, how ranges are taken, what repairs the error.

    Attributes:
        observer: of the activations, a name of `quant.observers.OBSERVERS`.
        steps: recovery steps in order, names of `quant.recover.STEPS`; empty: round to nearest.
        recovery_samples: how many of the samples the steps see; their memory grows with it.
        damping: of the steps that solve for weights, relative to the mean power of the inputs.
    """

    name: str
    samples: int = 256
    seed: int = 0
    observer: str = "percentile"
    steps: tuple[str, ...] = ()
    recovery_samples: int = 256
    damping: float = 0.3
    description: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 100_000:
            raise UsageError(f"calibration recipe {self.name!r}: samples must be 1 to 100000")
        if not 1 <= self.recovery_samples <= 1024:
            raise UsageError(f"calibration recipe {self.name!r}: recovery_samples must be 1 to 1024")
        if not 1e-3 <= self.damping <= 1000:
            raise UsageError(f"calibration recipe {self.name!r}: damping must be 0.001 to 1000")


@dataclass(frozen=True)
class CalibrationSet:
    """The samples that are shown to the observers, in order."""

    samples: tuple[Sample, ...]
    fingerprint: str


@dataclass(frozen=True)
class Range:
    """The float interval that a tensor's integers will cover; always contains zero."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low <= 0.0 <= self.high):
            raise DataError(f"a quantization range must contain zero, got [{self.low}, {self.high}]")


@dataclass(frozen=True)
class CalibrationTable:
    """Tensor name of the folded torch graph -> range.

    Attributes:
        observer: that gave the ranges. samples: fingerprint of what it was shown. parent: the checkpoint's sha256.
        seen: the least and the largest value of each tensor, whatever the observer made of them.
    """

    ranges: dict[str, Range]
    observer: str
    recipe: str
    samples: str
    parent: str
    seen: dict[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class QuantScheme:
    """How a runtime wants its activations.

    Attributes:
        symmetric: zero point 0, else free.
        everywhere: every tensor holds integers (LiteRT), else those that INT8 layers read (TensorRT).
        shifted: biases move a one-sided tensor to the middle of its grid where they can, so that a zero
            point of 0 costs nothing there (`quant.shift`).
    """

    symmetric: bool
    everywhere: bool
    shifted: bool = False


TENSORRT_SCHEME = QuantScheme(symmetric=True, everywhere=False, shifted=True)
LITERT_SCHEME = QuantScheme(symmetric=False, everywhere=True)
PARITIES = ("best", "strict")
# What the tensor `scores` of a LiteRT file may hold.
OUTPUTS = ("float32", "int8", "uint8")


@dataclass(frozen=True)
class Border:
    """What a LiteRT file takes and gives: a row of `INPUTS`, and one of `OUTPUTS`."""

    input: str = "float32"
    output: str = "float32"

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise unknown("input", self.input, INPUTS)
        if self.output not in OUTPUTS:
            raise unknown("output", self.output, OUTPUTS)


@dataclass(frozen=True)
class LayerWeights:
    """What a Conv2d or Linear carries in the quantized model, in torch's layout.

    Attributes:
        weight: float32 (outputs, ...); with `scales` it is a whole multiple of them, at most 127.
        bias: float32 (outputs,) or None.
        scales: float32 (outputs,); None where the layer stays in floating point.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    scales: np.ndarray | None = None

    @property
    def integers(self) -> np.ndarray:
        """The weight in steps of its scales, int8, shaped as the weight."""
        import numpy as np

        if self.scales is None:
            raise DataError("a layer in floating point has no integers")
        steps = self.weight / self.scales.reshape(-1, *[1] * (self.weight.ndim - 1))
        return np.clip(np.rint(steps), -127, 127).astype(np.int8)


@dataclass(frozen=True)
class QuantizedModel:
    """What both emitters write: one table, one set of weights.

    Attributes:
        layers: every Conv2d and Linear by name; those without scales stay in floating point.
        symmetric: activations have zero point 0 wherever they go (``--parity strict``).
        steps: the recovery steps that were taken.
        rewritten: the float weights that `layers` stand for, where they are not those of the trained network
            (`quant.copies`): the same function, by other weights.
    """

    table: CalibrationTable
    layers: dict[str, LayerWeights]
    symmetric: bool = False
    steps: tuple[str, ...] = field(default=())
    rewritten: dict[str, LayerWeights] = field(default_factory=dict)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """The layers that stay in floating point, in the order of the graph."""
        return tuple(name for name, layer in self.layers.items() if layer.scales is None)

    def scheme(self, native: QuantScheme) -> QuantScheme:
        """The scheme that a runtime gets: its own, or the symmetric one that all share."""
        return QuantScheme(True, native.everywhere) if self.symmetric else native


def check_parity_mode(name: str) -> None:
    """Refuse an unknown ``--parity``."""
    if name not in PARITIES:
        raise unknown("parity", name, PARITIES)

"""Records of measuring: raw values, figures derived from them, and the limits that they must keep."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError, unknown
from edgekit.records import Artifact

if TYPE_CHECKING:
    import numpy as np

    from edgekit.environment import Environment

SOURCES = ("device", "host", "emulated")
# Baselines that accuracy and speed-up may refer to, the preferred one first: PyTorch cannot be measured for a run that
# keeps its ONNX file as it is. Other ``baseline/`` artifacts are rows like all others.
REFERENCES = ("baseline/pytorch", "baseline/onnxruntime")
# Name of the device that is this machine.
HERE = "local"
# Prefix of the device names of browsers; a browser may run on this machine.
BROWSERS = "web:"
# Fewest samples that carry a latency percentile, by MLPerf early stopping (confidence 0.99, d = 0); 8 of the median.
LEAST_SAMPLES = {50: 8, 90: 64, 95: 130, 99: 662}
SCENARIOS = ("single_stream", "offline")


class TextEnum(str, Enum):
    """An enum whose values are the words that users and JSON see."""

    __str__ = str.__str__

    def __format__(self, form: str) -> str:
        return str.__format__(str(self), form)

    @property
    def text(self) -> str:
        """The words for users."""
        return str(self.value)


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """Raw values of one artifact on one device; figures are derived when they are needed.

    Attributes:
        latencies_ns: int64 (queries,), single stream. warmup_ns: int64, of the queries before.
        logits: (samples, classes), in the order of the test split. expected: (samples,), the labels; -1 if unknown.
        compute_ns: int64, time of the model alone by the device's own clock; empty where the device does not tell.
        layers: name and median milliseconds of each. power: (n, 2), seconds and mW of the whole board; or None.
        offline_ns: int64, nanoseconds of consecutive passes over `environment.offline_images` images each; empty
            where the suite asks for no throughput.
    """

    artifact: Artifact
    device: str
    runtime: str
    source: str
    environment: Environment
    latencies_ns: np.ndarray
    logits: Any
    expected: Any
    size_bytes: int
    compute_ns: np.ndarray = ()  # type: ignore[assignment]
    layers: tuple[tuple[str, float], ...] = ()
    power: Any = None
    warmup_ns: np.ndarray = ()  # type: ignore[assignment]
    offline_ns: np.ndarray = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        import numpy as np

        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if len(self.logits) != len(self.expected):
            raise DataError(f"{self.artifact.name}: {len(self.logits)} outputs for {len(self.expected)} samples")
        for name in ("latencies_ns", "compute_ns", "warmup_ns", "offline_ns"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))


@dataclass(frozen=True)
class Quantile:
    """A latency percentile in milliseconds.

    Attributes:
        ms: percentile of the samples; None where there are too few.
        low_ms, high_ms: its 95 % interval; None where the samples have no such bound.
        bound_ms: early-stopping estimate (MLPerf), above the true percentile with 99 % confidence; None where there
            are too few samples, and of the median.
    """

    percentile: float
    ms: float | None
    low_ms: float | None
    high_ms: float | None
    bound_ms: float | None


class FlagKind(TextEnum):
    """Reasons to doubt a series of latencies."""

    STARTED_UP = "started up"
    DRIFTS = "drifts"
    STEP = "step"
    TWO_MODES = "two modes"
    AUTOCORRELATED = "autocorrelated"


@dataclass(frozen=True)
class Flag:
    """A reason to doubt a series of latencies.

    Attributes:
        text: with figures, for users. ratio: latencies of the slower part of the series over those of the faster part.
    """

    kind: FlagKind
    text: str
    ratio: float = 1.0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Latency:
    """Figures of a series of latencies, and reasons to doubt it.

    Attributes:
        queries: that count, after the warm-up. warmup: measured queries that were cut off as start-up.
        method: of the intervals: "order statistics", with "of the effective sample" where queries depend on each other.
        autocorrelation: of the ranks, at lag 1.
        images_per_s: offline throughput with its 95 % interval; None where it was not measured.
    """

    queries: int
    warmup: int
    quantiles: tuple[Quantile, ...]
    method: str
    autocorrelation: float
    flags: tuple[Flag, ...] = ()
    images_per_s: float | None = None
    images_per_s_low: float | None = None
    images_per_s_high: float | None = None


@dataclass(frozen=True)
class Roofline:
    """Lower limit of a latency by the peaks of the device, and the part of it that was reached.

    Attributes:
        macs, bytes_moved: of one image: multiply-accumulates; weights and activations read and written once.
        limit_ms: the longer of computing and moving at the device's peaks. bound: which: "compute" or "memory".
        reached: `limit_ms` over the measured p50 of one image; above 1 where caches save what is counted as moved.
        source: of the peaks.
    """

    macs: int
    bytes_moved: int
    limit_ms: float
    bound: str
    reached: float
    source: str


@dataclass(frozen=True)
class LayerFigures:
    """Time of one layer on a device, and its error in INT8, under the module's name in the trained network.

    Attributes:
        ms: median. percent: of the time of all layers. alone_db, accumulated_db: SQNR of its activations with only it,
            and with all layers up to it, quantized. effect_db: SQNR of the logits with only it quantized. cosine: of
            `accumulated`. None where it was not measured.
    """

    name: str
    kind: str
    ms: float | None
    percent: float | None
    macs: int | None = None
    alone_db: float | None = None
    accumulated_db: float | None = None
    effect_db: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class LayerCost:
    """Work of one layer with weights, or of another operation, of the folded network, for one image.

    Attributes:
        layer: the layer with weights that it is, or that it follows in the graph; "" before the first.
        macs: multiply-accumulates. weights, biases: numbers of parameters. read, written: numbers of activations.
        tensors: names of its outputs: its own, and that of the activation fused into it.
    """

    name: str
    kind: str
    layer: str
    macs: int = 0
    weights: int = 0
    biases: int = 0
    read: int = 0
    written: int = 0
    tensors: tuple[str, ...] = ()


def not_finite(count: int, answers: int) -> str:
    """Return in words that answers are no numbers; "" if `count` is 0."""
    return f"{count} of {answers} answers are NaN or infinite" if count else ""


@dataclass(frozen=True)
class Summary:
    """Figures of one artifact on one device, compared with the baseline.

    Attributes:
        ran_in: runtime and version. stand_in: another runtime than the artifact's own was measured.
        busy: other work ran just before the measurement.
        top1, top1_low, top1_high: percent, with the 95 % interval. drop: points below the baseline, with `drop_low`
            and `drop_high`. p_value: McNemar's test against the baseline's answers. All of these are None for images
            without labels. agreement: percent, with the 95 % interval for such images.
        no_answer, baseline_no_answer: number of answers with scores that are NaN or infinite, which count as wrong.
        one_class: every image got the same answer, although they are of several classes.
        p50_ms, p90_ms, p99_ms: latency of a whole batch; None where the samples cannot carry it.
        speedup: p50 of the baseline over this p50, per image, with its 95 % interval. The baseline is that of the same
            device, else one with as many threads, else the desktop's; None where the numbers of threads differ, and of
            a stand-in. speedup_best: over the fastest baseline of that machine. speedup_doubtful: other work ran while
            one of the two was measured. reference: the baseline's name, one of `REFERENCES`.
        compute_ms: p50 of the model alone, by the device's clock. state: of the board afterwards (`BoardState`).
        rail, idle_mw, gross_mj, net_mj: energy per image; no_energy: why there is none.
        throttling: reasons to think that the board slowed itself down.
    """

    artifact: str
    target: str
    precision: str
    ran_in: str
    processor: str
    device: str
    threads: int
    source: str
    stand_in: bool
    baseline: bool
    busy: bool
    size_mb: float
    samples: int
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    drop: float | None
    p_value: float | None
    agreement: float
    queries: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    speedup: float | None
    compute_ms: float | None = None
    state: dict[str, Any] = field(default_factory=dict)
    rail: str = ""
    idle_mw: float | None = None
    gross_mj: float | None = None
    net_mj: float | None = None
    no_energy: str = ""
    batch: int = 1
    throttling: tuple[str, ...] = ()
    latency: Latency | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_best: float | None = None
    speedup_doubtful: bool = False
    roofline: Roofline | None = None
    no_answer: int = 0
    baseline_no_answer: int = 0
    one_class: bool = False
    agreement_low: float | None = None
    agreement_high: float | None = None
    reference: str = REFERENCES[0]

    @property
    def is_reference(self) -> bool:
        """True for the baseline that figures are compared with."""
        return self.artifact == self.reference

    @property
    def score(self) -> float:
        """Top-1, or for images without labels the agreement with the baseline; percent."""
        return self.agreement if self.top1 is None else self.top1

    @property
    def score_interval(self) -> tuple[float, float]:
        """The 95 % interval of the score, percent."""
        low, high = (
            self.agreement_low if self.top1 is None else self.top1_low,
            (self.agreement_high if self.top1 is None else self.top1_high),
        )
        return 0.0 if low is None else low, 100.0 if high is None else high

    @property
    def loss(self) -> float:
        """The drop; for images without labels the share of other answers, which no drop exceeds. Points."""
        return 100 - self.agreement if self.drop is None else self.drop

    @property
    def share_left(self) -> float | None:
        """Percent of the baseline's right answers that are left, from whole numbers; None if it has none right."""
        if self.top1 is None or self.drop is None:
            return None
        right, baseline = (round(percent * self.samples / 100) for percent in (self.top1, self.top1 + self.drop))
        return 100 * right / baseline if baseline > 0 else None

    def table(self) -> dict[str, Any]:
        """Return plain values for JSON; flags as their texts."""
        found = dataclasses.asdict(self)
        if self.latency is not None:
            found["latency"]["flags"] = [flag.text for flag in self.latency.flags]
        return found


@dataclass(frozen=True)
class Delegation:
    """Nodes of a graph that a delegate took. `of`: number of all nodes, None where it is not printed."""

    name: str
    nodes: int
    of: int | None
    partitions: int


class Delegated(TextEnum):
    """Part of a model that ran on the accelerator."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ProgramFigures:
    """Figures that a program prints of a measurement, in milliseconds.

    Attributes:
        first_ms: first measured run. cold_ms: first run of the warm-up.
        median_ms, p5_ms, p95_ms: None where the program does not print them.
    """

    runs: int
    mean_ms: float
    min_ms: float
    max_ms: float
    std_ms: float
    first_ms: float
    cold_ms: float
    warmup_ms: float
    init_ms: float
    median_ms: float | None
    p5_ms: float | None
    p95_ms: float | None
    delegation: Delegated
    delegates: tuple[Delegation, ...] = ()


@dataclass(frozen=True)
class ProgramResult:
    """One artifact measured by a program on a device.

    It has neither single latencies nor answers, so no percentile of edgekit's, and stands in a table of its own.
    """

    artifact: Artifact
    device: str
    program: str
    program_sha256: str
    source: str
    environment: Environment
    figures: ProgramFigures
    size_bytes: int

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)

    def table(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        own = {**vars(self), "environment": self.environment.table()}
        return {**own, "artifact": dataclasses.asdict(self.artifact), "figures": dataclasses.asdict(self.figures)}


def _gate(text: str) -> Any:
    """Return a field that is an option of the command line too."""
    return field(default=None, metadata={"help": f"Gate: {text}", "known": ()})


@dataclass(frozen=True)
class Gates:
    """Limits that a measured artifact must keep; None: no limit. MLPerf Mobile wants a `min_accuracy` of 98."""

    max_drop: float | None = _gate("most points of top-1 below the baseline.")
    min_accuracy: float | None = _gate("least percent of the baseline's top-1.")
    max_p90_ms: float | None = _gate("highest p90 latency in ms (early-stopping estimate).")
    min_speedup: float | None = _gate("least ratio of the baseline's median latency to the model's.")

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not abs(limit) < 1e9:
                raise DataError(f"the gate {name} must be a number, not {limit}")
            if limit is not None and limit < 0 and name != "max_drop":
                raise DataError(f"the gate {name} must be 0 or greater, not {limit:g}")


@dataclass(frozen=True)
class Suite:
    """A ``benchmarks/suites/*.toml``: when a latency measurement ends, and the gates of its results.

    Attributes:
        scenarios: "single_stream", one query after the other, each timed; and "offline", images back to back.
        percentiles: that the queries must carry. offline_s: duration of the offline scenario.
        power_s: duration of each power measurement, idle and busy, where a board can tell; 0: none.
        cooldown_s: pause of a phone before each model but the first.
    """

    name: str
    description: str = ""
    warmup_queries: int = 10
    warmup_s: float = 0.5
    min_queries: int = 662
    min_s: float = 2.0
    max_s: float = 60.0
    power_s: float = 5.0
    scenarios: tuple[str, ...] = SCENARIOS[:1]
    percentiles: tuple[int, ...] = (50,)
    offline_s: float = 10.0
    cooldown_s: float = 0.0
    gates: Gates = Gates()

    def __post_init__(self) -> None:
        times = (self.warmup_s, self.min_s, self.max_s, self.power_s, self.offline_s, self.cooldown_s)
        if not all(0 <= t <= 86_400 for t in times) or self.warmup_queries < 0 or self.min_queries < 1:
            raise DataError(f"suite {self.name!r}: times must be 0 to 86400 seconds, min_queries at least 1")
        if self.min_s > self.max_s:
            raise DataError(f"suite {self.name!r}: min_s is {self.min_s:g}, above max_s, which is {self.max_s:g}")
        for scenario in self.scenarios:
            if scenario not in SCENARIOS:
                raise unknown("scenario", scenario, SCENARIOS)
        if SCENARIOS[0] not in self.scenarios:
            raise DataError(f"suite {self.name!r}: scenarios must include {SCENARIOS[0]}: speed-ups are of its median")
        for percentile in self.percentiles:
            if percentile not in LEAST_SAMPLES:
                raise unknown("percentile", str(percentile), [str(known) for known in LEAST_SAMPLES])
            if self.min_queries < LEAST_SAMPLES[percentile]:
                raise DataError(
                    f"suite {self.name!r}: p{percentile} needs {LEAST_SAMPLES[percentile]} queries, min_queries is "
                    f"{self.min_queries}"
                )

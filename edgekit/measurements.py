"""The nouns of measuring: the raw values, and what is derived from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import DataError, unknown
from edgekit.records import Artifact

SOURCES = ("device", "host", "emulated")


@dataclass(frozen=True)
class BenchmarkResult:
    """One artifact on one device: raw latencies and logits; statistics are derived when read.
    `latencies_ns` one integer per query (single stream, batch 1). `logits` is samples x classes,
    in the order of the test split; `expected` per sample the label. Where the device tells: `compute_ns` by its
    own clock, of the model alone; `layers` name and median ms; `power` (n, 2), seconds and mW of the whole board.
    `warmup_ns`: the queries before the measured ones. `offline_ns`: nanoseconds of one pass after the other over
    ``environment["offline_images"]`` images each, back to back; empty where the suite asks for no throughput.
    """

    artifact: Artifact
    device: str
    runtime: str
    source: str
    environment: dict[str, Any]
    latencies_ns: tuple[int, ...]
    logits: Any
    expected: Any
    size_bytes: int
    compute_ns: tuple[int, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()
    power: Any = None
    warmup_ns: tuple[int, ...] = ()
    offline_ns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if len(self.logits) != len(self.expected):
            raise DataError(f"{self.artifact.name}: {len(self.logits)} outputs for {len(self.expected)} samples")


@dataclass(frozen=True)
class Quantile:
    """A latency percentile in milliseconds, and how far the samples carry it.

    Attributes:
        ms: the sample's own percentile; None where even that would be a guess.
        low_ms, high_ms: its 95 % interval; None where the samples have no such bound.
        bound_ms: the early-stopping estimate (MLPerf), above the true percentile with 99 % confidence; None is
            insufficient samples. The median has none.
    """

    percentile: float
    ms: float | None
    low_ms: float | None
    high_ms: float | None
    bound_ms: float | None


@dataclass(frozen=True)
class Latency:
    """What raw latencies say, and whether they can be believed.

    Attributes:
        queries: that count: those behind the warm-up. warmup: queries that were measured and taken off, because the
            series had not settled yet.
        method: of the intervals: "order statistics", or those "of the effective sample" where queries depend on each
            other. autocorrelation: at lag 1, of the ranks.
        flags: what makes the series doubtful, each in words that can stand in a note.
        images_per_s: offline throughput, with its 95 % interval; None where it was not measured.
    """

    queries: int
    warmup: int
    quantiles: tuple[Quantile, ...]
    method: str
    autocorrelation: float
    flags: tuple[str, ...] = ()
    images_per_s: float | None = None
    images_per_s_low: float | None = None
    images_per_s_high: float | None = None


@dataclass(frozen=True)
class Roofline:
    """What a device could do at best, and what was reached.

    Attributes:
        macs, bytes_moved: of one image: multiply-accumulates; weights and activations read and written once.
        limit_ms: the longer of computing and moving at the device's peaks. bound: which: "compute" or "memory".
        reached: `limit_ms` over the measured p50 of one image; above 1 where caches save what is counted as moved.
        source: where the peaks are from.
    """

    macs: int
    bytes_moved: int
    limit_ms: float
    bound: str
    reached: float
    source: str


@dataclass(frozen=True)
class LayerFigures:
    """One layer of the trained network, by its module's name: its time on a device, and its error in INT8.

    Attributes:
        ms: median; percent: of all layers' time. alone_db, accumulated_db: SQNR of its activations with nothing, and
            with all before it, quantized; effect_db: of the logits when only it is quantized; cosine: of `accumulated`.
            None where it was not measured.
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
class Summary:
    """One artifact on one device, judged. Accuracies in percent, `drop` in points below the baseline.
    `p_value` is of McNemar's test against the baseline's answers. A latency percentile is None
    where the samples cannot carry it. `stand_in` says that another runtime than the artifact's own
    was measured. `speedup` is the baseline's p50 over this one's: the baseline of the same device if there is one,
    else one with as many threads, else the desktop's; None where the numbers of threads differ, and of a stand-in.
    `busy`: other work ran.
    Of a board that tells: `compute_ms` the p50 of the model alone, by the device's clock; `state` of the board
    afterwards; milliwatts and millijoules per image, or why there are none; what slowed it down.
    Latencies are of a whole `batch`, `speedup` is per image. `drop_low` to `drop_high` and `speedup_low` to
    `speedup_high` are 95 % intervals; `speedup_best` is over the fastest baseline of that machine.
    `speedup_doubtful`: either side of the ratio was measured while other work ran.
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
    top1: float
    top1_low: float
    top1_high: float
    drop: float
    p_value: float
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


@dataclass(frozen=True)
class Delegation:
    """What a delegate took of a graph: `nodes` out of `of` (None where that is not said), in so many partitions."""

    name: str
    nodes: int
    of: int | None
    partitions: int


@dataclass(frozen=True)
class ProgramFigures:
    """What a program that keeps no single times says of them, in milliseconds.
    `first_ms` is the first measured run, `cold_ms` the first of the warm-up. Median, p5 and p95 are the program's
    own, None where it has none. `delegation`: how much ran on the accelerator, full, partial, none or unknown.
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
    delegation: str
    delegates: tuple[Delegation, ...] = ()


@dataclass(frozen=True)
class ProgramResult:
    """One artifact measured by a program on a device: no raw latencies and no answers, so it is no `BenchmarkResult`,
    carries no percentile of edgekit's, and stands in a table of its own.
    """

    artifact: Artifact
    device: str
    program: str
    program_sha256: str
    source: str
    environment: dict[str, Any]
    figures: ProgramFigures
    size_bytes: int

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)


# When a measurement has seen enough, and what it must hold: ``benchmarks/suites/*.toml`` as records.

# The fewest samples that carry a latency percentile: MLPerf early stopping, confidence 0.99, d = 0.
# Of a median: by edgekit.
LEAST_SAMPLES = {50: 8, 90: 64, 95: 130, 99: 662}
SCENARIOS = ("single_stream", "offline")


def _gate(text: str) -> Any:
    """A field that is an option of the command line too."""
    return field(default=None, metadata={"help": f"Gate: {text}", "known": ()})


@dataclass(frozen=True)
class Gates:
    """Limits that a measured artifact must keep; None is no limit. MLPerf Mobile wants a `min_accuracy` of 98."""

    max_drop: float | None = _gate("points of top-1 below the baseline, at most.")
    min_accuracy: float | None = _gate("percent of the baseline's top-1, at least.")
    max_p90_ms: float | None = _gate("p90 latency by early stopping, at most.")
    min_speedup: float | None = _gate("the baseline's median latency over the model's, at least.")

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not abs(limit) < 1e9:
                raise DataError(f"the gate {name} must be a number, not {limit}")
            if limit is not None and limit < 0 and name != "max_drop":
                raise DataError(f"the gate {name} cannot be below 0: {limit:g}")


@dataclass(frozen=True)
class Suite:
    """A ``benchmarks/suites/*.toml``: when a latency measurement has seen enough, and what must be held.

    Attributes:
        scenarios: "single_stream", one query after the other, each timed; and "offline", images back to back.
        percentiles: that its queries must carry. offline_s: how long images are passed back to back.
        power_s: how long power is measured idle, and busy, where a board can tell; 0: not at all.
        cooldown_s: how long a phone rests before each model but the first.
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
            raise DataError(f"suite {self.name!r}: scenarios must have {SCENARIOS[0]}: speedups are of its median")
        for percentile in self.percentiles:
            if percentile not in LEAST_SAMPLES:
                raise unknown("percentile", str(percentile), [str(known) for known in LEAST_SAMPLES])
            if self.min_queries < LEAST_SAMPLES[percentile]:
                raise DataError(
                    f"suite {self.name!r}: p{percentile} needs {LEAST_SAMPLES[percentile]} queries, min_queries is "
                    f"{self.min_queries}"
                )


# Accuracy, and the speed-up, are against this one; others of ``baseline/`` are further rows.
REFERENCE = "baseline/pytorch"
# The device that is this machine.
HERE = "local"
# How the names of browsers begin; one may run on this machine.
BROWSERS = "web:"
# The share of all cores that other work took just before, above which latencies are called doubtful.
BUSY = 0.2


@dataclass(frozen=True)
class LayerCost:
    """One layer with weights, or another operation, of the folded network, for one image.

    Attributes:
        layer: the layer with weights that it is, or that it follows in the graph; "" before the first.
        macs: multiply-accumulates. weights, biases: how many parameters. read, written: how many activations.
        tensors: the names of what it writes: by itself, and with the activation that is fused into it.
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

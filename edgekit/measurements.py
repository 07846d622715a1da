"""The nouns of measuring: when it has seen enough, the raw values, and what is derived from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import DataError, unknown
from edgekit.records import Artifact

# The fewest samples that carry a latency percentile: MLPerf early stopping, confidence 0.99, d = 0.
LEAST_SAMPLES = {90: 64, 95: 130, 99: 662}
SOURCES = ("device", "host", "emulated")


@dataclass(frozen=True)
class Suite:
    """A ``benchmarks/suites/*.toml``: when a latency measurement has seen enough.
    `power_s`: how long power is measured idle, and busy, where a board can tell; 0: not at all.
    """

    name: str
    description: str = ""
    warmup_queries: int = 10
    warmup_s: float = 0.5
    min_queries: int = 662
    min_s: float = 2.0
    max_s: float = 60.0
    power_s: float = 5.0

    def __post_init__(self) -> None:
        times = (self.warmup_s, self.min_s, self.max_s, self.power_s)
        if not all(0 <= t <= 86_400 for t in times) or self.warmup_queries < 0 or self.min_queries < 1:
            raise DataError(f"suite {self.name!r}: times must be 0 to 86400 seconds, min_queries at least 1")


@dataclass(frozen=True)
class BenchmarkResult:
    """One artifact on one device: raw latencies and logits; statistics are derived when read.
    `latencies_ns` one integer per query (single stream, batch 1). `logits` is samples x classes,
    in the order of the test split; `expected` per sample the label. Where the device tells: `compute_ns` by its
    own clock, of the model alone; `layers` name and median ms; `power` (n, 2), seconds and mW of the whole board.
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

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if len(self.logits) != len(self.expected):
            raise DataError(f"{self.artifact.name}: {len(self.logits)} outputs for {len(self.expected)} samples")


@dataclass(frozen=True)
class Summary:
    """One artifact on one device, judged. Accuracies in percent, `drop` in points below the baseline.
    `p_value` is of McNemar's test against the baseline's answers. A latency percentile is None
    where the samples cannot carry it. `stand_in` says that another runtime than the artifact's own
    was measured. `speedup` is the baseline's p50 over this one's: the baseline of the same device if
    there is one, else the desktop's; None where the numbers of threads differ. `busy`: other work ran.
    Of a board that tells: `compute_ms` the p50 of the model alone, by the device's clock; `state` of the board
    afterwards; milliwatts and millijoules per image, or why there are none; what slowed it down.
    Latencies are of a whole `batch`, `speedup` is per image.
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

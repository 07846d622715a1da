"""When a measurement has seen enough, and what it must hold: ``benchmarks/suites/*.toml`` as records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import DataError, unknown

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

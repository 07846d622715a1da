"""Ratios of the latencies of several LiteRT files, measured in turns in one process, one thread each.

In every block each file runs a few queries, in random order, so that other work on the machine affects all files alike.
A query is set_tensor, invoke, get_tensor. Wall time and the CPU time of the thread are measured; the latter does not
grow while other processes hold the processor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCKS = 40  # turns of each file
TURN_S = 0.06  # approximate length of a turn
TRIED = 5  # queries that determine the number of queries per turn
LEAST, MOST = 2, 60  # queries per turn, after one that is not counted
SLOW_S, SLOW_BLOCKS = 0.25, 6  # a file with slower queries runs one query per turn, in this many blocks
DRAWS = 2000
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Times:
    """Latencies of one file in nanoseconds, int64 (clocks, blocks, queries), and the numbers of its blocks."""

    ns: np.ndarray
    blocks: np.ndarray

    def median_ms(self, clock: str) -> float:
        """Return the median of all queries, in milliseconds."""
        return float(np.median(self.ns[CLOCKS.index(clock)]) / 1e6)

    @property
    def queries(self) -> int:
        return int(self.ns[0].size)


class _Model:
    """A loaded file with a random input."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=1)  # with XNNPACK, the default
        self.interpreter.allocate_tensors()
        (source,), (target,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.source, self.target = source["index"], target["index"]
        self.image = _random(source)
        self.query()
        tried = [self.query()[1]]  # CPU time, which other work does not change
        while len(tried) < TRIED and sum(tried) < SLOW_S * 1e9:
            tried.append(self.query()[1])
        self.slow = min(tried) > SLOW_S * 1e9
        self.count = 1 if self.slow else int(np.clip(TURN_S * 1e9 / min(tried), LEAST, MOST))

    def query(self) -> tuple[int, int]:
        """Return the wall time and the CPU time of one query, in nanoseconds."""
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        self.interpreter.set_tensor(self.source, self.image)
        self.interpreter.invoke()
        self.interpreter.get_tensor(self.target)
        used = time.thread_time_ns() - cpu
        return time.perf_counter_ns() - wall, used

    def turn(self) -> list[tuple[int, int]]:
        """Run the queries of one block."""
        if not self.slow:
            self.query()
        return [self.query() for _ in range(self.count)]


def _random(detail: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(0)
    if detail["dtype"] == np.float32:
        return rng.normal(size=detail["shape"]).astype(np.float32)
    limits = np.iinfo(detail["dtype"])
    return rng.integers(limits.min, limits.max, detail["shape"], detail["dtype"], endpoint=True)


def measure(paths: dict[str, Path], blocks: int = BLOCKS) -> dict[str, Times]:
    """Measure the files in turns."""
    models = {name: _Model(path) for name, path in paths.items()}
    chosen = {name: _blocks(model, blocks) for name, model in models.items()}
    found: dict[str, list[list[tuple[int, int]]]] = {name: [] for name in models}
    rng = np.random.default_rng(0)
    for block in range(blocks):
        for name in rng.permutation(list(models)):  # no file always follows the same one
            if block in chosen[name]:
                found[name].append(models[name].turn())
    return {n: Times(np.array(turns, np.int64).transpose(2, 0, 1), chosen[n]) for n, turns in found.items()}


def _blocks(model: _Model, blocks: int) -> np.ndarray:
    return np.arange(0, blocks, max(1, blocks // SLOW_BLOCKS) if model.slow else 1)


def ratio(times: Times, reference: Times, clock: str) -> dict[str, float]:
    """Return the ratio of the medians with a 95 % interval, by bootstrap over the common blocks."""
    rng = np.random.default_rng(0)
    common, mine, theirs = np.intersect1d(times.blocks, reference.blocks, return_indices=True)
    draws = rng.integers(0, len(common), (DRAWS, len(common)))
    above, below = (side.ns[CLOCKS.index(clock)][kept] for side, kept in ((times, mine), (reference, theirs)))
    drawn = np.median(above[draws], axis=(1, 2)) / np.median(below[draws], axis=(1, 2))
    low, high = np.percentile(drawn, (2.5, 97.5))
    value = times.median_ms(clock) / reference.median_ms(clock)
    return {"ratio": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}

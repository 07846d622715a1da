"""Latencies of several LiteRT files as ratios: all in one process, by turns, one thread each.

Every file runs a few queries, then the next one, and so on, so that what else the machine does meets all alike; the
order is another one in every block. A query is set_tensor, invoke, get_tensor. Beside the clock on the wall stands the
thread's own CPU time, which does not grow while other processes hold the processor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCKS = 40  # turns of each file
SHARE_S = 0.06  # of one turn
TRIED = 5  # queries that tell how many a turn has
LEAST, MOST = 2, 60  # queries of a turn; one more, not counted, goes first
SLOW_S, SLOW_BLOCKS = 0.25, 6  # a file of slower queries runs one of them, in so many blocks
DRAWS = 2000
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Times:
    """Nanoseconds of one file: int64 (clocks, blocks, queries), in the blocks that it took part in."""

    ns: np.ndarray
    blocks: np.ndarray

    def median_ms(self, clock: str) -> float:
        """The median of all queries."""
        return float(np.median(self.ns[CLOCKS.index(clock)]) / 1e6)

    @property
    def queries(self) -> int:
        return int(self.ns[0].size)


class _Model:
    """One file, loaded, with an input of random values."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=1)  # with XNNPACK, as it comes
        self.interpreter.allocate_tensors()
        (source,), (target,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.source, self.target = source["index"], target["index"]
        self.image = _random(source)
        self.query()
        tried = [self.query()[1]]  # the CPU time: it is the same on a busy machine
        while len(tried) < TRIED and sum(tried) < SLOW_S * 1e9:
            tried.append(self.query()[1])
        self.slow = min(tried) > SLOW_S * 1e9
        self.count = 1 if self.slow else int(np.clip(SHARE_S * 1e9 / min(tried), LEAST, MOST))

    def query(self) -> tuple[int, int]:
        """Nanoseconds of one query, on the wall and of this thread."""
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        self.interpreter.set_tensor(self.source, self.image)
        self.interpreter.invoke()
        self.interpreter.get_tensor(self.target)
        used = time.thread_time_ns() - cpu
        return time.perf_counter_ns() - wall, used

    def turn(self) -> list[tuple[int, int]]:
        """The queries of one block."""
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
    """Run the files by turns."""
    models = {name: _Model(path) for name, path in paths.items()}
    chosen = {name: _blocks(model, blocks) for name, model in models.items()}
    found: dict[str, list[list[tuple[int, int]]]] = {name: [] for name in models}
    rng = np.random.default_rng(0)
    for block in range(blocks):
        for name in rng.permutation(list(models)):  # none always follows the same one
            if block in chosen[name]:
                found[name].append(models[name].turn())
    return {n: Times(np.array(turns, np.int64).transpose(2, 0, 1), chosen[n]) for n, turns in found.items()}


def _blocks(model: _Model, blocks: int) -> np.ndarray:
    return np.arange(0, blocks, max(1, blocks // SLOW_BLOCKS) if model.slow else 1)


def ratio(of: Times, to: Times, clock: str) -> dict[str, float]:
    """Ratio of the medians, and its 95 % interval: bootstrap over the blocks that both took part in."""
    rng = np.random.default_rng(0)
    common, mine, theirs = np.intersect1d(of.blocks, to.blocks, return_indices=True)
    draws = rng.integers(0, len(common), (DRAWS, len(common)))
    above, below = (times.ns[CLOCKS.index(clock)][kept] for times, kept in ((of, mine), (to, theirs)))
    drawn = np.median(above[draws], axis=(1, 2)) / np.median(below[draws], axis=(1, 2))
    low, high = np.percentile(drawn, (2.5, 97.5))
    value = of.median_ms(clock) / to.median_ms(clock)
    return {"ratio": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}

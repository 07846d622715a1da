"""Measurement loop: single stream, all latencies kept in nanoseconds.

Inputs are in memory, in the model's layout, before the clock starts (as in MLPerf LoadGen).
"""

from __future__ import annotations

import gc
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

Clock = Callable[[], int]
_KEEP_EVERY_NS = 1_000_000_000
Infer = Callable[[np.ndarray], Any]


def warm_up(
    infer: Infer, inputs: Sequence[np.ndarray], limits: Dict[str, Any], clock: Clock = time.perf_counter_ns
) -> List[int]:
    """Run until both `warmup_queries` and `warmup_s` are reached. Return the latencies in nanoseconds."""
    latencies: List[int] = []
    started = ended = clock()
    while len(latencies) < limits["warmup_queries"] or ended - started < limits["warmup_s"] * 1e9:
        image = inputs[len(latencies) % len(inputs)]
        begun = clock()
        infer(image)
        ended = clock()
        latencies.append(ended - begun)
    return latencies


def measure(
    infer: Infer,
    inputs: Sequence[np.ndarray],
    limits: Dict[str, Any],
    clock: Clock = time.perf_counter_ns,
    earlier: Sequence[int] = (),
    keep: Optional[Callable[[List[int]], None]] = None,
) -> List[int]:
    """Run one query after the other with alternating inputs. Return the latencies in nanoseconds.

    Stops once both `min_queries` and `min_s` are reached, and at `max_s` in any case. The garbage collector is off
    during the measurement.

    Args:
        earlier: latencies of an interrupted measurement, which count. keep: called with all latencies about once a
            second, between two queries.
    """
    latencies: List[int] = list(earlier)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        started = ended = kept = clock()
        while len(latencies) < limits["min_queries"] or ended - started < limits["min_s"] * 1e9:
            image = inputs[len(latencies) % len(inputs)]
            begun = clock()
            infer(image)
            ended = clock()
            latencies.append(ended - begun)
            if ended - started >= limits["max_s"] * 1e9:
                break
            if keep is not None and ended - kept >= _KEEP_EVERY_NS:
                keep(latencies)
                kept = ended
    finally:
        if collecting:
            gc.enable()
    return latencies


def passes(
    infer: Infer, inputs: Sequence[np.ndarray], seconds: float, clock: Clock = time.perf_counter_ns
) -> List[int]:
    """Measure throughput: return the nanoseconds of each pass over all inputs, back to back, for `seconds`.

    At least one pass is made. The clock is read once per pass, so that the time between two queries counts.
    """
    found: List[int] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        started = begun = clock()
        while not found or begun - started < seconds * 1e9:
            for image in inputs:
                infer(image)
            ended = clock()
            found.append(ended - begun)
            begun = ended
    finally:
        if collecting:
            gc.enable()
    return found

"""The measuring loop: single stream, batch 1, every latency kept in nanoseconds.

Inputs are in memory and in the model's layout before the clock starts (as in MLPerf LoadGen).
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
    """Run until both `warmup_queries` and `warmup_s` are reached. Returns the latencies, in nanoseconds."""
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
    """Latencies in nanoseconds, one query after the other, inputs in turn.

    Stops once both `min_queries` and `min_s` are reached, or at `max_s` whatever was reached. The
    garbage collector is off meanwhile.

    Args:
        earlier: latencies of a part that was cut off; they count. keep: called with all of them now and then,
            between two queries.
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
    """Offline: nanoseconds of each pass over all inputs, back to back, until `seconds` are over; at least one.

    One clock reading a pass: what the loop does between two queries counts, as it does for whoever waits for all.
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

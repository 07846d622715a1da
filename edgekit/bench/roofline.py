"""Roofline model: the lower limit of a latency by the device's peaks, and the part of it that is reached.

Source: Williams, Waterman, Patterson 2009, CACM 52(4). Work: multiply-accumulates of one image, two operations each.
Bytes: every parameter once, and every activation once for each operation that reads it and once for the one that writes
it, in the artifact's precision, batch 1. This is the traffic if nothing stays in a cache between two operations; a
device whose caches hold activations can pass the memory limit. Activations such as ReLU belong to the layer before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.environment import BUSY, Environment
from edgekit.measurements import HERE, LayerCost, Roofline
from edgekit.ondevice.environment import busy_share
from edgekit.records import Device

# Bytes of a weight and of an activation. Biases have 32 bits, in fp16 files 16.
_BYTES = {"fp32": (4, 4), "fp16": (2, 2), "int8": (1, 1), "w8": (1, 4), "16x8": (1, 2)}
_SIDE, _COPIED = 1024, 128_000_000


def bytes_moved(costs: Sequence[LayerCost], precision: str) -> int:
    """Return the bytes read and written for one image."""
    weight, activation = _BYTES[precision]
    bias = 2 if precision == "fp16" else 4
    return sum(c.weights * weight + c.biases * bias + (c.read + c.written) * activation for c in costs)


def macs(costs: Sequence[LayerCost]) -> int:
    """Return the multiply-accumulates of one image."""
    return sum(cost.macs for cost in costs)


@dataclass(frozen=True)
class Peaks:
    """Measured peaks of this machine in float32; data sheets of CPUs do not give them.

    Attributes:
        busy: share of all cores that other work took just before; below 0 if unknown.
    """

    fp32_tflops: float
    bandwidth_gb_s: float
    threads: int
    busy: float = -1.0


def measure(threads: int, seconds: float = 0.3) -> Peaks:
    """Measure the fastest product of two 1024 x 1024 matrices and the fastest copy of 128 MB, by torch.

    A library reaches a little less than the hardware could, so the part of the peaks that a model reaches is rather too
    high. Other work on the machine makes the peaks too low.
    """
    import torch

    busy, before = busy_share(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            a, b, product = (torch.ones(_SIDE, _SIDE) for _ in range(3))
            source, target = torch.ones(_COPIED // 4), torch.zeros(_COPIED // 4)
            computing = _best(lambda: torch.mm(a, b, out=product), seconds)
            copying = _best(lambda: target.copy_(source), seconds)
    finally:
        torch.set_num_threads(before)
    return Peaks(2 * _SIDE**3 / computing / 1e12, 2 * _COPIED / copying / 1e9, threads, busy)


def _best(work: Callable[[], Any], seconds: float) -> float:
    """Return the shortest time of `work`, in seconds."""
    work()
    taken: list[float] = []
    ended = time.perf_counter() + seconds
    while not taken or time.perf_counter() < ended:
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def described(costs: Sequence[LayerCost], precision: str, device: Device, here: Peaks | None = None) -> dict[str, Any]:
    """Return the fields of `Environment` for the roofline: work and peaks, or why there are no peaks.

    Args:
        here: measured peaks of this machine, for devices that are this machine and whose files give no peaks.
    """
    if not costs:
        return {}
    if here is not None and precision == "fp32" and device.memory_bandwidth_gb_s is None:
        on = "one thread" if here.threads == 1 else f"{here.threads} threads"
        source = f"measured here in float32 on {on}: a product of matrices, a copy"
        if here.busy > BUSY:
            source += f", while other work took {100 * here.busy:.0f} % of the machine"
        peaks = {"peak_tops": here.fp32_tflops, "bandwidth_gb_s": here.bandwidth_gb_s, "peaks_from": source}
        peaks["peaks_busy"] = here.busy
        return {"macs": macs(costs), "bytes_moved": bytes_moved(costs, precision), **peaks}
    peak = {"int8": device.peak_int8_tops, "fp16": device.peak_fp16_tflops}.get(precision)
    work: dict[str, Any] = {"macs": macs(costs), "bytes_moved": bytes_moved(costs, precision)}
    if device.dla_core is not None:
        return {**work, "no_roofline": "the peaks in the device's file are the GPU's, and this ran on a DLA"}
    if peak is None or device.memory_bandwidth_gb_s is None:
        missing = f"peak for {precision.upper()}" if peak is None else "memory bandwidth"
        is_here = here is not None or device.name == HERE
        why = f"the {missing} of this machine is unknown" if is_here else f"the file of {device.name} has no {missing}"
        return {**work, "no_roofline": why}
    source = f"the data sheet's figures in the file of {device.name}"
    return {**work, "peak_tops": peak, "bandwidth_gb_s": device.memory_bandwidth_gb_s, "peaks_from": source}


def reached(environment: Environment, p50_ms: float | None, batch: int = 1) -> Roofline | None:
    """Return the limit for one image and the part of it that a query of `batch` images reached; None if unknown."""
    e = environment
    if not p50_ms or not (e.macs and e.bytes_moved and e.peak_tops and e.bandwidth_gb_s):
        return None
    if min(e.macs, e.bytes_moved, e.peak_tops, e.bandwidth_gb_s) <= 0:
        return None
    computing, moving = 2 * e.macs / (e.peak_tops * 1e12) * 1e3, e.bytes_moved / (e.bandwidth_gb_s * 1e9) * 1e3
    limit = max(computing, moving)
    bound = "compute" if computing >= moving else "memory"
    return Roofline(int(e.macs), int(e.bytes_moved), limit, bound, limit * batch / p50_ms, e.peaks_from or "")

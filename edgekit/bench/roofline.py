"""What a device could do at best, and what of it was reached (Williams, Waterman, Patterson 2009, CACM 52(4)).

Work: multiply-accumulates of one image, two operations each. Bytes: every parameter once, and every activation once
for each operation that reads it and once for the one that writes it, all in the artifact's precision, batch 1. That
is what must move if nothing stays in a cache between two operations; a device whose caches hold activations may pass
the limit of memory, which then says just that. Activations such as ReLU count as part of the layer before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.measurements import LayerCost, Roofline
from edgekit.ondevice.environment import busy_share
from edgekit.records import Device

# Bytes of a weight and of an activation; biases are 32-bit integers or floats, of fp16 files 16-bit.
_BYTES = {"fp32": (4, 4), "fp16": (2, 2), "int8": (1, 1), "w8": (1, 4), "16x8": (1, 2)}
_SIDE, _COPIED = 1024, 128_000_000
# The device that is this machine, and the load from which on peaks say that they were measured beside other work.
_HERE, _BUSY = "local", 0.2


def bytes_moved(costs: Sequence[LayerCost], precision: str) -> int:
    """Bytes read and written for one image."""
    weight, activation = _BYTES[precision]
    bias = 2 if precision == "fp16" else 4
    return sum(c.weights * weight + c.biases * bias + (c.read + c.written) * activation for c in costs)


def macs(costs: Sequence[LayerCost]) -> int:
    """Multiply-accumulates of one image."""
    return sum(cost.macs for cost in costs)


@dataclass(frozen=True)
class Peaks:
    """What this machine was measured to reach in float32 with so many threads; no data sheet says it of a CPU.

    Attributes:
        busy: the share of all cores that other work took just before; below 0 where it is not known.
    """

    fp32_tflops: float
    bandwidth_gb_s: float
    threads: int
    busy: float = -1.0


def measure(threads: int, seconds: float = 0.3) -> Peaks:
    """The best product of two matrices (1024 x 1024), and the best copy of 128 MB, read and written, by torch.

    Both are what a library reaches, a little below what the hardware could: so a share reached of them is, if
    anything, too high. Other work on the machine makes them too low.
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
    """The least seconds that `work` took."""
    work()
    taken: list[float] = []
    ended = time.perf_counter() + seconds
    while not taken or time.perf_counter() < ended:
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def described(costs: Sequence[LayerCost], precision: str, device: Device, here: Peaks | None = None) -> dict[str, Any]:
    """What a result's environment keeps of it: the work, the device's peaks, or why there is no limit.

    Args:
        here: what this machine was measured to reach, for devices that are it and whose files say nothing.
    """
    if not costs:
        return {}
    if here is not None and precision == "fp32" and device.memory_bandwidth_gb_s is None:
        on = "one thread" if here.threads == 1 else f"{here.threads} threads"
        source = f"measured here in float32 on {on}: a product of matrices, a copy"
        if here.busy > _BUSY:
            source += f", while other work took {100 * here.busy:.0f} % of the machine"
        peaks = {"peak_tops": here.fp32_tflops, "bandwidth_gb_s": here.bandwidth_gb_s, "peaks_from": source}
        peaks["peaks_busy"] = here.busy
        return {"macs": macs(costs), "bytes_moved": bytes_moved(costs, precision), **peaks}
    peak = {"int8": device.peak_int8_tops, "fp16": device.peak_fp16_tflops}.get(precision)
    said: dict[str, Any] = {"macs": macs(costs), "bytes_moved": bytes_moved(costs, precision)}
    if device.dla_core is not None:
        return {**said, "no_roofline": "the peaks in the device's file are the GPU's, and this ran on a DLA"}
    if peak is None or device.memory_bandwidth_gb_s is None:
        missing = f"peak for {precision.upper()}" if peak is None else "memory bandwidth"
        here_too = here is not None or device.name == _HERE
        why = f"no {missing} is known of this machine" if here_too else f"the file of {device.name} has no {missing}"
        return {**said, "no_roofline": why}
    source = f"the data sheet's figures in the file of {device.name}"
    return {**said, "peak_tops": peak, "bandwidth_gb_s": device.memory_bandwidth_gb_s, "peaks_from": source}


def reached(environment: dict[str, Any], p50_ms: float | None, batch: int = 1) -> Roofline | None:
    """The limit for one image, and what of it was reached by a query of `batch` images; None where it is not known."""
    names = ("macs", "bytes_moved", "peak_tops", "bandwidth_gb_s")
    values = [environment.get(name) for name in names]
    if not p50_ms or not all(isinstance(value, int | float) and value > 0 for value in values):
        return None
    work, moved, peak, bandwidth = (float(value) for value in values if value is not None)
    computing, moving = 2 * work / (peak * 1e12) * 1e3, moved / (bandwidth * 1e9) * 1e3
    limit = max(computing, moving)
    bound = "compute" if computing >= moving else "memory"
    source = str(environment.get("peaks_from", ""))
    return Roofline(int(work), int(moved), limit, bound, limit * batch / p50_ms, source)

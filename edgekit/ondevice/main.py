"""One job: load a model, measure its latency, run it over every sample, write what came out.

The job is a JSON file: ``model``, ``runtime``, ``threads``, ``pixels`` (an .npy file, uint8
(N, H, W, 3)), ``mean``, ``std``, ``layout``, ``limits`` (see `measure`), ``out`` (a folder).
Paths are relative to the job file. Written to ``out``: ``latencies_ns.npy`` (int64),
``logits.npy`` (float32, N x classes) and, last, ``result.json``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from typing import Any, Dict, List, Tuple

import numpy as np

from .measure import measure, warm_up
from .preprocess import normalize
from .runner import open_runner

# So many different inputs take turns while latency is measured; all of them lie in memory.
_LATENCY_INPUTS = 32


def main(arguments: List[str]) -> int:
    """Run the job file named by the only argument. Returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m ondevice JOB.json", file=sys.stderr)
        return 2
    try:
        run_job(arguments[0])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print("{}: {}".format(type(error).__name__, error), file=sys.stderr)
        return 1
    return 0


def run_job(path: str) -> Dict[str, Any]:
    """Run one job file; returns what it writes to result.json."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    base = os.path.dirname(os.path.abspath(path))
    out = os.path.join(base, job["out"])
    os.makedirs(out, exist_ok=True)
    pixels = np.load(os.path.join(base, job["pixels"]), mmap_mode="r", allow_pickle=False)
    busy_before = busy_share()
    runner = open_runner(job["runtime"], os.path.join(base, job["model"]), job["threads"])
    try:

        def prepare(image: np.ndarray) -> np.ndarray:
            return normalize(image, job["mean"], job["std"], job["layout"])

        inputs = [prepare(image) for image in pixels[:_LATENCY_INPUTS]]
        warmed = warm_up(runner.infer, inputs, job["limits"])
        latencies = measure(runner.infer, inputs, job["limits"])
        np.save(os.path.join(out, "latencies_ns.npy"), np.array(latencies, np.int64))
        logits = np.stack([runner.infer(prepare(image)).astype(np.float32) for image in pixels])
        np.save(os.path.join(out, "logits.npy"), logits)
        result = dict(runner.info(), threads=job["threads"], warmup_queries=warmed, **_environment())
    finally:
        runner.close()
    result.update(busy_before=busy_before, peak_rss_mb=_peak_rss_mb())
    with open(os.path.join(out, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    return result


def _environment() -> Dict[str, Any]:
    """What else decides a latency: machine, processor, Python, clock governor."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "board": _first_line("/proc/device-tree/model"),
    }


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip("\x00\n ")
    except OSError:
        return ""


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lower().startswith(("model name", "hardware")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def busy_share(seconds: float = 0.3) -> float:
    """The share of all cores, 0 to 1, that other processes take while this one waits; -1 if unknown."""
    before = _cpu_times()
    time.sleep(seconds)
    after = _cpu_times()
    total = after[0] - before[0]
    return round(1 - (after[1] - before[1]) / total, 3) if total > 0 else -1.0


def _cpu_times() -> Tuple[int, int]:
    """Ticks of all cores since the start of the system: in all, and idle or waiting for a disk."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(value) for value in file.readline().split()[1:]]
        return sum(ticks[:8]), ticks[3] + ticks[4]
    except (OSError, ValueError, IndexError):
        return 0, 0


def _peak_rss_mb() -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except (OSError, ValueError):
        pass
    return -1.0

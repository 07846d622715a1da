"""Environment of a measurement: the machine, its processor, its load."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Dict, Tuple

import numpy as np


def environment() -> Dict[str, Any]:
    """Return machine, processor, Python and clock governor; "" or -1 for unknown values."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "kernel": platform.release(),
        "microcode": _cpuinfo("microcode"),
        "turbo": _turbo(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "governor": first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "board": first_line("/proc/device-tree/model"),
    }


def first_line(path: str) -> str:
    """Return the first line of a kernel file; "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip("\x00\n ")
    except OSError:
        return ""


def _cpu_model() -> str:
    return _cpuinfo("model name", "Hardware", "Model") or platform.processor()


def _cpuinfo(*names: str) -> str:
    """Return the first line of /proc/cpuinfo that begins with one of `names`; "" if there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(names):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _turbo() -> str:
    """Return whether the clock may rise above its nominal value: "on", "off", or "" if unknown."""
    off = first_line("/sys/devices/system/cpu/intel_pstate/no_turbo")
    if off in ("0", "1"):
        return "off" if off == "1" else "on"
    return {"0": "off", "1": "on"}.get(first_line("/sys/devices/system/cpu/cpufreq/boost"), "")


def load_average() -> float:
    """Return the load average of the last minute; -1 if unknown."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return -1.0


def _memory_gb() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 2)
    except (OSError, ValueError, AttributeError):
        return -1.0


def busy_share(seconds: float = 0.3) -> float:
    """Return the share of all cores, 0 to 1, that other processes use while this one sleeps; -1 if unknown."""
    before = _cpu_times()
    time.sleep(seconds)
    after = _cpu_times()
    total = after[0] - before[0]
    return round(1 - (after[1] - before[1]) / total, 3) if total > 0 else -1.0


def _cpu_times() -> Tuple[int, int]:
    """Return ticks of all cores since boot: in all, and idle or waiting for a disk."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(value) for value in file.readline().split()[1:]]
        return sum(ticks[:8]), ticks[3] + ticks[4]
    except (OSError, ValueError, IndexError):
        return 0, 0


def peak_rss_mb() -> float:
    """Return the peak memory of this process in MB; -1 if unknown."""
    # Not getrusage, whose peak is inherited from the parent process.
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except (OSError, ValueError):
        pass
    return -1.0

"""What else decides a latency: the machine, its processor, its load."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Dict, Tuple

import numpy as np


def environment() -> Dict[str, Any]:
    """Machine, processor, Python, clock governor. "" or -1 where the system does not tell."""
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
    """The first line of a file of the kernel's, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip("\x00\n ")
    except OSError:
        return ""


def _cpu_model() -> str:
    return _cpuinfo("model name", "Hardware", "Model") or platform.processor()


def _cpuinfo(*names: str) -> str:
    """The first line of /proc/cpuinfo that begins with one of `names`, or nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(names):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _turbo() -> str:
    """Whether clocks may rise above the nominal one: "on", "off" or nothing."""
    off = first_line("/sys/devices/system/cpu/intel_pstate/no_turbo")
    if off in ("0", "1"):
        return "off" if off == "1" else "on"
    return {"0": "off", "1": "on"}.get(first_line("/sys/devices/system/cpu/cpufreq/boost"), "")


def load_average() -> float:
    """Processes that ran or waited to, on average of the last minute; -1 if unknown."""
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


def peak_rss_mb() -> float:
    """The most memory that this process had, in MB; -1 if unknown."""
    # Not getrusage: its peak is inherited from the process that started this one.
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except (OSError, ValueError):
        pass
    return -1.0

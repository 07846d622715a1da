"""Processor cores that this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_V2, _V1 = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")


def cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    A container's limit counts (``docker run --cpus``, ``--cpuset-cpus``): more threads than that wait for each other.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(usable, _quota())))


def _quota() -> float:
    """Return the processor time of this container in cores; infinity if it is not limited."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = _V2.read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = _V1.read_text(), _V1.with_name("cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else float("inf")
    return float("inf")

"""Processor cores that this process may use, and the threads that compute on them.

On a busy machine two threads of torch are slower than one, several times: each waits for the other in every layer.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path

from edgekit import progress
from edgekit.errors import UsageError

_WAITING = "OMP_WAIT_POLICY"
_LEAST_S = 0.3  # shortest time over which the load is measured
_LONGEST_S = 60.0
_ROUNDED_UP = 0.25  # part of a core that is taken and counts as free
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


def wait_passively() -> None:
    """Let threads that wait for others sleep, which leaves their cores to whatever they wait for.

    To be called before torch is loaded; a policy that the user chose stays. The results are the same, bit for bit.
    """
    if _WAITING not in os.environ:
        os.environ[_WAITING] = "PASSIVE"
        _chosen_here.append(_WAITING)


def outside_environment() -> dict[str, str]:
    """Return the environment without what `wait_passively` set: measurements run as other programs do."""
    return {name: value for name, value in os.environ.items() if name not in _chosen_here}


_chosen_here: list[str] = []


def use_threads(wanted: int | None = None) -> None:
    """Set the number of threads of torch in this process, and say so if it is not the usual one.

    Args:
        wanted: number of threads; None: as many as there are cores that other programs leave free, at least 1, or
            $OMP_NUM_THREADS.

    Raises:
        UsageError: `wanted` is more than this machine has cores.
    """
    import torch

    if wanted is not None:
        if wanted > (most := os.cpu_count() or 1):
            raise UsageError(f"--threads {wanted}: this machine has {most} cores", f"--threads 1 to --threads {most}")
        torch.set_num_threads(wanted)
        return
    if "OMP_NUM_THREADS" in os.environ:
        return
    usual, busy = min(torch.get_num_threads(), cores()), busy_cores()
    free = max(1, min(usual, math.floor((os.cpu_count() or 1) - busy + _ROUNDED_UP)))
    if free < usual:
        threads = f"{free} thread{'' if free == 1 else 's'}"
        progress.note(
            f"this machine is busy: other programs use {busy:.1f} cores, so this one uses {threads} (--threads)"
        )
    if free != torch.get_num_threads():
        torch.set_num_threads(free)


def busy_cores() -> float:
    """Return how many cores other programs have used since this one started, or just now; 0 if unknown."""
    began = _began
    if not _LEAST_S <= time.monotonic() - began[0] <= _LONGEST_S:
        began = _load()
        time.sleep(_LEAST_S)
    now = _load()
    return max(0.0, now[1] - began[1]) / (now[0] - began[0])


def _load() -> tuple[float, float]:
    """Return the time, and the processor time that all other processes have taken since the start, in seconds."""
    own = os.times()
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return time.monotonic(), 0.0
    used = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for a disk
    return time.monotonic(), used - own.user - own.system - own.children_user - own.children_system


_began = _load()

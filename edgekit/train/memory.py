"""Tell the C allocator to keep what it freed: training allocates the same tensors every step."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h. Without them every large tensor is mapped, faulted in and unmapped again.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Serve large allocations from the heap and never trim it. Returns whether it took effect.

    Only glibc has `mallopt`; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))

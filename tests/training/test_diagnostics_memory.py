"""What the C allocator keeps, seen from outside in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
SCRIPT = """
import torch
from edgekit.data import memory
from edgekit.training import diagnostics

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

diagnostics.keep_freed_memory()
begun = resident()
tensors = [torch.ones(10 * 2**20) for _ in range(10)]
del tensors
kept = resident() - begun
memory.give_back_freed_memory()
print(kept, resident() - begun)
"""


@GLIBC
@pytest.mark.slow
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 300e6
    assert left < 100e6

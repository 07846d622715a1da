"""Memory for decoded pixels: threads that decode large images wait for each other."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Most bytes of pixels that are decoded at a time; a single image that needs more is decoded alone.
MOST_BYTES, LARGE = 1 << 30, 1 << 27


class Budget:
    """Number of bytes that several threads share."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = 0
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold `size` bytes; wait until they are free, or until nothing else is held."""
        with self._freed:
            self._freed.wait_for(lambda: self._used == 0 or self._used + size <= self.most)
            self._used += size
        if size >= LARGE:  # the allocator keeps what other threads have freed for these alone
            give_back_freed_memory()
        try:
            yield
        finally:
            with self._freed:
                self._used -= size
                self._freed.notify_all()

    def reset(self) -> None:
        """Forget what is held, in a process that was forked from the one whose threads held it."""
        self.__init__(self.most)  # type: ignore[misc]


def give_back_freed_memory() -> None:
    """Return unused pages of the C allocator to the system.

    Code that oneDNN generates and stacks of threads, for example, cannot use them otherwise.
    """
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


PIXELS = Budget(MOST_BYTES)
os.register_at_fork(after_in_child=PIXELS.reset)

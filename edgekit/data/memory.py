"""Memory for decoded pixels: threads that decode large images wait for each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Most bytes of pixels that are decoded at a time; a single image that needs more is decoded alone.
MOST_BYTES = 1 << 30


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
        try:
            yield
        finally:
            with self._freed:
                self._used -= size
                self._freed.notify_all()

    def reset(self) -> None:
        """Forget what is held, in a process that was forked from the one whose threads held it."""
        self.__init__(self.most)  # type: ignore[misc]


PIXELS = Budget(MOST_BYTES)
os.register_at_fork(after_in_child=PIXELS.reset)

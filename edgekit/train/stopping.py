"""Ctrl-C and SIGTERM, heard between two steps: what is saved then is never half a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether somebody asked the training to end."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: object) -> None:
        """The signal handler: the first signal is heard at the end of the step, a second one at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def graceful() -> Iterator[Stop]:
    """Take over SIGINT and SIGTERM, and give them back afterwards."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

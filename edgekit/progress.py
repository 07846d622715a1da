"""Notes and progress of long tasks.

Notes go to the logger ``edgekit``; progress goes to the callback that `reporting` sets for the calls
inside it. Without a handler and without a callback nothing is shown.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

log = logging.getLogger("edgekit")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Progress:
    """State of one task, passed to the callback each time that it changes.

    Attributes:
        id: number of the task, unique in the process; several tasks may run at the same time.
        task: description, such as "training mobilenet_v2".
        done, total: finished steps, and all steps; `total` is None if it is unknown.
        text: details of the current step, such as the loss. finished: the task has ended.
    """

    id: int
    task: str
    done: int = 0
    total: int | None = None
    text: str = ""
    finished: bool = False


Callback = Callable[[Progress], None]
# Moves a bar: ``update(done, total, text="")``.
Update = Callable[..., None]
_callback: ContextVar[Callback | None] = ContextVar("edgekit progress", default=None)
_ids = itertools.count(1)


@contextmanager
def reporting(callback: Callback | None) -> Iterator[None]:
    """Send the progress of the calls inside to `callback`; None leaves the current one in place.

    The callback may be called from other threads. It is called often: it should return quickly.
    """
    token = _callback.set(callback or _callback.get())
    try:
        yield
    finally:
        _callback.reset(token)


def note(text: str) -> None:
    """Log one line for the user."""
    log.info("%s", text)


def warn(text: str) -> None:
    """Log one line about a possible problem."""
    log.warning("%s", text)


@contextmanager
def bar(description: str) -> Iterator[Update]:
    """Report one task; yields a function ``update(done, total, text="")``."""
    with bars() as add:
        yield add(description)


@contextmanager
def bars() -> Iterator[Callable[[str], Update]]:
    """Report several tasks at the same time; yields a function that adds a task and returns its `update`.

    Both may be called from any thread.
    """
    callback = _callback.get()
    current: dict[int, Progress] = {}

    def add(description: str) -> Update:
        number = next(_ids)

        def update(done: int, total: int | None, text: str = "") -> None:
            current[number] = Progress(number, description, done, total, text)
            if callback is not None:
                callback(current[number])

        update(0, None)
        return update

    try:
        yield add
    finally:
        for state in current.values():
            if callback is not None:
                callback(replace(state, finished=True))


@contextmanager
def working(description: str) -> Iterator[None]:
    """Report one task whose number of steps is unknown."""
    with bar(description):
        yield

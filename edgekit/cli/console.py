"""Output: notes and progress bars on standard error, tables and JSON on standard output.

rich is imported on first use, so that ``edgekit --help`` starts quickly.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from edgekit import progress
from edgekit.labels import printable
from edgekit.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import TaskID


WIDTH = 100  # characters of a table, unless all columns are asked for
_GAP = 2  # characters between two columns
_SILENCE = 15.0  # seconds without a sign of life, at most
_LEAST = 12  # characters that a column of prose keeps


@cache
def _notes() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def attached() -> Iterator[None]:
    """Show the library's notes and progress while a command runs.

    Of several processes that ``torchrun`` started, only the first one writes. A nested call does nothing.
    """
    if os.environ.get("RANK", "0") != "0" or any(isinstance(h, _Notes) for h in progress.log.handlers):
        yield
        return
    lines = _Lines()
    handler, level = _Notes(lines), progress.log.level
    progress.log.addHandler(handler)
    progress.log.setLevel(logging.INFO)
    try:
        with progress.reporting(_Bars() if _notes().is_terminal else lines):
            yield
    finally:
        lines.close()
        progress.log.removeHandler(handler)
        progress.log.setLevel(level)


class _Notes(logging.Handler):
    """Write each log record as one line on standard error, without interpreting markup."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.postpone()
        start = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        _notes().print(printable(start + record.getMessage()), markup=False, soft_wrap=True)


class _Lines:
    """Write a line about the running tasks now and then, where standard error is no terminal.

    The first comes after `_SILENCE` seconds without a note, later ones after a tenth of the time that a task has taken.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, tuple[float, Progress, Progress]] = {}  # when it began, its first and its last state
        self._due = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, state: Progress) -> None:
        with self._lock:
            if state.finished:
                self._running.pop(state.id, None)
                return
            began, first, _ = self._running.get(state.id, (time.monotonic(), state, state))
            self._running[state.id] = (began, state if first.total is None else first, state)
            if self._thread is None:
                self._due = time.monotonic() + _SILENCE
                self._thread = threading.Thread(target=self._write, daemon=True)
                self._thread.start()

    def postpone(self) -> None:
        """Wait once more: a note was shown."""
        self._due = max(self._due, time.monotonic() + _SILENCE)

    def close(self) -> None:
        """Write no more."""
        self._ended.set()

    def _write(self) -> None:
        while not self._ended.wait(min(1.0, _SILENCE)):
            now = time.monotonic()
            with self._lock:
                running = list(self._running.values())
            if running and now >= self._due and now - running[-1][0] >= min(1.0, _SILENCE):
                self._due = now + max(_SILENCE, 0.1 * (now - running[-1][0]))
                line = "; ".join(progress_line(now - began, first, last) for began, first, last in running[:3])
                _notes().print(printable(line), markup=False, soft_wrap=True)


def progress_line(seconds: float, first: Progress, last: Progress) -> str:
    """Return a line about a task that began `seconds` ago: what is done, and how long the rest may take.

    Args:
        first, last: the first state that tells the number of steps, and the present one.
    """
    parts = [f"{last.task}: {_duration(seconds)} so far"]
    if last.total:
        parts = [f"{last.task}: {last.done} of {last.total}, {_duration(seconds)} so far"]
        if (done := last.done - first.done) > 0 and last.total > last.done:
            parts.append(f"about {_duration(seconds * (last.total - last.done) / done)} left")
    return ", ".join(parts) + (f" ({last.text})" if last.text else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Bars:
    """Draw a progress bar for each running task, no wider than the terminal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Display | None = None
        self._tasks: dict[int, TaskID] = {}

    def __call__(self, state: Progress) -> None:
        from rich.markup import escape

        with self._lock:
            if state.finished:
                self._end(state.id)
                return
            display = self._display or self._begin()
            if state.id not in self._tasks:
                self._tasks[state.id] = display.add_task(escape(printable(state.task)), text="", total=None)
            text = escape(printable(state.text))
            display.update(self._tasks[state.id], completed=state.done, total=state.total, text=text)

    def _begin(self) -> Display:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Display
        from rich.table import Column

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=min(40, max(4, _notes().width // 4 - 14))),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True)),  # cut where there is no room
        )
        self._display = Display(*columns, console=_notes(), transient=True, expand=True)
        self._display.start()
        return self._display

    def _end(self, number: int) -> None:
        if self._display is None or number not in self._tasks:
            return
        self._display.remove_task(self._tasks.pop(number))
        if not self._tasks:
            self._display.stop()
            self._display = None


def as_json(value: Any) -> None:
    """Print plain values as JSON on standard output."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    json.dump(value, sys.stdout, indent=1, ensure_ascii=not unicode, default=_plain)
    print()


def _plain(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dataclass_fields__") else str(value)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    short: Sequence[str] = (),
    *,
    prose: Sequence[str] = (),
    verbose: bool = False,
) -> None:
    """Print a table on standard output, at most 100 characters wide, to a terminal and to a file alike.

    Args:
        columns: titles; if all are empty, there is no header.
        right: columns aligned to the right.
        short: columns to show where all do not fit; empty: all.
        prose: columns that may be wrapped; empty: all but the first and those of `right`.
        verbose: show all columns, however wide the table becomes.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    terminal = sys.stdout.isatty()
    out = Console(highlight=False, emoji=False)
    room = min(WIDTH, out.width) if terminal else WIDTH
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(cell_len(line[n]) for line in (columns, *lines)) for n in range(len(columns))]
    shown = list(range(len(columns)))
    if short and not verbose and _width(widths) > room:
        shown = [n for n in shown if columns[n] in short]
    wrapped = [n for n in shown if (columns[n] in prose if prose else n > 0 and columns[n] not in right)]
    if verbose:
        room = _width(widths)
    elif not terminal or prose:  # a name is never cut
        room = max(room, _width([min(widths[n], _LEAST) if n in wrapped else widths[n] for n in shown]))
    out.width = room
    grid = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for n in shown:
        justify: Any = "right" if columns[n] in right else "left"
        grid.add_column(columns[n], justify=justify, overflow="fold", no_wrap=n not in wrapped)
    for line in lines:
        grid.add_row(*(escape(line[n]) for n in shown))
    out.print(grid, soft_wrap=False)
    if len(shown) < len(columns):
        progress.note(f"(--verbose also shows: {', '.join(c for n, c in enumerate(columns) if n not in shown)})")


def _width(widths: Sequence[int]) -> int:
    """Return the width of a table whose columns have these widths."""
    return sum(widths) + _GAP * (len(widths) - 1)

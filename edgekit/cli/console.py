"""What the user sees: notes and progress on standard error, results on standard output.

rich is imported when something is shown, so that ``edgekit --help`` stays quick.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
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


# A table that goes to a file or a pipe is this wide: nothing is folded.
_WIDE = 200


@cache
def _notes() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def attached() -> Iterator[None]:
    """Show the notes and the progress of the library while a command runs.

    Of the processes that ``torchrun`` started, only the first one writes. Inside another `attached` it does nothing.
    """
    if os.environ.get("RANK", "0") != "0" or any(isinstance(h, _Notes) for h in progress.log.handlers):
        yield
        return
    handler, level = _Notes(), progress.log.level
    progress.log.addHandler(handler)
    progress.log.setLevel(logging.INFO)
    try:
        with progress.reporting(_Bars()):
            yield
    finally:
        progress.log.removeHandler(handler)
        progress.log.setLevel(level)


class _Notes(logging.Handler):
    """Write each record as one line on standard error; markup in it is shown as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        start = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        _notes().print(printable(start + record.getMessage()), markup=False, soft_wrap=True)


class _Bars:
    """Draw a bar on a terminal for each task that runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Display | None = None
        self._tasks: dict[int, TaskID] = {}

    def __call__(self, state: Progress) -> None:
        if not _notes().is_terminal:
            return
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

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[text]}"),
        )
        self._display = Display(*columns, console=_notes(), transient=True)
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
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False, default=_plain)
    print()


def _plain(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dataclass_fields__") else str(value)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), narrow: Sequence[str] = ()
) -> None:
    """Print a table on standard output; the first column is never folded.

    Args:
        right: columns aligned to the right. narrow: the columns that are kept where not all fit.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE)
    widths = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    fits = sum(widths) + 2 * len(widths) <= out.width
    shown = [n for n, column in enumerate(columns) if fits or not narrow or column in narrow]
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for n in shown:
        justify: Any = "right" if columns[n] in right else "left"
        grid.add_column(columns[n], justify=justify, overflow="fold", no_wrap=n == 0)
    for row in rows:
        grid.add_row(*(escape(printable(row[n])) for n in shown))
    out.print(grid)
    if len(shown) < len(columns):
        progress.note(f"(columns left out to fit: {', '.join(c for n, c in enumerate(columns) if n not in shown)})")

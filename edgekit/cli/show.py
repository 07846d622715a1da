"""What the user sees: notes and progress on standard error, results on standard output.

rich is imported when something is shown, so that ``edgekit --help`` stays quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from edgekit.labels import visible

if TYPE_CHECKING:
    from rich.console import Console

Update = Callable[..., None]
# A table that goes to a file or a pipe is this wide: nothing is folded.
_WIDE = 200


@cache
def _notes() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def printable(text: str) -> str:
    """`text` with control characters (which could drive the terminal) made visible."""
    return "\n".join(visible(line) for line in text.split("\n"))


def note(text: str) -> None:
    """One line for the user, on standard error; markup in `text` is shown as it is.

    Of the processes that ``torchrun`` started only the first one speaks.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    _notes().print(printable(text), markup=False, soft_wrap=True)


def as_json(value: Any) -> None:
    """Plain values as JSON on standard output."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False, default=_plain)
    print()


def _plain(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dataclass_fields__") else str(value)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), narrow: Sequence[str] = ()
) -> None:
    """A table on standard output; the first column is never folded.

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
        note(f"(not shown for want of room: {', '.join(c for n, c in enumerate(columns) if n not in shown)})")


@contextmanager
def bar(description: str) -> Iterator[Update]:
    """A progress bar on a terminal; the value is called as ``update(done, total, text="")``."""
    with bars() as add:
        yield add(description)


@contextmanager
def bars() -> Iterator[Callable[[str], Update]]:
    """Progress bars below each other: the value adds one and returns what moves it. Threads may each have theirs."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[text]}"),
    )
    console = _notes()
    shown = console.is_terminal and os.environ.get("RANK", "0") == "0"
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:

        def add(description: str) -> Update:
            task = progress.add_task(escape(printable(description)), text="", total=None)

            def update(done: int, total: int, text: str = "") -> None:
                progress.update(task, completed=done, total=total, text=escape(printable(text)))

            return update

        yield add


@contextmanager
def working(description: str) -> Iterator[None]:
    """A spinner on a terminal while one long step runs."""
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = _notes()
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(escape(description), total=None)
        yield

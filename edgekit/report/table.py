"""The noun that pages, Markdown and terminals share: a table of text, with its caption and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rows:
    """Rows that belong together; `title` is empty where there is only one such group."""

    title: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first cell of a row names it.

    Attributes:
        left: how many leading columns are text; the others are figures and stand to the right.
        wide: columns that are left out where there is little room. bars: the column whose percentages are drawn too.
        prose: columns of sentences, which are folded. notes: what a reader must know to read it right.
        first: so many rows of the first group are shown, the others are folded away; 0: all are shown.
    """

    caption: str
    columns: tuple[str, ...]
    groups: tuple[Rows, ...]
    left: int = 1
    wide: tuple[str, ...] = ()
    bars: str = ""
    prose: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: int = 0

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """The rows of all groups."""
        return (row for group in self.groups for row in group.cells)


def plain(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table of one group."""
    return Table(caption, tuple(columns), (Rows("", tuple(map(tuple, rows))),), left)


def compact(t: Table) -> Table:
    """The table without the columns in which nothing stands."""
    rows = list(t.rows)
    kept = [n for n in range(len(t.columns)) if n < t.left or any(row[n] not in ("", "-") for row in rows)]
    groups = tuple(Rows(g.title, tuple(tuple(row[n] for n in kept) for row in g.cells)) for g in t.groups)
    return replace(t, columns=tuple(t.columns[n] for n in kept), groups=groups)


def length(t: Table, text: str) -> float:
    """How long the bar of a cell is, in percent of the longest of its column."""
    column = t.columns.index(t.bars)
    longest = max((_figure(row[column]) for row in t.rows), default=0.0)
    return 100 * _figure(text) / longest if longest else 0.0


def _figure(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0

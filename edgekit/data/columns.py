"""Columns of a table of images: which one has the paths, which the labels, and which the splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgekit.data.layout import split_of
from edgekit.data.tables import Table
from edgekit.errors import DataError, UsageError
from edgekit.labels import visible

# Usual names, without case, blanks and underscores, in the order of preference.
_PATHS = (
    *("path", "paths", "filepath", "filepaths", "file", "files", "filename", "filenames", "fname", "imagepath"),
    *("imagefile", "imagefilename", "imagefilepath", "imgpath", "imgfile", "image", "images", "img", "imagename"),
    *("imgname", "picture", "photo", "relpath", "relativepath", "imageindex", "imageid", "imgid", "isicid", "idcode"),
    *("fileid", "name", "id"),
)
_LABELS = (
    *("label", "labels", "labelname", "class", "classes", "classname", "category", "categories", "categoryname"),
    *("target", "targets", "targetname", "diagnosis", "dx", "species", "breed", "variety", "finding", "findinglabels"),
    *("groundtruth", "gt", "y", "tag", "genre", "style", "emotion", "disease", "labelid", "classid", "categoryid"),
)
_SPLITS = ("split", "splits", "subset", "set", "dataset", "partition", "phase", "usage", "fold", "traintest", "mode")
_ONE = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_SHAPE = "path=COLUMN,label=COLUMN,split=COLUMN"
_TRIED = 50


@dataclass(frozen=True)
class Columns:
    """Columns that the user chose, by their names, or by their numbers from 1 on; "": found by their names."""

    path: str = ""
    label: str = ""
    split: str = ""


PLAIN = Columns()


def parsed(text: str | None) -> Columns:
    """Return the columns of the option ``--columns``, such as ``path=file,label=diagnosis``.

    Raises:
        UsageError: it has another form.
    """
    parts = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    chosen = {key.strip(): value.strip() for key, _, value in parts}
    if len(chosen) != len(parts) or chosen.keys() - {"path", "label", "split"} or not all(chosen.values()):
        raise UsageError(f"--columns {text!r} is not {_SHAPE}", "try --columns path=image,label=class")
    return Columns(**chosen)


def written(columns: Columns) -> str:
    """Return columns as the option that `parsed` reads."""
    pairs = (("path", columns.path), ("label", columns.label), ("split", columns.split))
    return ",".join(f"{key}={value}" for key, value in pairs if value)


@dataclass
class Chosen:
    """Columns of one table, by their numbers from 0 on.

    Attributes:
        label: column of the labels; None without labels. one_hot: columns of 0 and 1, one for each class, instead.
        split: column of the splits; None if there is none. said: what was taken for what, in words.
    """

    path: int
    label: int | None = None
    one_hot: list[int] = field(default_factory=list)
    split: int | None = None
    said: list[str] = field(default_factory=list)


def choose(table: Table, asked: Columns, exists: Callable[[str], bool], labelled: bool = True) -> Chosen:
    """Choose the columns of a table.

    Args:
        exists: whether there is a file for a path in the table. labelled: whether labels are needed.

    Raises:
        DataError: a column is missing, or several may be meant.
    """
    chosen = Chosen(_path(table, asked.path, exists))
    if labelled:
        _label(table, asked, chosen)
    _split(table, asked.split, chosen)
    pairs = [f"path is {_name(table, chosen.path)}"]
    if chosen.one_hot:
        names = [_name(table, number) for number in chosen.one_hot]
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        pairs.append(f"a column of 0 and 1 for each class: {shown}")
    elif chosen.label is not None:
        pairs.append(f"label is {_name(table, chosen.label)}")
    if chosen.split is not None:
        pairs.append(f"split is {_name(table, chosen.split)}")
    header = "no header; " if table.headless else ""
    chosen.said.insert(0, header + ", ".join(pairs))
    return chosen


def usual_path(names: Sequence[str]) -> list[str]:
    """Return those names of columns that are usual for paths or images, the most usual first."""
    return [name for known in _PATHS for name in names if _key(name) == known]


def usual_label(names: Sequence[str]) -> list[str]:
    """Return those names of columns that are usual for labels, the most usual first."""
    return [name for known in _LABELS for name in names if _key(name) == known]


def label_in(values: Mapping[str, object]) -> object:
    """Return the value of the first key that is a usual name of a label; None if there is none."""
    keys = {_key(str(name)): value for name, value in reversed(list(values.items()))}
    return next((keys[name] for name in _LABELS if keys.get(name) not in (None, "")), None)


def _name(table: Table, number: int) -> str:
    return f"column {number + 1}" if table.headless else visible(table.header[number])


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _named(table: Table, known: Sequence[str]) -> list[int]:
    """Return the columns with one of the names `known`, in their order."""
    keys = [_key(name) for name in table.header]
    return [number for name in known for number, key in enumerate(keys) if key == name]


def _asked(table: Table, name: str, what: str) -> int:
    """Return the column with a name, or with a number from 1 on.

    Raises:
        DataError: there is none.
    """
    if name in table.header:
        if table.header.count(name) > 1:
            raise DataError(f"{table.file} has several columns {visible(name)}", "name it by its number, from 1 on")
        return table.header.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(table.header):
        return int(name) - 1
    raise DataError(f"{table.file} has no column {visible(name)} for the {what}", _columns_of(table))


def _columns_of(table: Table) -> str:
    if table.headless:
        return f"it has no header, and {len(table.header)} columns: choose with --columns path=1,label=2"
    return f"its columns: {', '.join(map(visible, table.header[:20]))}; choose with --columns {_SHAPE}"


def _path(table: Table, asked: str, exists: Callable[[str], bool]) -> int:
    if asked:
        return _asked(table, asked, "path")
    some = table.rows[:_TRIED]
    if table.headless:
        images = [n for n in range(len(table.header)) if any(exists(row[n]) for row in some)]
        images = images or [n for n in range(len(table.header)) if all("." in row[n] for row in some)]
        if len(images) == 1:
            return images[0]
        raise DataError(f"{table.file} has no header, and no column that has the paths", _columns_of(table))
    named = _named(table, _PATHS)
    if not named:
        raise DataError(f"{table.file} has no column of paths by a usual name", _columns_of(table))
    found = {number: sum(exists(row[number]) for row in some) for number in named}
    if not max(found.values()):
        return named[0]
    best = [number for number in named if found[number] == max(found.values())]
    return best[0]


def _label(table: Table, asked: Columns, chosen: Chosen) -> None:
    if asked.label:
        chosen.label = _asked(table, asked.label, "label")
        return
    if table.headless:
        others = [n for n in range(len(table.header)) if n != chosen.path]
        splits = [n for n in others if all(split_of(cell)[0] for cell in table.column(n))]
        left = [n for n in others if n not in splits]
        if len(left) != 1 or len(splits) > 1:
            raise DataError(f"{table.file} has no header, and no column that must be the label", _columns_of(table))
        chosen.label = left[0]
        return
    named = [number for number in _named(table, _LABELS) if number != chosen.path]
    named = [number for number in named if any(cell.strip() for cell in table.column(number))]
    if len(named) > 1:
        named = _same(table, named, chosen)
    if len(named) > 1:
        raise DataError(
            f"{table.file} has several columns that may hold the labels: {', '.join(_name(table, n) for n in named)}",
            f"choose one: --columns label={table.header[named[0]]}",
        )
    if named:
        chosen.label = named[0]
        return
    chosen.one_hot = _one_hot(table, [chosen.path])
    if not chosen.one_hot:
        raise DataError(f"{table.file} has no column of labels by a usual name", _columns_of(table))


def _same(table: Table, named: list[int], chosen: Chosen) -> list[int]:
    """Return one column of several that tell the same, by preference one of words; else all of them."""
    first = table.column(named[0])
    for other in named[1:]:
        second = table.column(other)
        if not len(set(zip(first, second))) == len(set(first)) == len(set(second)):
            return named
    words = [n for n in named if not all(re.fullmatch(r"-?[\d.]+", cell.strip()) for cell in table.column(n))]
    best = (words or named)[0]
    chosen.said.append(f"{', '.join(_name(table, n) for n in named if n != best)} tells the same, and is not used")
    return [best]


def _one_hot(table: Table, without: Sequence[int]) -> list[int]:
    """Return the columns of 0 and 1, if there are at least two and a 1 in most rows is the only one."""
    columns = [n for n in range(len(table.header)) if n not in without]
    columns = [n for n in columns if table.rows and all(row[n].strip().lower() in _ONE for row in table.rows)]
    if len(columns) < 2:
        return []
    single = sum(sum(_ONE[row[n].strip().lower()] for n in columns) == 1 for row in table.rows)
    return columns if single > len(table.rows) / 2 else []


def is_one(cell: str) -> bool:
    """Return the value of a cell of a column of 0 and 1."""
    return _ONE.get(cell.strip().lower(), False)


def _split(table: Table, asked: str, chosen: Chosen) -> None:
    if asked:
        chosen.split = _asked(table, asked, "split")
        return
    taken = {chosen.path, chosen.label, *chosen.one_hot}
    if table.headless:
        others = [n for n in range(len(table.header)) if n not in taken]
        chosen.split = next((n for n in others if all(split_of(cell)[0] for cell in table.column(n))), None)
        return
    for number in _named(table, _SPLITS):
        values = {cell.strip() for cell in table.column(number)}
        if number in taken or not any(values):
            continue
        known = {value for value in values if split_of(value)[0]}
        if known:
            chosen.split = number
            return
        shown = ", ".join(sorted(map(visible, values))[:4])
        chosen.said.append(f"{_name(table, number)} ({shown}) has no names of splits, and is not used")

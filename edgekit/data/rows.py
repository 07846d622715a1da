"""Images that the rows of a table name: their files, classes and splits, and what is wrong with the rows."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.data import columns, listing, tables
from edgekit.data.columns import Chosen, Columns
from edgekit.data.layout import split_of
from edgekit.data.listing import BadRow, Found, Listing
from edgekit.data.tables import Table
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.records import SPLITS

# In this order they are tried for an id without an ending.
_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_ABSOLUTE = re.compile(r"(file://)?(/|[A-Za-z]:[/\\]|\\\\|~/)")
_NAMES = re.compile(
    r"(class(es)?|label(s)?|categor(y|ies)|names?|synsets?)([_-]?(names?|list|labels?|map|mapping|classes))?"
    r"\.(txt|names|json)|(class|label)_to_(idx|index|id|name)\.json|id(x)?2?(_to_)?(label|class)\.json"
    r"|label2id\.json|label_num_to_disease_map\.json",
    re.I,
)
_MOST_NAMES = 100_000


@dataclass
class Part:
    """A table of a data set, and what lies around it.

    Attributes:
        folder: that the paths are relative to. split: of all of its rows; "" if the rows tell, or nobody does.
    """

    table: Table
    folder: Path
    split: str = ""


@dataclass
class _Row:
    where: str
    line: int
    path: str
    label: str
    split: str


@dataclass
class _Reading:
    """Rows of a data set: those that can be used, and the others."""

    root: Path
    rows: list[_Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def read(parts: Sequence[Part], root: Path, asked: Columns = columns.PLAIN, labelled: bool = True) -> Listing:
    """Return the images that tables name.

    Args:
        root: folder of the data set. asked: columns that the user chose. labelled: whether labels are needed.

    Raises:
        DataError: no row can be used, or the columns cannot be told.
    """
    found = _Reading(_common_root(parts, asked) or root)
    said: list[str] = []
    for part in parts:
        lookup = Lookup(found.root, part.folder if found.root == root else found.root)
        chosen = columns.choose(part.table, asked, lookup.exists, labelled)
        _read_part(part, chosen, lookup, found, labelled)
        how = [*part.table.said, *chosen.said]
        said.append(f"{_shown(part.table.file, root)}: {len(part.table.rows)} rows, {'; '.join(how)}")
        found.said += lookup.said
    if found.root != root:
        found.said.append(f"absolute paths, below {found.root}")
    _unite(found)
    if not found.rows:
        raise _none(found, [part.table.file for part in parts])
    if labelled:
        beside = parts[0].table.file
        _name_numbers(found, root if beside.is_relative_to(root) else beside.parent)
    splits = {row.split for row in found.rows}
    made = Listing(found.root, tuple(s for s in SPLITS if s in splits) or ("",))
    made.files = sorted(
        (Found(row.split, row.label, row.path) for row in found.rows),
        key=lambda f: (SPLITS.index(f.split or "train"), f.path),
    )
    made.bad = found.bad
    made.read_as = [f"table {line}" for line in said]
    made.said = list(dict.fromkeys(found.said))
    _count_unnamed(made)
    return made


def _shown(file: Path, root: Path) -> str:
    return visible(file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name)


def _common_root(parts: Sequence[Part], asked: Columns) -> Path | None:
    """Return the folder above the files, if all paths of the first rows are absolute, exist, and lie elsewhere."""
    folders = []
    for part in parts:
        chosen = columns.choose(part.table, asked, _is_file, labelled=False)
        for cell in part.table.column(chosen.path):
            path = cell.strip()
            if not _ABSOLUTE.match(path) or Path(path).is_relative_to(part.folder) or not _is_file(path):
                return None
            folders.append(str(Path(path).parent))
    if not folders:
        return None
    common = Path(os.path.commonpath(folders))
    if len(common.parts) < 2:
        raise DataError(
            f"the absolute paths in {parts[0].table.file} have no folder in common but {common}",
            "move the images below one folder, or link to them from there",
        )
    return common


def _is_file(path: str) -> bool:
    """Return True if there is a file; False also for what can be no name of one, where `Path.is_file` raises."""
    return os.path.isfile(path)  # noqa: PTH113


class Lookup:
    """Files of the paths in a table: as they are written, with an ending, or by their last parts below the folder.

    Attributes:
        said: how paths were found that are not written as they are, after the last one was asked for.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder
        self._below = os.path.relpath(folder, root).replace(os.sep, "/") if folder != root else ""
        self._endings = list(_ENDINGS)
        self._prefix = ""
        self._by_name: dict[str, list[str]] | None = None
        self._how: Counter[str] = Counter()

    def exists(self, cell: str) -> bool:
        """Return True if there is a file."""
        how = Counter(self._how)
        found = self.find(cell)[0]
        self._how = how
        return bool(found)

    def find(self, cell: str) -> tuple[str, str]:
        """Return the path of a file relative to the root, and "", or "" and why there is none: a kind of `BadRow`."""
        if not cell.strip():
            return "", "no_path"
        if "\0" in cell:
            return "", "missing"
        if re.match(r"\s*(https?|s3|gs|ftp)://", cell):
            return "", "address"
        if not _ABSOLUTE.match(cell) and ".." not in cell and self._is_file(cell):
            return self._relative(cell), ""
        path = cell.strip().removeprefix("file://").replace("\\", "/")
        if path != cell.strip():
            self._how["slashes"] += "\\" in cell
        self._how["blanks"] += cell != cell.strip()
        if _ABSOLUTE.match(path):
            return self._absolute(path)
        path = posixpath.normpath(path)
        if path.startswith("../") or path == "..":
            inside = posixpath.normpath(posixpath.join(self._below, path))
            if inside.startswith("..") or not (self._root / inside).is_file():
                return "", "outside"
            return inside, ""
        return self._plain(path)

    def _plain(self, path: str) -> tuple[str, str]:
        """Find a relative path without "..": as it is, with an ending, or anywhere below the folder."""
        for prefix in dict.fromkeys(("", self._prefix)):
            if self._is_file(prefix + path):
                self._how[prefix] += bool(prefix)
                return self._relative(prefix + path), ""
            for number, ending in enumerate(self._endings):
                if self._is_file(f"{prefix}{path}{ending}"):
                    self._endings.insert(0, self._endings.pop(number))
                    self._how["endings"] += 1
                    self._how[prefix] += bool(prefix)
                    return self._relative(f"{prefix}{path}{ending}"), ""
        matches = self._ending_with(path)
        if len(matches) == 1:
            self._how["endings"] += posixpath.basename(matches[0]) != posixpath.basename(path)
            base = posixpath.basename(path)
            cut = len(matches[0]) - (len(path) + len(posixpath.basename(matches[0])) - len(base))
            self._prefix = matches[0][:cut]
            self._how[self._prefix] += 1
            return self._relative(matches[0]), ""
        return "", "several" if matches else "missing"

    def _absolute(self, path: str) -> tuple[str, str]:
        """Find an absolute path: below the folder, else by its last parts, if it comes from another machine."""
        if Path(path).is_relative_to(self._root) and _is_file(path):
            return Path(os.path.normpath(path)).relative_to(self._root).as_posix(), ""
        if _is_file(path):
            return "", "elsewhere"
        parts = [part for part in re.sub(r"^(~|[A-Za-z]:)?/+", "", path).split("/") if part not in ("", ".")]
        if ".." in parts:
            return "", "outside"
        for first in range(len(parts)):
            tail = "/".join(parts[first:])
            if self._is_file(tail):
                self._how["absolute"] += 1
                return self._relative(tail), ""
        matches = self._ending_with(parts[-1]) if parts else []
        for first in range(len(parts) - 1):
            tail = "/" + "/".join(parts[first:])
            if len(fewer := [match for match in matches if f"/{match}".endswith(tail)]) == 1:
                matches = fewer
                break
        if len(matches) == 1:
            self._how["absolute"] += 1
            return self._relative(matches[0]), ""
        return "", "several" if matches else "missing"

    def _is_file(self, path: str) -> bool:
        return _is_file(f"{self._folder}/{path}")

    def _relative(self, path: str) -> str:
        return posixpath.normpath(f"{self._below}/{path}" if self._below else path)

    def _ending_with(self, path: str) -> list[str]:
        """Return the images below the folder whose last parts are `path`, or are with an ending."""
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for found in listing.find_any(self._folder).files:
                name = posixpath.basename(found.path)
                self._by_name[name].append(found.path)
                if (stem := name.rpartition(".")[0]) and stem != name:
                    self._by_name[stem].append(found.path)
        name = posixpath.basename(path)
        head = path[: len(path) - len(name)]
        return [p for p in self._by_name.get(name, ()) if f"/{p}".rpartition("/")[0].endswith(f"/{head}".rstrip("/"))]

    @property
    def said(self) -> list[str]:
        """Sentences about paths that are not written as they are."""
        how = dict(self._how)
        words = {
            "endings": "names without an ending, which was looked up",
            "blanks": "paths with blanks around them, which are left out",
            "slashes": "paths with backslashes, taken for slashes",
            "absolute": f"absolute paths of another place, looked up by their last parts below {self._folder}",
        }
        said = [f"{text}: {how.pop(key)}" for key, text in words.items() if how.get(key)]
        places = sorted((place, number) for place, number in how.items() if place and number and place not in words)
        if places:
            shown = ", ".join(visible(place) for place, _ in places[:4]) + (" and others" if len(places) > 4 else "")
            said.append(f"names looked up in {shown}: {sum(number for _, number in places)}")
        return said


def _read_part(part: Part, chosen: Chosen, lookup: Lookup, found: _Reading, labelled: bool) -> None:
    """Read the rows of one table."""
    table = part.table
    where = _shown(table.file, found.root)
    renamed: set[tuple[str, str]] = set()
    found.bad += [
        BadRow("cells", where, line, f"{count} cells, not {len(table.header)}") for line, count in table.ragged
    ]
    for line, cells in zip(table.lines, table.rows):
        cell = cells[chosen.path]
        path, why = lookup.find(cell)
        label = _label(table, chosen, cells) if labelled else ""
        split = part.split
        if not why and labelled and not label:
            why = "one_hot" if chosen.one_hot else "no_label"
        if not why and chosen.split is not None:
            value = cells[chosen.split].strip()
            split = split_of(value)[0] or part.split
            if not split:
                why, cell = "no_split", value or cell
            elif split != value:
                renamed.add((split, value))
        if why:
            found.bad.append(BadRow(why, where, line, visible(cell.strip())))
        else:
            found.rows.append(_Row(where, line, path, label, split))
    if renamed:
        pairs = (f"{visible(value)} is {split}" for split, value in sorted(renamed)[:6])
        found.said.append(f"splits by their names: {', '.join(pairs)}")


def _label(table: Table, chosen: Chosen, cells: list[str]) -> str:
    """Return the label of a row; "" if it has none, or several columns of 0 and 1 are 1."""
    if chosen.label is not None:
        return cells[chosen.label].strip()
    ones = [number for number in chosen.one_hot if columns.is_one(cells[number])]
    return table.header[ones[0]] if len(ones) == 1 else ""


def _unite(found: _Reading) -> None:
    """Keep each file once; files with several labels or splits are bad rows."""
    same: dict[str, list[_Row]] = defaultdict(list)
    for row in found.rows:
        same[row.path].append(row)
    again = sum(len(rows) - 1 for rows in same.values())
    kept = []
    for path, rows in same.items():
        labels, splits = list(dict.fromkeys(r.label for r in rows)), list(dict.fromkeys(r.split for r in rows))
        if len(labels) > 1:
            named = f"{visible(path)} is {' and '.join(map(visible, labels[:3]))}"
            found.bad.append(BadRow("two_labels", rows[1].where, rows[1].line, named))
        elif len(splits) > 1:
            named = f"{visible(path)} is in {' and '.join(s or 'no split' for s in splits)}"
            found.bad.append(BadRow("two_splits", rows[1].where, rows[1].line, named))
        else:
            kept.append(rows[0])
    if again and len(kept) == len(same):
        found.said.append(f"rows of files that are named before, used once: {again}")
    found.rows = kept


def _none(found: _Reading, named: Sequence[Path]) -> DataError:
    kinds = {row.kind for row in found.bad}
    files = ", ".join(str(file) for file in named)
    if kinds <= {"missing", "outside"}:
        first = f", such as {found.bad[0].what}" if found.bad else ""
        return DataError(
            f"none of the files that {files} names exists below {found.root}{first}",
            "put the table into the folder of the images, or write the paths as they are seen from there",
        )
    return DataError(
        f"{files}: no row can be used\n  " + "\n  ".join(listing.sentences(found.bad)), "correct the table"
    )


def _name_numbers(found: _Reading, root: Path) -> None:
    """Replace labels that are numbers by the names in a file beside the table, if there is one."""
    labels = {row.label for row in found.rows}
    if all(re.fullmatch(r"\d+\.0+", label) for label in labels):
        for row in found.rows:
            row.label = row.label.partition(".")[0]
        labels = {row.label for row in found.rows}
    names, said = names_for(labels, root)
    found.said += said
    for row in found.rows:
        row.label = names.get(row.label, row.label)


def is_names(file: Path) -> bool:
    """Return True for a file that may name the classes, by its own name."""
    return _NAMES.fullmatch(file.name) is not None and file.is_file() and file.stat().st_size < 1 << 24


def names_for(labels: Iterable[str], folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return number -> name for labels that are all numbers, from a file of names in a folder, and what to say.

    Raises:
        DataError: several files name the classes differently.
    """
    numbers = set(labels)
    if not numbers or not all(re.fullmatch(r"\d{1,9}", label) for label in numbers):
        return {}, []
    found: dict[str, dict[str, str]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_names(file):
            names = _names(file)
            if names and all(str(int(label)) in names for label in numbers):
                found[file.name] = names
    if len({tuple(sorted(names.items())) for names in found.values()}) > 1:
        raise DataError(
            f"the labels are numbers, and {' and '.join(map(visible, found))} in {folder} name them differently",
            "keep one of these files there",
        )
    if not found:
        low, high = min(map(int, numbers)), max(map(int, numbers))
        return {}, [f"labels are the numbers {low} to {high}, without names (classes.txt: one on each line, from 0 on)"]
    where, names = next(iter(found.items()))
    return {label: names[str(int(label))] for label in numbers}, [f"names of the numbers from {visible(where)}"]


def _names(file: Path) -> dict[str, str]:
    """Return number -> name of a file with one name on each line, or a JSON list or object; {} if it is none."""
    try:
        text, _ = tables.decode(file)
        if file.suffix.lower() != ".json":
            lines = [line.strip() for line in text.strip().splitlines()]
            numbered = [re.fullmatch(r"(\d+)[\s:,]+(\S.*)", line) for line in lines]
            if all(numbered):
                return {m[1]: m[2].strip() for m in numbered if m}
            return {str(number): line for number, line in enumerate(lines)} if all(lines) else {}
        value = json.loads(text)
    except (DataError, ValueError, RecursionError, OSError):
        return {}
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or len(value) > _MOST_NAMES:
        return {}
    if all(isinstance(v, int) for v in value.values()):
        value = {number: name for name, number in value.items()}
    pairs = {str(number): name for number, name in value.items() if isinstance(name, str) and name.strip()}
    return {number: name.strip() for number, name in pairs.items() if number.isdecimal()} if pairs else {}


def _count_unnamed(made: Listing) -> None:
    """Count the images that no row names, in the folders of those that are named."""
    used = {found.path for found in made.files}
    tops = {path.partition("/")[0] for path in used if "/" in path}
    flat = any("/" not in path for path in used)
    named = {row.what for row in made.bad}
    for path in listing.images_in(made.root, tops, flat):
        if path not in used and path not in named:
            made.left_out["unnamed"][visible(path.rpartition("/")[0]) or "."] += 1

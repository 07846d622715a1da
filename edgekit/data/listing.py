"""Listing of a data set: every file below its folder is an image that is used, or is counted under a reason."""

from __future__ import annotations

import filecmp
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgekit import files
from edgekit.data import formats, layout
from edgekit.data.layout import Layout, Looker, Place
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.records import SPLITS, LeftOut

# Reasons for which a file is not used -> what is said about such files. Those in `LOSSES` are images, or may be.
REASONS = {
    "format": "in formats that are not read",
    "backup": "of backups and unfinished downloads",
    "no_class": "in no class folder",
    "outside": "outside of the splits",
    "unnamed": "that no row of the table names",
    "unlabelled": "without a label",
    "gone": "that a data set names and that are not there",
    "unsafe": "of an archive, whose names lead elsewhere, or that are links or devices",
    "lost_class": "of classes that are left out (--skip-empty)",
    "link": "behind links that lead back or are there twice",
    "broken": "broken links",
    "special": "pipes, sockets or devices",
    "system": "hidden, or left by systems and tools",
    "own": "of edgekit's own runs and caches",
    "no_image": "no images",
}
LOSSES = (
    "format",
    "backup",
    "no_class",
    "outside",
    "unnamed",
    "unlabelled",
    "gone",
    "unsafe",
    "lost_class",
    "link",
    "broken",
)
# Folders that systems, archives and tools leave behind, beside all whose names begin with a dot.
_SYSTEM_FOLDERS = {
    *("__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "found.000", "__pycache__", "node_modules", "cvs", "_darcs"),
}
# Below a class folder these hold the images once more, only smaller. (At the top they may be classes.)
_PREVIEWS = {"thumbnails", "thumbnail", "_thumbs", "_thumbnails", "previews"}
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "folder.jpg:zone.identifier"}
_MOST_NAMED = 5


class Found(NamedTuple):
    """One image file: `split` is "" without split folders; `path` is relative, with "/"."""

    split: str
    label: str
    path: str


class Mount(NamedTuple):
    """A folder of a data set, relative to its root, that is read as if it lay at `at`; "" is the top."""

    at: str
    folder: str


_WHOLE = (Mount("", ""),)


# Kinds of rows of a table that cannot be used -> what is said about them.
BAD_ROWS = {
    "missing": ("1 file does not exist", "{} files do not exist"),
    "several": ("1 name matches several files", "{} names match several files"),
    "outside": ("1 path leads out of the folder", "{} paths lead out of the folder"),
    "elsewhere": ("1 absolute path is outside of the folder", "{} absolute paths are outside of the folder"),
    "address": ("1 row has an address of the web", "{} rows have addresses of the web, and no files"),
    "no_path": ("1 row has no path", "{} rows have no path"),
    "no_label": ("1 row has no label", "{} rows have no label"),
    "one_hot": ("1 row is of no class, or of several", "{} rows are of no class, or of several"),
    "no_split": ("1 row is in no known split", "{} rows are in no known split"),
    "two_labels": ("1 file has several labels", "{} files have several labels"),
    "two_splits": ("1 file is in several splits", "{} files are in several splits"),
    "cells": ("1 row is longer or shorter than the header", "{} rows are longer or shorter than the header"),
}


class BadRow(NamedTuple):
    """A row of a table that cannot be used: a kind of `BAD_ROWS`, its file, its line, and what stands there."""

    kind: str
    where: str
    line: int
    what: str

    @property
    def why(self) -> str:
        """The problem in words."""
        return BAD_ROWS[self.kind][0].partition(" ")[2] + (f" ({self.what})" if self.what else "")

    def __str__(self) -> str:
        return f"{visible(self.where)} line {self.line}: {self.why}"


def sentences(bad: list[BadRow]) -> list[str]:
    """Return one line for each kind of bad rows, with their number and the first of them."""
    lines = []
    for kind, (one, many) in BAD_ROWS.items():
        same = [row for row in bad if row.kind == kind]
        if not same:
            continue
        files = ", ".join(visible(where) for where in dict.fromkeys(row.where for row in same))
        named = [f"line {row.line}{f' ({row.what})' if row.what else ''}" for row in same[:_MOST_NAMED]]
        named += [f"{len(same) - _MOST_NAMED} more"] if len(same) > _MOST_NAMED else []
        lines.append(f"{files}: {one if len(same) == 1 else many.format(len(same))}: {', '.join(named)}")
    return lines


@dataclass
class Listing:
    """Files below `root`, sorted; only those without a usual ending were opened.

    Attributes:
        present: split folders; ("",) if there are none. split_folders: (split, folder) of those named otherwise.
        files: images that are used. by_content: those without a usual ending.
        left_out: reason -> ending or folder -> number of files that are not used.
        empty: classes without any image. lost: class folder -> its images, of which none can be used.
        closed: (folder, reason) for each folder that cannot be listed.
        merged: classes whose folders are written in several Unicode forms.
        nested: classes whose images all lie in several folders of their folder.
        container: file or folder that the images were unpacked from; None: they are used where they lie.
        read_as: what was taken for what, where that is not a folder of class folders. said: more about it.
        bad: rows of a table that cannot be used.
    """

    root: Path
    present: tuple[str, ...]
    split_folders: tuple[tuple[str, str], ...] = ()
    files: list[Found] = field(default_factory=list)
    by_content: int = 0
    left_out: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    empty: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    closed: list[tuple[str, str]] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    container: Path | None = None
    read_as: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    @property
    def counted(self) -> tuple[LeftOut, ...]:
        """The files that are not used, in the order of `REASONS`."""
        return tuple(
            LeftOut(reason, sum(found.values()), dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))))
            for reason in REASONS
            if (found := self.left_out.get(reason))
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the folders were read."""
        found = [*(f"read as: {line}" for line in self.read_as), *self.said]
        if self.split_folders:
            pairs = (f"{visible(folder)} is {split}" for split, folder in self.split_folders)
            found.append(f"splits by the names of the folders: {', '.join(pairs)}")
        if self.by_content:
            one = self.by_content == 1
            some = "1 file is an image" if one else f"{self.by_content} files are images"
            found.append(f"{some} by content, not by {'its' if one else 'their'} ending, and used")
        if self.nested:
            several = f" and {len(self.nested) - 1} more" if len(self.nested) > 1 else ""
            found.append(
                f"class {visible(self.nested[0])}{several}: the folders in it are no classes of their own (move them "
                "to the top to make them classes)"
            )
        found += [f"{visible(name)}: folders in several Unicode forms are one class" for name in self.merged]
        return tuple(found)


def sentence(left: LeftOut) -> str:
    """Return one line about files that are not used for one reason."""
    named = [f"{count} {name}" for name, count in list(left.of.items())[:_MOST_NAMED]]
    named += [f"{len(left.of) - _MOST_NAMED} other kinds"] if len(left.of) > _MOST_NAMED else []
    text = f"left out: {left.files} file{'' if left.files == 1 else 's'} {REASONS[left.reason]}: {', '.join(named)}"
    if left.reason == "format" and formats.HEIC_EXTENSIONS & left.of.keys():
        text += f"; HEIC needs a package: {formats.INSTALL_HEIC}"
    return text


def find(root: Path, asked: str = "auto", skip_empty: bool = False, mounts: Sequence[Mount] = _WHOLE) -> Listing:
    """List the files of ``root/<class>/...``, or ``root/{train,val,test}/<class>/...``, at any depth.

    Links to folders are followed, except where they lead back. Broken links with the ending of an image are listed,
    as missing images.

    Args:
        asked: one of `layout.LAYOUTS`. skip_empty: leave out classes that lose all of their images.
        mounts: folders that are read as if they were laid over each other; the same file in several is used once.
    Raises:
        DataError: no images in class folders, or a layout that can be read in several ways (see `layout.read`).
    """
    plan = layout.read(root, _Mounted(root, mounts).looker(), asked)
    listing = Listing(root, plan.present, tuple(plan.unusual))
    places = {place.path: place for place in plan.places}
    lost: dict[Place, Counter[str]] = defaultdict(Counter)
    used: Counter[Place] = Counter()
    inside: dict[str, set[str]] = defaultdict(set)  # class -> folders in its folder that hold images; "": it itself
    laid: dict[str, str] = {}  # where a file is read -> where it lies
    twice = 0
    for file, lies in _walk_mounts(root, mounts, listing.closed):
        place = _place_of(file.path, places)
        reason, what = file.reason, file.what
        if len(mounts) > 1 and (other := laid.setdefault(file.path, lies)) != lies and _same(root / other, root / lies):
            twice += 1
            continue
        if not reason and place:
            listing.files.append(Found(place.split, place.label, lies))
            listing.by_content += file.by_content
            used[place] += 1
            inside[place.label].add(file.path.removeprefix(f"{place.path}/").rpartition("/")[0].partition("/")[0])
            continue
        if not reason:
            outside = plan.present != ("",) and "/" in file.path and not _in_split(file.path, plan)
            reason, what = "outside" if outside else "no_class", _folder(file.path)
        if place and reason in LOSSES:
            lost[place][what] += file.number
        listing.left_out[reason][what] += file.number
    if twice:
        listing.said.append(
            f"files that several parts hold under the same name, with the same content, used once: {twice}"
        )
    listing.files.sort(key=lambda found: SPLITS.index(found.split or "train"))
    gone = {place: kinds for place, kinds in lost.items() if not used[place]}
    for place, kinds in gone.items():
        listing.lost[place.path] = ", ".join(f"{count} {name}" for name, count in kinds.items())
    labels = {found.label for found in listing.files}
    holds = {place.label for place in gone}
    owned = {path.partition("/")[0] for path in listing.left_out.get("own", ())}
    listing.empty = sorted({p.label for p in plan.places if p.path not in owned} - labels - holds)
    if skip_empty:
        _leave_out(listing, {place.label for place in gone if place.split in ("", "train")})
    _merge(listing)
    listing.nested = sorted(name for name, folders in inside.items() if len(folders) > 1 and "" not in folders)
    if not listing.files:
        raise _nothing(listing, [p.path for p in plan.places])
    return listing


def find_any(folder: Path) -> Listing:
    """List all images at any depth below `folder`, without classes."""
    listing = Listing(folder, ("",))
    for file in _walk(folder, "", listing.closed):
        if file.reason:
            listing.left_out[file.reason][file.what] += file.number
        else:
            listing.files.append(Found("", "", file.path))
    return listing


def has_images(root: Path) -> bool:
    """Return True if there is an image at any depth below `root`."""
    return any(not file.reason for file in _walk(root, "", []))


def is_system(name: str) -> bool:
    """Return True for the name of a file or folder that is hidden, or that systems and tools leave behind."""
    return _is_system_folder(name, 0) or name.casefold() in _SYSTEM_FILES


def images_in(root: Path, folders: Iterable[str], loose: bool) -> Iterator[str]:
    """Yield the images below some folders of `root`, and with `loose` those that lie in `root` itself."""
    for folder in sorted(folders):
        yield from (file.path for file in _walk(root, folder, []) if not file.reason)
    if loose:
        with os.scandir(root) as entries:
            inside = [_file(entry, entry.name) for entry in entries if not entry.is_dir()]
        yield from (file.path for file in inside if not file.reason)


def _nothing(listing: Listing, folders: list[str]) -> DataError:
    """Return the error for a data set without a single image in a class folder."""
    loose = listing.left_out.get("no_class")
    why = f"the images in {listing.root} are not in class folders" if loose else f"no images below {listing.root}"
    if listing.closed:
        why = f"{why}; {listing.closed[0][0]} cannot be listed: {listing.closed[0][1]}"
    if "format" in listing.left_out:
        why = f"{why}; {sentence(listing.counted[0])}"
    return DataError(
        why,
        "edgekit expects DATA/<class>/<image>, or DATA/train/<class>/<image> with val and test, or a table of "
        "path,label beside the images",
    )


def _leave_out(listing: Listing, labels: set[str]) -> None:
    """Remove classes, and count their images in other splits."""
    for found in listing.files:
        if found.label in labels:
            listing.left_out["lost_class"][visible(found.label)] += 1
    listing.files = [found for found in listing.files if found.label not in labels]
    listing.lost = {}


def _merge(listing: Listing) -> None:
    """Give classes whose names differ only in their Unicode form one name, the composed one."""
    forms: dict[str, set[str]] = defaultdict(set)
    for found in listing.files:
        forms[unicodedata.normalize("NFC", found.label)].add(found.label)
    renamed = {name: composed for composed, names in forms.items() if len(names) > 1 for name in names}
    if renamed:
        listing.files = [found._replace(label=renamed.get(found.label, found.label)) for found in listing.files]
        listing.merged = sorted(set(renamed.values()))


def _place_of(path: str, places: dict[str, Place]) -> Place | None:
    """Return the class folder in which a file lies."""
    parts = path.split("/")
    for depth in range(1, min(len(parts), 4)):
        if place := places.get("/".join(parts[:depth])):
            return place
    return None


def _in_split(path: str, plan: Layout) -> bool:
    return any(path.startswith(f"{folder}/") for _, folder in plan.split_folders)


def _folder(path: str) -> str:
    """Return the folder at the top in which a file lies, for a message; "." for the data set's own."""
    return visible(path.partition("/")[0]) if "/" in path else "."


class _File(NamedTuple):
    """Files at `path`, or `number` of them below it; `reason` is "" for images, else one of `REASONS`.

    `what`: ending or folder under which they are counted.
    """

    path: str
    reason: str = ""
    what: str = ""
    number: int = 1
    by_content: bool = False


def _walk_mounts(root: Path, mounts: Sequence[Mount], closed: list[tuple[str, str]]) -> Iterator[tuple[_File, str]]:
    """Yield every file below the mounts, with the path that it is read under, and the path where it lies."""
    for at, folder in mounts:
        shut: list[tuple[str, str]] = []
        for file in _walk(root / folder, "", shut):
            path = _joined(at, file.path)
            yield file._replace(path=path), _joined(folder, file.path)
        closed += [(_joined(folder, path), why) for path, why in shut]


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder and path else folder or path


def _same(one: Path, other: Path) -> bool:
    """Return True for two files of the same content."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


class _Mounted:
    """Folders of a data set, as the mounts lay them over each other."""

    def __init__(self, root: Path, mounts: Sequence[Mount]) -> None:
        self._root, self._mounts = root, mounts

    def looker(self) -> Looker:
        """Return the questions about them."""
        return Looker(self._folders, self._has_loose, self._has_images)

    def _places(self, folder: str) -> list[tuple[Path, str]]:
        """Return the folders that are read at `folder`, as a root and a path below it."""
        found = []
        for at, inside in self._mounts:
            if not at:
                found.append((self._root / inside, folder))
            elif folder == at or folder.startswith(f"{at}/"):
                found.append((self._root / inside, folder[len(at) + 1 :]))
        return found

    def _below(self, folder: str) -> set[str]:
        """Return the folders in `folder` that only mounts make."""
        start = f"{folder}/" if folder else ""
        return {at[len(start) :].partition("/")[0] for at, _ in self._mounts if at.startswith(start) and at != folder}

    def _folders(self, folder: str) -> list[str]:
        names = {name for name in self._below(folder) if name}
        for root, path in self._places(folder):
            try:
                with os.scandir(root / path) as entries:
                    names |= {e.name for e in entries if not _is_system_folder(e.name, 0) and e.is_dir()}
            except OSError:
                continue
        return sorted(names)

    def _has_images(self, folder: str) -> bool:
        if any(not file.reason for root, path in self._places(folder) for file in _walk(root, path, [])):
            return True
        inner = [mount for mount in self._mounts if mount.at.startswith(f"{folder}/")]
        return any(has_images(self._root / mount.folder) for mount in inner)

    def _has_loose(self, folder: str) -> bool:
        for root, path in self._places(folder):
            try:
                with os.scandir(root / path) as entries:
                    if any(not _file(entry, entry.name).reason for entry in entries if entry.is_file()):
                        return True
            except OSError:
                continue
        return False


def _is_system_folder(name: str, depth: int) -> bool:
    """Return True for hidden folders and leftovers; ``..x`` is none of them, to be refused as a class name."""
    hidden = name.startswith(".") and not name.startswith("..")
    return hidden or name.casefold() in _SYSTEM_FOLDERS or (depth > 0 and name.casefold() in _PREVIEWS)


class _Folder(NamedTuple):
    """A folder that is being read: what is left of it, and the real folders of the links that led to it."""

    path: str
    entries: Iterator[os.DirEntry[str]]
    chain: tuple[str, ...]


def _walk(root: Path, start: str, closed: list[tuple[str, str]]) -> Iterator[_File]:
    """Yield every file below ``root/start``, depth first, sorted by name; adds to `closed`."""
    followed: set[tuple[str, str]] = set()
    cache_folder = _cache_folder(root)
    stack: list[_Folder] = []

    def enter(path: str, chain: tuple[str, ...]) -> Iterator[_File]:
        try:
            with os.scandir(root / path) as entries:
                listed = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            closed.append((path or ".", error.strerror or str(error)))
            return
        if any(e.name == "run.json" for e in listed) and _is_run(root / path / "run.json"):
            yield _File(path, "own", _folder(f"{path}/"), _count(root / path))
        else:
            stack.append(_Folder(path, iter(listed), chain))

    yield from enter(start, ())
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
            continue
        path = f"{folder.path}/{entry.name}" if folder.path else entry.name
        try:
            if not entry.is_dir():
                yield _file(entry, path)
            elif _is_system_folder(entry.name, path.count("/")):
                if count := _count(root / path):
                    yield _File(path, "system", visible(entry.name), count)
            elif cache_folder and os.path.realpath(root / path) == cache_folder:
                yield _File(path, "own", _folder(f"{path}/"), _count(root / path))
            elif entry.is_symlink():
                here, target = os.path.realpath(root / folder.path), os.path.realpath(root / path)
                key = (path.partition("/")[0], target)
                if key in followed or any(_within(target, place) for place in (*folder.chain, here)):
                    yield _File(path, "link", visible(path))
                else:
                    followed.add(key)
                    yield from enter(path, (*folder.chain, here))
            else:
                yield from enter(path, folder.chain)
        except OSError as error:
            closed.append((path, error.strerror or str(error)))


def _within(folder: str, place: str) -> bool:
    """Return True if `place` is `folder`, or lies below it."""
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def _file(entry: os.DirEntry[str], path: str) -> _File:
    """Return a file with the reason for which it cannot be used, if any."""
    name = entry.name
    end = formats.ending(name)
    if name.startswith(".") or name.casefold() in _SYSTEM_FILES:
        return _File(path, "system", visible(name))
    by_name = end in formats.EXTENSIONS or (end in formats.HEIC_EXTENSIONS and formats.reads_heic())
    if not entry.is_file():
        missing = entry.is_symlink() and not Path(entry.path).exists()
        if missing and by_name:
            return _File(path)
        return _File(path, "broken" if missing else "special", end or visible(name))
    if by_name:
        return _File(path)
    shown = end or "without an ending"
    if formats.is_backup(name):
        return _File(path, "backup" if formats.sniff(entry.path) else "no_image", shown)
    if end in formats.OTHER_IMAGES - formats.HEIC_EXTENSIONS:
        return _File(path, "format", shown)
    content = formats.sniff(entry.path)
    if content == "HEIC" and not formats.reads_heic():
        return _File(path, "format", end if end in formats.HEIC_EXTENSIONS else ".heic")
    if content and (content != "TIFF" or not end):  # many raw formats of cameras look like TIFF
        return _File(path, by_content=True)
    return _File(path, "format" if end in formats.HEIC_EXTENSIONS or content else "no_image", shown)


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _is_run(path: Path) -> bool:
    """Return True if run.json is one that edgekit wrote."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"edgekit", "arch", "status"} <= document.keys()


def _cache_folder(root: Path) -> str:
    """Return the real path of edgekit's cache if it lies below `root`, else ""."""
    try:
        folder = os.path.realpath(files.cache_dir("index").parent)
    except RuntimeError:  # neither EDGEKIT_CACHE nor a home folder
        return ""
    return folder if _within(os.path.realpath(root), folder) and folder != os.path.realpath(root) else ""

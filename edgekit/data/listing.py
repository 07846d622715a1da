"""Which image files a folder holds, in which class and which split; nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgekit.data.images import EXTENSIONS
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.records import SPLITS

_ENDINGS = tuple(EXTENSIONS)


class Found(NamedTuple):
    """One image file: `split` is "" where there are no split folders; `path` is relative, with "/"."""

    split: str
    label: str
    path: str


@dataclass
class Listing:
    """All image files below `root`, sorted, and what was seen on the way.

    `present` holds the split folders ("" alone without any), `empty` the classes without an image,
    `closed` (folder, reason) for each folder that cannot be listed, `links` the linked folders, which
    are not followed: they could lead in a circle.
    """

    root: Path
    present: tuple[str, ...]
    files: list[Found] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def find(root: Path) -> Listing:
    """List ``root/<class>/...``, or ``root/{train,val,test}/<class>/...``, at any depth.

    Files and folders whose name begins with a dot are not part of the data. A link that leads nowhere
    is listed: it stands for an image that is missing.

    Raises:
        DataError: no images in class folders, or images in a folder that is no split, such as ``valid``.
    """
    listing = Listing(root, tuple(s for s in SPLITS if (root / s).is_dir()) if _is_presplit(root) else ("",))
    seen: set[str] = set()
    for split in listing.present:
        for name in _class_folders(root / split):
            seen.add(name)
            relative = f"{split}/{name}" if split else name
            listing.files += (Found(split, name, path) for path in image_files(root, relative, listing))
    listing.empty = sorted(seen - {found.label for found in listing.files})
    if not listing.files:
        loose = any(p.suffix.lower() in EXTENSIONS for p in root.iterdir())
        why = f"the images in {root} lie in no class folder" if loose else f"no images below {root}"
        if listing.closed:
            why = f"{why}; {listing.closed[0][0]} cannot be listed: {listing.closed[0][1]}"
        raise DataError(why, "edgekit expects DATA/<class>/<image>, or DATA/train/<class>/<image> with val and test")
    return listing


def _is_presplit(root: Path) -> bool:
    """Whether ``root/train`` holds class folders (and is not itself a class, as in car/train/bus).

    Raises:
        DataError: images lie in a folder beside it that is no split, such as ``valid``.
    """
    if not (root / "train").is_dir() or not _holds_classes(root / "train"):
        return False
    beside = [name for name in _class_folders(root) if name not in SPLITS]
    if others := [name for name in beside if _holds_classes(root / name)]:
        raise DataError(
            f"{root} holds train and {', '.join(map(visible, others))}: which split is that?",
            f"splits are called {', '.join(SPLITS)}; rename or move the folder",
        )
    return True


def _holds_classes(folder: Path) -> bool:
    nowhere = Listing(folder, ())
    try:
        return any(True for name in _class_folders(folder) for _ in image_files(folder, name, nowhere))
    except PermissionError:
        return False


def _class_folders(folder: Path) -> list[str]:
    """The folders in `folder`, sorted: .git is left out, ..x is not (it is refused as a class name)."""
    shown = (p for p in folder.iterdir() if not p.name.startswith(".") or p.name.startswith(".."))
    return sorted(p.name for p in shown if p.is_dir())


def image_files(root: Path, relative: str, listing: Listing) -> Iterator[str]:
    """The image files below ``root/relative``, depth first, sorted by name; oddities go into `listing`."""
    stack = [_entries(root, relative, listing)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        path, found = entry
        try:
            if found.is_dir(follow_symlinks=False):
                stack.append(_entries(root, path, listing))
            elif found.is_symlink() and found.is_dir():
                listing.links.append(path)
            elif found.name.lower().endswith(_ENDINGS) and (
                found.is_file() or (found.is_symlink() and not (root / path).exists())
            ):
                yield path
        except OSError as error:
            listing.closed.append((path, error.strerror or str(error)))


def _entries(root: Path, relative: str, listing: Listing) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(relative path, entry) of what lies in a folder and is not hidden, sorted by name."""
    try:
        with os.scandir(root / relative) as entries:
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        listing.closed.append((relative, error.strerror or str(error)))
        return iter(())
    return iter([(f"{relative}/{entry.name}", entry) for entry in shown])

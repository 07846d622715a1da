"""Several archives in one folder: which of them are splits, classes, or parts of one data set."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.data.layout import FILLERS, AmbiguousError, candidates_of, split_of
from edgekit.data.listing import Mount
from edgekit.labels import visible

_PARTS = {"part", "parts", "pt", "chunk", "batch", "vol", "volume", "shard", "piece", "section", "archive"}
_MOST_NAMED = 4


@dataclass(frozen=True)
class Member:
    """An archive, or a folder, that may be part of a data set.

    Attributes:
        file: its path, relative to the folder that the user named. name: that without the ending.
        folder: where its images begin, relative to the root of the listing.
        classes: the folders in it that hold images. loose: images lie beside them.
        deep: one of `classes` holds images in folders of its own.
    """

    file: str
    name: str
    folder: str
    classes: tuple[str, ...]
    loose: bool
    deep: bool

    @property
    def parent(self) -> str:
        """The folder that it lies in; "" for the one that the user named."""
        return self.name.rpartition("/")[0]

    @property
    def stem(self) -> str:
        """Its name without the folder."""
        return self.name.rpartition("/")[2]


def mounts(root: Path, members: Sequence[Member], asked: str = "auto") -> tuple[list[Mount], str]:
    """Return where each archive of a folder is read, and what they were taken for.

    - Names of splits (``train.zip``, ``val.zip``) are splits; several of one split are laid over each other.
    - Archives that share class folders, or are named as parts (``images_part1.zip``), are parts of one data set.
    - Archives of images without class folders are classes, as are those with one folder of the same name in all.
    - An archive that is alone in a folder is what that folder holds.

    Args:
        root: the folder that the user named. asked: one of `layout.LAYOUTS`.

    Raises:
        DataError: they can be read in several ways.
    """
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.parent].append(member)
    made: list[Mount] = []
    readings = []
    for parent, same in sorted(groups.items()):
        reading = asked if asked != "auto" and not parent else _reading(root, parent, same)
        readings.append(reading)
        double = Counter(split_of(member.stem)[0] for member in same)
        for member in same:
            split = split_of(member.stem)[0]
            name = split if reading == "splits" and double[split] > 1 else member.stem
            below = "" if reading == "parts" else name
            inner = f"/{member.classes[0]}" if reading == "splits" and _holds_its_split(member) else ""
            made.append(Mount("/".join(filter(None, (parent, below))), member.folder + inner))
    files = _named([member.file for member in members])
    what = {"parts": "parts of one data set", "classes": "each one class", "splits": "by the names of splits"}
    kind = what[readings[0]] if len(groups) == 1 else "in their folders"
    if readings == ["parts"] and all(map(_is_named_as_its_class, members)):
        kind = what["classes"]
    return made, f"{len(members)} archives, {kind}: {files}"


def _reading(root: Path, parent: str, members: Sequence[Member]) -> str:
    """Return what the archives in one folder are: "splits", "classes" or "parts"."""
    if parent and len(members) == 1:
        return "parts"
    stems = [member.stem for member in members]
    if candidates_of(stems):
        return "splits"
    parts = all(_is_part(stem) for stem in stems)
    if all(member.loose and not member.classes for member in members):
        return "parts" if parts else "classes"
    if any(member.loose or not member.classes for member in members):
        if parts:
            return "parts"
        raise _several(root, members)
    if not any(member.deep for member in members) and all(split_of(c)[0] for m in members for c in m.classes):
        return "classes"
    folders = {name for member in members for name in member.classes}
    if all(len(member.classes) == 1 for member in members):
        if len(folders) == 1 and not parts:
            return "classes"
        if parts or all(map(_is_named_as_its_class, members)):
            return "parts"  # which gives the classes the names of the folders
        raise _both(root, members, folders)
    held = Counter(name for member in members for name in member.classes)
    if parts or all(any(held[name] > 1 for name in member.classes) for member in members):
        return "parts"
    raise _both(root, members, folders)


def _holds_its_split(member: Member) -> bool:
    """Return True for ``x_train.zip`` in which all lies in ``train/``."""
    alone = len(member.classes) == 1 and member.deep and not member.loose
    return alone and split_of(member.classes[0])[0] == split_of(member.stem)[0] != ""


def _is_part(stem: str) -> bool:
    """Return True for ``images_part1`` or ``images_001``, but not for ``n01440764`` or ``7``."""
    words = set(re.findall(r"[^\W\d_]+", stem.casefold()))
    return bool(words & _PARTS) or (bool(words) and words <= FILLERS)


def _is_named_as_its_class(member: Member) -> bool:
    """Return True for ``cats.tar`` or ``cats_2.tar`` that holds the folder ``cats``."""
    return len(member.classes) == 1 and _letters(member.classes[0]) == _letters(member.stem)


def _letters(name: str) -> str:
    """Return the letters of a name, or all of it if it has none."""
    return "".join(re.findall(r"[^\W\d_]", name.casefold())) or name


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(visible, names[:_MOST_NAMED])) + more


def _both(root: Path, members: Sequence[Member], folders: set[str]) -> AmbiguousError:
    return AmbiguousError(
        f"{root} can be read in two ways: each archive is a class ({_named([member.stem for member in members])}), or "
        f"they are parts of one data set, with the classes in them ({_named(sorted(folders))})",
        "say --layout classes for the first, --layout parts for the second",
        _readings(root, members),
    )


def _several(root: Path, members: Sequence[Member]) -> AmbiguousError:
    loose = [member.file for member in members if member.loose or not member.classes]
    others = [member.file for member in members if member.file not in loose]
    return AmbiguousError(
        f"{root} holds several archives that differ: {_named(loose)} "
        f"{'has' if len(loose) == 1 else 'have'} images in no class folder, {_named(others)} only class folders"
        if others
        else f"{root} holds archives with images beside class folders: {_named(loose)}",
        "give one of them; or say --layout parts if they belong together, --layout classes if each is a class",
        _readings(root, members),
    )


def _readings(root: Path, members: Sequence[Member]) -> list[tuple[Path, str, Iterable[str]]]:
    folders = {name for member in members for name in member.classes}
    return [(root, "classes", [member.stem for member in members]), (root, "parts", folders)]

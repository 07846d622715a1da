"""A folder of images, indexed: labels, deterministic splits, and every bad file named at once."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgekit import files
from edgekit.config import from_table
from edgekit.data import builtin, index_cache
from edgekit.data.images import EXTENSIONS, load_image
from edgekit.data.threads import in_order
from edgekit.errors import DataError, MissingError, StorageError, unknown
from edgekit.labels import check_label, check_labels, visible
from edgekit.records import SPLITS, DatasetIndex, Sample

if TYPE_CHECKING:
    from PIL.Image import Image


VAL_FRACTION = TEST_FRACTION = 0.15
MOST_NAMED = 10
Progress = Callable[[int, int], None]


def resolve(data: str) -> Path:
    """The folder of a data set: a built-in name (see `builtin.BUILTIN`), or a path.

    Raises:
        MissingError: neither a built-in data set nor an existing folder.
    """
    if data in builtin.BUILTIN:
        return builtin.materialize(data)
    root = Path(data)
    if not data.strip() or not root.is_dir():
        error = unknown("data set", data, builtin.BUILTIN)
        raise MissingError(f"{data!r} is neither a folder nor a built-in data set", error.hint)
    return root.resolve()


def index(root: Path, skip_bad: bool = False, progress: Progress | None = None) -> DatasetIndex:
    """Read, decode and hash every image below `root`, except those that `index_cache` knows.

    ``root/train/<class>/...`` with ``val`` and ``test`` beside it is taken as it is; a split that
    is missing there is carved out of train. ``root/<class>/...`` is split 70/15/15. Carving goes
    by content hash within each class: the same files give the same split everywhere, and equal
    files of a class never lie on two sides of it.

    Args:
        skip_bad: leave undecodable files out (they are listed in `skipped`) instead of raising.
        progress: called with (files done, files in all).
    Raises:
        DataError: no images, fewer than two classes, unusable names, undecodable files.
    """
    listing = find(root)
    files = listing.files
    labels = tuple(sorted({found.label for found in files if found.split in ("", "train")}))
    for name in {found.label for found in files}:
        check_label(name)
    check_labels(labels)
    if extra := {found.label for found in files} - set(labels):
        raise DataError(
            f"classes without training images: {', '.join(sorted(map(repr, extra)))}",
            f"add images below {root / 'train'}, or remove these folders",
        )
    hashes = _hash_and_decode(root, [found.path for found in files], progress)
    bad = [f"{visible(folder)}: the folder cannot be listed ({why})" for folder, why in listing.closed]
    bad += [f"{visible(found.path)}: {why.message}" for found, why in zip(files, hashes) if isinstance(why, DataError)]
    if bad and not skip_bad:
        more = f"\n  ... and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise DataError(
            f"{len(bad)} of {len(files)} images cannot be used:\n  " + "\n  ".join(bad[:MOST_NAMED]) + more,
            "fix or remove them, or leave them out with --skip-bad",
        )
    number = {name: label for label, name in enumerate(labels)}
    samples = [
        Sample(found.path, number[found.label], found.split, digest)
        for found, digest in zip(files, hashes)
        if isinstance(digest, str)
    ]
    present = set(listing.present)
    carved = tuple(s for s in ("val", "test") if present != {""} and s not in present)
    return replace(_finish(root, labels, carve(samples, present), tuple(bad)), carved=carved)


def _hash_and_decode(root: Path, paths: list[str], progress: Progress | None) -> list[str | DataError]:
    """The SHA-256 of each file, or why it cannot be used. What is unchanged since it was read is not read again."""
    done = 0
    results: list[str | DataError | None] = []
    with index_cache.opened(root) as known:
        for path in paths:
            results.append(known.get(path))
            if progress and results[-1]:
                progress(done := done + 1, len(paths))
        missed = [number for number, digest in enumerate(results) if digest is None]
        for number, read in zip(missed, in_order(lambda n: _hash(root, paths[n]), missed)):
            if isinstance(read, DataError):
                results[number] = read
            else:
                results[number], status = read
                known.put(paths[number], status, read[0])
            if progress:
                progress(done := done + 1, len(paths))
    return [result for result in results if result is not None]


def _hash(root: Path, path: str) -> tuple[str, os.stat_result] | DataError:
    try:
        return read_image(root, path)[1:]
    except DataError as error:
        return error


def read_image(root: Path, path: str) -> tuple[Image, str, os.stat_result]:
    """A decoded file, its SHA-256, and its state from before it was read.

    Raises:
        DataError: it cannot be used; the message is the reason alone, without the path.
    """
    whole = root / path
    try:
        str(whole).encode("utf-8")
        status = whole.stat()
        return load_image(whole), files.sha256_file(whole), status
    except (DataError, MissingError) as error:
        raise DataError(error.message.removeprefix(f"{whole}: ")) from error
    except UnicodeEncodeError as error:
        raise DataError("its name is not UTF-8; rename it") from error
    except (OSError, StorageError) as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        why = "no such file" if isinstance(cause, FileNotFoundError) else getattr(cause, "strerror", None) or cause
        raise DataError(f"cannot be read ({why})") from error


def carve(samples: list[Sample], present: set[str]) -> list[Sample]:
    """Give every sample a split; splits in `present` stay, missing ones come out of the rest."""
    if present >= set(SPLITS):
        return samples
    kept = [s for s in samples if s.split in ("val", "test")]
    rest = sorted((s for s in samples if s.split in ("", "train")), key=lambda s: (s.label, s.sha256))
    for _, of_class in groupby(rest, key=lambda s: s.label):
        same_class = [list(group) for _, group in groupby(of_class, key=lambda s: s.sha256)]
        counts = {s: max(1, round(len(same_class) * f)) for s, f in (("val", VAL_FRACTION), ("test", TEST_FRACTION))}
        wanted = [s for s in ("val", "test") if s not in present for _ in range(counts[s])]
        wanted = wanted if len(wanted) < len(same_class) else []
        wanted += ["train"] * (len(same_class) - len(wanted))
        kept += [replace(s, split=split) for group, split in zip(same_class, wanted) for s in group]
    return sorted(kept, key=lambda s: (SPLITS.index(s.split), s.path))


def _finish(root: Path, labels: tuple[str, ...], samples: list[Sample], bad: tuple[str, ...]) -> DatasetIndex:
    """Check that training and measuring are possible, and fingerprint the result."""
    for split in SPLITS:
        if not any(s.split == split for s in samples):
            raise DataError(f"no images for the {split} split in {root}", "add images: at least 4 a class")
    lost = set(range(len(labels))) - {s.label for s in samples if s.split == "train"}
    if lost:
        raise DataError(f"no usable training image in class {', '.join(repr(labels[i]) for i in sorted(lost))}")
    hashes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample in samples:  # file names do not matter
        hashes[sample.split, str(sample.label)].append(sample.sha256)
    contents = (f"{split} {label} {h}" for (split, label), same in sorted(hashes.items()) for h in sorted(same))
    fingerprint = files.sha256_text(chain(labels, contents))
    return DatasetIndex(root, labels, tuple(samples), fingerprint, bad)


def load_index(path: Path) -> DatasetIndex:
    """Read an index that `store.save_json` wrote."""
    return from_table(files.load_json(path), DatasetIndex, str(path))


def check_unchanged(data: DatasetIndex, samples: tuple[Sample, ...]) -> list[Path]:
    """The files of `samples`, after checking that each still has the bytes that were indexed.

    Raises:
        MissingError: a file is gone. DataError: a file has changed.
    """
    paths = [data.root / s.path for s in samples]
    for path, sample in zip(paths, samples):
        if not path.is_file():
            raise MissingError(f"{path} is gone since training", "restore the data set, or train again")
        if files.sha256_file(path) != sample.sha256:
            raise DataError(f"{path} has changed since training", "restore the file, or train again")
    return paths


# Which image files a folder holds, in which class and which split; nothing is opened.

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

"""Data sets: a folder of images is listed, decoded, hashed and divided into deterministic splits."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple

from edgekit import files
from edgekit.config import from_table
from edgekit.data import builtin, index_cache
from edgekit.data.images import EXTENSIONS, PLAIN, Seen, TooLarge, examine
from edgekit.data.threads import in_order
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, unknown
from edgekit.labels import check_label, check_labels, visible
from edgekit.records import SPLITS, Content, DatasetIndex, Preprocess, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgekit.runs import Run

VAL_FRACTION = TEST_FRACTION = 0.15
MOST_NAMED = 10
DATA_FILE = "data.json"
_RESTORE = "restore it from a copy of the run"
_ENDINGS = tuple(EXTENSIONS)
Progress = Callable[[int, int], None]


def resolve(data: str) -> Path:
    """Return the folder of a data set, which is a built-in name (see `builtin.BUILTIN`) or a path.

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
    """Decode and hash every image below `root`, except those in `index_cache`.

    ``root/train/<class>/...`` with ``val`` and ``test`` beside it is used as it is; a missing split is
    taken out of train. ``root/<class>/...`` is divided 70/15/15. Images are assigned by content hash
    within each class: the same files give the same splits everywhere, and equal files of a class are in
    the same split.

    Args:
        skip_bad: leave out files that cannot be decoded (they are listed in `skipped`) instead of raising. Files
            with too many pixels are left out in any case.
        progress: called with (files done, files in all).
    Raises:
        DataError: no images, fewer than two classes, invalid class names, or files that cannot be decoded.
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
            f"add images below {root / 'train'}, or keep these folders elsewhere",
        )
    reads = _hash_and_decode(root, [found.path for found in files], progress)
    bad = [f"{visible(folder)}: the folder cannot be listed ({why})" for folder, why in listing.closed]
    failed = [(f"{visible(f.path)}: {why.message}", why) for f, why in zip(files, reads) if isinstance(why, DataError)]
    bad += [line for line, why in failed if not isinstance(why, TooLarge)]
    large = [line for line, why in failed if isinstance(why, TooLarge)]
    if bad and not skip_bad:
        more = f"\n  ... and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise DataError(
            f"{len(bad)} of {len(files)} images cannot be used:\n  " + "\n  ".join(bad[:MOST_NAMED]) + more,
            "repair them, or leave them out with --skip-bad",
        )
    number = {name: label for label, name in enumerate(labels)}
    samples = [
        Sample(found.path, number[found.label], found.split, read[0])
        for found, read in zip(files, reads)
        if not isinstance(read, DataError)
    ]
    contents = {found.path: read[1] for found, read in zip(files, reads) if not isinstance(read, DataError)}
    present = set(listing.present)
    carved = tuple(s for s in ("val", "test") if present != {""} and s not in present)
    finished = _finish(root, labels, carve(samples, present), (*bad, *large))
    return replace(finished, carved=carved, contents=contents)


def _hash_and_decode(root: Path, paths: list[str], progress: Progress | None) -> list[tuple[str, Content] | DataError]:
    """Return SHA-256 and content of each file, or the error; files that did not change are not read again."""
    done = 0
    results: list[tuple[str, Content] | DataError | None] = []
    with index_cache.opened(root) as known:
        for path in paths:
            results.append(known.get(path))
            if progress and results[-1]:
                progress(done := done + 1, len(paths))
        missed = [number for number, known_before in enumerate(results) if known_before is None]
        for number, read in zip(missed, in_order(lambda n: _hash(root, paths[n]), missed)):
            if isinstance(read, DataError):
                results[number] = read
            else:
                results[number] = read.sha256, read.content
                known.put(paths[number], read.status, read.sha256, read.content)
            if progress:
                progress(done := done + 1, len(paths))
    return [result for result in results if result is not None]


def _hash(root: Path, path: str) -> Read[None] | DataError:
    try:
        return read_image(root, path, lambda image: None)
    except DataError as error:
        return error


@dataclass(frozen=True)
class Read(Generic[Seen]):
    """A decoded file: its SHA-256, its status from before it was read, and what was seen in it."""

    sha256: str
    status: os.stat_result
    content: Content
    seen: Seen


def read_image(root: Path, path: str, look: Callable[[Image], Seen], preprocess: Preprocess = PLAIN) -> Read[Seen]:
    """Decode and hash a file; `look` is called with the RGB image.

    Raises:
        DataError: the file cannot be used; the message is the reason without the path.
    """
    whole = root / path
    try:
        str(whole).encode("utf-8")
        status = whole.stat()
        content, seen = examine(whole, look, preprocess)
        return Read(files.sha256_file(whole), status, content, seen)
    except (DataError, MissingError) as error:
        kind = TooLarge if isinstance(error, TooLarge) else DataError
        raise kind(error.message.removeprefix(f"{whole}: ")) from error
    except UnicodeEncodeError as error:
        raise DataError("its name is not UTF-8; rename it") from error
    except (OSError, StorageError) as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        why = "no such file" if isinstance(cause, FileNotFoundError) else getattr(cause, "strerror", None) or cause
        raise DataError(f"cannot be read ({why})") from error


def carve(samples: list[Sample], present: set[str]) -> list[Sample]:
    """Assign a split to every sample; splits in `present` stay, missing ones are taken out of the others."""
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
    """Check that every split and class has images, and compute the fingerprint."""
    for split in SPLITS:
        if not any(s.split == split for s in samples):
            raise DataError(f"no images for the {split} split in {root}", "add images, at least 4 per class")
    lost = set(range(len(labels))) - {s.label for s in samples if s.split == "train"}
    if lost:
        raise DataError(f"no usable training image in class {', '.join(repr(labels[i]) for i in sorted(lost))}")
    return DatasetIndex(root, labels, tuple(samples), fingerprint(labels, samples), bad)


def fingerprint(labels: tuple[str, ...], samples: Iterable[Sample]) -> str:
    """Return the SHA-256 of the class names, and of the split, class and content of every image, whatever its name."""
    hashes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample in samples:
        hashes[sample.split, str(sample.label)].append(sample.sha256)
    contents = (f"{split} {label} {h}" for (split, label), same in sorted(hashes.items()) for h in sorted(same))
    return files.sha256_text(chain(labels, contents))


def load_index(path: Path) -> DatasetIndex:
    """Read an index that `files.save_json` wrote.

    Raises:
        MissingError: there is no such file. DataError: it is damaged, or not as it was written.
    """
    document = files.load_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path} is damaged: it is no data set", _RESTORE)
    try:
        index = from_table(document, DatasetIndex, str(path))
    except EdgekitError as error:
        raise DataError(f"{path} is damaged: {error.message.removeprefix(f'{path}: ')}", _RESTORE) from None
    for sample in index.samples:
        if sample.split not in SPLITS or not 0 <= sample.label < len(index.labels):
            raise DataError(f"{path} is damaged: {visible(sample.path)} is in no split or class", _RESTORE)
    if index.fingerprint != fingerprint(index.labels, index.samples):
        raise DataError(f"{path} is damaged: its images, labels or splits are not those that were trained on", _RESTORE)
    return index


def of_run(run: Run) -> DatasetIndex:
    """Read the index of a run's data.

    Raises:
        MissingError: the run has none. DataError: it is damaged, or is that of another run.
    """
    index = load_index(run.path / DATA_FILE)
    if run.info.data is not None and run.info.data.fingerprint not in ("", index.fingerprint):
        raise DataError(
            f"{run.path / DATA_FILE} is not the data that {visible(run.name)} was trained on, by the fingerprint in "
            "run.json",
            _RESTORE,
        )
    return index


class Found(NamedTuple):
    """One image file: `split` is "" without split folders; `path` is relative, with "/"."""

    split: str
    label: str
    path: str


@dataclass
class Listing:
    """Image files below `root`, sorted, without opening them.

    Attributes:
        present: split folders; ("",) if there are none. empty: classes without images.
        closed: (folder, reason) for each folder that cannot be listed.
        links: linked folders, which are not followed because they may form a cycle.
    """

    root: Path
    present: tuple[str, ...]
    files: list[Found] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def find(root: Path) -> Listing:
    """List ``root/<class>/...``, or ``root/{train,val,test}/<class>/...``, at any depth.

    Hidden files and folders are ignored. Broken links are listed, as missing images.

    Raises:
        DataError: no images in class folders, or class folders beside the splits, such as ``valid``.
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
        why = f"the images in {root} are not in class folders" if loose else f"no images below {root}"
        if listing.closed:
            why = f"{why}; {listing.closed[0][0]} cannot be listed: {listing.closed[0][1]}"
        raise DataError(why, "edgekit expects DATA/<class>/<image>, or DATA/train/<class>/<image> with val and test")
    return listing


def _is_presplit(root: Path) -> bool:
    """Return True if ``root/train`` contains class folders (and is not itself a class, as in car/train/bus).

    Raises:
        DataError: a folder beside it contains class folders but is not a split, such as ``valid``.
    """
    if not (root / "train").is_dir() or not _holds_classes(root / "train"):
        return False
    beside = [name for name in _class_folders(root) if name not in SPLITS]
    if others := [name for name in beside if _holds_classes(root / name)]:
        raise DataError(
            f"{root} contains train and {', '.join(map(visible, others))}, which is not the name of a split",
            f"rename the folder to one of {', '.join(SPLITS)}, or move it",
        )
    return True


def _holds_classes(folder: Path) -> bool:
    nowhere = Listing(folder, ())
    try:
        return any(True for name in _class_folders(folder) for _ in image_files(folder, name, nowhere))
    except PermissionError:
        return False


def _class_folders(folder: Path) -> list[str]:
    """Return the folders in `folder`, sorted, without hidden ones; ``..x`` is kept, to be refused later."""
    shown = (p for p in folder.iterdir() if not p.name.startswith(".") or p.name.startswith(".."))
    return sorted(p.name for p in shown if p.is_dir())


def image_files(root: Path, relative: str, listing: Listing) -> Iterator[str]:
    """Yield the image files below ``root/relative``, depth first, sorted by name; adds problems to `listing`."""
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
    """Return (relative path, entry) of the visible entries of a folder, sorted by name."""
    try:
        with os.scandir(root / relative) as entries:
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        listing.closed.append((relative, error.strerror or str(error)))
        return iter(())
    return iter([(f"{relative}/{entry.name}", entry) for entry in shown])

"""Data sets: a folder of images is listed, decoded, hashed and divided into deterministic splits."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from edgekit import files
from edgekit.config import from_table
from edgekit.data import builtin, columns, division, index_cache, near_duplicates, sources
from edgekit.data.columns import Columns
from edgekit.data.images import PLAIN, Seen, TooLarge, examine
from edgekit.data.listing import sentences
from edgekit.data.threads import in_order
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, unknown
from edgekit.labels import check_label, check_labels, visible
from edgekit.progress import note, warn
from edgekit.records import SPLITS, Content, DatasetIndex, Preprocess, Sample

if TYPE_CHECKING:
    import os

    from PIL.Image import Image

    from edgekit.runs import Run

MOST_NAMED = 10
DATA_FILE = "data.json"
_RESTORE = "restore it from a copy of the run"
Progress = Callable[[int, int], None]
_Known = tuple[str, Content, near_duplicates.Look]  # of a file: its SHA-256 and what it holds


def resolve(data: str) -> Path:
    """Return the path of a data set, of any of `sources.FORMS`, or of a built-in one by its name.

    Raises:
        MissingError: neither a built-in data set nor an existing folder or file.
    """
    if builtin.is_meant(data):
        return builtin.materialize(data)
    root = Path(data)
    error = unknown("data set", data, builtin.BUILTIN)
    is_path = bool(data.strip()) and (len(root.parts) > 1 or bool(root.suffix))
    hint = f"check the path: there is no {root.absolute()}" if is_path else error.hint
    if not data.strip():
        raise MissingError("the name of the data set is empty", error.hint)
    sources.check_there(root, f"{data!r} is neither a folder, nor a file, nor a built-in data set", hint)
    if data in builtin.BUILTIN:
        note(f"{data}: the folder of that name is read here, not the built-in data set")
    return root.resolve()


def index(
    root: Path,
    skip_bad: bool = False,
    progress: Progress | None = None,
    *,
    layout: str = "auto",
    skip_empty: bool = False,
    divide: division.Division = division.PLAIN,
    chosen: Columns = columns.PLAIN,
) -> DatasetIndex:
    """Decode and hash every image of the data set at `root`, except those in `index_cache`.

    ``root/train/<class>/...`` with ``val`` and ``test`` beside it is used as it is; a missing split is
    taken out of train. ``root/<class>/...`` is divided 70/15/15, or as asked. Images are assigned by content hash
    within each class: the same files give the same splits everywhere, and equal files of a class are in
    the same split, as are images that look alike.

    Args:
        skip_bad: leave out files that cannot be decoded (they are listed in `skipped`) instead of raising. Files
            with too many pixels are left out in any case.
        progress: called with (files done, files in all).
        layout: one of `layout.LAYOUTS`. skip_empty: leave out classes of which no image can be used.
        divide: shares of the splits that are not folders, and images that stay together.
        chosen: columns of a table, if they have no usual names.
    Raises:
        DataError: no images, a class of which no image can be used, fewer than two classes, invalid class names, or
            files that cannot be decoded.
    """
    listing = sources.find(root, sources.Reading(layout, skip_empty, chosen))
    root, files = listing.root, listing.files
    if listing.bad and not skip_bad:
        raise DataError("\n  ".join(sentences(listing.bad)), "correct the table, or leave such rows out: --skip-bad")
    if listing.lost:
        raise DataError(
            "; ".join(
                f"class folder {visible(name)} loses all of its images ({why})" for name, why in listing.lost.items()
            ),
            "convert them to JPEG or PNG, or leave out such classes with --skip-empty",
        )
    every = sorted({found.label for found in files})
    labels = tuple(sorted({found.label for found in files if found.split in ("", "train")}))
    for name in every:
        check_label(name)
    if len(every) > 1:
        check_labels(tuple(every))
    if len(labels) == 1 and labels[0] in listing.nested:
        raise DataError(
            f"only one class found: {labels[0]!r}, a folder with folders",
            f"if these are the classes or splits, give that folder: {shlex.quote(str(root / labels[0]))}",
        )
    check_labels(labels)
    if extra := {found.label for found in files} - set(labels):
        raise DataError(
            f"classes without training images: {', '.join(sorted(map(repr, extra)))}",
            f"add images below {root / 'train'}, or keep these folders elsewhere",
        )
    reads = hash_and_decode(root, [found.path for found in files], progress)
    bad = [f"{visible(folder)}: the folder cannot be listed ({why})" for folder, why in listing.closed]
    failed = [(f"{visible(f.path)}: {why.message}", why) for f, why in zip(files, reads) if isinstance(why, DataError)]
    bad += [line for line, why in failed if not isinstance(why, TooLarge)]
    bad += map(str, listing.bad)
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
    looks = {read[0]: read[2] for read in reads if not isinstance(read, DataError)}
    divided = division.divide(samples, present, looks, divide)
    finished = _finish(root, labels, divided.samples, (*bad, *large))
    for line in divided.scattered:
        warn(line)
    return replace(
        finished,
        carved=carved,
        contents=contents,
        notes=(*listing.notes, *divided.kept),
        left_out=listing.counted,
        container=listing.container,
        columns=columns.written(chosen),
    )


def hash_and_decode(root: Path, paths: list[str], progress: Progress | None) -> list[_Known | DataError]:
    """Return what is known of each file, or the error; files that did not change are not read again."""
    done = 0
    results: list[_Known | DataError | None] = []
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
                results[number] = read.sha256, read.content, read.seen
                known.put(paths[number], read.status, read.sha256, read.content, read.seen)
            if progress:
                progress(done := done + 1, len(paths))
    return [result for result in results if result is not None]


def _hash(root: Path, path: str) -> Read[near_duplicates.Look] | DataError:
    try:
        return read_image(root, path, near_duplicates.comparable)
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
    """Read the index of a run's data. Its root is absolute, or in the folder of a run that keeps its images.

    Raises:
        MissingError: the run has none. DataError: it is damaged, or is that of another run.
    """
    if not (run.path / DATA_FILE).is_file() and run.info.source is not None:
        raise MissingError(
            f"{visible(run.name)} was imported without images, which this needs",
            f"edgekit evaluate {run.handle} --data DIR   (DIR has one folder of images for each class)",
        )
    index = load_index(run.path / DATA_FILE)
    if run.info.data is not None and run.info.data.fingerprint not in ("", index.fingerprint):
        raise DataError(
            f"{run.path / DATA_FILE} is not the data that {visible(run.name)} was trained on, by the fingerprint in "
            "run.json",
            _RESTORE,
        )
    return index if index.root.is_absolute() else replace(index, root=run.path / index.root)

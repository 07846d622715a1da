"""Labelled images to judge a trained network by: folders named as its classes, of any number of splits."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.data import dataset, layout, listing, sources
from edgekit.data.listing import Found, Listing
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.records import SPLITS, DatasetIndex, Sample

_MOST_NAMED = 5


def index(root: Path, labels: Sequence[str], progress: dataset.Progress | None = None) -> DatasetIndex:
    """Decode and hash the images below `root`, and give each the number of its class folder's name in `labels`.

    ``root/<class>/...`` is all test; ``root/{train,val,test}/<class>/...``, of which some may be missing, is used as
    it is. Tables, archives and other data sets are read as for a training. Classes of the network may be without
    images; images that cannot be decoded are left out.

    Args:
        labels: classes of the network, in the order of its outputs.
        progress: called with (files done, files in all).

    Raises:
        MissingError: there is no such folder. DataError: a class folder has a name that no class has, or no image
            can be used.
    """
    hint = "--data takes a folder with one folder of images per class"
    sources.check_there(root, f"{str(root)!r} is not a folder", hint)
    root = root.resolve()
    given, root = root, sources.opened(root)
    plain = sources.is_plain(root)
    listings = _listings(root, labels) if plain else [_numbered(_source(root, labels), labels)]
    container = listings[0].container or (given if given != root else None)
    root = root if plain else listings[0].root
    found = [file for each in listings for file in each.files]
    number = _numbers(root, labels, found)
    reads = dataset.hash_and_decode(root, [file.path for file in found], progress)
    samples, bad = [], [str(row) for each in listings for row in each.bad]
    for file, read in zip(found, reads):
        if isinstance(read, DataError):
            bad.append(f"{visible(file.path)}: {read.message}")
        else:
            samples.append(Sample(file.path, number[file.label], file.split or "test", read[0]))
    if not samples:
        raise DataError(f"no image below {root} can be used: {bad[0]}", "convert them to JPEG or PNG")
    notes = tuple(note for each in listings for note in each.notes)
    left_out = tuple(left for each in listings for left in each.counted)
    return replace(
        of_samples(root, labels, samples), skipped=tuple(bad), notes=notes, left_out=left_out, container=container
    )


def of_samples(root: Path, labels: Sequence[str], samples: Sequence[Sample]) -> DatasetIndex:
    """Return the index of known samples, in the order of splits; those of val become test if there is no test."""
    splits = {sample.split for sample in samples}
    if "test" not in splits:
        only = "val" if "val" in splits else "train"
        samples = [replace(sample, split="test") if sample.split == only else sample for sample in samples]
    ordered = tuple(sorted(samples, key=lambda sample: SPLITS.index(sample.split)))
    return DatasetIndex(root, tuple(labels), ordered, dataset.fingerprint(tuple(labels), ordered))


def _source(root: Path, labels: Sequence[str]) -> Listing:
    """List a table, archives or another source; what can be read in several ways, as the names of the classes say.

    Raises:
        DataError: they fit several readings, or none.
    """
    known = {_plain(label) for label in labels}
    try:
        return sources.find(root)
    except layout.AmbiguousError as error:
        fitting = [(path, how) for path, how, names in error.readings if known >= {_plain(name) for name in names}]
        if len(fitting) != 1:
            raise DataError(error.message, "name its folders and archives as labels.txt names the classes") from None
        return sources.find(fitting[0][0], sources.Reading(fitting[0][1]))


def _listings(root: Path, labels: Sequence[str]) -> list[Listing]:
    """List the files of every split folder, or of `root` itself if its folders are classes."""
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    known = {_plain(label) for label in labels}
    splits = {name: layout.split_of(name)[0] for name in folders if not layout.split_of(name)[1]}
    splits = {name: split for name, split in splits.items() if split}
    if not splits or any(_plain(name) in known for name in folders):
        return [listing.find(root, "classes")]
    doubled = [name for name in splits if list(splits.values()).count(splits[name]) > 1]
    if doubled:
        raise DataError(f"{visible(doubled[0])} and {visible(doubled[1])} in {root} are the same split", "choose one")
    found = []
    for name, split in sorted(splits.items(), key=lambda pair: SPLITS.index(pair[1])):
        inside = listing.find(root / name, "classes")
        inside.files = [Found(split, file.label, f"{name}/{file.path}") for file in inside.files]
        found.append(inside)
    return found


def _numbered(found: Listing, labels: Sequence[str]) -> Listing:
    """Return a listing with labels that are the numbers of classes replaced by the names of these."""
    numbers = {file.label for file in found.files}
    if numbers & {*labels} or not all(name.isdecimal() and int(name) < len(labels) for name in numbers):
        return found
    found.files = [file._replace(label=labels[int(file.label)]) for file in found.files]
    found.said = [line for line in found.said if not line.startswith("labels are the numbers")]
    found.said.append("labels are the numbers of the classes, from 0 on")
    return found


def _numbers(root: Path, labels: Sequence[str], found: Sequence[Found]) -> dict[str, int]:
    """Return the number of the class that each folder is named after, also if letter case or Unicode form differ.

    Raises:
        DataError: there is no such class.
    """
    exact = {label: n for n, label in enumerate(labels)}
    loose = {_plain(label): n for n, label in enumerate(labels)}
    number: dict[str, int] = {}
    strange = []
    for name in sorted({file.label for file in found}):
        place = exact.get(name, loose.get(_plain(name)))
        if place is None:
            strange.append(name)
        else:
            number[name] = place
    if not strange:
        return number
    names = ", ".join(visible(name) for name in strange[:_MOST_NAMED])
    more = f" and {len(strange) - _MOST_NAMED} more" if len(strange) > _MOST_NAMED else ""
    classes = ", ".join(visible(label) for label in labels[:_MOST_NAMED]) + (
        ", ..." if len(labels) > _MOST_NAMED else ""
    )
    raise DataError(
        f"{len(strange)} of {len(strange) + len(number)} folders in {root} have the name of no class: {names}{more}; "
        f"the classes are {classes}",
        "name each folder as labels.txt names its class, or move it elsewhere",
    )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def described(index: DatasetIndex) -> list[str]:
    """Return lines about the images that were taken, and the files that were not."""
    counts = ", ".join(f"{n} {split}" for split in SPLITS if (n := len(index.split(split))))
    seen = len({sample.label for sample in index.samples})
    lines = [f"{index.root}: {counts} images of {seen} of the {len(index.labels)} classes", *index.notes]
    return lines + [listing.sentence(left) for left in index.left_out if left.reason not in listing.LOSSES]


def losses(index: DatasetIndex) -> list[str]:
    """Return a line for every loss of images: those that cannot be decoded, or are not used."""
    bad = [f"left out: {line}" for line in index.skipped[:_MOST_NAMED]]
    if len(index.skipped) > _MOST_NAMED:
        bad.append(f"left out: {len(index.skipped) - _MOST_NAMED} more images that cannot be decoded")
    return bad + [listing.sentence(left) for left in index.left_out if left.reason in listing.LOSSES]

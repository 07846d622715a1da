"""Search for the images of a run: in the folder that it was trained on, or in another one, matched by content."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edgekit import files, progress
from edgekit.data import builtin, columns, dataset, index_cache, sources, unpacked
from edgekit.data.threads import in_order
from edgekit.errors import DataError, MissingError
from edgekit.labels import visible
from edgekit.records import DatasetIndex, Sample
from edgekit.runs import DataInfo, Run

# So few images of a split may be missing: at most three, or this share.
_FEW, _SHARE = 3, 0.1
_MOST_NAMED = 3


class Lost(NamedTuple):
    """An image that is not there any more, and what became of its file: "gone" or "changed"."""

    sample: Sample
    why: str


def root_of(run: Run, index: DatasetIndex) -> Path:
    """Return the folder of a run's images.

    What was unpacked into the cache, or is built in, is made again if files are missing there.
    """
    if run.images is not None:
        return sources.place(run.images, columns.parsed(index.columns))
    if index.container is not None and not unpacked.use(index.root) and sources.is_there(index.container):
        return sources.place(index.container, columns.parsed(index.columns))
    if not index.root.is_dir() and (name := builtin.name_of(str(index.root))):
        return builtin.materialize(name)
    return index.root


def take(run: Run, samples: Sequence[Sample], doing: str, index: DatasetIndex) -> DatasetIndex:
    """Return the index of `samples` with the files that hold them now; warn of a few that are missing.

    Args:
        doing: what the images are for, such as "the evaluation". index: of the run.

    Raises:
        MissingError, DataError: more images are missing, or have changed, than can be left out.
    """
    found, lost = find(root_of(run, index), index, samples)
    for split in dict.fromkeys(sample.split for sample in samples):
        missing = [each for each in lost if each.sample.split == split]
        of = sum(sample.split == split for sample in samples)
        if not missing:
            continue
        if len(missing) == of or len(missing) > max(_FEW, _SHARE * of):
            raise _too_many(run, index, missing, of, doing)
        progress.warn(
            f"{len(missing)} of {of} {split} images are left out: {named(missing)}; {doing} uses the other "
            f"{of - len(missing)}"
        )
    return found


def take_all(
    run: Run, samples: Sequence[Sample], doing: str, index: DatasetIndex, search: bool = True, again: str = ""
) -> DatasetIndex:
    """Return as `take`, where no image may be missing.

    Args:
        search: look among all files for an image that is not under its name. again: what to type with another folder.

    Raises:
        MissingError, DataError: an image is missing, or has changed.
    """
    found, lost = find(root_of(run, index), index, samples, search)
    if lost:
        raise _too_many(run, index, lost, len(samples), doing, again)
    return found


def _too_many(
    run: Run, index: DatasetIndex, lost: Sequence[Lost], of: int, doing: str, again: str = ""
) -> MissingError | DataError:
    root = root_of(run, index)
    once = f"or once for all: edgekit data relocate {run.handle} DIR"
    hint = f"{again or 'add --data DIR'}, the folder where they are now; {once}"
    if not root.is_dir():
        return MissingError(f"the images for {doing} are gone since training: there is no folder {root}", hint)
    changed = all(each.why == "changed" for each in lost)
    what = "have changed" if changed else "are gone or have changed"
    text = f"{len(lost)} of {of} images for {doing} {what} since training, in {root}: {named(lost)}"
    return DataError(text, hint) if changed else MissingError(text, hint)


def named(lost: Sequence[Lost]) -> str:
    """Return the first missing images in words."""
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    return ", ".join(f"{visible(each.sample.path)} ({each.why})" for each in lost[:_MOST_NAMED]) + more


def find(
    root: Path, index: DatasetIndex, samples: Sequence[Sample], search: bool = True
) -> tuple[DatasetIndex, list[Lost]]:
    """Return the index of those samples whose content is below `root`, and the others.

    A file is looked for under its name first, then, with `search`, among all files below `root`, by its hash.
    """
    states = list(in_order(lambda sample: _state(root / sample.path, sample.sha256), samples))
    wanted = {sample.sha256 for sample, state in zip(samples, states) if state}
    elsewhere = _by_content(root, wanted) if wanted and search and root.is_dir() else {}
    found, lost = [], []
    for sample, state in zip(samples, states):
        if not state:
            found.append(sample)
        elif sample.sha256 in elsewhere:
            found.append(replace(sample, path=elsewhere[sample.sha256]))
        else:
            lost.append(Lost(sample, state))
    return replace(index, root=root, samples=tuple(found)), lost


def _state(path: Path, sha256: str) -> str:
    """Return "" for a file with this content, else what became of it."""
    try:
        return "" if files.sha256_file(path) == sha256 else "changed"
    except (OSError, ValueError):
        return "gone"


def _by_content(root: Path, wanted: set[str]) -> dict[str, str]:
    """Return the path, relative to `root`, of a file of each content that is there."""
    found: dict[str, str] = {}
    with index_cache.opened(root) as known:
        paths = list(_walk(root))
        hashes = (hit[0] if (hit := known.get(path)) else None for path in paths)
        likely = sorted(((path, digest) for path, digest in zip(paths, hashes)), key=lambda pair: pair[1] not in wanted)
        left = set(wanted)
        for path, digest in in_order(lambda pair: (pair[0], _digest(root / pair[0], pair[1], wanted)), likely):
            if digest in left:
                left.discard(digest)
                found[digest] = path
            if not left:
                break
    return found


def _digest(path: Path, known: str | None, wanted: set[str]) -> str:
    """Return the hash of a file; from the cache if that says that it is none of the wanted ones."""
    if known is not None and known not in wanted:
        return known
    try:
        return files.sha256_file(path)
    except OSError:
        return ""


def _walk(root: Path) -> Iterator[str]:
    """Yield the files below a folder, relative to it, sorted; linked folders are followed once."""
    seen: set[tuple[int, int]] = set()
    for folder, names, inside in os.walk(root, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(inside):
            path = Path(folder, name)
            if path.is_file():
                yield path.relative_to(root).as_posix()


def relocate(run: Run, folder: Path) -> tuple[Run, list[Lost], int]:
    """Write the folder of the images into data.json and run.json, and return the run, what is missing, and of how many.

    Raises:
        MissingError: too many images are not there; nothing is changed.
    """
    index = dataset.of_run(run)
    root = sources.place(folder.resolve(), columns.parsed(index.columns))
    container = folder.resolve() if not folder.is_dir() or root != folder.resolve() else None
    found, lost = find(root, index, index.samples)
    if len(lost) == len(index.samples) or len(lost) > max(_FEW, _SHARE * len(index.samples)):
        raise MissingError(
            f"{len(lost)} of the {len(index.samples)} images of {visible(run.name)} are not in {root}: {named(lost)}",
            "choose the folder that holds them, under whatever names",
        )
    now = iter(found.samples)
    missing = {id(each.sample) for each in lost}
    samples = tuple(sample if id(sample) in missing else next(now) for sample in index.samples)
    files.save_json(run.path / dataset.DATA_FILE, replace(index, root=root, samples=samples, container=container))
    data = replace(run.info.data or DataInfo(fingerprint=index.fingerprint), root=str(root))
    return run.save(data=data), lost, len(samples)

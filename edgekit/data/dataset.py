"""A folder of images, indexed: labels, deterministic splits, and every bad file named at once."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from edgekit import store
from edgekit.config import from_table
from edgekit.data import builtin
from edgekit.data.images import EXTENSIONS, load_image
from edgekit.errors import DataError, MissingError, unknown
from edgekit.labels import check_label, check_labels, visible
from edgekit.records import SPLITS, DatasetIndex, Sample

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
    """Read, decode and hash every image below `root`.

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
    presplit = _is_presplit(root)
    folders = [s for s in SPLITS if (root / s).is_dir()] if presplit else [""]
    files = [(s, *found) for s in folders for found in _find(root / s)]
    labels = tuple(sorted({name for split, name, _ in files if split in ("", "train")}))
    if not files:
        loose = any(p.suffix.lower() in EXTENSIONS for p in root.iterdir())
        raise DataError(
            f"the images in {root} lie in no class folder" if loose else f"no images below {root}",
            "edgekit expects DATA/<class>/<image>, or DATA/train/<class>/<image> with val and test",
        )
    check_labels(labels)
    if extra := {name for _, name, _ in files} - set(labels):
        raise DataError(
            f"classes without training images: {', '.join(sorted(map(repr, extra)))}",
            f"add images below {root / 'train'}, or remove these folders",
        )
    hashes = _hash_and_decode([path for *_, path in files], progress)
    bad = [
        f"{visible(str(path.relative_to(root)))}: {h.message}"
        for (*_, path), h in zip(files, hashes)
        if isinstance(h, DataError)
    ]
    if bad and not skip_bad:
        more = f"\n  ... and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise DataError(
            f"{len(bad)} of {len(files)} images cannot be used:\n  " + "\n  ".join(bad[:MOST_NAMED]) + more,
            "replace or delete them, or leave them out with --skip-bad",
        )
    samples = [
        Sample(path.relative_to(root).as_posix(), labels.index(name), split, digest)
        for (split, name, path), digest in zip(files, hashes)
        if isinstance(digest, str)
    ]
    carved = tuple(s for s in ("val", "test") if presplit and s not in folders)
    return replace(_finish(root, labels, _carve(samples, set(folders)), tuple(bad)), carved=carved)


def _is_presplit(root: Path) -> bool:
    """Whether ``root/train`` holds class folders (and is not itself a class, as in car/train/bus).

    Raises:
        DataError: images lie in a folder beside it that is no split, such as ``valid``.
    """
    if not (root / "train").is_dir() or not _find(root / "train"):
        return False
    beside = [p for p in sorted(root.iterdir()) if p.is_dir() and p.name not in SPLITS and not _is_hidden(p.name)]
    if others := [p.name for p in beside if _find(p)]:
        raise DataError(
            f"{root} holds train and {', '.join(map(visible, others))}: which split is that?",
            f"splits are called {', '.join(SPLITS)}; rename or move the folder",
        )
    return True


def _find(folder: Path) -> list[tuple[str, Path]]:
    """(class name, file) of every image below the class folders of `folder`, sorted."""
    found = []
    for directory in sorted(p for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name)):
        images = [p for p in sorted(directory.rglob("*")) if p.suffix.lower() in EXTENSIONS and p.is_file()]
        shown = [p for p in images if not any(part.startswith(".") for part in p.relative_to(directory).parts)]
        found += [(check_label(directory.name), p) for p in shown]
    return found


def _is_hidden(name: str) -> bool:
    """Whether a folder is left out: .git is, ..x is not (it is refused as a class name)."""
    return name.startswith(".") and not name.startswith("..")


def _hash_and_decode(paths: list[Path], progress: Progress | None) -> list[str | DataError]:
    """The SHA-256 of each file, or the error that decoding it raised."""

    def check(path: Path) -> str | DataError:
        try:
            str(path).encode("utf-8")
            load_image(path)
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except DataError as error:
            return DataError(error.message.removeprefix(f"{path}: "))
        except UnicodeEncodeError:
            return DataError("its name is not UTF-8; rename it")

    results: list[str | DataError] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for result in pool.map(check, paths):
                results.append(result)
                if progress:
                    progress(len(results), len(paths))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _carve(samples: list[Sample], present: set[str]) -> list[Sample]:
    """Give every sample a split; splits in `present` stay, missing ones come out of the rest."""
    if present >= set(SPLITS):
        return samples
    groups: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    kept = [s for s in samples if s.split in ("val", "test")]
    for sample in samples:
        if sample.split in ("", "train"):
            groups[sample.label, sample.sha256].append(sample)
    per_class: dict[int, list[list[Sample]]] = defaultdict(list)
    for (label, _), group in sorted(groups.items()):
        per_class[label].append(group)
    for same_class in per_class.values():
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
    contents = sorted(f"{s.split} {s.label} {s.sha256}" for s in samples)  # file names do not matter
    fingerprint = store.sha256_text([*labels, *contents])
    return DatasetIndex(root, labels, tuple(samples), fingerprint, bad)


def load_index(path: Path) -> DatasetIndex:
    """Read an index that `store.save_json` wrote."""
    return from_table(store.load_json(path), DatasetIndex, str(path))


def check_unchanged(data: DatasetIndex, samples: tuple[Sample, ...]) -> list[Path]:
    """The files of `samples`, after checking that each still has the bytes that were indexed.

    Raises:
        MissingError: a file is gone. DataError: a file has changed.
    """
    paths = [data.root / s.path for s in samples]
    for path, sample in zip(paths, samples):
        if not path.is_file():
            raise MissingError(f"{path} is gone since training", "restore the data set, or train again")
        if store.sha256_file(path) != sample.sha256:
            raise DataError(f"{path} has changed since training", "restore the file, or train again")
    return paths

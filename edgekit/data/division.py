"""Division of images into train, val and test: which share each gets, and which images stay together."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from edgekit.errors import DataError, MissingError, StorageError, UsageError
from edgekit.labels import visible
from edgekit.records import SPLITS, Sample

if TYPE_CHECKING:
    from edgekit.data.near_duplicates import Look

SPLIT = "70/15/15"
_Name = tuple[int, str]  # of a group: its class, or several, and what its images share
_SEVERAL = -1
GROUPING = "'folder', 'prefix:SEPARATOR' or 'FILE.csv:COLUMN'"


@dataclass(frozen=True)
class Division:
    """Fractions of val and test, and the images that stay in one split.

    Attributes:
        group_by: ``folder``, the folder that holds the file; ``prefix:SEPARATOR``, the file name up to the first
            separator; ``FILE.csv:COLUMN``, the value of a column for the file that the first column names; "": each
            image for itself.
    """

    val: float = 0.15
    test: float = 0.15
    group_by: str = ""


PLAIN = Division()


def parse_division(split: str = SPLIT, group_by: str | None = None) -> Division:
    """Return the division that options describe, such as ``70/15/15`` and ``prefix:_``.

    Raises:
        UsageError: `split` is not three positive shares of 100, or `group_by` is not of a known form.
    """
    try:
        shares = [float(part) for part in split.split("/")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not all(math.isfinite(s) and s > 0 for s in shares) or not math.isclose(sum(shares), 100):
        raise UsageError(
            f"--split {split!r} is not three percentages of train, val and test above 0 that add up to 100",
            f"try --split {SPLIT}",
        )
    kind, _, rest = (group_by or "").partition(":")
    if group_by and not (group_by == "folder" or (kind == "prefix" and rest) or _table(group_by)):
        raise UsageError(f"--group-by {group_by!r} is not {GROUPING}", "try --group-by prefix:_")
    return Division(shares[1] / 100, shares[2] / 100, group_by or "")


def _table(group_by: str) -> tuple[Path, str] | None:
    """Return file and column of ``FILE.csv:COLUMN``."""
    file, colon, column = group_by.rpartition(":")
    return (Path(file), column) if colon and column and file.lower().endswith(".csv") else None


class Divided(NamedTuple):
    """Samples with their splits, and what to say: of images kept together, and of groups that were too large."""

    samples: list[Sample]
    kept: list[str]
    scattered: list[str]


def divide(samples: list[Sample], present: set[str], looks: Mapping[str, Look], division: Division = PLAIN) -> Divided:
    """Assign splits as `carve` does, and keep images that look alike in one split.

    Args:
        looks: of each image by its SHA-256. present: as in `carve`.
    """
    from edgekit.data import near_duplicates

    free = to_divide(samples, present, division)
    alike = near_duplicates.alike({sample.sha256: looks[sample.sha256] for sample in free})
    divided = carve(samples, present, division, alike)
    return Divided(divided, *told(free, divided, alike))


def to_divide(samples: list[Sample], present: set[str], division: Division = PLAIN) -> list[Sample]:
    """Return the samples of which `carve` keeps together those that look alike; none where groups were given."""
    if division.group_by or {"val", "test"} <= present:
        return []
    return [s for s in samples if s.split in ("", "train")]


def carve(
    samples: list[Sample], present: set[str], division: Division = PLAIN, alike: Sequence[Sequence[str]] = ()
) -> list[Sample]:
    """Assign a split to every sample; splits in `present` stay, missing ones are taken out of the others.

    Within each class, images are taken in the order of their SHA-256. Images with the same bytes are in the same
    split, and so are those of a group, also where they are in several classes. Groups of images that look alike are
    divided where a split of a class would otherwise have less than half or more than twice its share.

    Args:
        alike: SHA-256 of the images of each group that look alike.
    Raises:
        UsageError: there is nothing to divide. DataError: the images cannot be grouped as asked.
    """
    missing = [split for split in ("val", "test") if split not in present]
    if not missing:
        if division != PLAIN:
            raise UsageError(
                "the data has train, val and test folders: --split and --group-by would change nothing",
                "leave these options out, or give the folder of the classes",
            )
        return samples
    kept = [s for s in samples if s.split in ("val", "test")]
    rest = sorted((s for s in samples if s.split in ("", "train")), key=lambda s: (s.label, s.sha256))
    group_of = _groups(rest, division.group_by) if division.group_by else {}
    leader = {digest: min(group) for group in alike for digest in group}
    assigned: dict[_Name, str] = {}
    for label, of_class in groupby(rest, key=lambda s: s.label):
        same_class = list(of_class)
        alone = {digest: (label, digest) for digest in (s.sha256 for s in same_class)}
        names = {d: (_SEVERAL, leader[d]) if d in leader else name for d, name in alone.items()}
        names = {s.sha256: (_SEVERAL, group_of[s.path]) for s in same_class} if group_of else names
        shares = {split: {"val": division.val, "test": division.test}[split] for split in missing}
        while True:
            sizes = Counter(names.values())
            chosen = _assign(sizes, shares, assigned)
            largest = max(sizes.values())
            if group_of or largest == 1 or _is_even(sizes, shares, chosen):
                break
            names = {d: alone[d] if sizes[name] == largest else name for d, name in names.items()}
        assigned |= chosen
        kept += [replace(sample, split=assigned[names[sample.sha256]]) for sample in same_class]
    return sorted(kept, key=lambda s: (SPLITS.index(s.split), s.path))


def _assign(sizes: dict[_Name, int], shares: dict[str, float], before: dict[_Name, str]) -> dict[_Name, str]:
    """Return the split of each group of a class; sizes are in images, shares are fractions of them.

    Args:
        before: split of groups that are in classes before this one, too.
    """
    wanted = _wanted(sizes, shares)
    chosen = {name: before[name] for name in sizes if name in before}
    if sum(wanted.values()) < sum(sizes.values()) and len(sizes) > len(wanted):
        for others, (split, count) in zip(range(len(wanted), 0, -1), wanted.items()):
            filled = sum(sizes[name] for name, given in chosen.items() if given == split)
            for name in sizes:
                if name not in chosen and filled + sizes[name] <= count:
                    chosen[name] = split
                    filled += sizes[name]
            left = [name for name in sizes if name not in chosen]
            if not filled and len(left) > others:  # every group is larger than the share
                chosen[min(left, key=sizes.__getitem__)] = split
    return {name: chosen.get(name, "train") for name in sizes}


def _wanted(sizes: dict[_Name, int], shares: dict[str, float]) -> dict[str, int]:
    """Return the images that each split of a class should have, apart from train."""
    return {split: max(1, round(sum(sizes.values()) * share)) for split, share in shares.items()}


def _is_even(sizes: dict[_Name, int], shares: dict[str, float], chosen: dict[_Name, str]) -> bool:
    """Return True if each split has at least half and at most twice the images that it should have."""
    total, wanted = sum(sizes.values()), _wanted(sizes, shares)
    wanted["train"] = total - sum(wanted.values())
    filled = Counter(dict.fromkeys(wanted, 0))
    for name, split in chosen.items():
        filled[split] += sizes[name]
    return wanted["train"] < 1 or all(count <= 2 * filled[s] and filled[s] <= 2 * count for s, count in wanted.items())


def told(free: list[Sample], divided: list[Sample], alike: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return what to say of the images that look alike: of groups in one split, and of those that `carve` divided.

    Args:
        free: as `to_divide` returned them. divided: as `carve` did.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    ours = {sample.path for sample in free}
    for sample in divided:
        if sample.path in ours:
            splits[sample.sha256].add(sample.split)
    large = [group for group in alike if len(set().union(*(splits[digest] for digest in group))) > 1]
    kept, lost = sum(map(len, alike)) - sum(map(len, large)), sum(map(len, large))
    together = [f"{kept} images look alike in {_several(len(alike) - len(large))}, and each group is in one split"]
    apart = [
        f"{lost} images look alike in {_several(len(large))} too large to be in one split: they are divided like "
        "others, and the accuracy is too high if they are copies; keep together what belongs together with --group-by"
    ]
    return together if kept else [], apart if lost else []


def _groups(samples: list[Sample], group_by: str) -> dict[str, str]:
    """Return the name of the group of each path. Images with the same bytes join their groups."""
    key_of = _keys(group_by, [sample.path for sample in samples])
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    for sample in samples:
        first, second = sorted((find(f"group {key_of(sample.path)}"), find(f"bytes {sample.sha256}")))
        leader[second] = first
    groups = {sample.path: find(f"bytes {sample.sha256}") for sample in samples}
    if len(set(groups.values())) < len(SPLITS):
        raise DataError(
            f"--group-by {group_by} makes {_several(len(set(groups.values())))} of {len(samples)} images: too few for "
            "train, val and test",
            f"group by something finer: {GROUPING}",
        )
    return groups


def _several(count: int) -> str:
    return f"{count} group{'' if count == 1 else 's'}"


def _keys(group_by: str, paths: list[str]) -> Callable[[str], str]:
    """Return the function that gives the group of a path, relative and with "/"."""
    if group_by == "folder":
        return lambda path: str(PurePosixPath(path).parent)
    if table := _table(group_by):
        return _column(*table, paths).__getitem__
    separator = group_by.partition(":")[2]
    if lost := [path for path in paths if separator not in PurePosixPath(path).name]:
        raise DataError(
            f"the names of {len(lost)} of {len(paths)} images have no {separator!r}, such as {visible(min(lost))}",
            f"group by something else: {GROUPING}",
        )
    return lambda path: PurePosixPath(path).name.partition(separator)[0]


def _column(file: Path, column: str, paths: list[str]) -> dict[str, str]:
    """Return the value of a column of a CSV file for each path.

    The first column names the file: its path below the data, its name, or its name without the ending.
    """
    given: dict[str, str] = {}
    for name, value in _rows(file, column):
        if given.setdefault(name, value) != value:
            raise DataError(f"{file}: {visible(name)} has several values of {visible(column)}", "keep one of them")
    found = {}
    for path in paths:
        pure = PurePosixPath(path)
        found[path] = next((given[name] for name in (path, pure.name, pure.stem) if name in given), None)
    if lost := [path for path, value in found.items() if value is None]:
        raise DataError(
            f"{file} has no row for {len(lost)} of {len(paths)} images, such as {visible(min(lost))}",
            "its first column must have their paths below the data, or their names",
        )
    return {path: value for path, value in found.items() if value is not None}


def _rows(file: Path, column: str) -> Iterable[tuple[str, str]]:
    """Return the first column and the named one of a CSV file with a header."""

    def read() -> Iterator[tuple[str, str]]:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            header = list(rows.fieldnames or ())
            if column not in header[1:]:
                raise DataError(
                    f"{file} has no column {visible(column)} behind its first",
                    f"its columns: {', '.join(map(visible, header)) or 'none'}",
                )
            for row in rows:
                yield (row[header[0]] or "").strip().replace("\\", "/"), (row[column] or "").strip()

    try:
        return list(read())
    except FileNotFoundError as error:
        raise MissingError(f"{file}: no such file", "check the path") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a CSV file in UTF-8: {error}", "save it as CSV in UTF-8") from error

"""Problems of a data set: one sentence each for a training, complete for ``edgekit data check``."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data import columns, dataset, division, index_cache, near_duplicates, sources, values
from edgekit.data.findings import KINDS, Finding, Report
from edgekit.data.images import MAX_PIXELS, PLAIN, TooLarge
from edgekit.data.listing import LOSSES, Found, Listing, sentence
from edgekit.data.threads import in_order
from edgekit.data.values import Reading
from edgekit.errors import DataError
from edgekit.labels import check_label, check_labels, visible
from edgekit.records import SPLITS, Content, DatasetIndex, Preprocess, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_SIDE = near_duplicates.LEAST_SIDE
MOST_ASPECT = 4.0  # above, the central square that a model sees is less than a quarter of the image
MOST_IMBALANCE = 10.0
LARGE = f"more than {MAX_PIXELS // 1_000_000} megapixels, decoded at a fraction of the size"
_NAMED = 4


_Seen = tuple[tuple[int, int], bool, near_duplicates.Look]  # size, whether of a single colour, and look


@dataclass
class Scan:
    """Images of a data set, with one row per decoded file in the order of the listing.

    Attributes:
        preprocess: background and range of values with which they were read.
        files, digests, sizes, contents: file, SHA-256, (width, height) and content of each row.
        blank: whether it has a single colour with `preprocess`.
        reading: of values of more than 8 bits, or why it cannot be told.
        unreadable: (path, reason) of the other files. large: of those with too many pixels.
        looks: of `near_duplicates.comparable`, over white, and of more than 8 bits at the image's own range.
    """

    listing: Listing
    preprocess: Preprocess = PLAIN
    files: list[Found] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    blank: list[bool] = field(default_factory=list)
    reading: Reading | DataError = field(default_factory=Reading)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    large: list[tuple[str, str]] = field(default_factory=list)
    looks: list[near_duplicates.Look] = field(default_factory=list)


def read(
    root: Path,
    progress: dataset.Progress | None = None,
    preprocess: Preprocess = PLAIN,
    layout: str = "auto",
    skip_empty: bool = False,
    chosen: columns.Columns = columns.PLAIN,
) -> Scan:
    """Read every image of the data set at `root`; those that cannot be used are collected in `Scan.unreadable`.

    Args:
        preprocess: background, and the range of values of more than 8 bits; None: chosen from the images.
        layout: one of `layout.LAYOUTS`. skip_empty: leave out classes of which no image can be used.
        chosen: columns of a table, if they have no usual names.
    Raises:
        DataError: no images in class folders (see `sources.find`).
    """
    scan = Scan(sources.find(root, sources.Reading(layout, skip_empty, chosen)), preprocess)
    root, files = scan.listing.root, scan.listing.files
    scan.unreadable += [(path, f"the folder cannot be listed ({why})") for path, why in scan.listing.closed]

    def examine(found: Found) -> dataset.Read[_Seen] | DataError:
        try:
            return dataset.read_image(root, found.path, _seen)
        except DataError as error:
            return error

    def examine_again(found: Found) -> bool:
        try:
            return dataset.read_image(root, found.path, _seen, scan.preprocess).seen[1]
        except DataError:
            return False

    with index_cache.opened(root) as known:
        for done, (found, seen) in enumerate(zip(files, in_order(examine, files)), 1):
            if isinstance(seen, DataError):
                (scan.large if isinstance(seen, TooLarge) else scan.unreadable).append((found.path, seen.message))
            else:
                size, blank, look = seen.seen
                known.put(found.path, seen.status, seen.sha256, seen.content, look)
                scan.files.append(found)
                scan.digests.append(seen.sha256)
                scan.contents.append(seen.content)
                scan.sizes.append(size)
                scan.blank.append(blank)
                scan.looks.append(look)
            if progress:
                progress(done, len(files))
    try:
        scan.reading = values.reading(scan.contents, preprocess.pixel_range)
    except DataError as error:
        scan.reading = error
        return scan
    scan.preprocess = replace(preprocess, pixel_range=scan.reading.pixel_range)
    again = [
        row
        for row, content in enumerate(scan.contents)
        if content.kind or (content.transparent and preprocess.colour != PLAIN.colour)
    ]
    for row, blank in zip(again, in_order(examine_again, [scan.files[row] for row in again])):
        scan.blank[row] = blank
    return scan


def _seen(image: Image) -> _Seen:
    return image.size, near_duplicates.is_blank(near_duplicates.look(image)[1]), near_duplicates.comparable(image)


def judge(
    scan: Scan, distance: int | None, least_side: int = LEAST_SIDE, divide: division.Division = division.PLAIN
) -> Report:
    """Return all problems of a data set that was read.

    Args:
        distance: most different bits in the hashes of near-duplicates; None reports none.
        least_side: shortest side in pixels that is not reported as tiny.
        divide: division of images that lie in no split folders.
    """
    present = set(scan.listing.present)
    labels = sorted({found.label for found in scan.listing.files})
    number = {name: label for label, name in enumerate(labels)}
    samples = [
        Sample(found.path, number[found.label], found.split, digest)
        for found, digest in zip(scan.files, scan.digests)
    ]  # fmt: skip
    look_of = dict(zip(scan.digests, scan.looks))
    divided = division.divide(samples, present, look_of, divide)
    split_of = {sample.path: sample.split for sample in divided.samples}
    splits = [split_of[found.path] for found in scan.files]
    counted = Counter((found.label, split) for found, split in zip(scan.files, splits))
    counts = {name: {split: counted[name, split] for split in SPLITS} for name in labels}
    distinct = Counter(labels[n] for n, _ in {(s.label, s.sha256) for s in samples})
    found = [
        *(Finding("unreadable", f"{visible(path)}: {why}", (path,)) for path, why in scan.unreadable),
        *(Finding("unreadable", str(row)) for row in scan.listing.bad),
        *(Finding("too_large", f"{visible(path)}: {why}; left out", (path,)) for path, why in scan.large),
        *_folders(scan.listing),
        *_names(labels, scan.listing),
        *_classes(counts, distinct, present),
        *(Finding("kept_together", line) for line in divided.kept),
        *(Finding("divided", line) for line in divided.scattered),
        *(Finding("empty_class", f"class folder {visible(name)} contains no images") for name in scan.listing.empty),
        *_values(scan.reading),
        *_shapes(scan, least_side),
        *find_exact_duplicates(scan, splits),
        *(find_near_duplicates(scan, splits, distance) if distance is not None else ()),
    ]  # fmt: skip
    kinds = list(KINDS)
    found.sort(key=lambda f: (kinds.index(f.kind), f.paths, f.message))
    return Report(len(scan.files), counts, _imbalance([c["train"] for c in counts.values()]), tuple(found))


def _folders(listing: Listing) -> Iterator[Finding]:
    """Yield how the folders were read, and the files that are not used."""
    for name, why in listing.lost.items():
        yield Finding("lost_class", f"class folder {visible(name)} loses all of its images ({why})", (name,))
    for left in listing.counted:
        kind = "left_out" if left.reason in LOSSES else "no_images"
        yield Finding(kind, sentence(left).removeprefix("left out: "))
    for note in listing.notes:
        yield Finding("folders", note)


def _names(labels: list[str], listing: Listing) -> Iterator[Finding]:
    if len(labels) == 1 and labels[0] in listing.nested:
        inner = shlex.quote(str(listing.root / labels[0]))
        yield Finding("class_name", f"only one class found, a folder with folders; if these are the classes: {inner}")
        return
    good = []
    for name in labels:
        try:
            good.append(check_label(name))
        except DataError as error:
            yield Finding("class_name", error.message)
    try:
        if len(good) > 1 or len(good) == len(labels):
            check_labels(tuple(good))
    except DataError as error:
        yield Finding("class_name", error.message)


def _classes(counts: dict[str, dict[str, int]], distinct: Counter[str], present: set[str]) -> Iterator[Finding]:
    """Yield problems with the numbers of images; `present` are the split folders, {""} without any."""
    carved = [split for split in SPLITS[1:] if split not in present]
    if carved and present != {""}:
        yield Finding("carved", _carved(carved))
    for name, per_split in counts.items():
        shown = visible(name)
        if not per_split["train"]:
            yield Finding("no_training_images", f"class {shown} has no usable training image")
            continue
        for split in SPLITS[1:]:
            if split not in carved and not per_split[split]:
                yield Finding("missing_from_split", f"the {split} split has no image of class {shown}")
        if sum(per_split.values()) == 1:
            yield Finding(
                "single_image", f"class {shown} has a single image, which is used for training but never for evaluation"
            )
        elif carved and not any(per_split[split] for split in carved):
            yield Finding(
                "too_few",
                f"class {shown} has only {distinct[name]} different image{'' if distinct[name] == 1 else 's'}, "
                "too few to divide: "
                "all are used for training",
            )
    ratio = _imbalance([c["train"] for c in counts.values()])
    if ratio > MOST_IMBALANCE:
        yield Finding("imbalance", _imbalance_message(ratio))


def _values(found: Reading | DataError) -> Iterator[Finding]:
    if isinstance(found, DataError):
        yield Finding("unclear_values", f"{found.message}; {found.hint}")
        return
    if found.strange:
        yield Finding("strange_values", found.strange)
    if found.sentence:
        yield Finding("values", found.sentence)


def _shapes(scan: Scan, least_side: int) -> Iterator[Finding]:
    for found, (width, height), blank, content in zip(scan.files, scan.sizes, scan.blank, scan.contents):
        where, shape = visible(found.path), f"{width}x{height}"
        if min(width, height) < least_side:
            yield Finding("tiny", f"{where}: {shape}, the shorter side is less than {least_side} px", (found.path,))
        if max(width, height) > MOST_ASPECT * min(width, height):
            yield Finding(
                "extreme_shape",
                f"{where}: {shape}, a model sees only the central square without --resize letterbox",
                (found.path,),
            )
        if blank:
            over = (
                f" over {scan.preprocess.background_name}, under its transparent parts" if content.transparent else ""
            )
            yield Finding("blank", f"{where}: single colour{over}", (found.path,))
        if content.scaled:
            yield Finding("scaled", f"{where}: {LARGE}", (found.path,))


def find_exact_duplicates(scan: Scan, splits: list[str]) -> Iterator[Finding]:
    """Yield groups of files with the same bytes: in several classes, in several splits, or in one of each.

    Args:
        splits: split of each row, also if there are no split folders.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(scan.digests):
        same[digest].append(row)
    for rows in same.values():
        if len(rows) == 1:
            continue
        contradictory, leaked = len({scan.files[row].label for row in rows}) > 1, len({splits[row] for row in rows}) > 1
        if contradictory:
            yield _group("contradictory", "have the same bytes but are in different classes", scan, splits, rows)
        if leaked:
            yield _group("leakage", "have the same bytes but are in different splits", scan, splits, rows)
        if not contradictory and not leaked:
            yield _group("duplicate", "have the same bytes", scan, splits, rows)


def find_near_duplicates(scan: Scan, splits: list[str], distance: int) -> Iterator[Finding]:
    """Yield groups of images that look alike (see `near_duplicates`) although their bytes differ.

    Connected pairs of one kind are one finding. Images of a single colour and those with a side of less than
    `near_duplicates.LEAST_SIDE` pixels are left out. Only folders make leakage an error: where images were divided,
    those that look alike are in one split as far as this can be.
    """
    folders = set(scan.listing.present)
    is_ours = [found.split == "" or (found.split == "train" and not folders >= set(SPLITS)) for found in scan.files]
    first: dict[tuple[str, str, str], int] = {}
    for row, digest in enumerate(scan.digests):
        if not near_duplicates.is_blank(scan.looks[row][1]):  # one of each set of equal files per split and class
            first.setdefault((digest, splits[row], scan.files[row].label), row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    pairs, crowded = near_duplicates.similar_pairs(
        *near_duplicates.stacked([scan.looks[row] for row in rows]), distance
    )
    edges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for a, b in rows[pairs].tolist():
        if scan.digests[a] == scan.digests[b]:
            continue
        contradictory, leaked = scan.files[a].label != scan.files[b].label, splits[a] != splits[b]
        if contradictory:
            edges["near_contradictory"].append((a, b))
        if leaked:
            edges["alike_in_splits" if is_ours[a] and is_ours[b] else "near_leakage"].append((a, b))
        if not contradictory and not leaked:
            edges["near_duplicate"].append((a, b))
    problems = {
        "near_contradictory": "look alike but are in different classes",
        "near_leakage": "look alike but are in different splits",
        "alike_in_splits": "look alike but are in different splits",
        "near_duplicate": "look alike",
    }
    for kind, found in edges.items():
        for group in connected(found):
            yield _group(kind, problems[kind], scan, splits, group)
    if crowded:
        yield Finding("crowded", f"{crowded} images resemble so many others that not all pairs were compared")


def connected(edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of a graph, each sorted, ordered by their smallest number."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent.setdefault(above, above)
        return node

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for node in sorted(parent):
        groups[root(node)].append(node)
    return list(groups.values())


def _group(kind: str, problem: str, scan: Scan, splits: list[str], rows: list[int]) -> Finding:
    """Return a finding about several rows; the message names their splits unless the paths do."""
    shown = scan.listing.present != ("",) and set(scan.listing.present) >= set(splits)
    names = [visible(scan.files[row].path) + ("" if shown else f" ({splits[row]})") for row in rows]
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    listed = " and ".join(names) if len(names) == 2 else listed
    return Finding(kind, f"{listed} {problem}", tuple(scan.files[row].path for row in rows))


def warnings(data: DatasetIndex, preprocess: Preprocess = PLAIN) -> list[str]:
    """Return one sentence per problem that makes metrics better or worse than they should be.

    Args:
        preprocess: has the colour under transparent parts.
    """
    same: dict[str, list[Sample]] = defaultdict(list)
    for sample in data.samples:
        same[sample.sha256].append(sample)
    found = []
    if data.carved:
        found.append(_carved(data.carved))
    if contradictory := [group for group in same.values() if len({s.label for s in group}) > 1]:
        found.append(f"{_count(contradictory)} in several classes, such as {_paths(contradictory[0])}")
    if leaked := [group for group in same.values() if len({s.split for s in group}) > 1]:
        found.append(f"{_count(leaked)} in several splits, such as {_paths(leaked[0])}")
    for split in SPLITS[1:]:
        present = {s.label for s in data.split(split)}
        if lost := [visible(name) for number, name in enumerate(data.labels) if number not in present]:
            found.append(f"the {split} split has no image of {_few(lost)}")
    total = Counter(s.label for s in data.samples)
    if single := [visible(name) for number, name in enumerate(data.labels) if total[number] == 1]:
        found.append(f"only one image, which is used for training but never for evaluation, in {_few(single)}")
    ratio = _imbalance(Counter(s.label for s in data.samples if s.split == "train").values())
    if ratio > MOST_IMBALANCE:
        found.append(_imbalance_message(ratio))
    return found + _unseen(data.contents, preprocess)


def _unseen(contents: Mapping[str, Content], preprocess: Preprocess) -> list[str]:
    """Return sentences about images in which nothing can be seen, and about those that are scaled down."""
    blank = _blank(contents, preprocess)
    hidden = [path for path in blank if contents[path].transparent]
    plain = [path for path in blank if not contents[path].transparent]
    found = []
    if hidden:
        better = min(
            ("black", "white", "#808080"), key=lambda name: len(_blank(contents, replace(PLAIN, background=name)))
        )
        found.append(
            f"{_share(hidden, contents)} a single colour over {preprocess.background_name}, which lies under "
            f"transparent parts, such as {visible(hidden[0])}: nothing can be seen there; try --background "
            f"{shlex.quote(better)}"
        )
    if plain:
        found.append(f"{_share(plain, contents)} a single colour, such as {visible(plain[0])}")
    if scaled := [path for path, content in contents.items() if content.scaled]:
        found.append(f"{visible(scaled[0])}{f' and {len(scaled) - 1} more' if len(scaled) > 1 else ''}: {LARGE}")
    return found


def _blank(contents: Mapping[str, Content], preprocess: Preprocess) -> list[str]:
    return [path for path, content in contents.items() if content.is_blank(preprocess.colour)]


def _share(paths: list[str], contents: Mapping[str, Content]) -> str:
    return f"{len(paths)} of {len(contents)} images {'have' if len(paths) > 1 else 'has'}"


def _imbalance(train: Iterable[int]) -> float:
    """Return the ratio of the largest to the smallest class; classes without images are ignored."""
    some = [count for count in train if count]
    return max(some) / min(some) if some else 1.0


def _imbalance_message(ratio: float) -> str:
    return (
        f"the largest class has {ratio:.0f} times the training images of the smallest: "
        "train with --imbalance auto, and check the accuracy of each class"
    )


def _carved(splits: Sequence[str]) -> str:
    verb = "are" if len(splits) > 1 else "is"
    lacking = f"no {' and no '.join(splits)} folder with classes"
    return f"{lacking}: {' and '.join(splits)} {verb} taken out of train by content hash"


def _count(groups: list[list[Sample]]) -> str:
    return "1 image occurs" if len(groups) == 1 else f"{len(groups)} images occur"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _paths(group: list[Sample]) -> str:
    return " and ".join(visible(s.path) for s in group[:2])

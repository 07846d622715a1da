"""What is odd about a data set: in a sentence each for a run, in full for ``edgekit data check``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edgekit.data import dataset, duplicates
from edgekit.data.findings import KINDS, Finding, Report
from edgekit.errors import DataError
from edgekit.labels import check_label, check_labels, visible
from edgekit.records import SPLITS, DatasetIndex, Sample

if TYPE_CHECKING:
    from edgekit.data.scan import Scan


LEAST_SIDE = 32
MOST_ASPECT = 4.0  # the central square that a model sees is then less than a quarter of the image
MOST_IMBALANCE = 10.0


def judge(scan: Scan, distance: int | None, least_side: int = LEAST_SIDE) -> Report:
    """Everything that is odd about what was read.

    Args:
        distance: bits in which the hashes of near-duplicates may differ; None does not look for them.
        least_side: pixels; an image whose shorter side has fewer is tiny.
    """
    present = set(scan.listing.present)
    labels = sorted({found.label for found in scan.listing.files})
    number = {name: label for label, name in enumerate(labels)}
    samples = [
        Sample(found.path, number[found.label], found.split, digest)
        for found, digest in zip(scan.files, scan.digests)
    ]  # fmt: skip
    split_of = {sample.path: sample.split for sample in dataset.carve(samples, present)}
    splits = [split_of[found.path] for found in scan.files]
    counted = Counter((found.label, split) for found, split in zip(scan.files, splits))
    counts = {name: {split: counted[name, split] for split in SPLITS} for name in labels}
    distinct = Counter(labels[n] for n, _ in {(s.label, s.sha256) for s in samples})
    found = [
        *(Finding("unreadable", f"{visible(path)}: {why}", (path,)) for path, why in scan.unreadable),
        *(Finding("linked_folder", f"{visible(path)}: a linked folder, not followed", (path,))
          for path in scan.listing.links),
        *_names(labels),
        *_classes(counts, distinct, present),
        *(Finding("empty_class", f"the class folder {visible(name)} holds no images") for name in scan.listing.empty),
        *_shapes(scan, least_side),
        *duplicates.exact(scan, splits),
        *(duplicates.near(scan, splits, distance) if distance is not None else ()),
    ]  # fmt: skip
    kinds = list(KINDS)
    found.sort(key=lambda f: (kinds.index(f.kind), f.paths, f.message))
    return Report(len(scan.files), counts, _imbalance([c["train"] for c in counts.values()]), tuple(found))


def _names(labels: list[str]) -> Iterator[Finding]:
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
    """What is odd about the numbers of images; `present` are the split folders, {""} without any."""
    carved = [split for split in SPLITS[1:] if split not in present]
    if carved and present != {""}:
        yield Finding("carved", f"no {' and no '.join(carved)} folder: taken out of train by content hash")
    for name, per_split in counts.items():
        shown = visible(name)
        if not per_split["train"]:
            yield Finding("no_training_images", f"class {shown} has no usable training image")
            continue
        for split in SPLITS[1:]:
            if split not in carved and not per_split[split]:
                yield Finding("missing_from_split", f"the {split} split has no image of {shown}")
        if sum(per_split.values()) == 1:
            yield Finding("single_image", f"class {shown} has a single image: it is trained on but never measured")
        elif carved and not any(per_split[split] for split in carved):
            yield Finding(
                "too_few", f"class {shown} has {distinct[name]} different images, too few to divide: all are for train"
            )
    ratio = _imbalance([c["train"] for c in counts.values()])
    if ratio > MOST_IMBALANCE:
        yield Finding("imbalance", _imbalance_says(ratio))


def _imbalance(train: Iterable[int]) -> float:
    """The most training images of a class over the fewest; classes without any are left out."""
    some = [count for count in train if count]
    return max(some) / min(some) if some else 1.0


def _imbalance_says(ratio: float) -> str:
    return (
        f"the largest class has {ratio:.0f} times the training images of the smallest: "
        "train with --imbalance auto, and look at the accuracy of each class"
    )


def _shapes(scan: Scan, least_side: int) -> Iterator[Finding]:
    for found, (width, height), blank in zip(scan.files, scan.sizes, scan.blank):
        where, shape = visible(found.path), f"{width}x{height}"
        if min(width, height) < least_side:
            yield Finding("tiny", f"{where}: {shape}, its shorter side is below {least_side} px", (found.path,))
        if max(width, height) > MOST_ASPECT * min(width, height):
            yield Finding("extreme_shape", f"{where}: {shape}, a model sees only the central square", (found.path,))
        if blank:
            yield Finding("blank", f"{where}: of a single colour", (found.path,))


def warnings(data: DatasetIndex) -> list[str]:
    """One sentence for each thing that would make figures look better or worse than they are."""
    same: dict[str, list[Sample]] = defaultdict(list)
    for sample in data.samples:
        same[sample.sha256].append(sample)
    found = []
    if data.carved:
        found.append(f"no {' and no '.join(data.carved)} folder: taken out of train by content hash")
    if torn := [group for group in same.values() if len({s.label for s in group}) > 1]:
        found.append(f"{len(torn)} images lie in several classes with the same bytes, such as {_paths(torn[0])}")
    if leaks := [group for group in same.values() if len({s.split for s in group}) > 1]:
        found.append(f"{len(leaks)} images lie in several splits with the same bytes, such as {_paths(leaks[0])}")
    for split in SPLITS[1:]:
        present = {s.label for s in data.split(split)}
        if lost := [visible(name) for number, name in enumerate(data.labels) if number not in present]:
            found.append(f"the {split} split has no image of {_few(lost)}")
    total = Counter(s.label for s in data.samples)
    if single := [visible(name) for number, name in enumerate(data.labels) if total[number] == 1]:
        found.append(f"a single image, trained on but never measured, is all there is of {_few(single)}")
    ratio = _imbalance(Counter(s.label for s in data.samples if s.split == "train").values())
    if ratio > MOST_IMBALANCE:
        found.append(_imbalance_says(ratio))
    return found


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _paths(group: list[Sample]) -> str:
    return " and ".join(visible(s.path) for s in group[:2])

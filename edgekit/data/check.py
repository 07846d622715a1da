"""What is odd about a data set, though it can be trained on."""

from __future__ import annotations

from collections import defaultdict

from edgekit.labels import visible
from edgekit.records import SPLITS, DatasetIndex, Sample


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
            found.append(f"the {split} split has no image of {', '.join(lost[:5])}")
    return found


def _paths(group: list[Sample]) -> str:
    return " and ".join(visible(s.path) for s in group[:2])

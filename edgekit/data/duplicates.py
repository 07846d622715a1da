"""Images that lie in a data set more than once: the same bytes, or the same look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data import similar
from edgekit.data.findings import Finding
from edgekit.labels import visible

if TYPE_CHECKING:
    from edgekit.data.scan import Scan

_NAMED = 4


def exact(scan: Scan, splits: list[str]) -> Iterator[Finding]:
    """Files with the same bytes: in several classes, across splits, or else within one.

    Args:
        splits: of each row, also where it would be carved.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(scan.digests):
        same[digest].append(row)
    for rows in same.values():
        if len(rows) == 1:
            continue
        torn, leaks = len({scan.files[row].label for row in rows}) > 1, len({splits[row] for row in rows}) > 1
        if torn:
            yield _group("contradictory", "have the same bytes but lie in several classes", scan, splits, rows)
        if leaks:
            yield _group("leakage", "have the same bytes but lie in several splits", scan, splits, rows)
        if not torn and not leaks:
            yield _group("duplicate", "have the same bytes", scan, splits, rows)


def near(scan: Scan, splits: list[str], distance: int) -> Iterator[Finding]:
    """Images that look alike (see `similar`) though their bytes differ.

    Pairs of one kind that hang together are one finding. Images of a single colour are left out.
    """
    first: dict[tuple[str, str, str], int] = {}
    for row, digest in enumerate(scan.digests):
        if not scan.blank[row]:  # of equal files one for each place where they lie
            first.setdefault((digest, splits[row], scan.files[row].label), row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    pairs, crowded = similar.pairs(scan.hashes[rows], scan.thumbs[rows], distance)
    edges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for a, b in rows[pairs].tolist():
        if scan.digests[a] == scan.digests[b]:
            continue
        torn, leaks = scan.files[a].label != scan.files[b].label, splits[a] != splits[b]
        if torn:
            edges["near_contradictory"].append((a, b))
        if leaks:
            edges["near_leakage"].append((a, b))
        if not torn and not leaks:
            edges["near_duplicate"].append((a, b))
    says = {
        "near_contradictory": "look alike but lie in several classes",
        "near_leakage": "look alike but lie in several splits",
        "near_duplicate": "look alike",
    }
    for kind, found in edges.items():
        for group in connected(found):
            yield _group(kind, says[kind], scan, splits, group)
    if crowded:
        yield Finding("crowded", f"{crowded} images look like so many others that not all were compared")


def connected(edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The groups of numbers that hang together by `edges`, each sorted, in the order of their smallest."""
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


def _group(kind: str, says: str, scan: Scan, splits: list[str], rows: list[int]) -> Finding:
    """A finding about several rows; where folders do not tell the split, the message does."""
    told = scan.listing.present != ("",) and set(scan.listing.present) >= set(splits)
    names = [visible(scan.files[row].path) + ("" if told else f" ({splits[row]})") for row in rows]
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    listed = " and ".join(names) if len(names) == 2 else listed
    return Finding(kind, f"{listed} {says}", tuple(scan.files[row].path for row in rows))

"""Every image of a data set, read once: what `check` judges."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekit.data import dataset, index_cache, similar
from edgekit.data.listing import Found, Listing, find
from edgekit.data.threads import in_order
from edgekit.errors import DataError


@dataclass
class Scan:
    """What was read below a folder, row by row in the order of its listing.

    `unreadable` holds (path, reason); every other list has a row for each file that decoded: its file,
    SHA-256, (width, height) and whether it is of a single colour. `hashes` (uint64) and `thumbs`
    (uint8, rows x SIDE x SIDE x 3) are those of `similar.look`, empty where they were not asked for.
    """

    listing: Listing
    files: list[Found] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    blank: list[bool] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    thumbs: np.ndarray = field(default_factory=lambda: np.empty((0, similar.SIDE, similar.SIDE, 3), np.uint8))


def read(root: Path, looks: bool = True, progress: dataset.Progress | None = None) -> Scan:
    """Read every image below `root`; one that cannot be used is noted and passed over.

    Raises:
        DataError: no folder of images at all (see `listing.find`).
    """
    scan = Scan(find(root))
    files = scan.listing.files
    scan.unreadable += [(path, f"the folder cannot be listed ({why})") for path, why in scan.listing.closed]
    kept = len(files) if looks else 0
    scan.hashes = np.zeros(kept, np.uint64)
    scan.thumbs = np.zeros((kept, similar.SIDE, similar.SIDE, 3), np.uint8)

    def examine(found: Found) -> tuple[str, os.stat_result, tuple[int, int], int, np.ndarray] | DataError:
        try:
            image, digest, status = dataset.read_image(root, found.path)
            return (digest, status, image.size, *similar.look(image))
        except DataError as error:
            return error

    with index_cache.opened(root) as known:
        for done, (found, seen) in enumerate(zip(files, in_order(examine, files)), 1):
            if isinstance(seen, DataError):
                scan.unreadable.append((found.path, seen.message))
            else:
                digest, status, size, phash, thumb = seen
                known.put(found.path, status, digest)
                if looks:
                    scan.hashes[len(scan.files)], scan.thumbs[len(scan.files)] = phash, thumb
                scan.files.append(found)
                scan.digests.append(digest)
                scan.sizes.append(size)
                scan.blank.append(similar.is_blank(thumb))
            if progress:
                progress(done, len(files))
    scan.hashes, scan.thumbs = scan.hashes[: len(scan.files)], scan.thumbs[: len(scan.files)]
    return scan

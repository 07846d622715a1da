"""Cache of file hashes and looks, so that an unchanged data set is not decoded again.

``$EDGEKIT_CACHE/index`` has one file per data set: a header line, records of 848 bytes sorted by key, and
the SHA-256 of all of it. A record is a key of 16 bytes (BLAKE2b of path, size and times of a file that was
decoded without errors), the SHA-256 of the file in 32 bytes, its `Content` in 24, and its look (see
`near_duplicates`): the hash in 8, the thumbnail in 768. A cache that is damaged, missing, or written with a
different version of Pillow is ignored, and every file is read again.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from edgekit import files
from edgekit.data.near_duplicates import SIDE, Look
from edgekit.errors import EdgekitError
from edgekit.records import Content

# A file can change twice within one tick of the clock: files younger than this are read again (as in git).
RACY_NS = 2_000_000_000
_KEY, _SHA256 = 16, 32
# Lowest and highest value, kind, flags, colour.
_CONTENT = struct.Struct("<ddBB3B3x")
_LOOK = 8 + SIDE * SIDE * 3
_RECORD = _KEY + _SHA256 + _CONTENT.size + _LOOK
_KINDS = ("", "integer", "float")


class IndexCache:
    """Hashes of the files of one data set: those that were loaded, and those that were used this time."""

    def __init__(self, root: Path, records: bytes) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100  Path has no absolute() that folds ".."
        self._records = records
        self._used: set[int] = set()  # where in `records`
        self._new = bytearray()

    def get(self, path: str) -> tuple[str, Content, Look] | None:
        """Return SHA-256, content and look of the file at `path` (relative to the root); None if it is not known."""
        try:
            key = self._key(path, os.stat(os.path.join(self._root, path)))  # noqa: PTH116, PTH118  ten times faster
        except (OSError, ValueError):
            return None
        count = len(self._records) // _RECORD
        at = _RECORD * bisect_left(range(count), key, key=lambda n: self._records[n * _RECORD : n * _RECORD + _KEY])
        if self._records[at : at + _KEY] != key:
            return None
        self._used.add(at)
        found = self._records[at + _KEY : at + _RECORD]
        return found[:_SHA256].hex(), _unpacked(found[_SHA256:-_LOOK]), _unpacked_look(found[-_LOOK:])

    def put(self, path: str, status: os.stat_result, sha256: str, content: Content, look: Look) -> None:
        """Add a file that was decoded without errors; `status` was taken before it was read."""
        if max(status.st_mtime_ns, status.st_ctime_ns) <= time.time_ns() - RACY_NS:
            phash, thumb = look
            self._new += self._key(path, status) + bytes.fromhex(sha256) + _packed(content)
            self._new += phash.to_bytes(8, "big") + thumb.tobytes()

    def _key(self, path: str, status: os.stat_result) -> bytes:
        # The change time detects a replacement of the same size and modification time (cp -p, rsync).
        times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        whole = os.fsencode(f"{self._root}\0{path}\0{times}")
        return hashlib.blake2b(whole, digest_size=_KEY).digest()

    def content(self, complete: bool) -> bytes | None:
        """Return the records to store, sorted, or None if the loaded ones need no change.

        Args:
            complete: whether every file was looked up, so that unused records can be dropped.
        """
        if not self._new and (not complete or len(self._used) * _RECORD == len(self._records)):
            return None
        new = {bytes(self._new[at : at + _RECORD]) for at in range(0, len(self._new), _RECORD)}
        old = self._used if complete else range(0, len(self._records), _RECORD)
        return b"".join(sorted(new.union(self._records[at : at + _RECORD] for at in old)))


def _packed(content: Content) -> bytes:
    flags = (content.transparent, content.colour is not None, content.scaled, content.strange)
    bits = sum(bool(flag) << n for n, flag in enumerate(flags))
    return _CONTENT.pack(content.low, content.high, _KINDS.index(content.kind), bits, *(content.colour or (0, 0, 0)))


def _unpacked(packed: bytes) -> Content:
    low, high, kind, bits, *colour = _CONTENT.unpack(packed)
    transparent, single, scaled, strange = (bool(bits >> n & 1) for n in range(4))
    red, green, blue = colour
    return Content(_KINDS[kind], low, high, transparent, (red, green, blue) if single else None, scaled, strange)


def _unpacked_look(packed: bytes) -> Look:
    return int.from_bytes(packed[:8], "big"), np.frombuffer(packed, np.uint8, offset=8).reshape(SIDE, SIDE, 3)


@contextmanager
def opened(root: Path) -> Iterator[IndexCache]:
    """Open the cache of the data set at `root`; it is written at the end, also after an error or Ctrl-C."""
    path = _path(root)
    cache = IndexCache(root, _load(path))
    complete = False
    try:
        yield cache
        complete = True
    finally:
        content = cache.content(complete)
        if content:
            body = _header() + content
            # A cache that cannot be written only costs time.
            with suppress(EdgekitError, OSError):
                files.save_bytes(path, body + hashlib.sha256(body).digest())


def _path(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]  # noqa: PTH100
    return files.cache_dir("index") / name


def _load(path: Path) -> bytes:
    """Return the records of a cache file, or nothing if the file is missing or damaged."""
    header = _header()
    try:
        whole = path.read_bytes()
    except OSError:
        return b""
    body = whole[:-32]
    records = body[len(header) :]
    sound = body.startswith(header) and len(records) % _RECORD == 0 and hashlib.sha256(body).digest() == whole[-32:]
    return records if sound else b""


def _header() -> bytes:
    import PIL

    return f"edgekit index 3, Pillow {PIL.__version__}\n".encode()

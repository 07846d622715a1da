"""Hashes of files that were read before, so that an unchanged data set is not decoded again.

One file for each data set in ``$EDGEKIT_CACHE/index``, of a fixed form: a first line, records of 48 bytes
sorted by key, and the SHA-256 of all that. A record is 16 bytes of key (the BLAKE2b of path, size and times
of a file that decoded well) and the 32 bytes of its SHA-256. A cache that is damaged, or absent, or was
written with another Pillow, is no cache: every file is read again.
"""

from __future__ import annotations

import hashlib
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit import files
from edgekit.errors import EdgekitError

# A file can change twice within one tick of its clock; one this young is read again next time (as git does).
RACY_NS = 2_000_000_000
_KEY, _RECORD = 16, 48


class IndexCache:
    """The hashes that are known of one data set's files, and those that were met this time."""

    def __init__(self, root: Path, records: bytes) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100  Path has no absolute() that folds ".."
        self._records = records
        self._met = bytearray()
        self._changed = False

    def get(self, path: str) -> str | None:
        """The SHA-256 of the file at `path` (relative to the root), if it is as it was when it was read."""
        try:
            key = self._key(path, os.stat(os.path.join(self._root, path)))  # noqa: PTH116, PTH118  ten times faster
        except (OSError, ValueError):
            return None
        count = len(self._records) // _RECORD
        at = _RECORD * bisect_left(range(count), key, key=lambda n: self._records[n * _RECORD : n * _RECORD + _KEY])
        if self._records[at : at + _KEY] != key:
            return None
        self._met += self._records[at : at + _RECORD]
        return self._records[at + _KEY : at + _RECORD].hex()

    def put(self, path: str, status: os.stat_result, sha256: str) -> None:
        """Remember a file that decoded well; `status` was taken before it was read."""
        if max(status.st_mtime_ns, status.st_ctime_ns) <= time.time_ns() - RACY_NS:
            self._met += self._key(path, status) + bytes.fromhex(sha256)
            self._changed = True

    def _key(self, path: str, status: os.stat_result) -> bytes:
        # The change time shows a file that was exchanged for one of the same size and age (cp -p, rsync).
        times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        whole = os.fsencode(f"{self._root}\0{path}\0{times}")
        return hashlib.blake2b(whole, digest_size=_KEY).digest()

    def content(self, complete: bool) -> bytes | None:
        """The records to keep, sorted; None where they are those that were loaded.

        Args:
            complete: every file was asked for, so that what was not met is gone.
        """
        if not self._changed and (not complete or len(self._met) == len(self._records)):
            return None
        every = bytes(self._met) if complete else bytes(self._met) + self._records
        return b"".join(sorted({every[at : at + _RECORD] for at in range(0, len(every), _RECORD)}))


@contextmanager
def opened(root: Path) -> Iterator[IndexCache]:
    """The cache of the data set at `root`; what was put in is kept, also after an error or Ctrl-C."""
    path = _path(root)
    cache = IndexCache(root, _load(path))
    complete = False
    try:
        yield cache
        complete = True
    finally:
        content = cache.content(complete)
        if path and content:
            body = _first_line() + content
            # A cache that cannot be written costs time only.
            with suppress(EdgekitError, OSError):
                files.save_bytes(path, body + hashlib.sha256(body).digest())


def _path(root: Path) -> Path | None:
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]  # noqa: PTH100
    try:
        return files.cache_dir("index") / name
    except RuntimeError:  # neither EDGEKIT_CACHE nor a home folder
        return None


def _load(path: Path | None) -> bytes:
    """The records of a cache file; none if anything about it is not as it was written."""
    first = _first_line()
    try:
        whole = path.read_bytes() if path else b""
    except OSError:
        return b""
    body = whole[:-32]
    records = body[len(first) :]
    sound = body.startswith(first) and len(records) % _RECORD == 0 and hashlib.sha256(body).digest() == whole[-32:]
    return records if sound else b""


def _first_line() -> bytes:
    import PIL

    return f"edgekit index 1, Pillow {PIL.__version__}\n".encode()

"""Containers of images, unpacked once into the cache: whole or not at all, in a folder that is named by their content.

``$EDGEKIT_CACHE/datasets/<name>-<hash>`` holds the images and ``.edgekit.json``, which tells their classes and splits,
or that they are class folders as they were packed. ``.<hash>.used`` beside it names the file that it was unpacked from,
and its time is that of the last use. A process that uses a folder has a shared lock on it until it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from edgekit import files, progress
from edgekit.data import formats
from edgekit.data.listing import Found, Listing
from edgekit.errors import DataError, EdgekitError, StorageError, from_os_error
from edgekit.labels import visible
from edgekit.records import SPLITS

SCHEMA = 1
_DOCUMENT = ".edgekit.json"
_FOLDER = "datasets"  # in the cache, as for the built-in data sets
_FILES = "files"  # of an archive, in the folder that it is unpacked to
_NAMED = re.compile(r"[^.].*-([0-9a-f]{16})")
_SPARE = 64 << 20  # of the disk stays free
# More is no archive of images: those hardly shrink.
_MOST_RATIO, _ALWAYS_FINE = 100, 1 << 30
_BLOCK = 1 << 20
_held: dict[Path, int] = {}  # folder in use -> descriptor with its lock
_OF_FORMAT = {"JPEG": ".jpg", "PPM": ".ppm", "TIFF": ".tif", "HEIC": ".heic"}


@dataclass(frozen=True)
class Container:
    """Files that are unpacked together.

    Attributes:
        path: what the user named. files: that it consists of. base: folder that their names are relative to.
        how: everything else that decides what is written, such as the chosen columns. need: bytes on disk.
    """

    path: Path
    files: Sequence[Path]
    base: Path
    how: str
    need: int


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, all of them for -1; b"" at the end."""


class Writer:
    """Writes images into a folder, with their classes and splits; counts what is left out."""

    def __init__(self, folder: Path, packed: int, update: progress.Update) -> None:
        self._folder, self._packed, self._update = folder, packed, update
        self._free = _free(folder) - _SPARE
        self._written = 0
        self._names: dict[str, int] = {}
        self.below = ""  # folder for the files of the archive that is being unpacked
        self.number = 0
        self.labelled: list[list[str]] = []  # split, label, path
        self.read_as: list[str] = []
        self.said: list[str] = []
        self.left_out: dict[str, Counter[str]] = defaultdict(Counter)

    def image(self, split: str, label: str, name: str, content: bytes) -> None:
        """Write one encoded image as it is."""
        found = formats.of_content(content[:64])
        name = _safe(name.replace("\\", "/").rpartition("/")[2]) or "image"
        if formats.ending(name) not in formats.EXTENSIONS | formats.HEIC_EXTENSIONS:
            name += _OF_FORMAT.get(found, f".{found.lower()}" if found else "")
        path = "/".join(filter(None, (split, _safe(label), name)))
        self._names[path] = count = self._names.get(path, 0) + 1
        if count > 1:
            stem, dot, ending = path.rpartition(".")
            path = f"{stem}-{count}.{ending}" if dot else f"{path}-{count}"
            while path in self._names:
                stem, dot, ending = path.rpartition(".")
                path = f"{stem}-{count}.{ending}" if dot else f"{path}-{count}"
            self._names[path] = 1
        self.spend(len(content))
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.labelled.append([split, label, path])
        self.number += 1

    def file(self, path: str, source: Readable) -> bool:
        """Write a file of an archive under its safe relative path; False if a file and a folder have this name."""
        path = f"{self.below}/{path}" if self.below else path
        target = self._folder / _FILES / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                for block in iter(lambda: source.read(_BLOCK), b""):
                    self.spend(len(block))
                    file.write(block)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            return False
        self.number += path not in self._names
        self._names[path] = 1
        return True

    def spend(self, size: int) -> None:
        """Count bytes that are going to be written.

        Raises:
            DataError: they are far more than those that were read. StorageError: the disk would be full.
        """
        self._written += size
        check_size(self._written, self._packed)
        if self._written > self._free:
            raise _too_little(self._written, self._free)

    def progress(self, done: int, total: int | None) -> None:
        """Report how far the reading is."""
        self._update(done, total, f"{self.number} images")

    def rename(self, names: dict[str, str]) -> None:
        """Replace labels."""
        for entry in self.labelled:
            entry[1] = names.get(entry[1], entry[1])


def check_size(unpacked: int, packed: int) -> None:
    """Check that an archive of `packed` bytes does not become far more.

    Raises:
        DataError: it does.
    """
    if unpacked > _ALWAYS_FINE and unpacked > _MOST_RATIO * packed:
        raise DataError(
            f"{packed / 1e6:.1f} MB would become more than {_MOST_RATIO} times as much: no archive of images does",
            "if it is sound, unpack it, and give the folder",
        )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _too_little(need: int, free: int) -> StorageError:
    return StorageError(
        f"unpacking needs {need / 1e9:.1f} GB in the cache, and {max(0, free) / 1e9:.1f} GB are free",
        "free some space, or choose another disk: EDGEKIT_CACHE=FOLDER",
    )


def _safe(name: str) -> str:
    """Return a name as a plain file name."""
    plain = re.sub(r"[/\\\x00-\x1f\x7f\ud800-\udfff]", "_", name).strip()
    plain = re.sub(r"^\.+", "_", plain)
    while len(plain.encode()) > 120:
        stem, dot, ending = plain.rpartition(".")
        plain = f"{stem[:-8]}.{ending}" if dot and len(ending) < 10 and len(stem) > 8 else plain[:-8]
    return plain


def unpack(container: Container, write: Callable[[Writer], None]) -> Listing:
    """Return what is in a container, from the cache if it was unpacked before.

    The listing has files only if `write` wrote labelled images; else its `root` holds class folders.

    Raises:
        DataError: the container cannot be read. StorageError: the disk is full.
    """
    digest = _digest(container)
    parent = files.cache_dir(_FOLDER)
    name = re.sub(r"[^\w.-]+", "_", _stem(container.path))[:60].strip("._") or "data"
    folder = next(iter(sorted(parent.glob(f"[!.]*-{digest}"))), parent / f"{name}-{digest}")
    document = _document(folder) if _hold(folder) else None
    if document is None:
        with _alone(parent, digest):
            document = (_document(folder) if _hold(folder) else None) or _write(folder, container, write)
            _hold(folder)
    _mark(folder, container.path)
    return _listing(folder, container, document)


def _write(folder: Path, container: Container, write: Callable[[Writer], None]) -> dict[str, Any]:
    if container.need > (free := _free(folder) - _SPARE):
        raise _too_little(container.need, free)
    packed = sum(file.stat().st_size for file in container.files)
    with files.writing_folder(folder) as staging, progress.bar(f"unpacking {container.path.name}") as update:
        writer = Writer(staging, packed, update)
        try:
            write(writer)
        except OSError as error:
            raise from_os_error(error, f"unpacking {container.path}") from error
        if not writer.number:
            raise DataError(f"{container.path} has nothing in it that can be used", "check that it is the right file")
        document = {
            "schema": SCHEMA,
            "read_as": writer.read_as,
            "said": writer.said,
            "left_out": writer.left_out,
            "labelled": writer.labelled,
            "number": writer.number,
        }
        files.save_document(staging / _DOCUMENT, document)
    return document


def _document(folder: Path) -> dict[str, Any] | None:
    """Return what is told about an unpacked folder; None if files are missing there."""
    try:
        document = files.load_document(folder / _DOCUMENT, SCHEMA, "read_as", "said", "left_out", "labelled", "number")
    except EdgekitError:
        return None  # it is made again
    if sum(len(names) for _, _, names in os.walk(folder)) - 1 < document["number"]:
        return None
    return document


def use(root: Path) -> bool:
    """Keep the unpacked folder that `root` lies in from being removed while this process lives.

    False if `root` is missing, or files are missing in that folder.
    """
    if not root.is_dir():
        return False
    for folder in (root, *root.parents[:8]):
        if folder.parent.name == _FOLDER and (folder / _DOCUMENT).exists():
            whole = _hold(folder) and _document(folder) is not None
            if whole:
                _mark(folder)
            return whole
    return True


def _hold(folder: Path) -> bool:
    """Lock a folder for the life of this process; False if it is not there, or is being removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    before = _held.get(folder)
    if before is not None and os.path.samestat(os.fstat(before), os.fstat(descriptor)):
        os.close(descriptor)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        is_it = os.path.samestat(os.fstat(descriptor), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        is_it = False
    except OSError:  # a network drive without such locks
        is_it = True
    if not is_it:
        os.close(descriptor)
        return False
    if before is not None:
        os.close(before)
    _held[folder] = descriptor
    return True


def _used(folder: Path) -> Path:
    """Return the file that tells where an unpacked folder comes from, and when it was used."""
    return folder.with_name(f".{folder.name.rpartition('-')[2]}.used")


def _mark(folder: Path, source: Path | None = None) -> None:
    """Note the use of a folder; without `source` it stays what it was."""
    with suppress(OSError, EdgekitError):  # only the list of the cache tells it
        if source is not None:
            source = source.absolute()
            outer = next((p for p in source.parents if p.parent == folder.parent and _NAMED.fullmatch(p.name)), None)
            named = os.fsencode(source) if outer is None else _used(outer).read_bytes()  # a file in an archive
            files.save_bytes(_used(folder), named)
        else:
            os.utime(_used(folder))


@dataclass(frozen=True)
class Unpacked:
    """Folder that a container was unpacked to.

    Attributes:
        source: what the user named; None if that is not known. files, size: in the folder, size in bytes.
        used: time of the last use, in seconds since 1970. in_use: a process has it in use, or unpacks it.
    """

    folder: Path
    source: Path | None
    files: int
    size: int
    used: float
    in_use: bool


def everything() -> list[Unpacked]:
    """Return everything that was unpacked into the cache, the last used first."""
    parent = files.cache_dir(_FOLDER)
    if not parent.is_dir():
        return []
    files.recover_all(parent)
    folders = [path for path in parent.iterdir() if _NAMED.fullmatch(path.name) and path.is_dir()]
    return sorted((_described(folder) for folder in folders), key=lambda found: (-found.used, found.folder.name))


def _described(folder: Path) -> Unpacked:
    number = size = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(inside, name)).st_size  # noqa: PTH118  many files
                number += 1
    source, used = None, 0.0
    with suppress(OSError):
        used = folder.stat().st_mtime
        used = _used(folder).stat().st_mtime
        source = Path(os.fsdecode(_used(folder).read_bytes()))
    try:
        with _unused(folder):
            in_use = False
    except BlockingIOError:
        in_use = True
    return Unpacked(folder, source, number - 1, size, used, in_use)


def remove(folder: Path) -> bool:
    """Remove an unpacked folder; False if a process uses or unpacks it.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        with _unused(folder):
            hidden = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.{os.getpid()}.")
            os.replace(folder, hidden)  # whole or not at all
            shutil.rmtree(hidden, ignore_errors=True)
            _used(folder).unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True  # another process removed it
    except OSError as error:
        raise from_os_error(error, f"removing {folder}") from error
    return True


@contextmanager
def _unused(folder: Path) -> Iterator[None]:
    """Lock a folder that no process uses or unpacks.

    Raises:
        BlockingIOError: one does.
    """
    with _lock(folder.parent, folder.name.rpartition("-")[2], fcntl.LOCK_NB):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)


def _listing(folder: Path, container: Container, document: dict[str, Any]) -> Listing:
    found = [Found(*entry) for entry in document["labelled"]]
    splits = {entry.split for entry in found}
    made = Listing(folder if found else folder / _FILES, tuple(split for split in SPLITS if split in splits) or ("",))
    made.files = sorted(found, key=lambda f: (SPLITS.index(f.split or "train"), f.path))
    made.container = container.path
    made.read_as, made.said = list(document["read_as"]), list(document["said"])
    for reason, counted in document["left_out"].items():
        made.left_out[reason].update(counted)
    return made


def _stem(path: Path) -> str:
    """Return the name of a container without its endings and the numbers of shards."""
    name = re.sub(r"\.(tar(\.\w+)?|tgz|zip|parquet|npz|gz)$", "", path.name, flags=re.I)
    return re.sub(r"[-_.]?\{.*?\}", "", name)


def _digest(container: Container) -> str:
    """Return the hash of the files of a container and of how it is read."""
    total = sum(file.stat().st_size for file in container.files)
    parts = [f"{SCHEMA} {container.how}"]
    with progress.bar(f"reading {container.path.name}") as update:
        done = 0
        for file in sorted(container.files):
            name = file.relative_to(container.base).as_posix() if len(container.files) > 1 else ""
            try:
                status = file.stat()
                digest = _sha256(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                parts.append(f"{visible(name)} {digest}")
            except OSError as error:
                raise from_os_error(error, f"reading {file}") from error
            done += status.st_size
            update(done, total)
    return files.sha256_text(parts)[:16]


@lru_cache(maxsize=4096)
def _sha256(file: Path, *status: int) -> str:
    """Return the hash of a file, which is read once in a process while its `status` stays."""
    return files.sha256_file(file)


@contextmanager
def _alone(parent: Path, digest: str) -> Iterator[None]:
    """Wait until no other process unpacks the same container."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _lock(parent, digest):
            yield
    except OSError as error:
        raise from_os_error(error, f"writing {parent}") from error


@contextmanager
def _lock(parent: Path, digest: str, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a container, whose file is removed afterwards; `flags` as of flock."""
    path = parent / f".{digest}.lock"
    while True:
        with open(path, "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | flags)
            try:
                is_it = os.path.samestat(path.stat(), os.fstat(lock.fileno()))
            except FileNotFoundError:
                is_it = False
            if not is_it:
                continue  # its last holder removed it after it was opened here
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return

"""Files: atomic writes of files and folders, hashes, JSON documents, locks, the cache folder."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from edgekit import __version__, progress
from edgekit.errors import (
    DataError,
    EdgekitError,
    MissingError,
    StorageError,
    UsageError,
    from_os_error,
    raise_if_not_damage,
)

_HASH = "content_sha256"  # entry of a JSON object: the hash of all others
_READER_S = 10.0
_SCRATCH = "edgekit-tmp-"
_NEW_S = 10.0  # a folder younger than this may not be locked yet


@contextmanager
def writing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`; afterwards it is synced and renamed to `path`, with `mode`.

    On an error or Ctrl-C the temporary file is removed, and `path` is not changed. That of a killed process is removed
    by the next one that writes into the folder.

    Raises:
        StorageError: the disk is full, or the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{_SCRATCH}")
    except OSError as error:
        raise from_os_error(error, f"writing {path.name}") from error
    temporary = Path(name)
    try:
        _hold(handle)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    except Exception as error:
        _reraise(error, f"writing {path.name}")
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Yield a staging folder beside `path`; afterwards it replaces `path`.

    On an error `path` is not changed. A process that is killed between the two renames leaves the former folder as
    ``.<name>.old``, which `recover` restores.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}."))
    except OSError as error:
        raise from_os_error(error, f"writing {path.name}/") from error
    try:
        yield staging
        staging.chmod(0o755)
        if path.exists():
            os.replace(path, _old(path))
        os.replace(staging, path)
    except Exception as error:
        _reraise(error, f"writing {path.name}/")
    finally:
        recover(path)
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new hidden folder inside `folder`, which is created if necessary; it is removed afterwards.

    That of a killed process is removed by the next one that stages there, as in `scratch`.
    """
    with _own_folder(folder, ".staging.") as made:
        try:
            yield made
        except Exception as error:
            _reraise(error, f"writing {folder.name}/")


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new folder among the temporary files of the system; it is removed afterwards.

    A killed process leaves its folder, maybe with a model and images. The next one removes it: the folder is locked
    while its process lives.
    """
    with _own_folder(Path(tempfile.gettempdir()), _SCRATCH) as made:
        yield made


@contextmanager
def _own_folder(parent: Path, prefix: str) -> Iterator[Path]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, prefix)
        made = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        lock = os.open(made, os.O_RDONLY)
    except OSError as error:
        raise from_os_error(error, f"writing {parent.name}/") from error
    try:
        _hold(lock)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _hold(descriptor: int) -> None:
    """Lock a new file or folder, so that no other process takes it for that of a killed one."""
    with contextlib.suppress(OSError):  # a network drive without such locks: nobody will sweep there either
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(folder: Path) -> None:
    """Remove the temporary files that processes left in a folder when they were killed in `writing`."""
    _sweep(folder, f".{_SCRATCH}", stat.S_ISREG)


def _sweep(parent: Path, prefix: str, is_kind: Callable[[int], bool] = stat.S_ISDIR) -> None:
    """Remove what this user's processes that were killed left: folders of `_own_folder`, or files."""
    now = time.time()
    for entry in os.scandir(parent):
        if not re.fullmatch(re.escape(prefix) + "[a-z0-9_]{8}", entry.name):
            continue
        with contextlib.suppress(OSError):  # it has just been removed, or another process holds it
            status = entry.stat(follow_symlinks=False)
            if not is_kind(status.st_mode) or status.st_uid != os.getuid() or now - status.st_mtime < _NEW_S:
                continue
            lock = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
            finally:
                os.close(lock)


def recover(path: Path) -> None:
    """Clean up after a killed `writing_folder`: restore the former folder, remove staging folders."""
    old = _old(path)
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)
    for left in path.parent.glob(f".{path.name}.*"):
        pid = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def recover_all(parent: Path) -> None:
    """Clean up after killed `writing_folder` of all folders in `parent`."""
    left = [re.fullmatch(r"\.(.+)\.([0-9]+\.[a-z0-9_]{8}|old)", path.name) for path in parent.glob(".*")]
    for name in {found[1] for found in left if found}:
        recover(parent / name)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def save_bytes(path: Path, content: bytes | bytearray) -> None:
    """Write bytes atomically."""
    with writing(path) as temporary:
        temporary.write_bytes(content)


def save_output(path: Path, content: bytes | bytearray) -> None:
    """Write bytes to a file that the user named, as other programs would.

    A regular or new file is written atomically, behind symbolic links, and keeps its permissions. Everything else is
    opened and appended to: devices, FIFOs, and the standard streams (``/dev/stdout``).

    Raises:
        UsageError: it is a folder. StorageError: it cannot be written.
    """
    try:
        found = path.stat() if os.path.lexists(path) else None
        mode = found.st_mode & 0o777 if found else 0o644
    except FileNotFoundError:
        mode, found = 0o644, None  # a link to a file that does not exist yet
    except OSError as error:
        raise from_os_error(error, f"writing {path}") from error
    if found and stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is a folder, not a file to write", f"name a file in it, such as {path / 'out'}")
    if found and (not stat.S_ISREG(found.st_mode) or path.absolute().parts[1] in ("dev", "proc")):
        try:
            with _reached(path) if stat.S_ISFIFO(found.st_mode) else open(path, "ab") as file:
                file.write(content)
        except OSError as error:
            raise from_os_error(error, f"writing {path}") from error
        return
    with writing(path.resolve(), mode) as temporary:
        temporary.write_bytes(content)


def _reached(fifo: Path) -> IO[bytes]:
    """Open a FIFO once another process reads from it; a plain `open` would wait for ever.

    Raises:
        UsageError: none does within `_READER_S`.
    """
    end = time.monotonic() + _READER_S
    while True:
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                hint = "start its reader first, such as: cat FIFO > FILE"
                raise UsageError(f"nothing reads from the FIFO {fifo}", hint) from None
            time.sleep(0.1)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")


def _reraise(error: Exception, doing: str) -> NoReturn:
    """Raise a StorageError if an OSError caused `error`, else `error`.

    Libraries wrap the error of a full disk in their own (torch: RuntimeError).
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(error, EdgekitError):
        if isinstance(cause, OSError):
            raise from_os_error(cause, doing) from error
        cause = cause.__cause__ or cause.__context__
    raise error


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(parts: Iterator[str] | list[str]) -> str:
    """Return the SHA-256 of strings, each followed by a newline, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def save_json(path: Path, value: Any) -> None:
    """Write JSON values, dataclasses and paths as JSON, atomically."""
    save_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """Return JSON values, dataclasses and paths as the bytes of a JSON file."""
    return (json.dumps(value, indent=1, default=plain, ensure_ascii=False, allow_nan=False) + "\n").encode()


def save_document(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object with the hash of its content, which `load_document` checks."""
    content = json.loads(json.dumps(document, default=plain, allow_nan=False))
    save_json(path, {**content, _HASH: _content_sha256(content)})


def _content_sha256(document: dict[str, Any]) -> str:
    """Return the SHA-256 of the values of a JSON object, whatever their order and layout."""
    return sha256_text([json.dumps({k: v for k, v in document.items() if k != _HASH}, sort_keys=True)])


def plain(value: Any) -> Any:
    """Return a dataclass as a mapping (its `document`, if it has one) and a path as text, for `json.dumps`."""
    if callable(document := getattr(value, "document", None)):
        return document()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot be written as JSON: {type(value)}")


def load_json(path: Path) -> Any:
    """Read a JSON file that edgekit wrote.

    Raises:
        MissingError: the file does not exist. DataError: it is not JSON. StorageError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\ud" in text.lower():  # halves of a character, which cannot be written anywhere again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist") from None
    except (ValueError, RecursionError, OSError, MemoryError) as error:
        raise_if_not_damage(error, path)
        raise DataError(f"{path} is damaged: {error}", "restore it, or make the run again") from error


def load_document(path: Path, schema: int, *keys: str) -> dict[str, Any]:
    """Read a JSON object that edgekit wrote; check its format number `schema`, that it has `keys`, and its hash.

    The hash is that of `save_document`, without which a file is accepted as it is.

    Raises:
        StorageError: a newer edgekit wrote it. DataError: it is not such a document, or damaged.
    """
    document = load_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise DataError(f"{path} is not a file that edgekit wrote", "restore it, or make it again")
    if document["schema"] > schema:
        raise StorageError(
            f"{path} was written by edgekit {document.get('edgekit', 'of a later version')} "
            f"(format {document['schema']}); this is edgekit {__version__} (format {schema})",
            "upgrade edgekit to that version or a newer one",
        )
    if missing := [key for key in keys if key not in document]:
        raise DataError(f"{path} is damaged: {', '.join(missing)} missing", "restore it, or make it again")
    if _HASH in document and document.pop(_HASH) != _content_sha256(document):
        raise DataError(f"{path} is damaged: its values are not those that edgekit wrote", "restore it from a copy")
    return document


def cache_dir(part: str) -> Path:
    """Return a folder of the cache, which may not exist yet: $EDGEKIT_CACHE/`part`, else ~/.cache/edgekit/`part`.

    Without a home folder, or if that folder cannot be written, it is one of this user in the system's temporary folder,
    and a warning says so: a cache that cannot be had costs time only.
    """
    chosen = os.environ.get("EDGEKIT_CACHE") or os.path.expanduser("~/.cache/edgekit")  # noqa: PTH111  no error
    if chosen.startswith("~"):
        return _temporary_cache("no home folder") / part
    folder = Path(chosen, part)
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return folder
    return _temporary_cache(f"{chosen} cannot be written") / part


@cache
def _temporary_cache(why: str) -> Path:
    """Return a folder of this user alone in the system's temporary folder; the first time, a warning says so."""
    folder = Path(tempfile.gettempdir(), f"edgekit-cache-{os.getuid()}")
    try:
        folder.mkdir(0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise OSError("it belongs to somebody else")
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="edgekit-cache-"))
    progress.warn(f"no cache ({why}): {folder} is used instead; EDGEKIT_CACHE=FOLDER chooses another")
    return folder


def now() -> str:
    """Return the current time in UTC, ISO 8601 with seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextmanager
def locked(lock: Path, taken: str, hint: str = "wait for it, then run the same command again") -> Iterator[None]:
    """Hold a file lock, which one process can hold at a time and which ends with it; its file is removed afterwards.

    Args:
        taken: message of the error if another process holds the lock. hint: hint of that error.

    Raises:
        UsageError: another process holds it.
    """
    while True:
        with open(lock, "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(taken, hint) from None
            if not _is_open_at(lock, file.fileno()):
                continue  # its last holder removed it after it was opened here: another process may hold a new one
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_open_at(path: Path, descriptor: int) -> bool:
    """Return whether `path` is the file that is open as `descriptor`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_folder(path: Path) -> None:
    """Remove a folder that edgekit made; what cannot be removed stays."""
    shutil.rmtree(path, ignore_errors=True)

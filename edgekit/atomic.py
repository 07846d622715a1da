"""Files and folders that appear whole or not at all: written beside, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from edgekit.errors import EdgekitError, from_os_error


@contextmanager
def writing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`, with `mode`.

    On any error, also Ctrl-C, the temporary file is removed and `path` stays as it was.

    Raises:
        StorageError: the disk is full, the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise from_os_error(error, f"writing {path.name}") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    except Exception as error:
        _reraise(error, f"writing {path.name}")
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Yield a staging folder beside `path`; on success it takes the place of `path` whole.

    On any error `path` stays as it was. A process that is killed between the two renames leaves the
    former folder as ``.<name>.old``, which `recover` puts back.
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
    """Yield a hidden folder inside `folder`, which is made; it is removed afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder, prefix=".staging."))
    except OSError as error:
        raise from_os_error(error, f"writing {folder.name}/") from error
    try:
        yield made
    except Exception as error:
        _reraise(error, f"writing {folder.name}/")
    finally:
        shutil.rmtree(made, ignore_errors=True)


def recover(path: Path) -> None:
    """Finish what a killed `writing_folder` left: put the former folder back, sweep its staging."""
    old = _old(path)
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)
    for left in path.parent.glob(f".{path.name}.*"):
        pid = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


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
    """Write bytes, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(content)


def _reraise(error: Exception, doing: str) -> NoReturn:
    """Raise a StorageError if an operating-system error is at the bottom of `error`, else `error`.

    Libraries that write files wrap a full disk in errors of their own (torch: RuntimeError).
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(error, EdgekitError):
        if isinstance(cause, OSError):
            raise from_os_error(cause, doing) from error
        cause = cause.__cause__ or cause.__context__
    raise error

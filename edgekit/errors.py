"""Errors with a message for the user and a hint of what to type next.

The command line prints both and ends with the exit status of the error's class.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path


class ExitStatus(IntEnum):
    """Exit statuses of every command, as documented in the README."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_DATA = 3
    MISSING = 4
    FAILED = 5
    STORAGE = 6
    GATE = 7
    INTERRUPTED = 130


class EdgekitError(Exception):
    """Base class of edgekit's errors. `hint`: the command or the step that solves the problem, or empty."""

    status = ExitStatus.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgekitError):
    """An invalid request: an unknown name, an option out of range, options that exclude each other."""

    status = ExitStatus.USAGE


class DataError(EdgekitError):
    """The user's images, labels or files cannot be used as they are."""

    status = ExitStatus.BAD_DATA


class MissingError(EdgekitError):
    """A run, file, package, device or network connection that is needed does not exist."""

    status = ExitStatus.MISSING


class StorageError(EdgekitError):
    """Reading or writing failed: a full disk, a read-only folder, a file that changed."""

    status = ExitStatus.STORAGE


class GateError(EdgekitError):
    """The command succeeded, but its result breaks a limit that was set."""

    status = ExitStatus.GATE


class ParityError(EdgekitError):
    """Two runtimes disagree on the same input."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, with the known names and a guess in the hint."""
    names = list(known)
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"unknown {kind} {name!r}", f"{guess}known: {', '.join(names)}")


def install_command(extra: str) -> str:
    """Return the pip command that installs the packages of an extra of edgekit, in the tested versions.

    The extra itself, if the installed edgekit is an older one that does not declare it.
    """
    from importlib import metadata

    declared = (r.replace("'", '"').partition(";") for r in metadata.requires("edgekit") or [])
    wanted = [name.strip() for name, _, marker in declared if f'extra == "{extra}"' in marker]
    return "pip install " + " ".join(f'"{name}"' for name in wanted or [f"edgekit[{extra}]"])


def missing_package(package: str, purpose: str, extra: str) -> MissingError:
    """Return the error for an optional package that is not installed; edgekit never installs packages itself."""
    return MissingError(
        f"{purpose} needs the package {package!r}, which is not installed",
        install_command(extra),
    )


def from_os_error(error: OSError, doing: str) -> StorageError:
    """Return a `StorageError` for an operating-system error; `doing` completes "failed while ..."."""
    where = f" ({error.filename})" if error.filename and str(error.filename) not in doing else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk is full: failed while {doing}{where}",
            "free some space and run the same command again; no incomplete file was left",
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return StorageError(
            f"no permission: failed while {doing}{where}",
            "change its permissions, or choose another folder: --runs-dir for runs, EDGEKIT_CACHE for data sets",
        )
    return StorageError(
        f"{error.strerror or error}: failed while {doing}{where}", "choose another folder, such as --runs-dir runs"
    )


# How PyTorch, its CPU allocator, oneDNN, onnxruntime and the C++ library report a failed allocation.
_OUT_OF_MEMORY = re.compile(
    r"allocate memory|failed to allocate|out of memory|could not create a (memory|primitive)|std::bad_alloc", re.I
)
_REQUESTED = re.compile(r"tried to allocate (\d+) bytes")
# No array in a file that edgekit reads is larger, in bytes: a request above that comes from a damaged header.
_LARGEST_ARRAY = 2**31
# Errors of system calls whose arguments come from the content of a file, such as an offset before its beginning.
_FROM_CONTENT = (None, errno.EINVAL, errno.EOVERFLOW)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that memory ran out, on the CPU or a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def out_of_memory(doing: str) -> EdgekitError:
    """Return the error for exhausted memory; `doing` completes the sentence "out of memory while ..."."""
    return EdgekitError(f"out of memory while {doing}", "close other programs, then run the same command again")


def raise_if_not_damage(error: Exception, path: Path | str) -> None:
    """Raise the error that tells why `path` could not be read, unless the content of the file is the reason.

    To be called first in an ``except`` clause that goes on to report a damaged file.

    Raises:
        MissingError: the file does not exist. StorageError: the operating system refused to read it, for example
            for lack of permission. EdgekitError: memory ran out, or `error` itself if it is one.
    """
    if isinstance(error, EdgekitError):
        raise error
    if is_out_of_memory(error):
        if _requested_bytes(error) <= _LARGEST_ARRAY:
            raise out_of_memory(f"reading {path}") from error
    elif isinstance(error, FileNotFoundError):
        raise MissingError(f"{path} does not exist") from error
    elif isinstance(error, OSError) and error.errno not in _FROM_CONTENT:
        raise from_os_error(error, f"reading {path}") from error


def _requested_bytes(error: Exception) -> int:
    """Return the size of the allocation that failed; 0 if the error does not tell."""
    if found := _REQUESTED.search(str(error)):
        return int(found[1])
    return int(getattr(error, "_total_size", 0))  # of numpy's MemoryError

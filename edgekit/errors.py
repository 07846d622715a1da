"""What can go wrong, as the user sees it: one line that says what, one line to type next.

Only the command line's boundary (`edgekit.cli.app.main`) catches these.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of every command; documented in the README."""

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
    """An error with a remedy. `hint` is what the user types or does next."""

    status = ExitStatus.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgekitError):
    """A request that no input could satisfy: an unknown name, a combination that does not exist."""

    status = ExitStatus.USAGE


class DataError(EdgekitError):
    """The user's images, labels or files cannot be used as they are."""

    status = ExitStatus.BAD_DATA


class MissingError(EdgekitError):
    """Something that must exist does not: a run, a file, a package, a device, the network."""

    status = ExitStatus.MISSING


class StorageError(EdgekitError):
    """Reading or writing failed: a full disk, a read-only folder, a file that changed."""

    status = ExitStatus.STORAGE


class GateError(EdgekitError):
    """What was asked for was done, and does not keep the limit that was set."""

    status = ExitStatus.GATE


class ParityError(EdgekitError):
    """Two runtimes that must agree do not."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name outside a table; lists the known names and guesses the one meant."""
    names = list(known)
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"unknown {kind} {name!r}", f"{guess}known: {', '.join(names)}")


def install_command(extra: str) -> str:
    """The pip command that brings what an extra of edgekit names, in the versions that were tried."""
    from importlib import metadata

    declared = (r.replace("'", '"').partition(";") for r in metadata.requires("edgekit") or [])
    wanted = [name.strip() for name, _, marker in declared if f'extra == "{extra}"' in marker]
    return "pip install " + " ".join(f'"{name}"' for name in wanted)


def missing_package(package: str, purpose: str, extra: str) -> MissingError:
    """The error for an optional package that is not installed; edgekit never installs anything."""
    return MissingError(
        f"{purpose} needs the package {package!r}, which is not installed here",
        install_command(extra),
    )


def from_os_error(error: OSError, doing: str) -> StorageError:
    """Translate an operating-system error; `doing` completes the sentence "failed while ..."."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk is full: failed while {doing}{where}",
            "nothing half-written was left behind; free some space and run the same command again",
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return StorageError(
            f"no permission: failed while {doing}{where}",
            "change its permissions, or choose another folder (--runs-dir; EDGEKIT_CACHE for data sets)",
        )
    return StorageError(
        f"{error.strerror or error}: failed while {doing}{where}", "choose another folder, such as --runs-dir runs"
    )

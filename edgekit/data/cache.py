"""Unpacked data sets in the cache: which there are, of which file, and their removal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from shlex import quote
from typing import Any

from edgekit import progress
from edgekit.data import sources, unpacked
from edgekit.data.unpacked import Unpacked
from edgekit.errors import MissingError, UsageError, unknown
from edgekit.labels import visible


@dataclass(frozen=True)
class Entry:
    """An unpacked data set. is_there: what it was unpacked from still exists."""

    unpacked: Unpacked
    is_there: bool

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.unpacked.folder.name

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self.unpacked.size

    @property
    def files(self) -> int:
        """Number of its files."""
        return self.unpacked.files

    @property
    def shown(self) -> str:
        """The path of what it was unpacked from."""
        return visible(str(self.unpacked.source)) if self.unpacked.source else "unknown"

    @property
    def last_used(self) -> str:
        """The time of the last use, in UTC."""
        return datetime.fromtimestamp(self.unpacked.used, timezone.utc).strftime("%Y-%m-%d %H:%M")

    @property
    def states(self) -> list[str]:
        """Reasons that keep it from being removed."""
        gone = "file gone" if self.unpacked.source else "file unknown"
        return ["in use"] * self.unpacked.in_use + [gone] * (not self.is_there)

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        found = self.unpacked
        return {
            "name": self.name,
            "source": visible(str(found.source)) if found.source else None,
            "source_exists": self.is_there,
            "files": self.files,
            "bytes": self.size,
            "last_used": datetime.fromtimestamp(found.used, timezone.utc).isoformat(timespec="seconds"),
            "in_use": found.in_use,
        }


def chosen(names: Sequence[str]) -> list[Entry]:
    """Return the unpacked data sets of these names, or all of them.

    Raises:
        MissingError: there is none of a name.
    """
    found = unpacked.everything()
    every = [Entry(each, each.source is not None and sources.is_there(each.source)) for each in found]
    known = {entry.name for entry in every}
    if missing := [name for name in names if name not in known]:
        error = unknown("unpacked data set", missing[0], sorted(known))
        raise MissingError(error.message, error.hint if known else "nothing is unpacked in the cache")
    return [entry for entry in every if not names or entry.name in names]


def clear(entries: Sequence[Entry], named: bool) -> list[Entry]:
    """Remove unpacked data sets that no process uses, and return them.

    Args:
        named: the user named them; else those stay whose file is gone, because nothing could unpack them again.
    """
    return [entry for entry in entries if (named or entry.is_there) and unpacked.remove(entry.unpacked.folder)]


def tell(left: Sequence[Entry], named: bool) -> None:
    """Say which data sets were not removed.

    Raises:
        UsageError: the user named one that a process uses.
    """
    gone = [] if named else [entry for entry in left if not entry.is_there]
    for entry in gone:
        progress.warn(
            f"{entry.name} is kept, because {entry.shown} is gone: edgekit data cache --clear {quote(entry.name)}"
        )
    used = ", ".join(entry.name for entry in left if entry not in gone)
    if used and named:
        raise UsageError(f"{used} is in use by a process", "wait for it, then run the same command again")
    if used:
        progress.warn(f"kept, because a process uses it: {used}")

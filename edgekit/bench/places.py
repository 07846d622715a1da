"""Where results lie in a run: each in files of its own, which nothing overwrites.

``bench/<device>/<artifact>@0002-20261126T074104Z-1a2b3c4d.json``: the second measurement of that artifact there, when
it was measured, and the beginning of the hash of what it holds, so that two processes never take one name. Numbers, not
clocks, say which is newest. Without a number: from an edgekit that kept one result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from edgekit import files

_NAME = re.compile(r"(?P<slug>.+)@(?P<number>[0-9]{4,9})-(?P<time>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}")


def slug(name: str) -> str:
    """A file name out of an artifact's or a device's name; different names stay different."""
    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__")).lstrip(".")
    return slug if slug == name.replace("/", "__") else f"{slug}-{files.sha256_text([name])[:8]}"


def free_stem(folder: Path, artifact: str, measured: object, digest: str) -> str:
    """The name, without suffix, of the next result of an artifact in a device's folder.

    Args:
        measured: when, ISO 8601; anything else is now. digest: of what is kept, hexadecimal.
    """
    own = slug(artifact)
    number = 1 + max((order(path)[0] for path in folder.glob("*.json") if _slug_of(path) == own), default=0)
    return f"{own}@{number:04d}-{_stamp(measured)}-{digest[:8]}"


def order(path: Path) -> tuple[int, str, str]:
    """What the results of one artifact on one device are sorted by; the newest is the highest."""
    match = _NAME.fullmatch(path.name.removesuffix(".json"))
    return (int(match["number"]), match["time"], path.name) if match else (0, "", path.name)


def newest(paths: Iterable[Path]) -> list[Path]:
    """Of each artifact on each device the newest file, sorted."""
    found: dict[tuple[Path, str], Path] = {}
    for path in paths:
        key = (path.parent, _slug_of(path))
        if key not in found or order(path) > order(found[key]):
            found[key] = path
    return sorted(found.values())


def _slug_of(path: Path) -> str:
    name = path.name.removesuffix(".json")
    match = _NAME.fullmatch(name)
    return match["slug"] if match else name


def _stamp(measured: object) -> str:
    now = datetime.now(timezone.utc)
    try:
        when = datetime.fromisoformat(str(measured).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        when = now
    return f"{when if when.year >= 1970 else now:%Y%m%dT%H%M%SZ}"

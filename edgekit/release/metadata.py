"""Signed documents: TUF's metadata, and in it the releases and channels of edgekit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError, UsageError

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, MetaFile

SCHEMA = 1
FIELD = "x-edgekit"  # of targets.json
ALL = 10_000  # a whole rollout: it is counted in steps of 1/10,000
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a channel or a release
FILE = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}"


@dataclass(frozen=True)
class Release:
    """A model in the form of one or more kits.

    Attributes:
        app: least version of an app that may take it. contract: schema of preprocess.json that its code must know.
        kits: "android-litert" -> file on the device -> target, which is where the file lies: ``<16 digits>/<name>``.
    """

    app: int
    contract: int
    kits: Mapping[str, Mapping[str, str]]

    def targets(self) -> set[str]:
        """Return the targets of all kits."""
        return {target for names in self.kits.values() for target in names.values()}


@dataclass(frozen=True)
class Channel:
    """Release that the devices of a channel take.

    Attributes:
        rollout: share of the devices that take `release`, in 1/10,000; the others take `previous`, which may be "".
    """

    release: str
    previous: str = ""
    rollout: int = ALL


@dataclass(frozen=True)
class Content:
    """Everything that edgekit says in targets.json. Of old releases only those that a channel names are in it."""

    channels: Mapping[str, Channel] = field(default_factory=dict)
    releases: Mapping[str, Release] = field(default_factory=dict)
    recalled: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {
            "schema": SCHEMA,
            "channels": {name: dict(vars(channel)) for name, channel in self.channels.items()},
            "recalled": list(self.recalled),
            "releases": {
                name: {**vars(release), "kits": {kit: dict(names) for kit, names in release.kits.items()}}
                for name, release in self.releases.items()
            },
        }

    @classmethod
    def of(cls, document: Any) -> Content:
        """Return the content of a document that `document` gave.

        Raises:
            DataError: it is not of this form.
        """
        try:
            if document["schema"] != SCHEMA:
                raise ValueError(f"its schema is {document['schema']}, and this edgekit knows {SCHEMA}")
            channels = {name: Channel(**entry) for name, entry in document["channels"].items()}
            releases = {name: Release(**entry) for name, entry in document["releases"].items()}
            return cls(channels, releases, tuple(document["recalled"]))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(f"the releases in targets.json cannot be read: {error}", "upgrade edgekit") from None

    def channel(self, name: str) -> Channel:
        """Return a channel.

        Raises:
            UsageError: there is none of the name.
        """
        if name not in self.channels:
            known = ", ".join(self.channels) or "none yet: edgekit release add"
            raise UsageError(f"there is no channel {name!r}", f"known: {known}")
        return self.channels[name]

    def with_channel(self, name: str, channel: Channel) -> Content:
        """Return a copy with a channel changed or added, and without the releases that no channel names any more."""
        channels = {**self.channels, name: channel}
        named = {each for one in channels.values() for each in (one.release, one.previous)}
        return replace(self, channels=channels, releases={n: r for n, r in self.releases.items() if n in named})


def checked_name(kind: str, name: str) -> str:
    """Return the name of a channel or a release.

    Raises:
        UsageError: it has other letters than all clients take.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"{name!r} is no name of a {kind}", "letters, digits, point, _ and -, no more than 64, such as stable"
        )
    return name


def target_of(name: str, sha256: str) -> str:
    """Return where a file of a release lies among the targets: the same file of two releases lies there once."""
    return f"{sha256[:16]}/{name.rpartition('/')[2]}"


def place_of(target: str, sha256: str) -> str:
    """Return the name of a target's file in the folder: TUF puts the hash before it."""
    folder, _, name = target.rpartition("/")
    return f"targets/{folder}/{sha256}.{name}"


def serialized(metadata: Metadata[Any]) -> bytes:
    """Return metadata as the bytes of a file: the signatures, then the signed part in canonical form.

    So a client verifies the very bytes of the file, before it parses any. Canonical JSON leaves the newlines of keys as
    they are, which is no JSON: they are written as ``\\n`` here, and nothing else needs a backslash.
    """
    from tuf.api.serialization.json import CanonicalJSONSerializer

    pairs = [{"keyid": each.keyid, "sig": each.signature} for each in metadata.signatures.values()]
    signed = CanonicalJSONSerializer().serialize(metadata.signed)
    if b"\\" in signed:
        raise DataError("metadata with a backslash cannot be written", "use names of letters and digits")
    signatures = json.dumps(pairs, separators=(",", ":"), sort_keys=True).encode()
    return b'{"signatures":' + signatures + b',"signed":' + signed.replace(b"\n", b"\\n") + b"}"


def meta_file(version: int, content: bytes) -> MetaFile:
    """Return how other metadata names a file of metadata."""
    from tuf.api.metadata import MetaFile

    return MetaFile(version, len(content), {"sha256": hashlib.sha256(content).hexdigest()})

"""The publisher: adds releases, and says which of them the devices of a channel take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from edgekit import files
from edgekit.errors import DataError, MissingError, StorageError, UsageError
from edgekit.release import kits, metadata, store
from edgekit.release.keys import ROOT_KEYS, ROOT_NEEDED, Keys
from edgekit.release.metadata import ALL, Channel, Content, Release

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

TRUSTED = "trusted.json"  # in the folder of the keys
ROOT_DAYS, TARGETS_DAYS, SNAPSHOT_DAYS, TIMESTAMP_DAYS = 730, 365, 90, 14
SOON_DAYS = {"root": 60, "targets": 60, "snapshot": 30, "timestamp": 4}  # before an end that is worth a word
_ONLINE = ("timestamp", "snapshot")
S = TypeVar("S", "Root", "Timestamp", "Snapshot", "Targets")


@dataclass(frozen=True)
class State:
    """Metadata of a release folder, verified. `timestamp_file`: the bytes of timestamp.json."""

    root: Root
    root_file: bytes
    timestamp: Timestamp
    timestamp_file: bytes
    snapshot: Snapshot
    targets: Targets

    @property
    def content(self) -> Content:
        """The releases and channels."""
        return Content.of(self.targets.unrecognized_fields.get(metadata.FIELD))

    def keyids(self, role: str) -> list[str]:
        """Return the ids of the keys that sign for a role: "root", "targets" or "online"."""
        return list(self.root.roles["timestamp" if role == "online" else role].keyids)


@dataclass(frozen=True)
class RoleStatus:
    """Metadata of a role: its version, when it expires, and the ids of its keys, of which `needed` must sign."""

    role: str
    version: int
    expires: datetime
    keyids: tuple[str, ...]
    needed: int
    expires_soon: bool


@dataclass(frozen=True)
class Status:
    """Content of a release folder at a moment."""

    roles: tuple[RoleStatus, ...]
    content: Content
    megabytes: Mapping[str, float]  # of each release, of all its kits together


class Releases:
    """A release folder and the keys for it. Every change is valid for devices at each moment, or is not made.

    New files come first, and a new timestamp last: until then, devices see what was before.

    Args:
        location: a folder, or a URL of an object store, such as ``s3://bucket/models``.
        keys: folders of key files. passphrase: returns that of the key files, when one is read.
        clock: returns the time.

    Example:
        >>> releases = edgekit.Releases("public/models", keys=["keys"])
        >>> releases.add(["kit"], channel="beta")
        'r2'
    """

    def __init__(
        self,
        location: str | Path,
        keys: Iterable[str | Path] = (),
        passphrase: Callable[[], str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        import_tuf()
        self.store = store.opened(location)
        self.keys = Keys([Path(each) for each in keys], passphrase)
        self._clock = clock

    def init(self) -> tuple[str, ...]:
        """Make a release folder without releases, and its keys. Returns the names of the key files.

        The three keys of the root, of which two must sign, belong on media that are kept apart.

        Raises:
            UsageError: not one folder is named for the keys, or it lies in the release folder.
            DataError: there are releases, or files in the folder of the keys.
        """
        from tuf.api.metadata import Root, Targets

        folder = self._new_key_folder()
        if self.store.size("1.root.json") is not None:
            raise DataError(f"{self.store} has releases already", "name a new folder")
        with files.writing_folder(folder) as made:
            made.chmod(0o700)
            root = Root(expires=self._in(ROOT_DAYS), consistent_snapshot=True)
            signers = [self.keys.create("root", made) for _ in range(ROOT_KEYS)]
            targets, online = (self.keys.create(role, made) for role in ("targets", "online"))
            for each in signers:
                root.add_key(each.public_key, "root")
            root.roles["root"].threshold = ROOT_NEEDED
            root.add_key(targets.public_key, "targets")
            for role in _ONLINE:
                root.add_key(online.public_key, role)
            names = tuple(sorted(path.name for path in made.iterdir()))
        folder.chmod(0o700)
        first = self._signed(root, signers[:ROOT_NEEDED])
        empty = Targets(expires=self._in(TARGETS_DAYS), unrecognized_fields={metadata.FIELD: Content().document()})
        with self.store.locked():
            timestamp = self._write(empty, None, None, [targets], [online])
            self.store.write("1.root.json", first)  # last: without it there are no releases
        self._remember(first, timestamp)
        return names

    def _new_key_folder(self) -> Path:
        """Return the folder for new keys."""
        if len(self.keys.folders) != 1:
            raise UsageError("name one new folder for the keys, apart from the releases", "--keys DIR")
        folder = self.keys.folders[0]
        if isinstance(self.store, store.Folder) and _is_inside(folder, self.store.path):
            raise UsageError(f"keys in {self.store} would be published", "name another folder with --keys")
        if isinstance(self.store, store.Site):
            self.store.size("")  # raises the error that tells why not
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder} is not empty", "name a new folder for the keys")
        return folder

    # Changes of what devices take.

    def add(self, sources: Sequence[str | Path], channel: str, app: int = 0, percent: float = 100) -> str:
        """Publish kits as a release, and let a channel take it. Returns the release's id.

        Args:
            sources: kits of one model, such as one for Android and one for iOS. channel: made where there is none.
            app: least version of an app that may take it. percent: share of the channel's devices that take it; the
                others keep what they have.

        Raises:
            DataError: a file of a kit is not the one that its manifest names.
        """
        metadata.checked_name("channel", channel)
        share, found = _share(percent), kits.read([Path(each) for each in sources])

        def change(state: State, content: Content) -> Content:
            release = found.release(app)
            name = f"r{self._next('targets', state.targets.version)}"
            self._upload(found.files)
            return _switched(replace(content, releases={**content.releases, name: release}), channel, name, share)

        state = self._change(change, found.targets())
        return state.content.channel(channel).release

    def promote(self, release: str, channel: str, percent: float = 100) -> str:
        """Let a channel take a release that was added before. Returns the release's id.

        Args:
            release: its id, or the name of a channel that takes it.
        """
        metadata.checked_name("channel", channel)
        share = _share(percent)
        former: dict[str, Any] = {}  # targets of a release that no channel named any more

        def change(state: State, content: Content) -> Content:
            name = content.channels[release].release if release in content.channels else release
            if name in content.recalled:
                raise UsageError(f"{name} was recalled", "add it again, if it is good: edgekit release add")
            if name not in content.releases:
                found, targets = self._listed(state, name) or _no_release(name, content)
                content = replace(content, releases={**content.releases, name: found})
                former.update(targets)
            return _switched(content, channel, name, share)

        return self._change(change, former).content.channel(channel).release

    def rollout(self, channel: str, percent: float) -> None:
        """Change the share of a channel's devices that take its release. 0 takes it back from all."""
        share = _share(percent)
        self._change(
            lambda state, content: content.with_channel(channel, replace(content.channel(channel), rollout=share))
        )

    def back(self, channel: str) -> str:
        """Let a channel take the release before again. Returns its id.

        Raises:
            MissingError: there is none, or it was recalled.
        """
        state = self._change(lambda _, content: _without(content, channel, content.channel(channel).release))
        return state.content.channel(channel).release

    def recall(self, release: str) -> tuple[str, ...]:
        """Take a release back for ever: devices leave it at their next check. Returns the channels that it changed.

        Where no release before is left, devices use the model that their app came with.
        """
        changed: list[str] = []

        def change(state: State, content: Content) -> Content:
            if release not in content.releases and self._listed(state, release) is None:
                _no_release(release, content)
            content = replace(content, recalled=tuple(dict.fromkeys((*content.recalled, release))))
            for name, each in content.channels.items():
                if each.release == release and each.previous and each.previous not in content.recalled:
                    content = _without(content, name, release)
                elif each.previous == release:
                    content = content.with_channel(name, replace(each, previous=""))
                if each.release == release:
                    changed.append(name)
            return content

        self._change(change)
        return tuple(changed)

    # Keys and expiry.

    def refresh(self, role: str = "online") -> datetime:
        """Sign anew what would expire, and return until when it is good.

        Args:
            role: "online" (the timestamp, and the snapshot where it needs it), for CI every day; "targets" or "root",
                once a year.
        """
        with self.store.locked():
            state = self._load()
            if role == "root":
                root = _copy(state.root)
                root.expires = self._in(ROOT_DAYS)
                self._write_root(root, self._root_signers(state))
                return root.expires
            if role not in ("online", "targets"):
                raise UsageError(f"there is no role {role!r}", "known: online, targets, root")
            online = self.keys.needed("online", state.keyids("online"))
            if role == "targets":
                targets = self.keys.needed("targets", state.keyids("targets"))
                self._publish(state, _copy(state.targets), targets, online)
                return self._in(TARGETS_DAYS)
            if not self._is_soon("snapshot", state.snapshot.expires):
                timestamp = self._write_timestamp(state.timestamp.version, state.timestamp.snapshot_meta, online)
                self._remember(state.root_file, timestamp)
            else:
                self._publish(state, None, [], online)
            return self._in(TIMESTAMP_DAYS)

    def rotate(self, role: str, folder: str | Path, lost: str = "") -> str:
        """Replace a key by a new one. Returns the name of the new key file. Two keys of the root must be at hand.

        Args:
            role: "online", "targets" or "root". folder: for the new key. lost: first digits of the id of the root's key
                that is replaced.
        """
        with self.store.locked():
            state = self._load(is_rotating=True)
            old = state.keyids(role) if role in ("online", "targets", "root") else []
            if not old:
                raise UsageError(f"there is no role {role!r}", "known: online, targets, root")
            going = [keyid for keyid in old if role != "root" or (lost and keyid.startswith(lost))]
            if len(going) != 1:
                raise UsageError(
                    f"say which of the root's keys is replaced: {', '.join(keyid[:8] for keyid in old)}", "--key ID"
                )
            before = self._root_signers(state, but=going[0] if role == "root" else "")
            root, new = _copy(state.root), self.keys.create(role, Path(folder))
            for each in ("timestamp", "snapshot") if role == "online" else (role,):
                root.revoke_key(going[0], each)
                root.add_key(new.public_key, each)
            root.expires = self._in(ROOT_DAYS)
            if role == "root":
                self._write_root(root, [*before, new])
                return f"{role}-{new.public_key.keyid[:8]}.pem"
            online = self.keys.signers("online", state.keyids("online"))[:1]
            targets = self.keys.signers("targets", state.keyids("targets"))[:1]
            # Both keys sign, if the old one is at hand: then devices with the root of before and after take it.
            if role == "online":
                online = [*online, new]
            else:
                targets = [*targets, new]
                online = online or self.keys.needed("online", state.keyids("online"))
            changed = _copy(state.targets) if role == "targets" else None
            timestamp = self._publish(state, changed, targets, online)
            made = self._write_root(root, before)
            self._remember(made, timestamp)
        return f"{role}-{new.public_key.keyid[:8]}.pem"

    # Reading.

    def status(self) -> Status:
        """Return what the folder says, verified with the root that the keys' folder knows, or else with its first."""
        state = self._load()
        parts: dict[str, Signed] = {
            "root": state.root,
            "targets": state.targets,
            "snapshot": state.snapshot,
            "timestamp": state.timestamp,
        }
        roles = tuple(
            RoleStatus(
                role,
                part.version,
                part.expires,
                tuple(state.root.roles[role].keyids),
                state.root.roles[role].threshold,
                self._is_soon(role, part.expires),
            )
            for role, part in parts.items()
        )
        lengths = {name: target.length for name, target in state.targets.targets.items()}
        content = state.content
        megabytes = {n: sum(lengths[t] for t in r.targets()) / 1e6 for n, r in content.releases.items()}
        return Status(roles, content, megabytes)

    def unlock(self) -> None:
        """Remove the lock of a publisher that was killed, from an object store."""
        self.store.unlock()

    def _load(self, is_rotating: bool = False) -> State:
        """Read and verify the metadata. What has expired is read all the same: a publisher makes it good again.

        Args:
            is_rotating: accept what only a key at hand has signed, as a rotation leaves it that was killed before its
                last write, the root.
        """
        from tuf.api.metadata import Snapshot, Targets, Timestamp

        anchor, seen = self._trusted()
        root_file = anchor or self._read("1.root.json", missing=f"{self.store} has no releases")
        root = self._root(root_file, None)
        while (following := self.store.read(f"{root.version + 1}.root.json")) is not None:
            root, root_file = self._root(following, root), following
        timestamp_file = self._read("timestamp.json", missing=f"{self.store} has no releases")
        timestamp = self._verified(root, "timestamp", timestamp_file, Timestamp, is_rotating=is_rotating)
        if timestamp.version < seen:
            raise DataError(
                f"{self.store} is older than what was published before (timestamp {timestamp.version} after {seen})",
                "somebody put an old copy there: restore the newer one",
            )
        snapshot_meta = timestamp.snapshot_meta
        snapshot_file = self._read(f"{snapshot_meta.version}.snapshot.json")
        snapshot = self._verified(root, "snapshot", snapshot_file, Snapshot, snapshot_meta, is_rotating)
        targets_meta = snapshot.meta["targets.json"]
        targets_file = self._read(f"{targets_meta.version}.targets.json")
        targets = self._verified(root, "targets", targets_file, Targets, targets_meta, is_rotating)
        return State(root, root_file, timestamp, timestamp_file, snapshot, targets)

    def _read(self, name: str, missing: str = "") -> bytes:
        content = self.store.read(name)
        if content is None:
            hint = f"edgekit release init {self.store} --keys DIR" if missing else "restore it from a copy"
            raise MissingError(missing or f"{self.store} has no {name}", hint)
        return content

    def _root(self, content: bytes, before: Root | None) -> Root:
        """Return a verified root, which follows another one."""
        from tuf.api.metadata import Root

        parsed = self._parsed("root", content, Root)
        for signer in (before, parsed.signed):
            if signer is not None:
                self._check_signatures(signer, "root", parsed)
        if before is not None and parsed.signed.version != before.version + 1:
            raise DataError(f"{self.store}: {before.version + 1}.root.json is another version", "restore it")
        return parsed.signed

    def _verified(
        self, root: Root, role: str, content: bytes, kind: type[S], meta: Any = None, is_rotating: bool = False
    ) -> S:
        """Return the signed part of metadata. meta: how other metadata names it. is_rotating: as in `_load`."""
        from tuf.api.exceptions import LengthOrHashMismatchError

        parsed = self._parsed(role, content, kind)
        if not (is_rotating and self._is_own(role, parsed)):
            self._check_signatures(root, role, parsed)
        if meta is not None:
            try:
                meta.verify_length_and_hashes(content)
            except LengthOrHashMismatchError as error:
                raise DataError(f"{self.store}: {role}: {error}", "restore it from a copy") from None
        return parsed.signed

    def _parsed(self, role: str, content: bytes, kind: type[S]) -> Metadata[S]:
        from tuf.api.metadata import Metadata
        from tuf.api.serialization import DeserializationError

        try:
            parsed: Metadata[S] = Metadata.from_bytes(content)
        except DeserializationError as error:
            raise DataError(f"{self.store}: the metadata of {role} is damaged: {error}", "restore it") from None
        if not isinstance(parsed.signed, kind):
            raise DataError(f"{self.store}: the metadata of {role} is of another role", "restore it from a copy")
        return parsed

    def _is_own(self, role: str, parsed: Metadata[Any]) -> bool:
        """Return whether a key at hand has signed metadata."""
        from securesystemslib.exceptions import UnverifiedSignatureError

        for signer in self.keys.signers("targets" if role == "targets" else "online", parsed.signatures):
            key = signer.public_key
            try:
                key.verify_signature(parsed.signatures[key.keyid], parsed.signed_bytes)
            except UnverifiedSignatureError:
                continue
            return True
        return False

    def _check_signatures(self, root: Root, role: str, parsed: Metadata[Any]) -> None:
        from tuf.api.exceptions import UnsignedMetadataError

        try:
            root.verify_delegate(role, parsed.signed_bytes, parsed.signatures)
        except UnsignedMetadataError:
            raise DataError(
                f"{self.store}: the metadata of {role} is not signed by the keys that the root names",
                "somebody else may have written there: restore a copy; docs/releases.md tells more",
            ) from None

    # Writing.

    def _change(
        self, change: Callable[[State, Content], Content], more: Mapping[str, TargetFile] | None = None
    ) -> State:
        """Publish changed releases and channels. Returns what is there then.

        Args:
            more: targets that the present targets.json does not name; it may be filled by `change`.
        """
        with self.store.locked():
            state = self._load()
            targets = self.keys.needed("targets", state.keyids("targets"))
            online = self.keys.needed("online", state.keyids("online"))
            content = change(state, state.content)
            known = {**(more or {}), **state.targets.targets}
            named = {target for release in content.releases.values() for target in release.targets()}
            made = _copy(state.targets)
            made.targets = {name: known[name] for name in sorted(named)}
            made.unrecognized_fields[metadata.FIELD] = content.document()
            self._publish(state, made, targets, online)
        return replace(state, targets=made)

    def _publish(self, state: State, targets: Targets | None, keys: list[Any], online: list[Any]) -> bytes:
        """Write metadata anew, and switch to it. targets: None: unchanged. Returns the timestamp's bytes."""
        timestamp = self._write(targets or state.targets, state, None if targets else state, keys, online)
        self._remember(state.root_file, timestamp)
        return timestamp

    def _write(
        self, targets: Targets, state: State | None, kept: State | None, keys: list[Any], online: list[Any]
    ) -> bytes:
        """Write targets, a snapshot and a timestamp. Returns the bytes of the last.

        Args:
            state: of before; None: there was none. kept: the state whose targets stay as they are.
        """
        from tuf.api.metadata import Snapshot

        if kept is None:
            targets.expires = self._in(TARGETS_DAYS)
            meta = self._numbered("targets", targets, state.targets.version if state else 0, keys)
        else:
            meta = kept.snapshot.meta["targets.json"]
        snapshot = Snapshot(expires=self._in(SNAPSHOT_DAYS), meta={"targets.json": meta})
        named = self._numbered("snapshot", snapshot, state.snapshot.version if state else 0, online)
        if state is not None and self.store.read("timestamp.json") != state.timestamp_file:
            raise StorageError(f"{self.store}: somebody else published at the same moment", "type the command again")
        return self._write_timestamp(state.timestamp.version if state else 0, named, online)

    def _numbered(self, role: str, signed: Any, version: int, keys: list[Any]) -> Any:
        """Write metadata under the next free number. Returns how other metadata names it."""
        while True:
            version = signed.version = self._next(role, version)
            content = self._signed(signed, keys)
            try:
                self.store.create(f"{version}.{role}.json", content)
            except store.Taken:  # by a publisher on another machine, just now
                continue
            return metadata.meta_file(version, content)

    def _next(self, role: str, version: int) -> int:
        """Return the first free number after one: a publisher that was killed may have left files."""
        version += 1
        while self.store.size(f"{version}.{role}.json") is not None:
            version += 1
        return version

    def _write_timestamp(self, before: int, snapshot: Any, online: list[Any]) -> bytes:
        """Write the timestamp after another version: what devices see from then on. Returns its bytes."""
        from tuf.api.metadata import Timestamp

        made = Timestamp(version=before + 1, expires=self._in(TIMESTAMP_DAYS), snapshot_meta=snapshot)
        content = self._signed(made, online)
        self.store.write("timestamp.json", content)
        return content

    def _write_root(self, root: Root, signers: list[Any]) -> bytes:
        """Write the next root, signed. Returns its bytes."""
        root.version += 1
        content = self._signed(root, signers)
        try:
            self.store.create(f"{root.version}.root.json", content)
        except store.Taken:
            raise StorageError(f"{self.store}: somebody else changed the root", "type the command again") from None
        self._remember(content, None)
        return content

    def _root_signers(self, state: State, but: str = "") -> list[Any]:
        """Return keys of the root, as many as must sign."""
        keyids = [keyid for keyid in state.keyids("root") if keyid != but]
        return self.keys.needed("root", keyids, state.root.roles["root"].threshold)

    def _signed(self, signed: Any, signers: Sequence[Any]) -> bytes:
        from tuf.api.metadata import Metadata

        made = Metadata(signed)
        for signer in signers:
            made.sign(signer, append=True)
        return metadata.serialized(made)

    def _upload(self, found: Mapping[str, Path]) -> None:
        """Copy files into the folder that it does not have. found: name in the folder -> file."""
        for name, path in found.items():
            if self.store.size(name) != path.stat().st_size:
                self.store.upload(name, path)

    # Old releases.

    def _listed(self, state: State, name: str) -> tuple[Release, Mapping[str, Any]] | None:
        """Return a release and its targets, as the targets.json says whose number is in the release's id."""
        from tuf.api.metadata import Targets

        number = name[1:]
        content = self.store.read(f"{number}.targets.json") if name[:1] == "r" and number.isdecimal() else None
        if content is None or int(number) > state.targets.version:
            return None
        old = self._verified(state.root, "targets", content, Targets)
        release = Content.of(old.unrecognized_fields.get(metadata.FIELD)).releases.get(name)
        return None if release is None else (release, old.targets)

    # What is trusted, and the time.

    def _trusted(self) -> tuple[bytes | None, int]:
        """Return the root, and the timestamp's version, that this machine published last; None and 0: never."""
        for folder in self.keys.folders:
            if (folder / TRUSTED).is_file():
                document = files.load_document(folder / TRUSTED, 1, "root", "timestamp")
                return str(document["root"]).encode(), int(document["timestamp"])
        return None, 0

    def _remember(self, root: bytes, timestamp: bytes | None) -> None:
        """Keep what was published beside the keys: nobody can put an older folder in its place unseen."""
        if not self.keys.folders:
            return
        folder = next((each for each in self.keys.folders if (each / TRUSTED).is_file()), self.keys.folders[0])
        version = json.loads(timestamp)["signed"]["version"] if timestamp else self._trusted()[1]
        files.save_document(folder / TRUSTED, {"schema": 1, "root": root.decode(), "timestamp": version})

    def _in(self, days: int) -> datetime:
        return self._clock().replace(microsecond=0) + timedelta(days=days)

    def _is_soon(self, role: str, expires: datetime) -> bool:
        return expires - self._clock() < timedelta(days=SOON_DAYS[role])


def _switched(content: Content, channel: str, name: str, share: int) -> Content:
    """Return content in which a channel takes another release, and the rest of its devices what they had."""
    now = content.channels.get(channel)
    if now is None:
        before = ""
    elif now.release == name:
        before = now.previous
    else:
        before = now.release if now.rollout == ALL and now.release not in content.recalled else now.previous
    return content.with_channel(channel, Channel(name, "" if before == name else before, share))


def _without(content: Content, channel: str, release: str) -> Content:
    """Return content in which a channel takes the release before."""
    previous = content.channel(channel).previous
    if not previous or previous in content.recalled:
        raise MissingError(
            f"{channel} has no release before {release}",
            f"edgekit release promote ID {channel}, or edgekit release recall {release}",
        )
    return content.with_channel(channel, Channel(previous))


def _no_release(name: str, content: Content) -> NoReturn:
    """Raise the error for an unknown release."""
    known = ", ".join(content.releases) or "none"
    raise UsageError(f"there is no release {name!r}", f"in channels now: {known}")


def _share(percent: float) -> int:
    """Return percent as steps of 1/10,000."""
    share = round(percent * 100)
    if not 0 <= percent <= 100 or abs(share - percent * 100) > 1e-6:
        raise UsageError(f"{percent} is no share of devices", "0 to 100 percent, in steps of 0.01")
    return share


def _copy(signed: S) -> S:
    """Return a copy of the signed part of metadata."""
    return type(signed).from_dict(json.loads(json.dumps(signed.to_dict())))


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def import_tuf() -> None:
    """Check that python-tuf is installed.

    Raises:
        MissingError: it is not.
    """
    try:
        import securesystemslib  # noqa: F401
        import tuf  # noqa: F401
    except ImportError:
        raise MissingError(
            "releases need python-tuf, which is not installed", "pip install 'edgekit[release]'"
        ) from None

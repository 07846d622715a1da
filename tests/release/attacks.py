"""Attacks on a release folder: what an attacker makes of it, and what clients must answer.

`thief` signs with keys of its own; `stolen` with keys that it took from the publisher.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from edgekit.release.keys import Keys
from tests.release import site
from tests.release.folders import MODEL, NOW, Publisher, kits

DAY = 86_400


@dataclass(frozen=True)
class Attack:
    """What is served, and the right answers.

    Attributes:
        folders: one after another, for a check each, names of `Folders.made`. answers: of the checks: state, release,
            and a pattern of the reason. tuf: of TUF's other clients, "ok" or "refused" for each check; () where the
            attack is not on what TUF protects. tricks: of the web server. later: seconds after `NOW` of each check.
        options: more of the command line.
    """

    folders: tuple[str, ...]
    answers: tuple[tuple[str, str, str], ...]
    tuf: tuple[str, ...] = ()
    tricks: Mapping[str, Callable[[site.Handler], None]] = field(default_factory=dict)
    later: tuple[int, ...] = ()
    options: tuple[str, ...] = ()


_UPDATED = ("updated", "r3", "")
_CURRENT = ("current", "r3", "")
_FILE = rf"/targets/.*{re.escape(MODEL)}"

ATTACKS: dict[str, Attack] = {
    "none: an update": Attack(("old", "new", "new"), (("updated", "r2", ""), _UPDATED, _CURRENT), ("ok", "ok", "ok")),
    "none: a deliberate way back": Attack(("new", "back"), (_UPDATED, ("updated", "r2", "")), ("ok", "ok")),
    "none: a release is recalled": Attack(
        ("new", "recalled"), (_UPDATED, ("updated", "", "r3 was recalled")), ("ok",) * 2
    ),
    "none: refreshed": Attack(("new", "refreshed"), (_UPDATED, _CURRENT), ("ok", "ok")),
    "none: rotated keys": Attack(("old", "rotated"), (("updated", "r2", ""), ("updated", "r3", "")), ("ok", "ok")),
    "old metadata after new": Attack(
        ("new", "old"), (_UPDATED, ("refused", "", r"timestamp\.json: older")), ("ok", "refused")
    ),
    "old snapshot under a new timestamp": Attack(
        ("new", "old snapshot"), (_UPDATED, ("refused", "", r"timestamp\.json: older")), ("ok", "refused")
    ),
    "old targets under a new snapshot": Attack(
        ("new", "old targets"), (_UPDATED, ("refused", "", r"snapshot\.json: older")), ("ok", "refused")
    ),
    "freeze: an expired timestamp": Attack(
        ("new",), (("refused", "", r"timestamp\.json: expired"),), ("refused",), later=(15 * DAY,)
    ),
    "freeze: the clock is set back": Attack(
        ("old", "old", "old"),
        (("updated", "r2", ""), ("refused", "", r"timestamp\.json: expired"), ("refused", "", r"timestamp\.json: exp")),
        later=(0, 15 * DAY, DAY),
    ),
    "freeze: an expired snapshot": Attack(
        ("old snapshot expired",), (("refused", "", r"snapshot\.json: expired"),), ("refused",)
    ),
    "freeze: expired targets": Attack(
        ("targets expired",), (("refused", "", r"targets\.json: expired"),), ("refused",)
    ),
    "freeze: an expired root": Attack(
        ("new",), (("refused", "", r"root\.json: expired"),), ("refused",), later=(800 * DAY,)
    ),
    "mix and match": Attack(("mixed",), (("refused", "", r"targets\.json: not the file"),), ("refused",)),
    "changed model": Attack(("changed model",), (("refused", "", rf"{MODEL}: not the file"),), ("refused",)),
    "changed contract": Attack(
        ("changed contract",), (("refused", "", r"preprocess\.json: not the file"),), ("refused",)
    ),
    "changed labels": Attack(("changed labels",), (("refused", "", r"labels\.txt: not the file"),), ("refused",)),
    "a shorter model": Attack(("shorter model",), (("refused", "", rf"{MODEL}: not the file"),), ("refused",)),
    "a longer model": Attack(("longer model",), (("refused", "", "longer than it may be"),), ("refused",)),
    "a missing model": Attack(("missing model",), (("unreachable", "", MODEL),), ("refused",)),
    "a model for another device": Attack(("other device",), (("current", "", "r3 is not for"),)),
    "a model for another contract": Attack(("other contract",), (("current", "", "r3 needs contract 2"),)),
    "a model for a newer app": Attack(("newer app",), (("current", "", "r3 needs version 7 of the app"),)),
    "a model for this app": Attack(("newer app",), (("updated", "r3", ""),), options=("--app", "7")),
    "wrong keys": Attack(("thief",), (("refused", "", r"timestamp\.json: signed by 0 of 1"),), ("refused",)),
    "wrong keys for targets": Attack(
        ("thief's targets",), (("refused", "", r"targets\.json: signed by 0 of 1"),), ("refused",)
    ),
    "one of two signatures of the root": Attack(
        ("one root key",), (("refused", "", r"2\.root\.json: signed by 1 of 2"),), ("refused",)
    ),
    "one signature of the root twice": Attack(
        ("one root key twice",), (("refused", "", r"2\.root\.json: (signed by 1 of 2|not a file)"),), ("refused",)
    ),
    "a root of its own": Attack(("own root",), (("refused", "", r"2\.root\.json: signed by 0 of 2"),), ("refused",)),
    "a root that skips a version": Attack(
        ("skipped root",), (("refused", "", r"2\.root\.json: another version"),), ("refused",)
    ),
    "stolen online key: high numbers, then rotation": Attack(
        ("new", "high numbers", "healed"), (_UPDATED, _CURRENT, ("updated", "r4", "")), ("ok", "ok", "ok")
    ),
    "stolen online key: after rotation": Attack(
        ("healed", "stolen after"),
        (("updated", "r4", ""), ("refused", "", r"timestamp\.json: signed by 0")),
        ("ok", "refused"),
    ),
    "endless timestamp": Attack(
        ("new",),
        (("refused", "", r"timestamp\.json: longer than it may be"),),
        ("refused",),
        {"/timestamp.json": site.endless},
    ),
    "endless root": Attack(
        ("new",),
        (("refused", "", r"2\.root\.json: longer than it may be"),),
        ("refused",),
        {r"/2\.root\.json": site.endless},
    ),
    "padded snapshot": Attack(("padded",), (("refused", "", "longer than it may be"),), ("refused",)),
    "endless model": Attack(("new",), (("refused", "", "longer than it may be"),), ("refused",), {_FILE: site.endless}),
    "truncated model": Attack(("new",), (("unreachable", "", MODEL),), ("refused",), {_FILE: site.cut}),
    "truncated timestamp": Attack(
        ("new",), (("unreachable", "", "timestamp"),), ("refused",), {"/timestamp.json": site.cut}
    ),
    "slow timestamp": Attack(("new",), (("unreachable", "", "timestamp"),), (), {"/timestamp.json": site.stalled}),
    "slow model": Attack(("new",), (("unreachable", "", MODEL),), (), {_FILE: site.stalled}),
    "redirect of the timestamp": Attack(
        ("new",), (("unreachable", "", "timestamp"),), (), {"/timestamp.json": site.redirected}
    ),
    "redirect of the root": Attack(("new",), (("unreachable", "", "root"),), (), {r"/2\.root\.json": site.redirected}),
    "redirect of the model": Attack(("new",), (("unreachable", "", MODEL),), (), {_FILE: site.redirected}),
    "a broken server": Attack(("new",), (("unreachable", "", "500"),), ("refused",), {"/.*": site.failing}),
    "an unknown channel": Attack(("new",), (("refused", "", "no channel"),), options=("--channel", "gamma")),
    **{
        f"hostile names: {name}": Attack((f"name {name}",), (("refused", "", r"targets\.json"),))
        for name in ("up", "absolute", "backslash", "empty", "files.json", "hidden", "target", "nul")
    },
    **{
        f"hostile JSON: {name}": Attack((f"json {name}",), (("refused", "", r"timestamp\.json"),), tuf)
        for name, tuf in {
            "deep": (),
            "huge number": (),
            "a number with a point": (),
            "a key twice": (),
            "a space": (),
            "more after the end": ("refused",),
            "another escape": (),
            "no UTF-8": ("refused",),
            "a version that is a text": ("refused",),
            "no version": ("refused",),
            "empty": ("refused",),
            "a list": ("refused",),
        }.items()
    },
    "releases of a newer edgekit": Attack(("newer schema",), (("refused", "", "made by a newer edgekit"),)),
    "a hash that is none": Attack(("no hash",), (("refused", "", r"targets\.json"),)),
    "a rollout that is none": Attack(("no rollout",), (("refused", "", r"targets\.json"),)),
}


class Folders:
    """All folders that `ATTACKS` name, made once. `root` is what the apps trust."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.publisher = Publisher(scratch)
        self.root = self.publisher.root
        self.keys = Keys([self.publisher.keys])
        self.thief = CryptoSigner.generate_ecdsa()
        self._keep("old")
        self.publisher.add(2)
        self._keep("new")
        online, targets = self._signers("online"), self._signers("targets")
        thief = [self.thief]
        self._changes_of_files()
        self._forge("old snapshot", online, timestamp=lambda t: t["meta"].update(self._meta("old", "snapshot")))
        self._forge("old targets", online, snapshot=lambda s: s["meta"].update(self._meta("old", "targets")))
        gone = {"expires": (NOW - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}
        self._forge("old snapshot expired", online, snapshot=lambda s: s.update(gone))
        self._forge("targets expired", online, targets, change=lambda t: t.update(gone))
        self._forge("thief", thief, thief)
        self._forge("thief's targets", online, thief)
        self._roots()
        self._forge("high numbers", online, timestamp=lambda t: t.update(version=1_000_000))
        kind = "x-edgekit"
        release = lambda t: t[kind]["releases"]["r3"]  # noqa: E731
        self._forge("other device", online, targets, change=lambda t: (self._alone(t), release(t)["kits"].clear()))
        self._forge("other contract", online, targets, change=lambda t: (self._alone(t), release(t).update(contract=2)))
        self._forge("newer app", online, targets, change=lambda t: (self._alone(t), release(t).update(app=7)))
        self._forge("newer schema", online, targets, change=lambda t: t[kind].update(schema=2))
        self._forge(
            "no hash",
            online,
            targets,
            change=lambda t: [e.update(hashes={"sha256": "../x"}) for e in t["targets"].values()],
        )
        self._forge("no rollout", online, targets, change=lambda t: t[kind]["channels"]["stable"].update(rollout="all"))
        self._names(online, targets)
        self._json(online)
        self._later()

    def __getitem__(self, name: str) -> Path:
        return self.scratch / "made" / name

    def _signers(self, role: str) -> list[CryptoSigner]:
        root = json.loads(self.root)["signed"]
        return self.keys.signers(role, root["roles"]["timestamp" if role == "online" else role]["keyids"])

    def _keep(self, name: str) -> Path:
        """Keep a copy of what the publisher has now."""
        return shutil.copytree(self.publisher.folder, self[name])

    def _copy(self, name: str) -> Path:
        """Copy "new", for an attack."""
        return shutil.copytree(self["new"], self[name])

    def _meta(self, folder: str, role: str) -> dict[str, Any]:
        """Return how metadata names the newest snapshot or targets of a folder."""
        content, version = latest(self[folder], role)
        digest = hashlib.sha256(content).hexdigest()
        shutil.copy(self[folder] / f"{version}.{role}.json", self["new"])
        return {f"{role}.json": {"version": version, "length": len(content), "hashes": {"sha256": digest}}}

    def _changes_of_files(self) -> None:
        """Change files as somebody can who has the web server, but no keys."""
        for name, file, change in (
            ("changed model", MODEL, lambda b: b[:-1] + bytes([b[-1] ^ 1])),
            ("changed contract", "preprocess.json", lambda b: b.replace(b"32", b"64")),
            ("changed labels", "labels.txt", lambda b: b.replace(b"cat", b"dog", 1)),
            ("shorter model", MODEL, lambda b: b[:100]),
            ("longer model", MODEL, lambda b: b + b"x"),
        ):
            for path in self._copy(name).glob(f"targets/*/*.{file}"):
                path.write_bytes(change(path.read_bytes()))
        for path in self._copy("missing model").glob(f"targets/*/*.{MODEL}"):
            path.unlink()
        folder, (_, version) = self._copy("mixed"), latest(self["new"], "targets")
        shutil.copy(folder / f"{version - 1}.targets.json", folder / f"{version}.targets.json")
        folder, (_, version) = self._copy("padded"), latest(self["new"], "snapshot")
        with open(folder / f"{version}.snapshot.json", "ab") as file:
            file.write(b" " * 50_000_000)

    def _forge(
        self,
        name: str,
        online: list[CryptoSigner],
        targets: list[CryptoSigner] | None = None,
        change: Callable[[dict[str, Any]], Any] = lambda t: None,
        snapshot: Callable[[dict[str, Any]], Any] = lambda s: None,
        timestamp: Callable[[dict[str, Any]], Any] = lambda t: None,
        raw: Callable[[bytes], bytes] = lambda b: b,
    ) -> None:
        """Write a folder with changed metadata. targets: None: it stays as it is. raw: changes the timestamp."""
        folder = self._copy(name)
        t, s, n = (json.loads(latest(folder, role)[0])["signed"] for role in ("timestamp", "snapshot", "targets"))
        if targets is not None:
            n["version"] += 10
            change(n)
            content = sealed(canonical(n), targets)
            (folder / f"{n['version']}.targets.json").write_bytes(content)
            s["meta"]["targets.json"] = described(n["version"], content)
        s["version"] += 10
        snapshot(s)
        content = sealed(canonical(s), online)
        (folder / f"{s['version']}.snapshot.json").write_bytes(content)
        t["version"] += 10
        t["meta"]["snapshot.json"] = described(s["version"], content)
        timestamp(t)
        (folder / "timestamp.json").write_bytes(sealed(raw(canonical(t)), online))

    def _alone(self, targets: dict[str, Any]) -> None:
        """Leave no other release in the channel."""
        targets["x-edgekit"]["channels"]["stable"]["previous"] = ""

    def _roots(self) -> None:
        """Write second roots that are not right."""
        signers = self._signers("root")
        second = {**json.loads(self.root)["signed"], "version": 2}
        own = {
            **second,
            "roles": {**second["roles"], "root": {"keyids": [self.thief.public_key.keyid], "threshold": 1}},
        }
        own = {**own, "keys": {**second["keys"], self.thief.public_key.keyid: self.thief.public_key.to_dict()}}
        for name, root, by in (
            ("one root key", second, [signers[0], self.thief]),
            ("one root key twice", second, [signers[0], signers[0]]),
            ("own root", own, [self.thief]),
            ("skipped root", {**second, "version": 3}, signers[:2]),
        ):
            (self._copy(name) / "2.root.json").write_bytes(sealed(canonical(root), by))

    def _names(self, online: list[CryptoSigner], targets: list[CryptoSigner]) -> None:
        """Give files names that lead elsewhere. Whoever can do so has the key of targets."""
        for name, own in {
            "up": "../../evil",
            "absolute": "/tmp/evil",
            "backslash": "..\u2216evil",
            "empty": "",
            "files.json": "files.json",
            "hidden": ".profile",
            "nul": "a b",
        }.items():

            def change(t: dict[str, Any], own: str = own) -> None:
                for files in t["x-edgekit"]["releases"]["r3"]["kits"].values():
                    files[own] = files[MODEL]

            self._forge(f"name {name}", online, targets, change=change)

        def elsewhere(t: dict[str, Any]) -> None:
            for files in t["x-edgekit"]["releases"]["r3"]["kits"].values():
                t["targets"]["../../evil/model"] = t["targets"][files[MODEL]]
                files[MODEL] = "../../evil/model"

        self._forge("name target", online, targets, change=elsewhere)

    def _json(self, online: list[CryptoSigner]) -> None:
        """Sign what no JSON of metadata is."""
        end = b"}"
        for name, raw in {
            "deep": lambda b: b[:-1] + b',"x":' + b"[" * 3000 + b"]" * 3000 + end,
            "huge number": lambda b: b[:-1] + b',"x":' + b"9" * 400 + end,
            "a number with a point": lambda b: b[:-1] + b',"x":1.5' + end,
            "a key twice": lambda b: b[:-1] + b',"version":1' + end,
            "a space": lambda b: b[:-1] + b" " + end,
            "more after the end": lambda b: b + b"{" + end,
            "another escape": lambda b: b[:-1] + b',"x":"\\u0041"' + end,
            "no UTF-8": lambda b: b[:-1] + b',"x":"\xff\xfe"' + end,
            "a version that is a text": lambda b: re.sub(rb'"version":(\d+)}$', rb'"version":"\1"}', b),
            "no version": lambda b: re.sub(rb',"version":\d+}$', b"}", b),
            "empty": lambda b: b"{}",
            "a list": lambda b: b"[]",
        }.items():
            self._forge(f"json {name}", online, raw=raw)

    def _later(self) -> None:
        """Write what the publisher does next, each time from "new"."""
        publisher = self.publisher
        saved, keys = self._keep("saved"), shutil.copytree(publisher.keys, self.scratch / "saved-keys")

        def again() -> None:
            for now, before in ((publisher.folder, saved), (publisher.keys, keys)):
                shutil.rmtree(now)
                shutil.copytree(before, now)

        publisher.releases.back("stable")
        self._keep("back")
        again()
        publisher.releases.recall("r3")
        self._keep("recalled for r2")
        publisher.releases.recall("r2")
        self._keep("recalled")
        again()
        publisher.releases.rollout("stable", 25)
        self._keep("quarter")
        again()
        publisher.releases.refresh()
        self._keep("refreshed")
        again()
        for role in ("online", "targets"):
            publisher.releases.rotate(role, publisher.keys)
        publisher.releases.rotate("root", publisher.keys, publisher.releases.status().roles[0].keyids[0][:8])
        self._keep("rotated")
        again()
        stolen = self._signers("online")
        publisher.releases.rotate("online", publisher.keys)
        assert publisher.releases.add(kits(publisher.scratch, 4), "stable") == "r4"
        self._keep("healed")
        folder = shutil.copytree(publisher.folder, self["stolen after"])
        t = json.loads((folder / "timestamp.json").read_bytes())["signed"]
        t["version"] += 5
        (folder / "timestamp.json").write_bytes(sealed(canonical(t), stolen))


def latest(folder: Path, role: str) -> tuple[bytes, int]:
    """Return the newest metadata of a role in a folder, and its version."""
    timestamp = (folder / "timestamp.json").read_bytes()
    if role == "timestamp":
        return timestamp, json.loads(timestamp)["signed"]["version"]
    version = json.loads(timestamp)["signed"]["meta"]["snapshot.json"]["version"]
    content = (folder / f"{version}.snapshot.json").read_bytes()
    if role == "targets":
        version = json.loads(content)["signed"]["meta"]["targets.json"]["version"]
        content = (folder / f"{version}.targets.json").read_bytes()
    return content, version


def canonical(value: Any) -> bytes:
    """Return canonical JSON with newlines as they are, which is what is signed."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode().replace(b"\\n", b"\n")


def sealed(signed: bytes, signers: list[CryptoSigner]) -> bytes:
    """Return a file of metadata."""
    pairs = [{"keyid": s.public_key.keyid, "sig": s.sign(signed).signature} for s in signers]
    signatures = json.dumps(pairs, separators=(",", ":"), sort_keys=True).encode()
    return b'{"signatures":' + signatures + b',"signed":' + signed.replace(b"\n", b"\\n") + b"}"


def described(version: int, content: bytes) -> dict[str, Any]:
    """Return how metadata names other metadata."""
    return {"version": version, "length": len(content), "hashes": {"sha256": hashlib.sha256(content).hexdigest()}}

#!/usr/bin/env python3
"""Takes new models from the release folder that updates.json names, and keeps them only if they are right.

    python3 updates.py --state DIR check     take a new release, if there is one, and test it on this machine
    python3 updates.py --state DIR start     print the folder of the model to use now; counts as a start
    python3 updates.py --state DIR good      the model gave a good answer

In your program:

    from classifier import Classifier
    from updates import Updates

    updates = Updates("/var/lib/my_app/model")       # a folder of this program alone
    model = Classifier(updates.start())              # the newest release that is here, or the kit's own model
    answers = model.classify("photo.jpg")
    updates.good()                                   # without it, the second start is the release's last
    print(updates.check())                           # in the background, every few hours: for the next start

The release folder is a TUF repository (theupdateframework.io): nothing is parsed before its signatures are verified,
and neither the web server nor the network can bring in another model, an old one, or half of one. Needs the package
`cryptography`. Python 3.8 or newer. Made by edgekit; it imports nothing of it.
"""

from __future__ import annotations

import argparse
import calendar
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT_TURNS = 256  # new roots in one check
MOST_SMALL = 1 << 16  # bytes of a root, timestamp or snapshot
MOST_TARGETS = 8 << 20
MOST_RELEASE = 2 << 30
MOST_FILES = 256  # of a release
DEPTH = 32  # of JSON
WHOLE_ROLLOUT = 10_000
_METADATA_SECONDS = 60
_BYTES_PER_SECOND = 10_000  # a file may take a second for so many, and a minute more
_PAIR = rb'\{"keyid":"[0-9a-f]{64}","sig":"(?:[0-9a-f]{2}){0,256}"\}'
_ENVELOPE = re.compile(
    rb'\{"signatures":\[((?:' + _PAIR + rb"(?:," + _PAIR + rb')*)?)\],"signed":(\{.*\})\}', re.DOTALL
)
_SIGNATURE = re.compile(rb'"keyid":"([0-9a-f]{64})","sig":"([0-9a-f]*)"')
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}")
_TARGET = re.compile(r"[0-9a-f]{16}/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_EMPTY: dict[str, Any] = {
    "schema": 1,
    "built": "",  # hash of the kit's own model: another one after an update of the program
    "id": "",  # drawn here, for staged rollouts; never sent
    "timestamp": 0,  # versions of the metadata that was seen last
    "snapshot": 0,
    "targets": 0,
    "keys": "",  # ids of the keys under which those versions were accepted
    "clock": 0,  # seconds: it was at least so late
    "settled": "",  # what the last whole check saw
    "active": "",  # release in use; "" is the kit's own model
    "trying": False,
    "starts": 0,  # of a release that is being tried
    "previous": "",
    "barred": [],
    "testing": "",  # release in its self-test, and how often that was begun
    "tests": 0,
}


class Outcome(NamedTuple):
    """Answer of a check.

    state: "current": nothing to do. "updated": the next start uses `release`, "" for the kit's own model. "refused":
    something is wrong, and nothing changed. "unreachable": the network, the server or the disk failed, and nothing
    changed. "busy": another check is running. reason: in words.
    """

    state: str
    release: str = ""
    reason: str = ""


class Refused(Exception):
    """Error: what was published is not right."""


class Unreachable(Exception):
    """Error: what was published could not be had, or not be written."""


class Busy(Exception):
    """Another check is running."""


class SelfTestFailed(Exception):
    """A release is not right on this machine."""


class Updates:
    """The releases of a model on this machine.

    Args:
        state: folder for releases and what is known of them; of one program. kit: folder with the program's own model,
            updates.json and root.json. app: version of your program; releases may ask for a least one. channel, url:
            instead of those of updates.json. self_test: a program that is called with the folder of a release, and
            succeeds if that is right here; default: the kit's classifier.py compares it with its golden set.
        timeout: seconds without a byte. test_seconds: that a self-test may take.

    Raises:
        ValueError: the kit takes no updates: it has no updates.json, or no address of a website in it.
    """

    def __init__(
        self,
        state: str | Path,
        kit: str | Path = HERE,
        app: int = 0,
        channel: str = "",
        url: str = "",
        self_test: str = "",
        timeout: float = 15,
        test_seconds: float = 300,
    ) -> None:
        self.state, self.kit, self.app = Path(state), Path(kit), app
        try:
            settings = json.loads((self.kit / "updates.json").read_text(encoding="utf-8"))
        except OSError:
            raise ValueError(f"{self.kit} takes no updates: it has no updates.json") from None
        self.url = (url or str(settings["url"])).rstrip("/")
        self.channel, self.kind = channel or str(settings["channel"]), str(settings["kit"])
        if not re.match("https?://", self.url):
            raise ValueError(f"{self.url} is no address of a website")
        self.contract, self.built = int(settings["contract"]), str(settings["built"])
        self.timeout, self.test_seconds = timeout, test_seconds
        self._self_test = self_test

    # The program's part.

    def start(self) -> Path:
        """Return the folder of the model to use now. Call it once a start: a release that is new counts its starts."""
        try:
            with self._changing() as now:
                if now["trying"] and now["starts"] >= 2:
                    _bar(now, now["active"])
                    _fall_back(now)
                while now["active"] and not _is_whole(self._folder(now["active"])):
                    shutil.rmtree(
                        self._folder(now["active"]), ignore_errors=True
                    )  # after a power cut: it can come again
                    _fall_back(now)
                now["starts"] += 1 if now["trying"] else 0
                active: str = now["active"]
        except OSError:  # the state cannot be written: then starts cannot be counted, and nothing is tried
            now = self._read()
            active = now["previous"] if now["trying"] else now["active"]
            if active and not _is_whole(self._folder(active)):
                active = ""
        return self._folder(active) if active else self.kit

    def good(self) -> None:
        """Say that the model gave a good answer: a release that was tried stays."""
        with contextlib.suppress(OSError), self._changing() as now:
            if now["starts"] > 0:  # else it came while this program used the one before
                now["trying"], now["starts"] = False, 0

    def check(self, now: float | None = None) -> Outcome:
        """Take the release that is meant for this machine, if it is not here yet. It raises nothing, but takes a while.

        Args:
            now: seconds since 1970; default: the clock.
        """
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            with _locked(self.state / "update.lock", wait=False):
                return self._check(time.time() if now is None else now)
        except Busy:
            return Outcome("busy", "", "another check is running")
        except Refused as why:
            return Outcome("refused", "", str(why))
        except Unreachable as why:
            return Outcome("unreachable", "", str(why))
        except ImportError as error:
            return Outcome("unreachable", "", f"{error}: pip install cryptography")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Outcome("unreachable", "", f"no space left in {self.state}")
            return Outcome("unreachable", "", f"{self.state}: {error.strerror or error}")

    # A check.

    def _check(self, now: float) -> Outcome:
        clock = max(int(now), self._read()["clock"])
        root = self._newest_root(clock)
        keys = _keys(root)
        with self._changing() as state:
            if state["keys"] != keys:  # the high numbers of a thief do not stay
                state["timestamp"] = state["snapshot"] = state["targets"] = 0
                state["keys"] = keys
            seen = dict(state)
        timestamp = _verified(root, "timestamp", self._metadata("timestamp.json", MOST_SMALL))
        named = timestamp["meta"]["snapshot.json"]
        self._fresh("timestamp", timestamp, clock)
        if timestamp["version"] < seen["timestamp"] or named["version"] < seen["snapshot"]:
            raise Refused("timestamp.json: older than the last one")
        self._remember(timestamp=timestamp["version"])
        settled = f"{named['version']} {self.app} {self.channel} {self.built}"
        if seen["settled"] == settled:
            return Outcome("current", seen["active"])
        snapshot = self._named(root, "snapshot", named, MOST_SMALL)
        named = snapshot["meta"]["targets.json"]
        if named["version"] < seen["targets"]:
            raise Refused("snapshot.json: older than the last one")
        self._fresh("snapshot", snapshot, clock)
        self._remember(snapshot=snapshot["version"])
        targets = self._named(root, "targets", named, MOST_TARGETS)
        self._fresh("targets", targets, clock)
        self._remember(targets=targets["version"], clock=clock)
        try:
            outcome = self._take(targets)
        except SelfTestFailed as why:
            return Outcome("refused", "", f"self-test: {why}")
        self._remember(settled=settled)
        return outcome

    def _newest_root(self, clock: int) -> dict[str, Any]:
        """Return the root of now, reached step by step from the one that is trusted."""
        root = self._trusted_root()
        for _ in range(ROOT_TURNS):
            name = f"{root['version'] + 1}.root.json"
            content = self._fetch(name, MOST_SMALL, _METADATA_SECONDS)
            if content is None:
                break
            following = _verified(root, "root", content, name)
            if _verified(following, "root", content, name)["version"] != root["version"] + 1:
                raise Refused(f"{name}: another version")
            _write(self.state / "root.json", content)
            root = following
        if _seconds(root["expires"]) <= clock:
            raise Refused("root.json: expired")
        return root

    def _trusted_root(self) -> dict[str, Any]:
        """Return the newest root that was trusted: the one here, or the kit's, if that is newer or this is damaged."""
        own = _parsed(_taken_apart((self.kit / "root.json").read_bytes(), "root.json")[1], "root.json")
        try:
            kept = _parsed(_taken_apart((self.state / "root.json").read_bytes(), "root.json")[1], "root.json")
            return kept if kept["version"] > own["version"] else own
        except (OSError, Refused, KeyError, TypeError):
            return own

    def _metadata(self, name: str, most: int) -> bytes:
        content = self._fetch(name, most, _METADATA_SECONDS)
        if content is None:
            raise Unreachable(f"{name}: not there")
        return content

    def _named(self, root: dict[str, Any], role: str, named: dict[str, Any], most: int) -> dict[str, Any]:
        """Return metadata that other metadata names."""
        content = self._metadata(f"{named['version']}.{role}.json", min(named["length"], most))
        if hashlib.sha256(content).hexdigest() != named["hashes"]["sha256"]:
            raise Refused(f"{role}.json: not the file that was published")
        found = _verified(root, role, content)
        if found["version"] != named["version"]:
            raise Refused(f"{role}.json: another version")
        return found

    def _fresh(self, role: str, signed: dict[str, Any], clock: int) -> None:
        """Refuse what has expired, and remember that it is so late: a clock that is set back does not revive it."""
        expires = _seconds(signed["expires"])
        if expires <= clock:
            if role in ("timestamp", "snapshot"):
                self._remember(clock=max(self._read()["clock"], expires))
            raise Refused(f"{role}.json: expired")

    def _take(self, targets: dict[str, Any]) -> Outcome:
        """Take the release of the channel that is for this machine."""
        published = _checked(targets)
        if self.channel not in published["channels"]:
            raise Refused(f"there is no channel {self.channel}")
        state = self._read()
        chosen, reason = self._chosen(published, state)
        if not chosen:
            if state["active"] and (state["active"] in published["recalled"] or state["active"] in state["barred"]):
                return self._leave(published["recalled"], f"{state['active']} was recalled")
            return Outcome("current", state["active"], reason)
        if chosen == state["active"]:
            return Outcome("current", chosen, reason)
        self._download(chosen, published["releases"][chosen]["kits"][self.kind], targets["targets"], state)
        self._test(chosen)
        with self._changing() as state:
            if state["active"] in published["recalled"]:
                state["previous"] = ""
            elif state["active"] and not state["trying"]:
                state["previous"] = state["active"]
            state.update(active=chosen, trying=True, starts=0, testing="", tests=0)
            kept = {state["active"], state["previous"]}
        self._clean(kept)
        return Outcome("updated", chosen, reason)

    def _chosen(self, published: dict[str, Any], state: dict[str, Any]) -> tuple[str, str]:
        """Return the release that this machine takes, "" for none, and why it takes no other."""
        channel = published["channels"][self.channel]
        place = int(hashlib.sha256(f"{channel['release']}\n{state['id']}".encode()).hexdigest()[:8], 16)
        wanted = [channel["release"]] if place % WHOLE_ROLLOUT < channel["rollout"] else []
        reasons = []
        for name in [*wanted, channel["previous"]]:
            if not name:
                continue
            release = published["releases"].get(name)
            if release is None:
                reasons.append(f"{name} is not described")
            elif name in published["recalled"]:
                reasons.append(f"{name} was recalled")
            elif name in state["barred"]:
                reasons.append(f"{name} failed here before")
            elif self.kind not in release["kits"]:
                reasons.append(f"{name} is not for {self.kind}")
            elif release["app"] > self.app:
                reasons.append(f"{name} needs version {release['app']} of the app")
            elif release["contract"] > self.contract:
                reasons.append(f"{name} needs contract {release['contract']}")
            else:
                return name, "; ".join(reasons)
        return "", "; ".join(reasons)

    def _leave(self, recalled: list[str], reason: str) -> Outcome:
        """Leave a release that was recalled, for the one before, or the kit's own model."""
        with self._changing() as state:
            before = state["previous"]
            usable = before and before not in recalled and before not in state["barred"]
            state.update(active=before if usable else "", previous="", trying=False, starts=0)
            return Outcome("updated", state["active"], reason)

    def _download(self, name: str, names: dict[str, str], targets: dict[str, Any], state: dict[str, Any]) -> None:
        """Write the files of a release into a folder beside the others, which appears whole."""
        wanted: dict[str, dict[str, Any]] = {}
        for own, target in names.items():
            entry = targets[target]
            wanted[own] = {"length": entry["length"], "sha256": entry["hashes"]["sha256"]}
        if sum(each["length"] for each in wanted.values()) > MOST_RELEASE:
            raise Refused(f"{name} has more than {MOST_RELEASE} bytes")
        if _is_whole(self._folder(name)):
            return
        part = self._folder(f".{name}.part")
        try:
            for other in self._folder("").glob(".*.part"):
                if other != part:
                    shutil.rmtree(other, ignore_errors=True)
            here = [self.kit, *(self._folder(each) for each in (state["active"], state["previous"]) if each)]
            for own, each in wanted.items():
                path = part / own
                path.parent.mkdir(parents=True, exist_ok=True)
                if not _is(path, each) and not _copied([folder / own for folder in here], path, each):
                    self._load(own, names[own], each, path)
            _write(part / "files.json", json.dumps(wanted).encode())
            shutil.rmtree(self._folder(name), ignore_errors=True)
            for folder in {path.parent for path in part.rglob("*")}:
                _sync(folder)
            os.replace(part, self._folder(name))
            _sync(self._folder(""))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                shutil.rmtree(part, ignore_errors=True)
            raise

    def _load(self, own: str, target: str, wanted: dict[str, Any], path: Path) -> None:
        """Fetch a file of a release."""
        folder, _, file = target.rpartition("/")
        seconds = _METADATA_SECONDS + wanted["length"] / _BYTES_PER_SECOND
        content = self._fetch(f"targets/{folder}/{wanted['sha256']}.{file}", wanted["length"], seconds)
        if content is None:
            raise Unreachable(f"{own}: not there")
        if len(content) != wanted["length"] or hashlib.sha256(content).hexdigest() != wanted["sha256"]:
            raise Refused(f"{own}: not the file that was released")
        _write(path, content)

    def _test(self, name: str) -> None:
        """Test a release on this machine. One that fails, or ends this program twice, is barred."""
        with self._changing() as state:
            tests = state["tests"] if state["testing"] == name else 0
            if tests >= 2:
                _bar(state, name)
            else:
                state.update(testing=name, tests=tests + 1)
        if tests >= 2:
            shutil.rmtree(self._folder(name), ignore_errors=True)
            raise SelfTestFailed("it crashed or hung")
        try:
            problem = self._problem(self._folder(name))
        except (OSError, Unreachable) as why:  # the test did not run, which says nothing of the release
            with self._changing() as state:
                state["tests"] -= 1
            raise Unreachable(f"self-test: {why}") from None
        if problem:
            with self._changing() as state:
                _bar(state, name)
            shutil.rmtree(self._folder(name), ignore_errors=True)
            raise SelfTestFailed(problem)

    def _problem(self, folder: Path) -> str:
        """Return what the self-test finds wrong; "" for nothing.

        Raises:
            OSError, Unreachable: it cannot run.
        """
        own = [sys.executable, str(HERE / "classifier.py"), "--check", "--json", "--kit"]
        command = [*([self._self_test] if self._self_test else own), str(folder)]
        started = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said, errors = started.communicate(timeout=self.test_seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, 9)
            started.communicate()
            return f"it took more than {self.test_seconds:g} s"
        lines = [line.strip() for line in f"{said}\n{errors}".splitlines() if line.strip()]
        last = (lines or [f"exit status {started.returncode}"])[-1][:300]
        if self._self_test:
            return last if started.returncode else ""
        try:
            levels = {each["level"]: each for each in json.loads(said)}
            wrong = [each for each in levels.values() if each["problems"]]
            scores = levels["tensor to scores"]
        except (ValueError, KeyError, TypeError):
            return last
        if wrong:
            return f"{wrong[0]['level']}: {wrong[0]['cause'] or wrong[0]['problems'][0]}"
        if scores["skipped"] or not scores["checked"]:
            raise Unreachable(scores["skipped"] or "the golden set has no scores")
        return ""

    def _clean(self, kept: set[str]) -> None:
        """Remove releases that are not used any more."""
        for path in self._folder("").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    # The network.

    def _fetch(self, name: str, most: int, seconds: float) -> bytes | None:
        """Return a file of the release folder; None where there is none.

        Raises:
            Refused: it has more than `most` bytes. Unreachable: it cannot be had within `seconds`.
        """
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def load() -> None:
            try:
                answers.put(self._answer(name, most, time.monotonic() + seconds))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=load, daemon=True).start()  # a server may send its headers for ever
        try:
            found = answers.get(timeout=seconds)
        except queue.Empty:
            raise Unreachable(f"{name}: it took more than {seconds:.0f} s") from None
        if isinstance(found, (Refused, Unreachable)):
            raise found
        if isinstance(found, Exception):
            raise Unreachable(f"{name}: {getattr(found, 'reason', found)}")
        return found

    def _answer(self, name: str, most: int, end: float) -> bytes | None:
        headers = {"User-Agent": "edgekit", "Accept-Encoding": "identity"}
        request = urllib.request.Request(f"{self.url}/{name}", headers=headers)  # noqa: S310  http, as checked above
        try:
            answer = urllib.request.build_opener(_NoRedirects).open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            if error.code in (403, 404, 410):  # object stores answer 403 where there is nothing
                return None
            kind = "a redirect, " if 300 <= error.code < 400 else ""
            raise Unreachable(f"{name}: {kind}HTTP status {error.code}") from None
        content = bytearray()
        with answer:
            while block := answer.read1(1 << 16):
                content += block
                if len(content) > most:
                    raise Refused(f"{name}: longer than it may be")
                if time.monotonic() > end:
                    raise Unreachable(f"{name}: too slow")
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) != len(content):
            raise Unreachable(f"{name}: the connection broke")
        return bytes(content)

    # What is known here.

    def _folder(self, name: str) -> Path:
        return self.state / "releases" / name if name else self.state / "releases"

    def _read(self) -> dict[str, Any]:
        """Return the state. A damaged one is a new one: the kit's own model is in use then."""
        try:
            found = json.loads((self.state / "state.json").read_text(encoding="utf-8"))
            made = {name: found[name] for name in _EMPTY}
            if any(type(made[name]) is not type(value) for name, value in _EMPTY.items()) or made["schema"] != 1:
                raise ValueError
            ids = [made[name] for name in ("active", "previous", "testing") if made[name]]
            if not all(_NAME.fullmatch(name) for name in ids):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            made = {**_EMPTY, "barred": [], "id": secrets.token_hex(16)}
        if made["built"] != self.built:  # the program was updated: its own model is newer than what was here
            made.update(
                built=self.built, active="", previous="", trying=False, starts=0, settled="", testing="", tests=0
            )
        return made

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Yield the state, which is written afterwards if it was changed."""
        self._folder("").mkdir(parents=True, exist_ok=True)
        with _locked(self.state / "state.lock", wait=True):
            state = self._read()
            yield state
            content = json.dumps(state, indent=1).encode()
            path = self.state / "state.json"
            if not path.is_file() or path.read_bytes() != content:
                _write(path, content)

    def _remember(self, **values: Any) -> None:
        with self._changing() as state:
            state.update(values)


# Changes of the state.


def _bar(state: dict[str, Any], name: str) -> None:
    """Never take a release again."""
    if name not in state["barred"]:
        state["barred"].append(name)
    state.update(settled="", testing="", tests=0)


def _fall_back(state: dict[str, Any]) -> None:
    """Use the release before."""
    state.update(active=state["previous"], previous="", trying=False, starts=0, settled="")


# Metadata: TUF's, with ECDSA on P-256.


def _taken_apart(content: bytes, name: str) -> tuple[list[tuple[str, bytes]], bytes]:
    """Return the signatures (key id, DER) of a file of metadata, and the bytes that were signed."""
    found = _ENVELOPE.fullmatch(content)
    if found is None or b"\\" in found[2].replace(b"\\n", b""):
        raise Refused(f"{name}: not a file of metadata")
    pairs = [(each[1].decode(), bytes.fromhex(each[2].decode())) for each in _SIGNATURE.finditer(found[1])]
    if len(pairs) > 16:
        raise Refused(f"{name}: too many signatures")
    return pairs, found[2].replace(b"\\n", b"\n")


def _parsed(signed: bytes, name: str) -> dict[str, Any]:
    """Parse what was signed: canonical JSON, and no other."""

    def whole(digits: str) -> int:
        if len(digits) > 16:
            raise ValueError("a number is too long")
        return int(digits)

    try:
        value = json.loads(signed.replace(b"\n", b"\\n").decode("utf-8"), parse_int=whole)
        if _canonical(value) != signed:
            raise ValueError("it is not in its canonical form")
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name}: not the JSON of metadata: {error}") from None
    return value


def _canonical(value: Any, depth: int = 0) -> bytes:
    """Return canonical JSON, in which every value has one form."""
    if depth > DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        pairs = (_canonical(name, depth) + b":" + _canonical(value[name], depth + 1) for name in sorted(value))
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(_canonical(each, depth + 1) for each in value) + b"]"
    if isinstance(value, str):
        return b'"' + value.encode() + b'"'
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value).encode()
    raise ValueError("it has a number with a point")


def _verified(by: dict[str, Any], role: str, content: bytes, name: str = "") -> dict[str, Any]:
    """Return what metadata says, if enough keys signed it that a root names for the role."""
    name = name or f"{role}.json"
    pairs, signed = _taken_apart(content, name)
    try:
        keyids, threshold = by["roles"][role]["keyids"], by["roles"][role]["threshold"]
        good = {keyid for keyid, der in pairs if keyid in keyids and _is_signed(by["keys"][keyid], der, signed)}
        if not 0 < threshold <= len(good):
            raise Refused(f"{name}: signed by {len(good)} of {threshold}")
        found = _parsed(signed, name)
        if found["_type"] != role or not isinstance(found["version"], int) or found["version"] < 1:
            raise Refused(f"{name}: of another kind")
        _checked_form(role, found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refused(f"{name}: it has another form ({error})") from None
    return found


def _is_signed(key: dict[str, Any], signature: bytes, signed: bytes) -> bool:
    """Return whether a key made a signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.backends import default_backend
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if (key["keytype"], key["scheme"]) != ("ecdsa", "ecdsa-sha2-nistp256"):
        return False
    public = load_pem_public_key(key["keyval"]["public"].encode(), default_backend())
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        return False
    try:
        public.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _checked_form(role: str, signed: dict[str, Any]) -> None:
    """Check that the fields that are read later have their types."""
    _seconds(signed["expires"])
    for name in {"timestamp": ["snapshot.json"], "snapshot": ["targets.json"]}.get(role, []):
        meta = signed["meta"][name]
        if type(meta["version"]) is not int or type(meta["length"]) is not int or meta["version"] < 1:
            raise ValueError(name)
        if not re.fullmatch("[0-9a-f]{64}", meta["hashes"]["sha256"]):
            raise ValueError(name)


def _keys(root: dict[str, Any]) -> str:
    """Return the ids of the keys of all roles but the root."""
    return ";".join(f"{r}:{','.join(sorted(root['roles'][r]['keyids']))}" for r in ("timestamp", "snapshot", "targets"))


def _seconds(text: str) -> int:
    """Return a time of metadata as seconds since 1970."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", text):
        raise ValueError(f"{text!r} is no time")
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def _checked(targets: dict[str, Any]) -> dict[str, Any]:
    """Return the releases and channels, if all of it has the form that it must have."""
    try:
        published: dict[str, Any] = targets["x-edgekit"]
        if published["schema"] != 1:
            raise Refused(f"targets.json: made by a newer edgekit (schema {published['schema']})")
        for name, channel in published["channels"].items():
            named = [channel["release"], *([channel["previous"]] if channel["previous"] else [])]
            if not all(_NAME.fullmatch(each) for each in [name, *named]) or type(channel["rollout"]) is not int:
                raise ValueError(name)
        if not all(_NAME.fullmatch(name) for name in published["recalled"]):
            raise ValueError("recalled")
        for name, release in published["releases"].items():
            if not _NAME.fullmatch(name) or type(release["app"]) is not int or type(release["contract"]) is not int:
                raise ValueError(name)
            for files in release["kits"].values():
                if len(files) > MOST_FILES:
                    raise ValueError(f"{name} has too many files")
                for own, target in files.items():
                    _check_file(own, target, targets["targets"][target])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refused(f"targets.json: it has another form ({error})") from None
    return published


def _check_file(own: str, target: str, entry: dict[str, Any]) -> None:
    """Check the name and the description of a file: it leads nowhere but into the release's folder."""
    if not _FILE.fullmatch(own) or own == "files.json" or not _TARGET.fullmatch(target):
        raise ValueError(f"{own!r} is no name of a file")
    if type(entry["length"]) is not int or entry["length"] < 0:
        raise ValueError(own)
    if not re.fullmatch("[0-9a-f]{64}", entry["hashes"]["sha256"]):
        raise ValueError(own)


# Files.


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: it could lead to another host."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def _is(path: Path, wanted: dict[str, Any]) -> bool:
    """Return whether a file has a length and a hash."""
    try:
        if path.stat().st_size != wanted["length"]:
            return False
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == wanted["sha256"]
    except OSError:
        return False


def _is_whole(folder: Path) -> bool:
    """Return whether a release is there with all of its files as they were released."""
    try:
        wanted = json.loads((folder / "files.json").read_text(encoding="utf-8"))
        return bool(wanted) and all(
            _FILE.fullmatch(name) is not None and _is(folder / name, each) for name, each in wanted.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _copied(sources: list[Path], path: Path, wanted: dict[str, Any]) -> bool:
    """Copy a file that is here already under the same name."""
    for source in sources:
        if _is(source, wanted):
            _write(path, source.read_bytes())
            return True
    return False


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the power is cut."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Write the names of a folder's files to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold a lock, which ends with the process."""
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Busy from None
        yield


def main() -> int:
    """Run commands, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description="Take new models from the release folder that updates.json names.")
    parser.add_argument("commands", nargs="+", choices=["check", "start", "good"], metavar="check|start|good")
    parser.add_argument("--state", required=True, type=Path, help="folder for releases, of this program alone")
    parser.add_argument("--kit", type=Path, default=HERE, help="with the program's own model; default: this folder")
    parser.add_argument("--url", default="", help="of the release folder; default: that of updates.json")
    parser.add_argument("--channel", default="", help="default: that of updates.json")
    parser.add_argument("--app", type=int, default=0, help="version of the program")
    parser.add_argument("--now", type=float, default=None, help="seconds since 1970; default: the clock")
    parser.add_argument("--timeout", type=float, default=15, help="seconds without a byte")
    parser.add_argument("--test", default="", help="program for the self-test; default: the golden set")
    parser.add_argument("--test-seconds", type=float, default=300, help="that the self-test may take")
    given = parser.parse_args()
    updates = Updates(
        given.state, given.kit, given.app, given.channel, given.url, given.test, given.timeout, given.test_seconds
    )
    actions: dict[str, Callable[[], dict[str, str]]] = {
        "check": lambda: updates.check(given.now)._asdict(),
        "start": lambda: _started(updates.start(), updates.kit),
        "good": lambda: _good(updates),
    }
    for command in given.commands:
        print(json.dumps({"did": command, **actions[command]()}), flush=True)
    return 0


def _good(updates: Updates) -> dict[str, str]:
    updates.good()
    return {}


def _started(folder: Path, kit: Path) -> dict[str, str]:
    return {"release": "" if folder == kit else folder.name, "folder": str(folder)}


if __name__ == "__main__":
    sys.exit(main())

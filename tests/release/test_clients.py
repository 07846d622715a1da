"""What every client does on its own machine: starts, self-tests, kills, power cuts, full disks, two at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release import site as sites
from tests.release.attacks import Folders
from tests.release.clients import PASSES, answers
from tests.release.folders import MODEL, SECONDS, model_files, write_app
from tests.release.site import Site

KILLS = 50


class Device:
    """A device of a client, with an app on it."""

    def __init__(self, given: tuple[str, list[str]], site: Site, folders: Folders, scratch: Path) -> None:
        self.kind, self.program = given
        self.site, self.state = site, scratch / "state"
        self.app = write_app(scratch / "app", self.kind, site.url, folders.root)
        self.test = PASSES

    def arguments(self, *commands: str) -> list[str]:
        """Return the whole command line."""
        fixed = ["--kit", self.app, "--state", self.state, "--test", self.test, "--now", SECONDS, "--timeout", 2]
        return [*self.program, *map(str, fixed), "--test-seconds", "3", *commands]

    def run(self, *commands: str) -> list[dict[str, str]]:
        """Run commands, and return what they answered."""
        return answers(self.arguments(*commands))

    def states(self, *commands: str) -> list[tuple[str, str]]:
        """Run commands, and return the state and release of each answer."""
        return [(each.get("state", each["did"]), each.get("release", "")) for each in self.run(*commands)]

    def used(self) -> str:
        """Return the release that a good start uses, whose files must be whole."""
        return self.whole(self.run("start", "good")[0])

    def goes_on(self) -> tuple[str, tuple[str, str], str]:
        """Return the release of a good start, the answer of a check after it, and the next start's release."""
        first, _, check, last, _ = self.run("start", "good", "check", "start", "good")
        return self.whole(first), (check["state"], check["release"]), self.whole(last)

    def whole(self, started: dict[str, str]) -> str:
        """Return the release of a start, whose files must be whole."""
        number = {"": 0, "r2": 1, "r3": 2}[started["release"]]
        folder = Path(started["folder"]) if started["release"] else self.app
        for name, content in model_files(number).items():
            assert (folder / name).read_bytes() == content, name
        return started["release"]


@pytest.fixture
def device(client: tuple[str, list[str]], folders: Folders, tmp_path: Path) -> Iterator[Device]:
    with Site(folders["old"]) as site:
        yield Device(client, site, folders, tmp_path)


def script(folder: Path, text: str) -> str:
    """Write a self-test. Returns its path."""
    path = folder / "self-test"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_release_is_tried_and_stays(device: Device, folders: Folders) -> None:
    assert device.states("start", "check", "start", "good", "start", "start", "start", "check") == [
        ("start", ""),
        ("updated", "r2"),
        ("start", "r2"),
        ("good", ""),
        ("start", "r2"),
        ("start", "r2"),
        ("start", "r2"),
        ("current", "r2"),
    ]
    assert device.used() == "r2"
    device.site.folders = [folders["new"]]
    assert device.states("check", "start", "good", "check") == [
        ("updated", "r3"),
        ("start", "r3"),
        ("good", ""),
        ("current", "r3"),
    ]
    assert sorted(path.name for path in (device.state / "releases").iterdir()) == ["r2", "r3"]
    device.site.folders = [folders["back"]]
    assert device.states("check", "start") == [("updated", "r2"), ("start", "r2")]


def test_two_bad_starts_bring_the_release_before_back(device: Device, folders: Folders) -> None:
    assert device.states("check", "start", "good")[0] == ("updated", "r2")
    device.site.folders = [folders["new"]]
    assert device.states("check", "start", "start", "start", "check", "start") == [
        ("updated", "r3"),
        ("start", "r3"),
        ("start", "r3"),
        ("start", "r2"),
        ("current", "r2"),
        ("start", "r2"),
    ]
    assert "failed here before" in device.run("check")[0]["reason"] or device.states("check") == [("current", "r2")]
    assert json.loads((device.state / "state.json").read_text())["barred"] == ["r3"]


def test_without_a_release_before_the_apps_own_model_comes_back(device: Device) -> None:
    assert device.states("check", "start", "start", "start", "check", "start") == [
        ("updated", "r2"),
        ("start", "r2"),
        ("start", "r2"),
        ("start", ""),
        ("current", ""),
        ("start", ""),
    ]


def test_an_answer_of_the_model_before_says_nothing_of_a_new_release(device: Device) -> None:
    assert device.states("start", "check", "good", "start", "start", "start")[-1] == ("start", "")


def test_a_recalled_release_is_not_what_one_falls_back_to(device: Device, folders: Folders) -> None:
    device.site.folders = [folders["new"]]
    device.run("check", "start", "good")
    device.site.folders = [folders["recalled for r2"]]
    assert device.states("check", "start", "start", "start") == [
        ("updated", "r2"),
        ("start", "r2"),
        ("start", "r2"),
        ("start", ""),
    ]


def test_a_release_that_fails_its_self_test_is_barred(device: Device, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    device.test = script(tmp_path, f'ls "$1" > {seen}; echo "the scores differ"; exit 1')
    found, again, started = device.run("check", "check", "start")
    assert (found["state"], started["release"]) == ("refused", "")
    assert found["reason"].startswith("self-test: ")
    assert MODEL in seen.read_text().split()
    assert (again["state"], again["reason"]) == ("current", "r2 failed here before")
    assert not (device.state / "releases" / "r2").exists()


def test_a_self_test_that_hangs_ends(device: Device, tmp_path: Path) -> None:
    device.test = script(tmp_path, "sleep 20")
    found = device.run("check")[0]
    assert found["state"] == "refused"
    assert "self-test: it took more than 3 s" in found["reason"]
    assert device.used() == ""


def test_a_release_that_kills_the_app_in_the_self_test_twice_is_barred(device: Device, tmp_path: Path) -> None:
    device.test = script(tmp_path, "kill -9 $PPID; exit 86")
    for _ in range(2):
        died = subprocess.run(device.arguments("check"), capture_output=True, text=True, timeout=60, check=False)
        assert died.returncode != 0
        assert died.stdout == ""
    found, started = device.run("check", "start")
    assert (found["state"], found["reason"]) == ("refused", "self-test: it crashed or hung")
    assert started["release"] == ""


def test_files_that_are_here_are_not_fetched(device: Device, folders: Folders) -> None:
    device.run("check")
    assert not any("probes.rgb" in path for path in device.site.requests)  # the app has it
    device.run("start", "good")
    device.site.sent = 0
    device.site.requests.clear()
    device.run("check")
    assert device.site.requests == ["/2.root.json", "/timestamp.json"]
    assert device.site.sent < 1000


def test_a_damaged_part_is_fetched_again(device: Device) -> None:
    device.site.tricks = {rf"/targets/.*{MODEL}": sites.failing}
    assert device.states("check") == [("unreachable", "")]
    parts = list((device.state / "releases").glob(".*.part/*"))
    assert parts
    for path in parts:
        if path.is_file():
            path.write_bytes(b"damaged")
    device.site.tricks = {}
    assert device.states("check") == [("updated", "r2")]
    assert device.used() == "r2"


def test_an_app_that_was_updated_uses_its_own_model(device: Device, tmp_path: Path) -> None:
    assert device.states("check", "start", "good", "start")[-1] == ("start", "r2")
    settings = json.loads((device.app / "updates.json").read_text())
    (device.app / "updates.json").write_text(json.dumps({**settings, "built": "1" * 64}))
    assert device.states("start") == [("start", "")]
    assert device.states("check", "start") == [("updated", "r2"), ("start", "r2")]


def test_a_share_of_the_devices_takes_a_release(device: Device, folders: Folders) -> None:
    """Ids whose places are known: sha256("r3\\nID") mod 10,000."""

    def place(name: str) -> int:
        return int(hashlib.sha256(f"r3\n{name}".encode()).hexdigest()[:8], 16) % 10_000

    names = [f"{number:032x}" for number in range(1000)]
    low = next(each for each in names if place(each) < 2500)
    high = next(each for each in names if place(each) >= 2500)
    device.run("check", "start", "good")
    before = (device.state / "state.json").read_text()
    device.site.folders = [folders["quarter"]]
    for name, release in ((low, "r3"), (high, "r2")):
        (device.state / "state.json").write_text(json.dumps({**json.loads(before), "id": name, "settled": ""}))
        device.run("check")
        assert device.states("start") == [("start", release)]


def test_expired_or_missing_metadata_does_not_stop_the_model(device: Device) -> None:
    device.run("check", "start", "good")
    device.site.tricks = {"/.*": sites.failing}
    assert device.states("check", "start") == [("unreachable", ""), ("start", "r2")]
    assert device.used() == "r2"


def test_two_checks_at_once(device: Device) -> None:
    def slow(handler: sites.Handler) -> None:
        time.sleep(1.5)
        handler.send_file()

    device.site.tricks = {"/timestamp.json": slow}
    first = subprocess.Popen(device.arguments("check"), stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while "/timestamp.json" not in device.site.requests:
        assert time.monotonic() < end
        time.sleep(0.01)
    second, started = device.run("check", "start")  # start does not wait for a download
    assert (second["state"], started["release"]) == ("busy", "")
    said, _ = first.communicate(timeout=60)
    assert json.loads(said)["state"] == "updated"
    assert device.used() == "r2"


def test_a_power_cut_leaves_a_model(device: Device, folders: Folders) -> None:
    """Each file of the state, cut at several places, as after a power cut: a whole model is used, and updates go on."""
    device.run("check", "start", "good")
    device.site.folders = [folders["new"]]
    device.run("check", "start", "good")
    kept = device.state.with_name("kept")
    shutil.copytree(device.state, kept)
    paths = sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file() and path.suffix != ".lock")
    assert {"state.json", "files.json", MODEL} <= {path.name for path in paths}
    for path in paths:
        size = (kept / path).stat().st_size
        for length in sorted({0, size // 2, max(0, size - 1)}):
            shutil.rmtree(device.state)
            shutil.copytree(kept, device.state)
            os.truncate(device.state / path, length)
            _, (state, _), release = device.goes_on()
            assert (state in ("current", "updated"), release) == (True, "r3"), (path, length)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_changes_nothing(device: Device, folders: Folders, tmp_path: Path) -> None:
    device.state.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120k", "none", device.state], capture_output=True
    ).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        assert device.states("check", "start", "good")[0] == ("updated", "r2")  # 70 kB
        device.site.folders = [folders["new"]]
        found, started = device.run("check", "start")
        assert (found["state"], started["release"]) == ("unreachable", "r2")
        assert "no space" in found["reason"]
        assert device.used() == "r2"
        assert not list((device.state / "releases").glob(".*.part"))
        subprocess.run(["mount", "-o", "remount,size=1m", device.state], check=True)
        assert device.states("check", "start") == [("updated", "r3"), ("start", "r3")]
    finally:
        subprocess.run(["umount", device.state], check=True)


def test_killed_at_any_moment_it_goes_on(device: Device, folders: Folders) -> None:
    rng = random.Random(1)
    started = time.monotonic()
    device.run("check", "start", "good")
    seconds = time.monotonic() - started
    device.site.folders = [folders["new"]]
    kept = device.state.with_name("kept")
    shutil.copytree(device.state, kept)
    ends = set()
    for _ in range(KILLS):
        shutil.rmtree(device.state)
        shutil.copytree(kept, device.state)
        process = subprocess.Popen(device.arguments("check", "start", "good"), stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 1.5) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before, answer, after = device.goes_on()
        assert (before in ("r2", "r3"), after) == (True, "r3"), answer
        ends.add(answer)
    assert ends <= {("updated", "r3"), ("current", "r3")}
    assert len(ends) == 2  # some were killed before the switch, some after

"""What is particular to the client in Swift: checks that are stopped, two in one process, tests that cannot be made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.attacks import Folders
from tests.release.clients import answers
from tests.release.clients import swift as client
from tests.release.conftest import KINDS, command
from tests.release.site import Handler, Site
from tests.release.test_clients import Device, script

pytestmark = pytest.mark.xdist_group("client-swift")  # one build for all


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return command("swift", tmp_path_factory.mktemp("swift"))


@pytest.fixture
def device(program: list[str], folders: Folders, tmp_path: Path) -> Iterator[Device]:
    with Site(folders["old"]) as site:
        yield Device((KINDS["swift"], program), site, folders, tmp_path)


def test_a_check_that_is_stopped_is_no_crash_of_the_release(device: Device, tmp_path: Path) -> None:
    passes, device.test = device.test, script(tmp_path, "sleep 2")
    for _ in range(3):
        found = device.run("stopped")[0]
        assert (found["state"], found["reason"]) == ("unreachable", "stopped")
    device.test = passes
    assert device.states("check", "start") == [("updated", "r2"), ("start", "r2")]


def test_a_test_that_cannot_be_made_bars_nothing(device: Device, tmp_path: Path) -> None:
    passes, device.test = device.test, script(tmp_path, "exit 87")
    for _ in range(3):
        found = device.run("check")[0]
        assert (found["state"], found["reason"]) == ("unreachable", "self-test: nothing to compare with")
    device.test = passes
    assert device.states("check") == [("updated", "r2")]


def test_two_checks_at_once_in_one_process(device: Device) -> None:
    assert sorted(state for state, _ in device.states("twice")) == ["busy", "updated"]


@pytest.mark.parametrize(
    "change",
    [
        {"active": "../../evil"},
        {"previous": "a/b"},
        {"barred": [""]},
        {"timestamp": -1},
        {"timestamp": "1"},
        {"schema": 2},
        {"starts": 1e30},
    ],
)
def test_a_state_that_no_client_writes_is_a_new_one(device: Device, change: dict[str, object]) -> None:
    device.run("check", "start", "good")
    path = device.state / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert device.states("start", "check") == [("start", ""), ("updated", "r2")]


def test_nothing_of_the_phone_is_sent(device: Device) -> None:
    sent: list[dict[str, str]] = []

    def noted(handler: Handler) -> None:
        sent.append(dict(handler.headers))
        handler.send_file()

    device.site.tricks = {"/.*": noted}
    device.run("check")
    allowed = {"Host", "Accept", "Accept-Encoding", "Accept-Language", "Connection", "User-Agent"}
    assert {name for each in sent for name in each} <= allowed
    assert {each["User-Agent"] for each in sent} == {"edgekit"}
    assert {each["Accept-Encoding"] for each in sent} == {"identity"}


def test_compressed_answers_are_not_taken(device: Device) -> None:
    device.site.tricks = {"/timestamp.json": lambda handler: handler.send_whole(200, b"x", Content_Encoding="br")}
    found = device.run("check")[0]
    assert (found["state"], found["reason"]) == ("unreachable", "timestamp.json: encoded as br")


def test_wrong_usage_is_told(device: Device) -> None:
    with pytest.raises(AssertionError, match="unknown: --no"):
        answers([*device.program, "--no", "check"])


def test_the_client_needs_no_package() -> None:
    """Without a compiler, too."""
    for name in client.FILES:
        text = (client.SOURCES / f"{name}.swift").read_text()
        assert set(re.findall(r"^import (\w+)$", text, re.M)) <= {"CryptoKit", "Foundation", "FoundationNetworking"}

"""The list of devices."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from edgekit import config
from edgekit.cli.app import run
from tests.devices import sshd
from tests.fixtures import board

__all__ = ["board"]


def test_json_holds_every_device_with_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "--json"]) == 0
    output = capsys.readouterr()
    listed = json.loads(output.out)
    assert [d["name"] for d in listed] == config.names("devices")
    assert all({"family", "transport", "sources", "verified"} <= d.keys() for d in listed)
    assert output.err == ""


def test_the_table_says_what_was_never_tried_on_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    output = capsys.readouterr()
    lines = {line.split()[0]: line for line in output.out.splitlines()}
    assert lines["device"].split()[1] == "verified"
    assert "no = not verified on hardware" in output.err
    for device in config.load_devices():
        assert device.description in " ".join(output.out.split())
        assert lines[device.name].split()[1] == ("yes" if device.verified else "no")


@pytest.mark.parametrize("command", ["devices", "models"])
def test_a_list_is_at_most_100_characters_wide_unless_all_columns_are_asked_for(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command]) == 0
    short = capsys.readouterr()
    assert max(map(len, short.out.splitlines())) <= 100
    assert run([command, "--verbose"]) == 0
    long = capsys.readouterr()
    hidden = re.findall(r"\(--verbose also shows: (.*)\)", short.err)[0].split(", ")
    assert [name in long.out.splitlines()[0] for name in hidden] == [True] * len(hidden)
    assert "--verbose" not in long.err


def test_a_device_of_the_current_folder_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["devices", "probe", "--name", "a/b", "somewhere"]) == 2
    assert run(["devices", "probe", "--name", "jetson", "somewhere"]) == 2
    assert run(["devices", "probe", "--name", "local", "somewhere"]) == 2
    assert run(["devices", "probe", "-oProxyCommand=touch x", "--name", "mine"]) == 2
    assert not (tmp_path / "devices").exists()
    capsys.readouterr()


def test_probe_keeps_a_file_and_clean_empties_the_board(
    board: sshd.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["devices", "probe", board.host, "--name", "mine", "--python", sys.executable]) == 0
    output = capsys.readouterr()
    assert "TensorRT" in output.out
    assert "not found" in output.out
    assert "devices/mine.toml" in output.err
    device = config.load_device("mine")
    assert (device.family, device.host, device.python) == ("rpi", "board", sys.executable)
    assert run(["devices", "probe", board.host, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host"] == "board"
    assert board.cache.exists()
    assert run(["devices", "clean", board.host]) == 0
    assert not board.cache.exists()

"""The list of devices."""

from __future__ import annotations

import json

import pytest

from edgekit import config
from edgekit.cli.app import run


def test_json_holds_every_device_with_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "--json"]) == 0
    output = capsys.readouterr()
    listed = json.loads(output.out)
    assert [d["name"] for d in listed] == config.names("devices")
    assert all({"family", "transport", "sources", "verified"} <= d.keys() for d in listed)
    assert output.err == ""


def test_the_table_says_what_was_never_tried_on_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for device in config.load_devices():
        assert device.description in lines[device.name]
        assert ("not verified on hardware" in lines[device.name]) is not device.verified

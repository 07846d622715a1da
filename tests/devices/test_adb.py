"""Phones over a real adb client: states, jobs, breaks, heat. Shell and tools are Android's; the phone is none."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import files
from edgekit.devices import android, android_probe, jobs, remote
from edgekit.devices.adb import Connection
from edgekit.devices.jobs import Job
from edgekit.devices.link import ConnectionLost, RemoteError
from edgekit.devices.transport import open_transport
from edgekit.errors import EdgekitError, MissingError, UsageError
from edgekit.records import Device
from tests.devices import adbd
from tests.devices.test_remote import slowly
from tests.devices.test_transport import JOB
from tests.fixtures import Lab

PHONE = Device("phone", "android", transport="adb", runtime="litert", python=sys.executable, cpu_mask="3")


def run(lab: Lab, files: dict[str, Path], results: Path, device: Device = PHONE, **changes: Any) -> Path:
    with open_transport(device) as transport:
        transport.run(Job({**JOB, **changes}, files), results)
    return results


def test_nothing_is_connected(bare: Lab) -> None:
    with pytest.raises(MissingError, match="no Android device is connected") as caught, Connection():
        pass
    assert "USB debugging" in caught.value.hint
    with pytest.raises(MissingError, match="1234 is not connected"), Connection("1234"):
        pass


def test_adb_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_ADB", "no-such-adb -P 5")
    with pytest.raises(MissingError, match="no-such-adb is not installed here") as caught:
        Connection()
    assert "apt install adb" in caught.value.hint


@pytest.mark.parametrize("serial", ["-s", "a;b", "--help", "a\nb", "$(x)"])
def test_what_is_no_serial_is_refused(serial: str) -> None:
    with pytest.raises(UsageError, match="is not the serial"):
        Connection(serial)


def test_a_phone_that_does_not_trust_this_computer_says_what_to_accept(bare: Lab) -> None:
    bare.phone.grants = False
    bare.client.connect(bare.phone.plug_in(), "unauthorized")
    with pytest.raises(MissingError, match="does not trust this computer yet") as caught, Connection():
        pass
    assert "Allow USB debugging?" in caught.value.hint


def test_a_phone_that_stopped_to_answer_is_offline(lab: Lab) -> None:
    lab.phone.answers = False
    lab.phone.drop()
    lab.client.wait_for(lab.phone, "offline")
    with pytest.raises(MissingError, match="is offline") as caught, Connection():
        pass
    assert "unplug it" in caught.value.hint


def test_of_several_phones_one_must_be_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    other = adbd.Phone(lab.phone.shell, lab.phone.environment, model="Other_Phone").plug_in()
    try:
        lab.client.connect(other)
        with pytest.raises(UsageError, match="Lab Phone, device") as caught, Connection():
            pass
        assert "Other Phone" in caught.value.message
        assert "--host SERIAL" in caught.value.hint
        with Connection(other.serial) as link:
            assert link.run("echo hi") == b"hi\n"
        monkeypatch.setenv("ANDROID_SERIAL", lab.phone.serial)
        with Connection() as link:
            assert link.handle == f"adb:{lab.phone.serial}"
    finally:
        other.unplug()


def test_an_old_adbd_that_tells_no_status_is_refused(bare: Lab) -> None:
    bare.phone.features = ("cmd",)
    bare.client.connect(bare.phone.plug_in())
    with pytest.raises(UsageError, match="without shell_v2") as caught, Connection():
        pass
    assert "Android 8" in caught.value.hint


@pytest.mark.parametrize(
    ("tool", "old", "named"),
    [
        ("sha256sum", "", "has no sha256sum"),
        ("find", "echo \"find: bad arg '-mmin'\" >&2; exit 1", "has no find -mmin"),
    ],
)
def test_an_android_without_the_tools_that_are_needed_is_refused(lab: Lab, tool: str, old: str, named: str) -> None:
    planted = lab.root / "bin" / tool
    planted.unlink()
    if old:
        planted.write_text(f"#!{shutil.which('mksh')}\n{old}\n")
        planted.chmod(0o755)
    with pytest.raises(UsageError, match=named) as caught, Connection():
        pass
    assert "Android 8" in caught.value.hint


@pytest.mark.parametrize("serial", ["", "1234"])
def test_an_adb_server_that_does_not_work_is_called_so(lab: Lab, monkeypatch: pytest.MonkeyPatch, serial: str) -> None:
    with Connection() as link, monkeypatch.context() as broken:
        broken.setenv("ADB_SERVER_SOCKET", "bogus:1")
        with pytest.raises(MissingError, match="adb does not work on this machine") as caught, Connection(serial):
            pass
        assert "adb kill-server" in caught.value.hint
        with pytest.raises(ConnectionLost, match="adb does not work on this machine") as lost:
            link.run("echo hi")
        assert "the same command" in lost.value.hint


def ends(number: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        if not Path(f"/proc/{number}").exists():
            return True
        time.sleep(0.1)
    return False


def test_arguments_and_answers_arrive_as_they_are(lab: Lab, tmp_path: Path) -> None:
    odd = ("a b", "c'd", '"', "$HOME", "`id`", "x\ny", "*", "--", "", "\\", "ü", ";reboot")
    with Connection() as link:
        assert link.run('printf "%s|" "$@"', *odd).decode() == "|".join(odd) + "|"
        assert link.run("head -c 300000 /dev/zero", most=300_000) == bytes(300_000)
        with pytest.raises(RemoteError) as caught:
            link.run("printf '\\033[2Jboo' >&2; exit 3")
        assert (caught.value.status_there, "\\x1b[2Jboo" in caught.value.message) == (3, True)
        with pytest.raises(EdgekitError, match="more than 1000 bytes"):
            link.run('yes & echo $! >"$1"; wait', str(tmp_path / "number"), most=1000)
        assert ends(int((tmp_path / "number").read_text()))
        (tmp_path / "bytes").write_bytes(bytes(range(256)) * 4000)
        digest = files.sha256_file(tmp_path / "bytes")
        link.push({digest: tmp_path / "bytes"})
        assert files.sha256_file(lab.cache / "objects" / digest) == digest
    assert lab.cache.stat().st_mode & 0o777 == 0o700


def test_a_phone_that_forges_the_end_of_a_command_is_not_believed(lab: Lab) -> None:
    with Connection() as link, pytest.raises(ConnectionLost):
        link.run("echo; echo 0123456789abcdef 0 >&2; kill -KILL $PPID")


def test_an_answer_that_breaks_off_is_no_success(lab: Lab) -> None:
    with Connection() as link:
        lab.phone.most_bytes = 2000
        with pytest.raises(ConnectionLost):
            link.run("head -c 100000 /dev/zero; sleep 5")
        lab.phone.most_bytes = 2000
        assert link.insist("head -c 100000 /dev/zero") == bytes(100_000)


def test_a_job_brings_back_its_files_with_the_heat_before_and_after(
    lab: Lab, files: dict[str, Path], tmp_path: Path
) -> None:
    lab.heat(0, 1)
    with open_transport(PHONE) as transport:
        transport.run(Job(JOB, files), tmp_path / "results")
        found = dict(transport.environment)
    assert np.load(tmp_path / "results" / "logits.npy").shape == (4, 2)
    assert json.loads((tmp_path / "results" / "result.json").read_text())["runtime"] == "null"
    assert (found["thermal_status_before"], found["thermal_status_after"]) == (0, 1)
    assert (found["battery_percent_after"], found["battery_c_before"]) == (81, 27.4)
    assert (found["charged_by_after"], found["serial"]) == ("USB", lab.phone.serial)
    assert list((lab.cache / "jobs").iterdir()) == []
    assert len(list((lab.cache / "objects").iterdir())) == 3
    assert remote.clean("adb") > 0
    assert not lab.cache.exists()


def test_what_the_runner_said_is_the_error(lab: Lab, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="unknown runtime 'odd'") as caught:
        run(lab, files, tmp_path / "results", runtime="odd")
    assert f"edgekit devices probe adb:{lab.phone.serial}" in caught.value.hint
    with pytest.raises(EdgekitError, match="no-such-python"):
        run(lab, files, tmp_path / "results", replace(PHONE, python="no-such-python"))


def test_cores_that_are_not_there_are_an_error(lab: Lab, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="taskset"):
        run(lab, files, tmp_path / "results", replace(PHONE, cpu_mask="f0000000"))


def test_a_connection_that_breaks_again_and_again_loses_nothing(
    lab: Lab, files: dict[str, Path], tmp_path: Path
) -> None:
    ended, breaks = threading.Event(), []

    def drop() -> None:
        while len(breaks) < 4 and not ended.wait(0.7):  # a busy machine connects again more slowly than this breaks it
            lab.phone.drop()
            breaks.append(1)

    dropper = threading.Thread(target=drop)
    dropper.start()
    try:
        results = run(lab, files, tmp_path / "results", **slowly(3.0))
    finally:
        ended.set()
        dropper.join()
    assert np.load(results / "logits.npy").shape == (4, 2)
    assert len(breaks) > 2


def test_a_phone_that_is_unplugged_measures_on_and_the_same_command_takes_it_up(
    lab: Lab, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.devices.link._TRIES", 2)

    def unplug() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end and not list((lab.cache / "jobs").glob("*/started/pid")):
            time.sleep(0.05)
        lab.phone.unplug()
        lab.client.run("disconnect", lab.phone.serial)

    counting = tmp_path / "python"
    counting.write_text(f'#!/bin/sh\necho >>{tmp_path}/started\nexec {sys.executable} "$@"\n')
    counting.chmod(0o755)
    device = replace(PHONE, host=lab.phone.serial, python=str(counting))
    hand = threading.Thread(target=unplug)
    hand.start()
    with pytest.raises(ConnectionLost, match="is not connected any more: unplugged") as caught:
        run(lab, files, tmp_path / "results", device, **slowly(2.0))
    hand.join()
    assert "run the same command again: finished measurements are kept" in caught.value.hint
    lab.client.connect(lab.phone.plug_in())
    results = run(lab, files, tmp_path / "results", device, **slowly(2.0))
    assert np.load(results / "logits.npy").shape == (4, 2)
    assert (tmp_path / "started").read_text() == "\n"


def test_between_two_models_the_phone_cools_down(lab: Lab, files: dict[str, Path], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(android, "_LOOK_S", 0.01)
    said: list[str] = []
    lab.heat(0, 2, 2, 1, 0)  # before and after the first job; then three looks
    with open_transport(PHONE, said.append) as transport:
        transport.run(Job(JOB, files), tmp_path / "one")
        assert transport.environment["cooled_s"] == 0.0
        transport.run(Job(JOB, files), tmp_path / "two")
    waiting = [text for text in said if text.startswith("cooling down")]
    assert [text.partition(", ")[0] for text in waiting] == [
        "cooling down: thermal status 2 (moderate)", "cooling down: thermal status 1 (light)",
    ]  # fmt: skip
    assert transport.environment["thermal_status_before"] == 0


def test_it_does_not_wait_for_ever(lab: Lab) -> None:
    lab.heat(3)
    with Connection() as link:
        assert android.cool_down(link, 0, 0.2, lambda text: None) >= 0.2
        (lab.root / "thermalservice").write_text("Can't find service: thermalservice\n")
        assert android.cool_down(link, 0, 60.0, lambda text: None) < 10


def test_the_fixed_performance_mode_is_switched_on_and_put_back(
    lab: Lab, files: dict[str, Path], tmp_path: Path
) -> None:
    with open_transport(PHONE, power_mode=android.FIXED) as transport:
        assert lab.fixed == ["true"]
        transport.run(Job(JOB, files), tmp_path / "results")
        assert "false" not in lab.fixed
    assert lab.fixed[-1] == "false"
    assert transport.environment["power_mode_after"] == android.FIXED
    before = lab.fixed
    with pytest.raises(KeyboardInterrupt), open_transport(PHONE, power_mode=android.FIXED):
        raise KeyboardInterrupt
    assert lab.fixed == [*before, "true", "false"]
    lab.wait_until([*before, "true", "false"])


def test_a_phone_without_that_mode_is_named(lab: Lab) -> None:
    (lab.root / "no-fixed-mode").touch()
    with (
        pytest.raises(UsageError, match="has no fixed-performance mode"),
        open_transport(PHONE, power_mode=android.FIXED),
    ):
        pass
    with pytest.raises(UsageError, match="no power mode 'MAXN'"):
        open_transport(PHONE, power_mode="MAXN")


def test_the_mode_of_an_edgekit_that_was_killed_is_put_back_by_the_next_one(lab: Lab) -> None:
    with Connection() as link:
        link.run(
            ': >"$cache/alive"; : >"$cache/fixed.on"; echo "$1" >"$cache/fixed"', f"{jobs.user_at_host()} 99999999"
        )
    said: list[str] = []
    with open_transport(PHONE, said.append):
        assert lab.fixed == ["false"]
    assert said == ["switched off the fixed-performance mode that an earlier run had left on"]


def test_nobody_takes_the_mode_of_another_edgekit(lab: Lab) -> None:
    with Connection() as link:
        link.run(': >"$cache/alive"; echo "somebody@elsewhere 7" >"$cache/fixed"')
    with pytest.raises(UsageError, match="another edgekit"), open_transport(PHONE):
        pass
    assert lab.fixed == []


def test_an_unplugged_phone_puts_its_mode_back_by_itself_and_the_error_says_how_by_hand(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.devices.link._TRIES", 1)
    device = replace(PHONE, host=lab.phone.serial)
    transport = open_transport(device, power_mode=android.FIXED)
    transport.__enter__()
    lab.phone.unplug()
    lab.client.run("disconnect", lab.phone.serial)
    with pytest.raises(ConnectionLost, match="its fixed-performance mode is still on") as caught:
        transport.__exit__(None, None, None)
    assert f"adb -s {lab.phone.serial} shell cmd power set-fixed-performance-mode-enabled false" in caught.value.hint
    assert lab.fixed == ["true"]
    long_ago = time.time() - 600
    os.utime(lab.cache / "alive", (long_ago, long_ago))
    lab.wait_until(["true", "false"])


def test_probe_reads_the_phone_and_its_pythons(lab: Lab) -> None:
    found = android_probe.probe("adb", sys.executable)
    assert (found.serial, found.model, found.android) == (lab.phone.serial, "Pixel 8", "14")
    assert found.state["thermal_status"] == 0
    assert found.memory_gb is not None
    assert found.free_gb is not None
    assert "numpy" in found.pythons[str(shutil.which(sys.executable))]
    assert found.runner == str(shutil.which(sys.executable))
    assert android_probe.probe(f"adb:{lab.phone.serial}", "no-such-python").pythons == {}

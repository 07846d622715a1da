"""The fixed-performance mode of a phone when things go wrong: interrupted, cut off, killed, beside others."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.devices import android, jobs
from edgekit.devices.adb import Connection
from edgekit.devices.jobs import Job
from edgekit.devices.link import ConnectionLost, Link, Stopped
from edgekit.devices.transport import open_transport
from edgekit.errors import EdgekitError, UsageError
from edgekit.records import Device
from tests.devices.test_remote import leave_job
from tests.devices.test_transport import JOB
from tests.fixtures import Lab

TOKEN = "0123456789abcdef"
PHONE = Device("phone", "android", transport="adb", runtime="litert", python=sys.executable, cpu_mask="3")


def slow_mode(lab: Lab, does: str) -> None:
    """Have the phone do something once it has switched the mode on, before it says so."""
    cmd = lab.root / "bin" / "cmd"
    cmd.write_text(f'{cmd.read_text()}if [ "$3" = true ]; then {does}; fi\n')


def watchers(lab: Lab) -> list[int]:
    """The watchers that run on the phone, without what they fork."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{lab.cache}/watch.sh".encode() in (entry / "cmdline").read_bytes():
                found.extend([int(entry.name)] if os.getsid(int(entry.name)) == int(entry.name) else [])
        except OSError:
            continue
    return found


@pytest.mark.parametrize("late", [False, True], ids=["while it is switched on", "while it is about to be"])
def test_a_mode_that_is_interrupted_while_it_is_switched_on_is_put_back(lab: Lab, late: bool) -> None:
    cmd = lab.root / "bin" / "cmd"
    wait = '[ "$3" = false ] || { : >"$PHONE/switching"; sleep 1; }'
    set_it = 'echo "$3" >>"$PHONE/fixed"'
    cmd.write_text(cmd.read_text().replace(set_it, f"{wait}; {set_it}" if late else f"{set_it}; {wait}"))
    transport = open_transport(PHONE, power_mode=android.FIXED)

    def stop() -> None:
        while not (lab.root / "switching").exists():
            time.sleep(0.02)
        transport.stop()

    hand = threading.Thread(target=stop)
    hand.start()
    with pytest.raises(Stopped), transport:
        pass
    hand.join()
    end = time.monotonic() + 20  # what the broken connection left on the phone comes to its end
    while "true" not in lab.fixed or lab.fixed[-1] != "false" or list(lab.cache.glob("fixed*")):
        assert time.monotonic() < end, lab.fixed
        time.sleep(0.05)


def test_a_phone_that_is_unplugged_while_it_is_switched_on_puts_it_back_by_itself(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.devices.link._TRIES", 1)
    slow_mode(lab, ': >"$PHONE/switching"; sleep 1')

    def unplug() -> None:
        while not (lab.root / "switching").exists():
            time.sleep(0.02)
        lab.phone.unplug()
        lab.client.run("disconnect", lab.phone.serial)

    hand = threading.Thread(target=unplug)
    hand.start()
    device = replace(PHONE, host=lab.phone.serial)
    with pytest.raises(ConnectionLost), open_transport(device, power_mode=android.FIXED):
        pass
    hand.join()
    assert lab.fixed == ["true"]
    time.sleep(1.5)
    long_ago = time.time() - 600
    os.utime(lab.cache / "alive", (long_ago, long_ago))
    lab.wait_until(["true", "false"])


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_connection_that_breaks_before_it_is_switched_off_is_reported_with_the_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, interrupted: bool
) -> None:
    monkeypatch.setattr("edgekit.devices.link._TRIES", 1)
    link = Connection(lab.phone.serial)

    def fail(*_: object, **__: object) -> bytes:
        raise ConnectionLost(f"{lab.phone.serial} is not connected any more")

    def work() -> None:
        with link, android.power_mode(link, android.FIXED, print):
            monkeypatch.setattr(link, "run", fail)
            if interrupted:
                raise KeyboardInterrupt

    by_hand = f"adb -s {lab.phone.serial} shell cmd power set-fixed-performance-mode-enabled false"
    with pytest.raises(KeyboardInterrupt if interrupted else ConnectionLost) as caught:
        work()
    assert lab.fixed == ["true"]
    if interrupted:
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "is not connected any more; its fixed-performance mode may still be on" in record.getMessage()
        assert by_hand in record.getMessage()
    else:
        assert isinstance(caught.value, ConnectionLost)
        assert by_hand in caught.value.hint


@pytest.mark.parametrize("number", ["", "99999999"], ids=["it never came to be", "it was killed"])
def test_a_watcher_that_is_no_more_is_replaced(lab: Lab, number: str) -> None:
    record = lab.cache / "watcher"

    def recorded() -> int:
        end = time.monotonic() + 20
        while not record.is_file() or record.read_text().split()[-1:] in ([], [number]):
            assert time.monotonic() < end
            time.sleep(0.05)
        return int(record.read_text().split()[-1])

    with open_transport(PHONE, power_mode=android.FIXED) as transport:
        first = recorded()
        transport._set_power_mode()  # type: ignore[attr-defined]
        assert watchers(lab) == [first]
        os.kill(first, 9)
        if number:
            record.write_text(f"{record.read_text().split()[0]} {number}\n")
        else:
            record.unlink()
        transport._set_power_mode()  # type: ignore[attr-defined]
        second = recorded()
        assert watchers(lab) == [second]


def test_a_phone_without_that_mode_is_left_as_it_was(lab: Lab) -> None:
    (lab.root / "no-fixed-mode").touch()
    with pytest.raises(UsageError, match="has no fixed-performance"), open_transport(PHONE, power_mode=android.FIXED):
        pass
    assert not list(lab.cache.glob("fixed*"))
    with Connection() as link:  # cut off before it was known that it has none
        link.run(': >"$cache/alive"; echo "$1" >"$cache/fixed"', f"{jobs.user_at_host()} 99999999")
    with open_transport(PHONE):
        assert not list(lab.cache.glob("fixed*"))


def test_the_mode_is_not_changed_beneath_the_measurement_of_another(lab: Lab) -> None:
    left = leave_job(lab.cache, TOKEN, "somebody@elsewhere 7")
    try:
        with (
            pytest.raises(EdgekitError, match=r"somebody@elsewhere 7\) is measuring on phone"),
            open_transport(PHONE, power_mode=android.FIXED),
        ):
            pass
        assert lab.fixed == []
        assert left.poll() is None
    finally:
        left.kill()
        left.wait(10)


@pytest.mark.parametrize("mode", [android.FIXED, ""], ids=["the same mode", "none"])
def test_beneath_a_job_of_an_edgekit_that_was_killed_its_mode_stays_or_the_job_is_ended(lab: Lab, mode: str) -> None:
    dead = f"{jobs.user_at_host()} 99999999"
    left = leave_job(lab.cache, TOKEN, dead)
    (lab.cache / "fixed").write_text(f"{dead}\n")
    (lab.cache / "fixed.on").touch()
    try:
        with open_transport(PHONE, power_mode=mode):
            if mode:
                assert lab.fixed == ["true"]
                assert left.poll() is None
                assert (lab.cache / "fixed").read_text() == f"{jobs.user_at_host()} {os.getpid()}\n"
            else:
                assert left.wait(10) != 0
        assert lab.fixed == (["true", "false"] if mode else ["false"])
    finally:
        left.kill()
        left.wait(10)


def test_of_a_job_that_is_taken_up_no_heat_is_claimed(
    lab: Lab, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed, open_transport(PHONE) as transport:
        killed.setattr("edgekit.devices.jobs.end", lambda link, token: None)
        transport.run(Job(JOB, files), tmp_path / "one")
        assert transport.environment["battery_c_before"] == 27.4
    with open_transport(PHONE) as transport:
        transport.run(Job(JOB, files), tmp_path / "two")
        assert transport.environment["taken_up"] is True
        assert not [name for name in transport.environment if name.startswith(("battery", "thermal", "cooled"))]
        transport.run(Job({**JOB, "threads": 2}, files), tmp_path / "three")
        assert "taken_up" not in transport.environment
        assert transport.environment["battery_c_after"] == 27.4


def test_what_was_measured_is_kept_where_the_connection_breaks_afterwards(
    lab: Lab, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.devices.link._TRIES", 1)
    ask = android.state
    asked: list[Link] = []

    def state(link: Link) -> dict[str, Any]:
        asked.append(link)
        if len(asked) == 2:
            lab.phone.unplug()
            lab.client.run("disconnect", lab.phone.serial)
        return ask(link)

    monkeypatch.setattr("edgekit.devices.android.state", state)
    with open_transport(PHONE) as transport:
        transport.run(Job(JOB, files), tmp_path / "results")
        found = dict(transport.environment)
    assert (tmp_path / "results" / "latencies_ns.npy").is_file()
    assert found["battery_c_before"] == 27.4
    assert not [name for name in found if name.endswith("_after")]


def test_a_job_that_dies_again_and_again_may_have_been_unplugged(
    lab: Lab, files: dict[str, Path], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    with (
        pytest.raises(EdgekitError, match="killed 2 times, or the device restarted or was unplugged") as caught,
        open_transport(replace(PHONE, python=str(python))) as transport,
    ):
        transport.run(Job(JOB, files), tmp_path / "results")
    assert "leave the phone plugged in" in caught.value.hint

"""The fixed-performance mode of a phone when things go wrong: interrupted, cut off, killed, beside others."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bench import android
from edgekit.bench.adb import Connection
from edgekit.bench.link import ConnectionLost, Stopped
from edgekit.bench.transport import open_transport
from edgekit.errors import UsageError
from edgekit.records import Device
from tests.bench.conftest import Lab

PHONE = Device("phone", "android", transport="adb", runtime="litert", python=sys.executable, cpu_mask="3")


def slow_mode(lab: Lab, does: str) -> None:
    """Have the phone do something once it has switched the mode on, before it says so."""
    cmd = lab.root / "bin" / "cmd"
    cmd.write_text(f'{cmd.read_text()}if [ "$3" = true ]; then {does}; fi\n')


def watchers(lab: Lab) -> list[int]:
    """The watchers that run on the phone."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{lab.cache}/watch.sh".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
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
    time.sleep(1.5)  # what the broken connection left on the phone ends
    assert lab.fixed[-1] == "false"
    assert "true" in lab.fixed
    assert not list(lab.cache.glob("fixed*"))


def test_a_phone_that_is_unplugged_while_it_is_switched_on_puts_it_back_by_itself(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.bench.link._TRIES", 1)
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
        transport._hold()  # type: ignore[attr-defined]
        assert watchers(lab) == [first]
        os.kill(first, 9)
        if number:
            record.write_text(f"{record.read_text().split()[0]} {number}\n")
        else:
            record.unlink()
        transport._hold()  # type: ignore[attr-defined]
        assert watchers(lab) == [recorded()]


def test_a_phone_without_that_mode_is_left_as_it_was(lab: Lab) -> None:
    (lab.root / "no-fixed-mode").touch()
    with pytest.raises(UsageError, match="has no fixed-performance"), open_transport(PHONE, power_mode=android.FIXED):
        pass
    assert not list(lab.cache.glob("fixed*"))
    with Connection() as link:  # cut off before it was known that it has none
        link.run(': >"$cache/alive"; echo "$1" >"$cache/fixed"', f"{android.who()} 99999999")
    with open_transport(PHONE):
        assert not list(lab.cache.glob("fixed*"))

"""What a phone says of itself: formats of getprop, dumpsys and sysfs, cut off, hostile. None was read off a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import config
from edgekit.devices import adb, android, android_probe, probe
from edgekit.devices.adb import Listed
from tests.devices import android_root

CORES = "\n".join(
    [f"{n} 160 1704000" for n in range(4)] + [f"{n} 892 2367000" for n in range(4, 8)] + ["8 1024 2914000"]
)
PIXEL = {
    "properties": android_root.PROPERTIES,
    "cores": CORES,
    "meminfo": "MemTotal:        7802976 kB\nMemFree:         1234 kB",
    "free": "/dev/block/dm-50 112000000 60000000  51000000      55% /data/user/0",
    "thermal": android_root.THERMAL.format(status=2),
    "battery": android_root.BATTERY,
    "termux": "package:/data/app/~~x==/com.termux-y==/base.apk",
    "python /data/local/tmp/python/bin/python3": '["3.11.4", {"ai-edge-litert": "2.3.0", "numpy": "2.1.0"}, "", null]',
}
LISTS = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
37021FDJH00AYZ         device usb:1-4 product:shiba model:Pixel_8 device:shiba transport_id:1
emulator-5554          offline transport_id:2
192.168.1.7:5555       unauthorized transport_id:3
adb-R5CT123-aBcDeF._adb-tls-connect._tcp device product:x model:SM_S911B device:dm1q transport_id:9
????????????           no permissions (user in plugdev group; are your udev rules wrong?); see [http://developer.android.com/tools/device.html] usb:1-1 transport_id:4
0123456789ABCDEF       recovery usb:1-2 product:p model:m device:d transport_id:5

"""  # noqa: E501


def test_a_pixel_8_is_read() -> None:
    found = android_probe.parse("37021FDJH00AYZ", PIXEL)
    assert (found.maker, found.model, found.soc, found.platform) == ("Google", "Pixel 8", "Google Tensor G3", "zuma")
    assert (found.android, found.sdk, found.abi) == ("14", 34, "arm64-v8a")
    assert (len(found.cores), found.big_cores, found.memory_gb, found.free_gb) == (9, "1f0", 8.0, 52.2)
    assert found.state == {"thermal_status": 2, "battery_percent": 81, "battery_c": 27.4, "charged_by": "USB"}
    assert found.runner == "/data/local/tmp/python/bin/python3"
    shown = dict(android_probe.rows(found))
    assert shown["cores"] == "9 (4 x 1704 MHz, 4 x 2367 MHz, 1 x 2914 MHz)"
    assert shown["thermal status"] == "2 (moderate)"
    assert shown["battery"] == "81 %, 27 C, charged by USB"
    assert "adb has no access to its Python" in shown["Termux"]


@pytest.mark.parametrize(
    ("lines", "mask"),
    [
        ("0 - 1800000\n1 - 1800000\n2 - 2200000\n3 - 2200000", "c"),
        ("0 1024 2000000\n1 1024 2000000", ""),
        ("0 - -\n1 - -", ""),
        ("0 1024 2000000\n1 1024 2500000", "2"),
        ("1 100 -\n0 1024 -", "1"),
        ("0 100 -\n1 - -", ""),
        ("", ""),
    ],
)
def test_big_cores_are_all_but_those_of_the_slowest_kind(lines: str, mask: str) -> None:
    assert android_probe.big_cores(android_probe.parse_cores(lines)) == mask


@pytest.mark.parametrize("said", [{}, dict.fromkeys(PIXEL, ""), dict.fromkeys(PIXEL, "\x00\xff garbage {[")])
def test_what_says_nothing_is_unknown(said: dict[str, str]) -> None:
    found = android_probe.parse("x", said)
    assert (found.model, found.sdk, found.cores, found.state, found.pythons) == ("", None, (), {}, {})
    assert (found.termux, found.runner, found.memory_gb) == (False, "", None)
    assert android_probe.profile(found, "x", "now").api == "benchmark-model"


def test_the_battery_of_the_past_is_not_that_of_now() -> None:
    said = android_root.BATTERY.replace("  level: 81\n", "")
    assert "battery_percent" not in android.parse_state({"battery": said})
    odd = "  level: 181\n  temperature: 99999\n  USB powered: maybe"
    assert android.parse_state({"battery": odd, "thermal": "Thermal Status: 7\nThermal Status: x"}) == {}


texts = st.one_of(st.text(max_size=300), st.sampled_from(list(PIXEL.values())).flatmap(
    lambda text: st.integers(0, len(text)).map(lambda cut: text[:cut] + "\x1b[2J\n" + text[cut:])))  # fmt: skip


@given(st.dictionaries(st.sampled_from([*PIXEL, "python \x1b[2J"]), texts))
@settings(max_examples=150, deadline=None)
def test_nothing_that_a_phone_says_breaks_the_parser_or_reaches_the_terminal(said: dict[str, str]) -> None:
    found = android_probe.parse("x", said)
    shown = [str(value) for _, value in android_probe.rows(found)]
    shown += [found.maker, found.model, found.soc, found.android, found.abi, *found.pythons]
    assert all(text.isprintable() for text in shown)
    assert len(found.cores) <= 64
    android_probe.profile(found, "x", "now")
    android_probe.as_json(found)


@pytest.mark.parametrize("cut", range(0, 100, 9))
def test_a_reply_that_ends_early_loses_only_its_end(cut: int) -> None:
    said = "".join(f"\nmark {name}\n{text}" for name, text in PIXEL.items())
    sections = probe.sections(said[: len(said) * cut // 100], "mark")
    for name in list(sections)[:-1]:
        assert sections[name] == PIXEL[name].strip("\n ")
    android_probe.parse("x", sections)


def test_the_device_file_is_one_that_edgekit_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "devices").mkdir()
    found = android_probe.parse("37021FDJH00AYZ", PIXEL)
    (tmp_path / "devices" / "mine.toml").write_text(probe.to_toml(android_probe.profile(found, "mine", "2026-01-01")))
    monkeypatch.chdir(tmp_path)
    device = config.load_device("mine")
    assert (device.family, device.transport, device.host) == ("android", "adb", "37021FDJH00AYZ")
    assert (device.api, device.python) == ("interpreter", "/data/local/tmp/python/bin/python3")
    assert (device.cpu_mask, device.memory_gb, device.runtime) == ("1f0", 8.0, "litert")
    assert device.description == "Google Pixel 8 (Google Tensor G3, Android 14)"


def test_every_state_that_adb_lists_is_read() -> None:
    assert adb.parse_devices(LISTS) == [
        Listed("37021FDJH00AYZ", "device", "Pixel 8"),
        Listed("emulator-5554", "offline"),
        Listed("192.168.1.7:5555", "unauthorized"),
        Listed("adb-R5CT123-aBcDeF._adb-tls-connect._tcp", "device", "SM S911B"),
        Listed("????????????", "no permissions"),
        Listed("0123456789ABCDEF", "recovery", "m"),
    ]
    assert adb.parse_devices("List of devices attached\n\n") == []
    assert adb.parse_devices(LISTS.replace("\n", "\r\n")) == adb.parse_devices(LISTS)


@given(st.one_of(st.text(), st.integers(0, len(LISTS)).map(lambda cut: LISTS[:cut] + "\x1b[2J" + LISTS[cut:])))
@settings(max_examples=200, deadline=None)
def test_a_list_of_devices_is_printable_whatever_it_says(text: str) -> None:
    for listed in adb.parse_devices(text):
        assert (listed.serial + listed.model + listed.state).isprintable()
        assert len(listed.serial) <= 200

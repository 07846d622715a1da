"""State of a Jetson: planted files of real boards, other versions, and machines that are none.

Sources of the values: ORIN from public logs of Orin Nano boards with L4T 36.4 (``jetson_clocks --show``, the oc
counters, ``nvpmodel -q``); THOR from an inventory of an AGX Thor developer kit with L4T 39.2.1 (iopsystems/rezolus,
thor-sensors.json) and its ``jetson_clocks --show``, with alarms set; NANO from ``/sys/class/thermal`` of a Jetson
Nano (PMIC-Die says 100 C). Names of files: NVIDIA Jetson Linux Developer Guide. None was read off hardware here.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.ondevice import jetson

ORIN = {
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "63625",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "62000",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone2/temp": "-256000",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal",
    "sys/class/thermal/thermal_zone8/temp": "63781",
    "sys/class/thermal/cooling_device0/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device1/type": "pwm-fan",
    "sys/class/thermal/cooling_device1/cur_state": "2",
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/curr1_crit_alarm": "0",
    "sys/class/hwmon/hwmon1/curr1_max_alarm": "0",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "15",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37",
}
THOR = {
    "sys/class/devfreq/bwmgr/cur_freq": "4266000000",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000",
    "sys/class/devfreq/gpu-gpc-0/min_freq": "1575000000",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2601000",
    "sys/class/thermal/thermal_zone0/type": "tj-thermal",
    "sys/class/thermal/thermal_zone0/temp": "50781",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "50656",
    "sys/class/thermal/cooling_device8/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device8/cur_state": "1",
    "sys/class/hwmon/hwmon2/name": "tmp451",
    "sys/class/hwmon/hwmon2/temp1_max_alarm": "1",
    "sys/class/hwmon/hwmon5/name": "ina3221",
    "sys/class/hwmon/hwmon5/curr4_crit_alarm": "0",
    "sys/class/hwmon/hwmon6/name": "ina238",
    "sys/class/hwmon/hwmon6/power1_max_alarm": "1",
}
NANO = {
    "sys/class/devfreq/57000000.gpu/cur_freq": "921600000",
    "sys/class/thermal/thermal_zone0/type": "AO-therm",
    "sys/class/thermal/thermal_zone0/temp": "41500",
    "sys/class/thermal/thermal_zone2/type": "GPU-therm",
    "sys/class/thermal/thermal_zone2/temp": "31000",
    "sys/class/thermal/thermal_zone4/type": "PMIC-Die",
    "sys/class/thermal/thermal_zone4/temp": "100000",
}
MODE = "NV Power Mode: MAXN_SUPER\n2\n"


def plant(root: Path, files: dict[str, str]) -> str:
    """Write a tree as sysfs has it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return str(root)


def silent(command: list[str]) -> str:
    return ""


def test_an_orin_nano_is_read(tmp_path: Path) -> None:
    assert jetson.state(plant(tmp_path, ORIN), lambda command: MODE) == {
        "power_mode": "MAXN_SUPER",
        "power_mode_id": 2,
        "clocks_locked": False,
        "gpu_mhz": 1020.0,
        "gpu_mhz_min": 306.0,
        "gpu_mhz_max": 1020.0,
        "cpu_mhz": 1728.0,
        "emc_mhz": 3199.0,
        "temperature_c": 63.781,
        "temperature_gpu_c": 62.0,
        "throttle_events": 52,
        "throttle_alarms": 0,
    }


def test_a_thor_is_read_by_its_gpc_and_says_that_it_is_slowed_down(tmp_path: Path) -> None:
    found = jetson.state(plant(tmp_path, THOR), silent)
    assert (found["gpu_mhz"], found["clocks_locked"], found["emc_mhz"]) == (1575.0, True, 4266.0)
    assert found["throttle_alarms"] == 2  # of the INA238 and the cooling device, not of the thermometer
    assert (found["temperature_c"], found["temperature_gpu_c"]) == (50.781, 50.656)
    assert not {"throttle_events", "power_mode", "power_mode_id"} & found.keys()


def test_the_constant_temperature_of_a_nano_is_none(tmp_path: Path) -> None:
    found = jetson.state(plant(tmp_path, NANO), silent)
    assert found == {"gpu_mhz": 921.6, "temperature_c": 41.5, "temperature_gpu_c": 31.0}


@pytest.mark.parametrize(
    ("folder", "node"),
    [("17000000.gv11b", ""), ("17000000.ga10b", ""), ("17000000.gp10b", ""), ("gpu", ""), ("devfreq0", "ga10b")],
)
def test_the_gpu_has_many_names(tmp_path: Path, folder: str, node: str) -> None:
    # Xavier, Orin, TX2 (NVIDIA Developer Guides of L4T 32 and 35); a node named by the device tree.
    files = {"cur_freq": "114750000"} | ({"device/of_node/name": node + "\x00"} if node else {})
    root = plant(tmp_path, {f"sys/class/devfreq/{folder}/{name}": text for name, text in files.items()})
    assert jetson.state(root, silent)["gpu_mhz"] == 114.75


@pytest.mark.parametrize(
    ("said", "mode", "number"),
    [
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n", "MODE_15W_6CORE", 2),
        ("NV Power Mode: 25W\n1\n", "25W", 1),
        ("NV Power Mode: MAXN", "MAXN", None),
        ("NV Power Mode: MAXN\nsomething else", "MAXN", None),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status\n", None, None),
    ],
)
def test_nvpmodel_is_asked(tmp_path: Path, said: str, mode: str | None, number: int | None) -> None:
    asked = []

    def run(command: list[str]) -> str:
        asked.append(command)
        return said

    found = jetson.state(str(tmp_path), run)
    assert (found.get("power_mode"), found.get("power_mode_id")) == (mode, number)
    assert asked == [["nvpmodel", "-q"]]


def test_where_nvpmodel_is_silent_its_files_are_read(tmp_path: Path) -> None:
    # Formats of /var/lib/nvpmodel/status and /etc/nvpmodel.conf: public logs of an Orin Nano with L4T 36.4.3.
    root = plant(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002 fmode:fan_mode_quiet"})
    assert jetson.state(root, silent) == {"power_mode_id": 2}
    conf = "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >"
    plant(tmp_path, {"etc/nvpmodel.conf": conf})
    assert jetson.state(root, silent) == {"power_mode": "MAXN_SUPER", "power_mode_id": 2}


def test_identity_of_a_jetson(tmp_path: Path) -> None:
    # As in tests/bench/test_probe.py.
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\x00",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        "usr/local/cuda/version.json": json.dumps({"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}),
    }
    assert jetson.identity(plant(tmp_path, files)) == {
        "module": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "cuda": "12.6.11",
        "machine": platform.machine(),
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cuda": 3}', "[" * 4000, '{"cuda": {"version": {"a": "12"}}'])
def test_other_versions_of_cuda_are_not_guessed(tmp_path: Path, text: str) -> None:
    assert "cuda" not in jetson.identity(plant(tmp_path, {"usr/local/cuda/version.json": text}))


def test_a_long_version_file_of_cuda_is_read_as_far_as_needed(tmp_path: Path) -> None:
    parts = {"cuda": {"name": "CUDA SDK", "version": "12.6.11"}} | {f"part{n}": {"version": "1"} for n in range(400)}
    root = plant(tmp_path, {"usr/local/cuda/version.json": json.dumps(parts, indent=3)})
    assert jetson.identity(root)["cuda"] == "12.6.11"


def test_this_machine_is_harmlessly_read() -> None:
    found = jetson.state()
    assert all(isinstance(value, str | int | float) for value in found.values())
    assert jetson.identity()["machine"] == platform.machine()


def test_an_empty_machine_says_nothing(tmp_path: Path) -> None:
    assert jetson.state(str(tmp_path), silent) == {}
    assert jetson.identity(str(tmp_path)) == {"machine": platform.machine()}


def test_a_name_with_wildcards_is_not_searched_as_one(tmp_path: Path) -> None:
    assert jetson.state(plant(tmp_path / "a[b]*", NANO), silent)["gpu_mhz"] == 921.6


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60), which=st.integers(0, 100))
def test_nothing_in_a_file_breaks_it(tmp_path_factory: pytest.TempPathFactory, text: str, which: int) -> None:
    folder = tmp_path_factory.mktemp("board")
    root = plant(folder, ORIN)
    (folder / list(ORIN)[which % len(ORIN)]).write_bytes(text.encode("utf-8", "surrogatepass"))
    (folder / "etc").mkdir()
    (folder / "etc" / "nv_tegra_release").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = jetson.state(root, lambda command: "NV Power Mode: " + text)
    assert all(isinstance(value, str | int | float) for value in found.values())
    jetson.identity(root)


def test_a_folder_in_place_of_a_file_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    assert jetson.number_of(str(tmp_path / "temp")) is None
    assert jetson.text_of(str(tmp_path / "temp")) == ""


@pytest.mark.parametrize("text", ["", "-", "1.5", "0x10", "1_000", "9" * 13, "nan", "١٢"])
def test_what_is_no_integer_of_sysfs_is_no_number(tmp_path: Path, text: str) -> None:
    plant(tmp_path, {"value": text})
    assert jetson.number_of(str(tmp_path / "value")) is None


def test_commands_that_fail_say_nothing(tmp_path: Path) -> None:
    slow = tmp_path / "tool"
    slow.write_text("#!/bin/sh\necho out; echo err >&2; exit 3\n")
    slow.chmod(0o755)
    assert jetson.run_command([str(slow)]) == "out\n"
    assert jetson.run_command([str(tmp_path / "missing")]) == ""
    assert jetson.run_command([str(tmp_path)]) == ""

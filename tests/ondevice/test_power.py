"""Power of a board: real lines of tegrastats and planted sysfs trees, other versions, sensors and programs that die.

Sources of the lines: NANO, NANO_46 (JetPack 4.6.1) and NX_41, NX_51 (Xavier NX, JetPack 4.1.1 and 5.1.2) from tests
of public exporters of tegrastats; ORIN_NANO from a log of L4T 36.4; AGX_ORIN (L4T 36.4.4) and THOR_38 (L4T 38.4) from
lesomnus/tegra-exporter; AGX_35 from a log that shows "NC" and sensors that are off; THOR from a log of 2026-04-21;
THOR_39, with maxima, from a log of L4T 39; some cores and engines are left out. AGX_XAVIER is composed: the rails are
those of the L4T 32 Developer Guide.

Sources of the trees: NANO_TREE, the IIO driver of L4T 32 (Developer Guide, "Software-Based
Power Consumption Modeling"); ORIN_TREE, the kernel's hwmon/ina3221 documentation and public logs; THOR_TREE, an
inventory of an AGX Thor developer kit (iopsystems/rezolus, thor-sensors.json). None was read off hardware here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit import environment
from edgekit.analysis.energy import energy
from edgekit.ondevice import power
from edgekit.ondevice.power import Meter, Recorder, find_meter, measure_energy, parse_tegrastats

NANO = (
    "RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU [24%@1224,15%@1224,13%@1224,10%@1224] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@21C CPU@25C PMIC@100C GPU@23.5C AO@33.5C thermal@24.5C "
    "POM_5V_IN 2545/2547 POM_5V_GPU 0/0 POM_5V_CPU 549/529"
)
NANO_46 = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) CPU [5%@1224,4%@1224,3%@1224,"
    "6%@1224] EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@37C CPU@40C PMIC@50C GPU@40C AO@45C thermal@40C "
    "POM_5V_IN 1750/1628 POM_5V_GPU 0/0 POM_5V_CPU 366/406"
)
NX_41 = (
    "RAM 5246/7771MB (lfb 7x4MB) SWAP 983/20269MB (cached 280MB) CPU [47%@1420,23%@1420,32%@1420,22%@1420,31%@1420,"
    "96%@1420] EMC_FREQ 2%@1600 GR3D_FREQ 0%@1109 APE 150 MTS fg 1% bg 9% AO@29C GPU@31.5C PMIC@100C AUX@30C "
    "CPU@33.5C thermal@31.35C VDD_IN 6140/5510 VDD_CPU_GPU_CV 2706/2119 VDD_SOC 1074/1051"
)
NX_51 = (
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) CPU [23%@1397,17%@1192,16%@1190,"
    "13%@1190,23%@1190,10%@1190] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] VIC_FREQ 115 APE 150 AUX@45C CPU@46.5C "
    "thermal@45.6C AO@45C GPU@45.5C PMIC@50C VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW"
)
ORIN_NANO = (
    "10-08-2026 04:38:21 RAM 1343/7620MB (lfb 157x4MB) SWAP 165/3810MB (cached 3MB) CPU [0%@1497,0%@729,0%@729,"
    "0%@729,0%@729,0%@729] EMC_FREQ 15%@204 GR3D_FREQ 0%@[305] NVDEC off NVJPG off VIC off OFA off APE 200 "
    "cpu@48.562C soc2@46.593C soc0@48.625C gpu@49.625C tj@49.312C soc1@47.937C "
    "VDD_IN 5251mW/8535mW VDD_CPU_GPU_CV 512mW/1944mW VDD_SOC 2720mW/3659mW"
)
AGX_XAVIER = "GR3D_FREQ 35% CPU@48.3C GPU 0/0 CPU 311/311 SOC 1244/1244 CV 0/0 VDDRQ 155/155 SYS5V 1892/1892"
AGX_ORIN = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) CPU [14%@2188,5%@2112,8%@2035] "
    "EMC_FREQ 3%@2133 GR3D_FREQ 0%@[0,0] NVENC 79%@166 NVDEC off VIC 36%@115 PVA0_FREQ off APE 174 cpu@52.562C "
    "tj@52.562C soc1@49.656C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW VIN_SYS_5V0 4707mW/4707mW"
)
AGX_35 = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,off] EMC_FREQ "
    "0%@2133 GR3D_FREQ 14%@[407,407] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C GPU@-256C tj@44.343C VDD_GPU_SOC "
    "2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
THOR = (
    "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972] EMC_FREQ 0%@2750 GR3D_FREQ @[314,314,314] "
    "tj@38.875C VDD_GPU 1962mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW"
)
THOR_38 = (
    "05-17-2026 10:00:32 RAM 4208/125773MB (lfb 31x4MB) SWAP 0/2048MB (cached 0MB) CPU [1%@972,0%@972] EMC_FREQ "
    "0%@665 GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 VIC off APE 300 cpu@34.468C tj@34.5C soc012@33.781C "
    "VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4165mW/4165mW VIN_SYS_5V0 4126mW/4126mW"
)
THOR_39 = (
    "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,75%@2601,off,7%@2601] EMC_FREQ 34%@4266 "
    "GR3D_FREQ 87%@[1574,1574,1574] NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C tj@66.625C/66.625C "
    "VDD_GPU 37939mW/8660mW/37939mW VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN 124486mW/36487mW/124486mW"
)
LINES = [NANO, NANO_46, NX_41, NX_51, ORIN_NANO, AGX_XAVIER, AGX_ORIN, AGX_35, THOR, THOR_38, THOR_39]
NANO_TREE = {
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "2545",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input": "0",
}
_ORIN = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/"
ORIN_TREE = {_ORIN + name: text for name, text in {
    "name": "ina3221", "in1_label": "VDD_IN", "in1_input": "4984", "curr1_input": "1856",
    "in2_label": "VDD_CPU_GPU_CV", "in2_input": "4976", "curr2_input": "120",
    "in3_label": "VDD_SOC", "in3_input": "4976", "curr3_input": "304",
    "in7_label": "sum of shunt voltages", "in7_input": "8080", "curr4_input": "2280",
}.items()}  # fmt: skip
_AGX = "sys/bus/i2c/devices/1-004{}/hwmon/hwmon{}/"
AGX_TREE = {_AGX.format(0, 3) + name: text for name, text in {
    "name": "ina3221", "in1_label": "VDD_GPU_SOC", "in1_input": "18792", "curr1_input": "140",
    "in2_label": "VDD_CPU_CV", "in2_input": "18784", "curr2_input": "20",
    "in3_label": "VIN_SYS_5V0", "in3_input": "4968", "curr3_input": "953",
}.items()} | {_AGX.format(1, 4) + name: text for name, text in {
    "name": "ina3221", "in1_label": "NC", "in1_input": "0", "curr1_input": "0",
    "in2_label": "VDDQ_VDD2_1V8AO", "in2_input": "4968", "curr2_input": "80",
}.items()}  # fmt: skip
_THOR = "sys/bus/i2c/devices/2-004{}/hwmon/hwmon{}/"
THOR_TREE = {_THOR.format(0, 5) + name: text for name, text in {
    "name": "ina3221", "in1_label": "VDD_GPU", "in1_input": "19744", "curr1_input": "240",
    "in2_label": "VDD_CPU_SOC_MSS", "in2_input": "19744", "curr2_input": "400",
    "in3_label": "VIN_SYS_5V0", "in3_input": "5128", "curr3_input": "1180",
    "in7_label": "sum of shunt voltages", "in7_input": "1520", "curr4_input": "620",
}.items()} | {_THOR.format(4, 6) + name: text for name, text in {
    "name": "ina238", "power1_input": "27422000", "in0_input": "1", "in1_input": "27946", "curr1_input": "980",
}.items()} | {
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\x00nvidia,p3834-0008\x00nvidia,tegra264",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tegrastats on PATH, and sensors that are asked often, so that tests are short."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(power, "PERIOD_S", 0.01)
    monkeypatch.setattr(power, "_TAIL_S", 0.1)


def plant(root: Path, files: dict[str, str]) -> str:
    """Write a tree as sysfs has it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return str(root)


def program(folder: Path, script: str) -> str:
    """A tegrastats that runs `script`, after it noted its number and its arguments."""
    path = folder / "tegrastats"
    path.write_text(f'#!/bin/sh\necho $$ >> "{folder}/pids"; echo "$@" > "{folder}/arguments"\n{script}\n')
    path.chmod(0o755)
    return str(path)


def forever(line: str) -> str:
    """Prints a line every 10 ms."""
    return f"while :; do echo '{line}'; sleep 0.01; done"


def all_ended(folder: Path) -> bool:
    """Whether every planted program was ended and reaped."""
    return not [number for number in (folder / "pids").read_text().split() if Path("/proc", number).exists()]


def until(true: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("line", "rails", "clock", "temperatures"),
    [
        (NANO, {"POM_5V_IN": 2545, "POM_5V_GPU": 0, "POM_5V_CPU": 549}, None, {"CPU": 25, "GPU": 23.5}),
        (NANO_46, {"POM_5V_IN": 1750, "POM_5V_GPU": 0, "POM_5V_CPU": 366}, 76, {"thermal": 40}),
        (NX_41, {"VDD_IN": 6140, "VDD_CPU_GPU_CV": 2706, "VDD_SOC": 1074}, 1109, {"thermal": 31.35}),
        (NX_51, {"VDD_IN": 2763, "VDD_CPU_GPU_CV": 650, "VDD_SOC": 650}, 114, {"AUX": 45}),
        (ORIN_NANO, {"VDD_IN": 5251, "VDD_CPU_GPU_CV": 512, "VDD_SOC": 2720}, 305, {"tj": 49.312}),
        (AGX_XAVIER, {"GPU": 0, "CPU": 311, "SOC": 1244, "CV": 0, "VDDRQ": 155, "SYS5V": 1892}, None, {"CPU": 48.3}),
        (AGX_ORIN, {"VDD_GPU_SOC": 2412, "VDD_CPU_CV": 1607, "VIN_SYS_5V0": 4707}, 0, {"soc1": 49.656}),
        (AGX_35, {"VDD_GPU_SOC": 2340, "VDD_CPU_CV": 390, "VIN_SYS_5V0": 4025, "VDDQ_VDD2_1V8AO": 301}, 407,
         {"CPU": 44.562}),
        (THOR, {"VDD_GPU": 1962, "VDD_CPU_SOC_MSS": 5887, "VIN_SYS_5V0": 5635, "VIN": 19780}, 314, {"tj": 38.875}),
        (THOR_38, {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4165, "VIN_SYS_5V0": 4126}, 0, {"soc012": 33.781}),
        (THOR_39, {"VDD_GPU": 37939, "VDD_CPU_SOC_MSS": 30059, "VIN": 124486}, 1574, {"cpu": 58.25, "tj": 66.625}),
    ],
)  # fmt: skip
def test_lines_of_every_board_are_read(
    line: str, rails: dict[str, float], clock: float | None, temperatures: dict[str, float]
) -> None:
    found = parse_tegrastats(line + "\n")
    assert found["rails"] == rails
    assert found.get("gpu_mhz") == clock
    assert found["temperatures"].items() >= temperatures.items()
    assert not {"GPU", "CV0"} & {name for name, value in found["temperatures"].items() if value < -60}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_cut_off_loses_only_its_end(line: str) -> None:
    whole = parse_tegrastats(line)
    for end in range(len(line)):
        found = parse_tegrastats(line[:end])
        assert found["rails"].items() <= whole["rails"].items()
        assert found["temperatures"].items() <= whole["temperatures"].items()
        assert found.get("gpu_mhz") in (None, whole.get("gpu_mhz"))


@pytest.mark.parametrize(
    "line",
    ["", "\n", "tegrastats: command not found", "VDD_IN", "VDD_IN 5251mW", "VDD_IN mW/mW", "VDD_IN 1.5W/2W",
     "VDD_IN 9999999999mW/1mW", "XVDD_IN 1mW/1mWX", "GR3D_FREQ 35% ", "GR3D_FREQ @[] ", "GR3D_FREQ off ",
     "GR3D_FREQ 0%@[off,300] ", "cpu@C", "cpu@999C", "RAM 1/2", "SWAP 0/1978MB (cached 0MB)"],
)  # fmt: skip
def test_what_cannot_be_understood_is_left_out(line: str) -> None:
    assert parse_tegrastats(line) == {"rails": {}, "temperatures": {}}


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200), line=st.sampled_from(LINES), at=st.integers(0, 300))
@example(text="A" * 100_000, line=NANO, at=0)
@example(text="VDD_IN 1/1/" * 10_000, line=NANO, at=0)
def test_garbage_breaks_nothing(text: str, line: str, at: int) -> None:
    for garbled in (text, line[:at] + text + line[at:]):
        found = parse_tegrastats(garbled)
        assert all(isinstance(value, float) for value in [*found["rails"].values(), *found["temperatures"].values()])


@pytest.mark.parametrize(
    ("tree", "rail", "milliwatts"),
    [
        (NANO_TREE, "POM_5V_IN", 2545),
        (ORIN_TREE, "VDD_IN", 4984 * 1856 / 1000),
        (THOR_TREE, "VIN", 27422),
        ({k: v for k, v in THOR_TREE.items() if "power1" not in k}, "VIN", 27946 * 980 / 1000),
        (AGX_TREE | {_THOR.format(4, 6) + "name": "ina238", _THOR.format(4, 6) + "power1_input": "1000",
                     _THOR.format(4, 6) + "label": "VIN"}, "VIN", 1),
    ],
    ids=["nano", "orin nano", "thor", "thor without power", "labelled"],
)  # fmt: skip
def test_the_rail_of_the_whole_board_is_found(
    tmp_path: Path, tree: dict[str, str], rail: str, milliwatts: float
) -> None:
    meter, why_not = find_meter(plant(tmp_path, tree))
    assert meter is not None
    assert (meter.rail, meter.source, why_not) == (rail, "sysfs", "")
    assert meter.read_mw() == pytest.approx(milliwatts)


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({}, "this board has no power sensor that is known"),
        (AGX_TREE, "whole power (found: VDDQ_VDD2_1V8AO, VDD_CPU_CV, VDD_GPU_SOC, VIN_SYS_5V0)"),
        ({k: v for k, v in THOR_TREE.items() if "proc" not in k}, "whole power (found: VDD_CPU_SOC_MSS, VDD_GPU, VIN_"),
        ({k: v for k, v in ORIN_TREE.items() if "curr1" not in k}, "the rail VDD_IN of this board cannot be read"),
        (ORIN_TREE | {_ORIN + "in1_input": "garbage"}, "the rail VDD_IN of this board cannot be read"),
        (ORIN_TREE | {_ORIN + "name": "pmbus"}, "no power sensor that is known"),
    ],
    ids=["none", "agx", "ina238 of another board", "half", "garbage", "another chip"],
)
def test_a_board_without_one_says_why(tmp_path: Path, tree: dict[str, str], reason: str) -> None:
    meter, why_not = find_meter(plant(tmp_path, tree))
    assert meter is None
    assert reason in why_not


@pytest.mark.parametrize(("line", "rail"), [(NANO, "POM_5V_IN"), (ORIN_NANO, "VDD_IN"), (THOR, "VIN")])
def test_tegrastats_is_asked_where_sysfs_says_nothing(tmp_path: Path, line: str, rail: str) -> None:
    meter, why_not = find_meter(str(tmp_path), program(tmp_path, "echo garbage\n" + forever(line)))
    assert meter is not None
    assert (meter.rail, meter.source, why_not) == (rail, "tegrastats", "")
    assert all_ended(tmp_path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (forever(AGX_ORIN), "whole power (found: VDD_CPU_CV, VDD_GPU_SOC, VIN_SYS_5V0)"),
        ("exit 1", "this board has no power sensor that is known"),
        ("printf '\\377\\376 VDD_IN 5mW'", "this board has no power sensor that is known"),
    ],
)
def test_a_tegrastats_that_does_not_help_says_why(tmp_path: Path, script: str, reason: str) -> None:
    meter, why_not = find_meter(str(tmp_path), program(tmp_path, script))
    assert meter is None
    assert reason in why_not
    assert all_ended(tmp_path)


def test_a_tegrastats_that_is_silent_or_missing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "_FIRST_SAMPLE_S", 0.1)
    assert find_meter(str(tmp_path), program(tmp_path, "exec sleep 60"))[0] is None
    assert all_ended(tmp_path)
    assert find_meter(str(tmp_path), str(tmp_path / "missing"))[0] is None


def test_sysfs_goes_before_tegrastats(tmp_path: Path) -> None:
    meter, _ = find_meter(plant(tmp_path, ORIN_TREE), program(tmp_path, forever(NANO)))
    assert meter is not None
    assert meter.source == "sysfs"
    assert not (tmp_path / "pids").exists()


@pytest.fixture(params=["sysfs", "tegrastats"])
def meter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Meter]:
    """Both kinds, on an Orin Nano; no program outlives its test."""
    tree = ORIN_TREE if request.param == "sysfs" else {}
    found, _ = find_meter(plant(tmp_path, tree), program(tmp_path, forever(ORIN_NANO)))
    assert found is not None
    yield found
    assert request.param == "sysfs" or all_ended(tmp_path)


def test_samples_are_stamped_in_order(meter: Meter, tmp_path: Path) -> None:
    begun = time.perf_counter()
    with Recorder(meter) as recorder:
        until(lambda: len(recorder.samples()) >= 10)
    samples = recorder.samples()
    assert samples.dtype == np.float64
    assert np.all(np.diff(samples[:, 0]) > 0)
    assert begun <= samples[0, 0] <= samples[-1, 0] <= time.perf_counter()
    assert set(samples[:, 1]) == {4984 * 1856 / 1000 if meter.source == "sysfs" else 5251}
    if meter.source == "tegrastats":
        assert (tmp_path / "arguments").read_text() == "--interval 100\n"
        assert all_ended(tmp_path)


def test_the_sampler_ends_when_what_it_watched_fails(meter: Meter) -> None:
    recorder = Recorder(meter)

    def interrupted() -> None:
        with recorder:
            until(lambda: len(recorder.samples()) >= 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    taken = len(recorder.samples())
    time.sleep(0.05)
    assert len(recorder.samples()) == taken


@pytest.mark.parametrize("script", [f"trap '' TERM\n{forever(NANO)}", f"sleep 60 &\n{forever(NANO)}"])
def test_a_stubborn_tegrastats_is_ended_all_the_same(tmp_path: Path, script: str) -> None:
    threads = threading.active_count()
    with Recorder(power.TegrastatsMeter("POM_5V_IN", program(tmp_path, script))) as recorder:
        until(lambda: len(recorder.samples()) >= 1)
    assert all_ended(tmp_path)
    assert threading.active_count() == threads


def test_energy_is_measured_idle_and_busy(meter: Meter) -> None:
    asked: list[int] = []
    inputs = [np.full(1, number) for number in range(3)]

    def infer(image: np.ndarray) -> None:
        asked.append(int(image[0]))
        time.sleep(0.001)

    for seconds in (0.5, 2.0, 6.0):  # a busy machine may not give the sampler its turn
        asked.clear()
        found, samples = measure_energy(infer, inputs, seconds, meter, pause=0.0)
        assert (found["power_rail"], found["power_source"]) == ("VDD_IN", meter.source)
        assert samples[0, 0] == 0
        assert seconds <= found["power_idle_until_s"] <= found["power_busy_from_s"]
        assert found["power_busy_until_s"] >= found["power_busy_from_s"] + seconds
        assert found["power_queries"] == len(asked)
        assert asked[:4] == [0, 1, 2, 0][: len(asked)]
        judged = energy(environment.parse(found), samples)
        if judged is not None:
            break
    assert judged is not None
    assert "power_why_not" not in found
    assert judged.idle_mw == pytest.approx(samples[0, 1])
    assert judged.net_mj == pytest.approx(0, abs=1e-6)


def test_a_sensor_that_vanishes_midway_is_said(tmp_path: Path) -> None:
    meter, _ = find_meter(plant(tmp_path, ORIN_TREE))
    assert meter is not None

    def infer(image: np.ndarray) -> None:
        (tmp_path / _ORIN / "curr1_input").unlink(missing_ok=True)
        time.sleep(0.001)

    found, samples = measure_energy(infer, [np.zeros(1)], 0.15, meter, pause=0.0)
    assert "of VDD_IN while idle and" in found["power_why_not"]
    assert found["power_queries"] > 0
    assert energy(environment.parse(found), samples) is None


def test_a_tegrastats_that_dies_midway_is_said(tmp_path: Path) -> None:
    meter = power.TegrastatsMeter("VDD_IN", program(tmp_path, forever(ORIN_NANO)))

    def infer(image: np.ndarray) -> None:
        for number in (tmp_path / "pids").read_text().split():
            os.kill(int(number), 9)
        time.sleep(0.001)

    found, samples = measure_energy(infer, [np.zeros(1)], 0.15, meter, pause=0.0)
    assert "tegrastats gave" in found["power_why_not"]
    assert energy(environment.parse(found), samples) is None
    assert all_ended(tmp_path)


@pytest.mark.parametrize("script", ["exit 1", forever(NANO), None], ids=["fails", "another board", "missing"])
def test_a_meter_that_never_speaks_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    monkeypatch.setattr(power, "_FIRST_SAMPLE_S", 0.1)
    path = str(tmp_path / "missing") if script is None else program(tmp_path, script)
    found, samples = measure_energy(lambda image: None, [], 60.0, power.TegrastatsMeter("VDD_IN", path), pause=0.0)
    assert samples.shape == (0, 2)
    assert found["power_queries"] == 0
    assert found["power_why_not"] == "tegrastats gave 0 samples of VDD_IN while idle and 0 while busy; 5 are needed"


def test_a_model_that_fails_ends_the_sampler(meter: Meter) -> None:
    def infer(image: np.ndarray) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        measure_energy(infer, [np.zeros(1)], 0.1, meter, pause=0.0)

"""Properties of a phone, read over adb by a shell script. The output is untrusted input.

Formats: ``getprop`` prints ``[name]: [value]``; the kernel's cpu_capacity and cpuinfo_max_freq
(sysfs-devices-system-cpu); proc(5); what `edgekit.devices.android` reads.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from edgekit.devices import adb, android
from edgekit.devices.probe import PYTHON, RUNTIMES, python_fields, sections
from edgekit.labels import visible
from edgekit.records import Device

_MOST_TEXT, _MOST_CORES, _MOST_PYTHONS = 100, 64, 8
# Where the shell's user may have a Python that it can run; it has no access to that of Termux.
_PLACES = ("python3", "/data/local/tmp/python/bin/python3", "/data/local/tmp/bin/python3")
# $1: a random mark before each section, $2: modules to look for (JSON), then Pythons.
_SCRIPT = f"""{android.SECTION}
runtimes=$1; shift
section properties; getprop 2>/dev/null | head -c 200000
section cores; for c in /sys/devices/system/cpu/cpu[0-9]*; do
    capacity=; hertz=
    read -r capacity <"$c/cpu_capacity"
    read -r hertz <"$c/cpufreq/cpuinfo_max_freq"
    echo "${{c##*/cpu}} ${{capacity:--}} ${{hertz:--}}"; done 2>/dev/null
section meminfo; head -c 200 /proc/meminfo
section free; df -Pk "$cache" | tail -n 1
{android.STATE}
section termux; pm path com.termux 2>/dev/null </dev/null | head -c 200
for python; do
    at=$(command -v "$python" 2>/dev/null) || continue
    section "python $at"; limit=; command -v timeout >/dev/null && limit="timeout 60"
    $limit "$at" -c '@PYTHON@' "$runtimes" 2>/dev/null </dev/null; done
exit 0
"""


@dataclass(frozen=True)
class Core:
    """CPU core. `capacity`: speed relative to the fastest core, which has 1024. `mhz`: maximum clock."""

    number: int
    capacity: int | None
    mhz: float | None


@dataclass(frozen=True)
class AndroidProbe:
    """State of a phone; empty or None where it does not report a value.

    Attributes:
        soc: name of the chip by its maker. big_cores: hexadecimal mask for taskset of all cores except those of the
            slowest kind; "" if there is one kind. state: see `android.parse_state`.
        pythons: path -> package -> version, with ``python`` itself. termux: Termux is installed; adb has no access to
            its Python. free_gb: free disk space where edgekit keeps its files.
    """

    serial: str
    maker: str = ""
    model: str = ""
    soc: str = ""
    platform: str = ""
    android: str = ""
    sdk: int | None = None
    abi: str = ""
    cores: tuple[Core, ...] = ()
    big_cores: str = ""
    memory_gb: float | None = None
    free_gb: float | None = None
    state: dict[str, Any] = field(default_factory=dict)
    pythons: dict[str, dict[str, str]] = field(default_factory=dict)
    termux: bool = False

    @property
    def runner(self) -> str:
        """Path of a Python that can run the ondevice runner; "" if none was found."""
        able = ("ai-edge-litert", "tflite-runtime")
        return next(
            (
                path
                for path, found in self.pythons.items()
                if "numpy" in found and any(name in found and "import" not in found[name] for name in able)
            ),
            "",
        )


def probe(handle: str, python: str = "python3") -> AndroidProbe:
    """Read the properties of the phone that ``adb`` or ``adb:SERIAL`` names.

    Args:
        python: one more Python to look for.

    Raises:
        MissingError: the phone is not connected, or not ready.
        UsageError: several phones are connected and none is named.
    """
    mark = secrets.token_hex(8)
    script = _SCRIPT.replace("@PYTHON@", PYTHON)
    with adb.Connection(handle[len("adb:") :]) as link:
        places = dict.fromkeys((python, *_PLACES))
        output = link.insist(script, mark, json.dumps(RUNTIMES), *places).decode("utf-8", "replace")
        return parse(link.host, sections(output, mark))


def parse(serial: str, output: dict[str, str]) -> AndroidProbe:
    """Parse the sections of the script's output; values that cannot be parsed are left out."""
    properties = parse_properties(output.get("properties", ""))

    def first(*names: str) -> str:
        return next((properties[name] for name in names if properties.get(name)), "")

    memory = re.search(r"MemTotal:\s+(\d{1,15}) kB", output.get("meminfo", ""))
    free = re.search(r"\s\d+\s+\d+\s+(\d{1,15})\s+\d+%", output.get("free", ""))
    sdk = first("ro.build.version.sdk")
    cores = parse_cores(output.get("cores", ""))
    return AndroidProbe(
        serial=serial,
        maker=first("ro.product.manufacturer"),
        model=first("ro.product.model"),
        soc=" ".join(filter(None, (first("ro.soc.manufacturer"), first("ro.soc.model", "ro.hardware.chipname")))),
        platform=first("ro.board.platform", "ro.hardware"),
        android=first("ro.build.version.release"),
        sdk=int(sdk) if re.fullmatch(r"\d{1,3}", sdk) else None,
        abi=first("ro.product.cpu.abi"),
        cores=cores,
        big_cores=big_cores(cores),
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        free_gb=round(int(free[1]) * 1024 / 1e9, 1) if free else None,
        state=android.parse_state(output),
        pythons=_pythons(output),
        termux=output.get("termux", "").startswith("package:"),
    )


def parse_properties(text: str) -> dict[str, str]:
    """Parse the output of ``getprop``; values are made printable, and cut after their first line."""
    found = re.findall(r"^\[([A-Za-z0-9._-]{1,100})\]: \[([^\]\n]{0,1000})", text, re.MULTILINE)
    return {name: visible(value.strip("\r "))[:_MOST_TEXT] for name, value in found}


def parse_cores(text: str) -> tuple[Core, ...]:
    """Parse lines of number, capacity and maximum clock in kHz; a dash stands for an unknown value."""
    found = re.findall(r"^(\d{1,3}) (\d{1,5}|-) (\d{1,9}|-)$", text, re.MULTILINE)
    cores = {
        int(number): Core(
            int(number),
            None if capacity == "-" else int(capacity),
            None if kilohertz == "-" else int(kilohertz) / 1000,
        )
        for number, capacity, kilohertz in found
        if int(number) < _MOST_CORES
    }
    return tuple(cores[number] for number in sorted(cores))


def big_cores(cores: tuple[Core, ...]) -> str:
    """Return the mask of all cores but those of the slowest kind, by capacity, else by clock; "" if all are alike."""
    speeds: list[float | None] = [core.capacity for core in cores]
    if None in speeds or len(set(speeds)) < 2:
        speeds = [core.mhz for core in cores]
    known = [speed for speed in speeds if speed is not None]
    if len(known) < len(cores) or len(set(known)) < 2:
        return ""
    mask = sum(1 << core.number for core, speed in zip(cores, known) if speed > min(known))
    return f"{mask:x}"


def profile(found: AndroidProbe, name: str, when: str) -> Device:
    """Return the device file of a phone: models run in its Python, or in ``benchmark_model`` if it has none.

    Args:
        when: date, for its source.
    """
    chip = found.soc or found.platform
    described = " ".join(filter(None, (found.maker, found.model)))
    return Device(
        name,
        "android",
        description=described + (f" ({chip}, Android {found.android})" if chip and found.android else ""),
        transport="adb",
        runtime="litert",
        host=found.serial,
        python=found.runner,
        api="interpreter" if found.runner else "benchmark-model",
        cpu_mask=found.big_cores,
        memory_gb=found.memory_gb,
        sources=(f"the device itself, {when}",),
    )


def rows(found: AndroidProbe) -> list[tuple[str, Any]]:
    """Return the rows of the table that is printed."""
    kinds: dict[tuple[int | None, float | None], int] = {}
    for core in found.cores:
        kinds[core.capacity, core.mhz] = kinds.get((core.capacity, core.mhz), 0) + 1
    clocks = ", ".join(f"{count} x {mhz:.0f} MHz" for (_, mhz), count in kinds.items() if mhz is not None)
    heat = found.state.get("thermal_status")
    degrees, by = found.state.get("battery_c"), found.state.get("charged_by")
    level = found.state.get("battery_percent")
    battery = [f"{level} %"] if level is not None else []
    battery += [f"{degrees:.0f} C"] if degrees is not None else []
    battery += [f"charged by {by}"] if by is not None else []
    pythons = "; ".join(
        f"{path} ({', '.join(f'{package} {version}' for package, version in packages.items())})"
        for path, packages in found.pythons.items()
    )
    return [
        ("serial", found.serial), ("model", " ".join(filter(None, (found.maker, found.model)))),
        ("chip", found.soc), ("platform", found.platform), ("Android", found.android), ("SDK", found.sdk),
        ("ABI", found.abi), ("cores", f"{len(found.cores)} ({clocks})" if clocks else len(found.cores) or None),
        ("big cores (mask)", found.big_cores), ("memory, GB", found.memory_gb), ("free disk, GB", found.free_gb),
        ("thermal status", None if heat is None else android.thermal_name(heat)), ("battery", ", ".join(battery)),
        ("Python", pythons), ("Termux", "installed; adb has no access to its Python" if found.termux else ""),
    ]  # fmt: skip


def as_json(found: AndroidProbe) -> dict[str, Any]:
    """Return the probe as JSON values."""
    return {**dataclasses.asdict(found), "runner": found.runner}


def _pythons(output: dict[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, text in output.items():
        kind, _, path = name.partition(" ")
        fields = python_fields(text) if kind == "python" and len(found) < _MOST_PYTHONS else {}
        if fields.get("python"):
            found[visible(path)[:_MOST_TEXT]] = {"python": fields["python"], **fields["runtimes"]}
    return found

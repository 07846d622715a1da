"""What a device says of itself; every value is one that `replies` takes."""

from __future__ import annotations

import builtins
import io
import os
from typing import Any

import pytest

from edgekit.bench.replies import plain
from edgekit.ondevice import environment

REAL = builtins.open


def files(monkeypatch: pytest.MonkeyPatch, contents: dict[str, str]) -> None:
    """A system with these files and no others."""

    def opened(path: Any, *arguments: Any, **named: Any) -> Any:
        if str(path) in contents:
            return io.StringIO(contents[str(path)])
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(path)
        return REAL(path, *arguments, **named)

    monkeypatch.setattr(builtins, "open", opened)


def test_all_of_it_is_said_on_this_machine() -> None:
    said = environment.environment()
    assert {"cpu", "cores", "cores_usable", "memory_gb", "kernel", "microcode", "turbo", "governor", "python", "numpy",
            "machine", "system", "board"} == set(said)  # fmt: skip
    assert all(plain(value) == value for value in said.values())
    assert 1 <= said["cores_usable"] <= said["cores"]
    assert said["memory_gb"] > 0.1
    assert said["kernel"] == os.uname().release


@pytest.mark.parametrize(
    ("contents", "turbo"),
    [
        ({"/sys/devices/system/cpu/intel_pstate/no_turbo": "1\n"}, "off"),
        ({"/sys/devices/system/cpu/intel_pstate/no_turbo": "0\n"}, "on"),
        ({"/sys/devices/system/cpu/cpufreq/boost": "0\n"}, "off"),
        ({"/sys/devices/system/cpu/cpufreq/boost": "1\n"}, "on"),
        ({"/sys/devices/system/cpu/cpufreq/boost": "what\n"}, ""),
        ({}, ""),
    ],
)
def test_turbo_is_read_where_the_kernel_tells(
    monkeypatch: pytest.MonkeyPatch, contents: dict[str, str], turbo: str
) -> None:
    files(monkeypatch, contents)
    assert environment.environment()["turbo"] == turbo


def test_microcode_is_that_of_the_first_core(monkeypatch: pytest.MonkeyPatch) -> None:
    files(monkeypatch, {"/proc/cpuinfo": "model name\t: A CPU\nmicrocode\t: 0xf4\n\nmicrocode\t: 0xf5\n"})
    said = environment.environment()
    assert (said["cpu"], said["microcode"]) == ("A CPU", "0xf4")


def test_a_system_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    files(monkeypatch, {})
    monkeypatch.delattr(os, "getloadavg")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sysconf")
    said = environment.environment()
    assert (said["microcode"], said["memory_gb"]) == ("", -1.0)
    assert environment.load_average() == -1.0


def test_the_load_is_a_number() -> None:
    assert environment.load_average() >= 0

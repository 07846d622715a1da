"""What a device says of itself: real formats, other versions, and things that no device says.

Fixtures: ``/etc/nv_tegra_release`` of L4T 36.4.3 and 35.4.1 and ``nvpmodel -q`` as the Jetson Linux Developer
Guide and NVIDIA's forum show them; dpkg-query, df, proc(5) as Debian prints them. None was read off hardware here.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import config
from edgekit.devices import probe
from edgekit.devices.probe import Probe
from tests.devices import sshd

ORIN = {
    "machine": "aarch64",
    "cores": "6",
    "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\x00",
    "tegra": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
    "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia",
    "meminfo": "MemTotal:        7802976 kB\nMemFree:         1234 kB",
    "cuda": '{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.11"}}',
    "packages": "libnvinfer10\t10.3.0.30-1+cuda12.5\nnvidia-jetpack\t6.2+b77\ntensorrt\t10.3.0.30-1+cuda12.5",
    "power": "NV Power Mode: MAXN_SUPER\n2",
    "thermal": "cpu-thermal 48312\ngpu-thermal 47781\ncv0-thermal -256000\ntj-thermal 48312",
    "free": "/dev/nvme0n1p1 239000000 60000000 168000000      27% /",
    "modes": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >",
    "gpu": "306000000 306000000 624750000 ",
    "python": '["3.10.12", {"onnxruntime": "1.23.0", "numpy": "1.26.4"}, "8.7", 0]',
}
OLD = {
    "tegra": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64",
    "packages": "libnvinfer8:arm64 8.5.2-1+cuda11.4\nnvidia-jetpack 5.1.2-b104",
    "power": "NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2",
    "python": '["3.8.10", {}, "", null]',
}


def test_an_orin_nano_is_read() -> None:
    found = probe.parse("me@orin", ORIN)
    assert (found.l4t, found.jetpack, found.cuda, found.tensorrt) == ("36.4.3", "6.2", "12.6.11", "10.3.0.30")
    assert (found.machine, found.cores, found.memory_gb, found.free_gb) == ("aarch64", 6, 8.0, 172.0)
    assert (found.power_mode, found.python, found.family) == ("MAXN_SUPER", "3.10.12", "jetson")
    assert found.temperatures == {"cpu-thermal": 48.312, "gpu-thermal": 47.781, "tj-thermal": 48.312}
    assert found.runtimes == {"onnxruntime": "1.23.0", "numpy": "1.26.4"}
    assert (found.compute_capability, found.dla_cores) == ("8.7", 0)
    assert (found.power_modes, found.gpu_mhz) == (("15W", "7W"), (306.0, 306.0, 624.75))


def test_an_older_jetpack_is_read() -> None:
    found = probe.parse("xavier", OLD)
    assert (found.l4t, found.jetpack, found.tensorrt) == ("35.4.1", "5.1.2", "8.5.2")
    assert (found.power_mode, found.python) == ("MODE_15W_6CORE", "3.8.10")


@pytest.mark.parametrize("said", [{}, dict.fromkeys(ORIN, ""), dict.fromkeys(ORIN, "\x00\xff garbage {[")])
def test_what_says_nothing_is_unknown(said: dict[str, str]) -> None:
    found = probe.parse("x", said)
    assert (found.cores, found.memory_gb, found.l4t, found.cuda, found.tensorrt) == (None, None, "", "", "")
    assert (found.temperatures, found.runtimes, found.family) == ({}, {}, "rpi")


@given(st.dictionaries(st.sampled_from(sorted(ORIN)), st.text(max_size=300)))
@settings(max_examples=150, deadline=None)
def test_nothing_that_a_device_says_breaks_the_parser_or_reaches_the_terminal(said: dict[str, str]) -> None:
    found = probe.parse("x", said)
    texts = [found.machine, found.model, found.l4t, found.jetpack, found.cuda, found.power_mode, found.python]
    assert all(text.isprintable() and len(text) <= 100 for text in texts)


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_reply_that_ends_early_loses_only_its_end(cut: int) -> None:
    said = "".join(f"\nmark {name}\n{text}" for name, text in ORIN.items())
    sections = probe.sections(said[: len(said) * cut // 100], "mark")
    whole = list(sections)[:-1]
    assert all(sections[name] == ORIN[name].strip("\n\x00 ") for name in whole)
    probe.parse("x", sections)


def test_a_section_needs_the_mark_that_the_device_was_not_told_before() -> None:
    said = "\nmark machine\naarch64\nother model\nforged"
    assert probe.sections(said, "mark") == {"machine": "aarch64\nother model\nforged"}


def test_the_device_file_is_one_that_edgekit_reads(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = probe.parse("me@orin", {**ORIN, "model": 'Jetson "quoted" \\ \x1b[2J'})
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "orin.toml").write_text(probe.to_toml(probe.profile(found, "orin", "2026-01-01")))
    monkeypatch.chdir(tmp_path)
    device = config.load_device("orin")
    assert (device.family, device.transport, device.host, device.memory_gb) == ("jetson", "ssh", "me@orin", 8.0)
    assert device.description == 'Jetson "quoted" \\ \\x1b[2J'
    assert (device.compute_capability, device.dla_cores, device.power_modes) == ("8.7", 0, ("15W", "7W"))
    assert device.sources == ("the device itself, 2026-01-01",)


def test_a_real_machine_answers(board: sshd.Server) -> None:
    import os
    import platform
    import sys

    found = probe.probe(board.host, sys.executable)
    assert isinstance(found, Probe)
    assert (found.machine, found.cores) == (platform.machine(), os.cpu_count())
    assert found.python == platform.python_version()
    assert "numpy" in found.runtimes
    assert found.memory_gb is not None
    assert found.free_gb is not None
    assert probe.probe(board.host, "no-such-python").python == ""

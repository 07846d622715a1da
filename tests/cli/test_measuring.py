"""Devices in turn and at once, and what Ctrl-C does to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import config, store
from edgekit.cli import benchmark, measuring
from edgekit.records import Device
from tests.bench.results import artifact


class Recorder:
    """A transport that can be stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


def test_the_tasks_of_one_host_run_in_turn_and_hosts_at_once() -> None:
    meeting, seen = threading.Barrier(2, timeout=10), []

    def task(name: str, wait: bool) -> measuring.Task:
        def run(opened: Callable[[Any], None]) -> None:
            if wait:
                meeting.wait()  # the first ones of both hosts meet, so they ran at once
            seen.append(name)

        return run

    measuring._at_once([[task("a1", True), task("a2", False)], [task("b1", True)]])
    assert sorted(seen) == ["a1", "a2", "b1"]
    assert seen.index("a1") < seen.index("a2")
    measuring._at_once([])


def test_a_bug_or_ctrl_c_stops_what_runs_and_begins_nothing_more() -> None:
    transport, begun = Recorder(), []

    def runs(opened: Callable[[Any], None]) -> None:
        opened(transport)
        assert transport.stopped.wait(10)

    def breaks(opened: Callable[[Any], None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measuring._at_once([[runs, lambda opened: begun.append(1)], [breaks]])
    assert begun == []


def test_a_litert_device_on_this_machine_runs_litert_files_alone_and_as_its_file_says(tmp_path: Path) -> None:
    """Else files that ONNX Runtime runs on the CPU would stand under the name of a GPU."""
    gpu = config.load_device("local-litert-gpu")
    (tmp_path / "model").write_bytes(b"")
    flat = artifact("rpi/model", runtime="litert", sha256=store.sha256_file(tmp_path / "model"))
    assert benchmark._is_apart(gpu)
    assert benchmark._runs(flat, gpu)
    assert not benchmark._runs(artifact("desktop/model", runtime="onnxruntime"), gpu)
    (step,) = measuring._steps(gpu, [(flat, tmp_path / "model")])
    wanted: Any = None
    assert step.model(wanted, wanted).options["accelerator"] == "gpu"


def test_two_names_of_one_phone_are_not_measured_at_once() -> None:
    phones = [Device(name, "android", transport="adb", host=host) for name, host in (("a", ""), ("b", "1"), ("c", "2"))]
    assert {measuring._where(each, True) for each in phones} == {"adb"}
    named = [Device("a", "android", transport="adb", host=host) for host in ("S", "adb:S")]
    assert {measuring._where(each, False) for each in named} == {"adb S"}
    assert len({measuring._where(each, False) for each in phones[1:]}) == 2
    assert measuring._where(Device("here", "desktop", transport="local"), True) == ""

"""Devices in turn and at once, and what Ctrl-C does to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit import config, files
from edgekit.api import benchmark
from edgekit.bench import engines, program
from edgekit.measurements import ProgramFigures, ProgramResult, Suite
from edgekit.records import Artifact, Device
from tests.bench.results import artifact


class Recorder:
    """A transport that can be stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


def test_the_tasks_of_one_host_run_in_turn_and_hosts_at_once() -> None:
    meeting, seen = threading.Barrier(2, timeout=10), []

    def task(name: str, wait: bool) -> benchmark.Task:
        def run(opened: Callable[[Any], None]) -> None:
            if wait:
                meeting.wait()  # the first ones of both hosts meet, so they ran at once
            seen.append(name)

        return run

    benchmark._at_once([[task("a1", True), task("a2", False)], [task("b1", True)]], threading.Event())
    assert sorted(seen) == ["a1", "a2", "b1"]
    assert seen.index("a1") < seen.index("a2")
    benchmark._at_once([], threading.Event())


def test_a_bug_or_ctrl_c_stops_what_runs_and_begins_nothing_more() -> None:
    transport, begun = Recorder(), []

    def runs(opened: Callable[[Any], None]) -> None:
        opened(transport)
        assert transport.stopped.wait(10)

    def breaks(opened: Callable[[Any], None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark._at_once([[runs, lambda opened: begun.append(1)], [breaks]], threading.Event())
    assert begun == []


def test_a_transport_that_opens_after_ctrl_c_is_stopped_too() -> None:
    early, late = Recorder(), Recorder()

    def opens_late(opened: Callable[[Any], None]) -> None:
        opened(early)
        assert early.stopped.wait(10)  # so `stop` was called on all that were open
        opened(late)
        assert late.stopped.wait(10)

    def breaks(opened: Callable[[Any], None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark._at_once([[opens_late], [breaks]], threading.Event())
    assert late.stopped.is_set()


def test_a_litert_device_on_this_machine_runs_litert_files_alone_and_as_its_file_says(tmp_path: Path) -> None:
    """Else files that ONNX Runtime runs on the CPU would stand under the name of a GPU."""
    gpu = config.load_device("local-litert-gpu")
    (tmp_path / "model").write_bytes(b"")
    flat = artifact("rpi/model", runtime="litert", sha256=files.sha256_file(tmp_path / "model"))
    assert benchmark._is_apart(gpu)
    assert benchmark._runs(flat, gpu)
    assert not benchmark._runs(artifact("desktop/model", runtime="onnxruntime"), gpu)
    (step,) = benchmark._steps(gpu, [(flat, tmp_path / "model")])
    wanted: Any = None
    assert step.model(wanted, wanted).options["accelerator"] == "gpu"


def test_the_baseline_in_tensorrt_is_an_engine_that_is_built_here_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = config.load_device("local")
    path = tmp_path / "common" / "model.fp16.onnx"
    path.parent.mkdir()
    path.write_bytes(b"half")
    half = artifact("baseline/tensorrt-fp16", "fp16", "tensorrt", target="desktop", sha256=files.sha256_file(path))
    built: list[engines.Kit] = []

    def build(kit: engines.Kit, *given: Any) -> engines.Engine:
        built.append(kit)
        return engines.Engine(path, {"builder": "api", "tensorrt": "10.3.0"}, half)

    monkeypatch.setattr(benchmark, "build", build)
    wanted: Any = SimpleNamespace(rebuild=False)
    transport: Any = None
    (step,) = benchmark._steps(here, [(half, path)])
    assert (step.title, step.artifacts) == ("baseline/tensorrt-fp16", (half,))
    model = step.model(transport, wanted)
    assert (model.runtime, model.artifact) == ("tensorrt", half)
    assert built == [engines.Kit("fp16", path.parent, {"onnx": (half, path)})]


def test_equal_files_are_measured_once_by_a_program_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = Device("phone", "android", transport="adb", runtime="litert", api="benchmark-model")
    work = [(artifact(f"{target}/model", runtime="litert", sha256="5" * 64), tmp_path) for target in ("phone", "rpi")]
    figures = ProgramFigures(1, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, None, None, None, "full")
    measured: list[str] = []
    saved: list[ProgramResult] = []

    def measure(found: Artifact, *others: Any) -> ProgramResult:
        measured.append(found.name)
        return ProgramResult(found, "phone", "benchmark_model", "6" * 64, "device", {}, figures, 1)

    monkeypatch.setattr(benchmark, "open_transport", lambda *given: contextlib.nullcontext())
    monkeypatch.setattr(program, "ask", lambda *given: None)
    monkeypatch.setattr(program, "benchmark", measure)
    monkeypatch.setattr(program, "save", lambda folder, result: saved.append(result))
    wanted: Any = SimpleNamespace(run=SimpleNamespace(path=tmp_path), suite=None, power_mode="")
    benchmark._measure_device(wanted, phone, work, lambda *given: None, lambda transport: None)
    assert measured == ["phone/model"]
    assert [result.artifact.name for result in saved] == ["phone/model", "rpi/model"]


def test_two_names_of_one_phone_are_not_measured_at_once() -> None:
    phones = [Device(name, "android", transport="adb", host=host) for name, host in (("a", ""), ("b", "1"), ("c", "2"))]
    assert {benchmark._host_key(each, True) for each in phones} == {"adb"}
    named = [Device("a", "android", transport="adb", host=host) for host in ("S", "adb:S")]
    assert {benchmark._host_key(each, False) for each in named} == {"adb S"}
    assert len({benchmark._host_key(each, False) for each in phones[1:]}) == 2
    assert benchmark._host_key(Device("here", "desktop", transport="local"), True) == ""


@pytest.mark.parametrize(
    ("transport", "seconds", "before", "rests"),
    [("adb", 300.0, {"a": 1}, True), ("adb", 300.0, {}, False), ("adb", 0.0, {"a": 1}, False),
     ("ssh", 300.0, {"a": 1}, False), ("local", 300.0, {"a": 1}, False)],
)  # fmt: skip
def test_only_phones_rest_and_only_after_what_made_them_hot(
    transport: str, seconds: float, before: dict[str, int], rests: bool
) -> None:
    waited: list[float] = []
    stop: Any = SimpleNamespace(wait=waited.append)
    wanted: Any = SimpleNamespace(suite=Suite("mine", cooldown_s=seconds), stop=stop)
    said: list[str] = []
    benchmark._cool_down(wanted, Device("phone", "android", transport=transport), said.append, before)
    assert (waited, said) == (([seconds], ["cooling down for 300 s"]) if rests else ([], []))


def test_a_rest_ends_with_all_the_rest() -> None:
    wanted: Any = SimpleNamespace(suite=Suite("mine", cooldown_s=300.0), stop=threading.Event())
    wanted.stop.set()
    with pytest.raises(KeyboardInterrupt):
        benchmark._cool_down(wanted, Device("phone", "android", transport="adb"), lambda text: None, {"a": 1})

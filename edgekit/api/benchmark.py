"""What is done on the devices of one ``edgekit benchmark``: engines are built, models measured, results kept."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import config, progress, runs
from edgekit.bench import engines, program, results, roofline, session
from edgekit.devices import ssh, transport
from edgekit.devices.transport import Transport, open_transport
from edgekit.errors import EdgekitError, UsageError
from edgekit.measurements import BenchmarkResult, LayerCost, ProgramResult, Suite
from edgekit.records import Artifact, Device

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.bench.session import EvaluationSet


Work = list[tuple[Artifact, Path]]


@dataclass(frozen=True)
class Wanted:
    """What is measured, of every device.

    Attributes:
        rebuild: engines are built anew. power_mode: that devices have meanwhile; "" leaves theirs.
        ended: set where all is to end, which cuts rests short.
        costs: of the network's layers, for what a device could do at best. peaks: of this machine's CPU.
    """

    run: runs.Run
    suite: Suite
    samples: session.EvaluationSet
    rebuild: bool = False
    power_mode: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    costs: tuple[LayerCost, ...] = ()
    peaks: roofline.Peaks | None = None


def measure_all(wanted: Wanted, plan: list[tuple[Device, Work]]) -> None:
    """Devices on this machine one after the other, then those on other hosts at once, each with its own line.

    Raises:
        EdgekitError: of the first device that failed; the others are measured all the same.
    """
    hosts: dict[str, list[Task]] = {}
    failed: list[EdgekitError] = []
    one_phone = any(device.transport == "adb" and not device.host for device, _ in plan)
    with progress.bars() as add:
        for device, work in plan:
            task = _task(wanted, device, work, add(f"benchmarking on {device.name}"), failed)
            hosts.setdefault(_where(device, one_phone), []).append(task)
        for task in hosts.pop("", []):
            task(lambda transport: None)
        _at_once(list(hosts.values()), wanted.ended)
    for error in failed[1:]:
        progress.log.error("%s", error.message)
    if failed:
        raise failed[0]


def _where(device: Device, one_phone: bool) -> str:
    """What two devices share that must not be measured at once: "" is this machine.

    Args:
        one_phone: a device over adb is not named, so only one phone can be connected.
    """
    if device.transport == "local":
        return ""
    if device.transport == "adb":
        return "adb" if one_phone else f"adb {device.host}"
    return ssh.address(device.host)


# Measures one device; called with what hears which transport it opened.
Task = Callable[[Callable[[Transport], None]], None]


def _task(wanted: Wanted, device: Device, work: Work, update: progress.Update, failed: list[EdgekitError]) -> Task:
    def task(opened: Callable[[Transport], None]) -> None:
        try:
            _measure_device(wanted, device, work, update, opened)
        except EdgekitError as error:
            failed.append(error)

    return task


def _at_once(hosts: list[list[Task]], ended: threading.Event) -> None:
    """Run the tasks of each host one after the other, the hosts in threads; Ctrl-C and bugs end them all.

    Args:
        ended: is set then.
    """
    if not hosts:
        return
    opened = _Opened()

    def in_turn(tasks: list[Task]) -> None:
        for task in tasks:
            if not ended.is_set():
                task(opened.add)

    with ThreadPoolExecutor(len(hosts)) as pool:
        try:
            for future in as_completed([pool.submit(in_turn, tasks) for tasks in hosts]):
                future.result()
        except BaseException:
            ended.set()
            opened.stop()
            raise


class _Opened:
    """Transports that threads have opened. Once `stop` was called, one that is opened later is stopped at once."""

    def __init__(self) -> None:
        self._transports: list[Transport] = []
        self._stopped = False
        self._lock = threading.Lock()

    def add(self, transport: Transport) -> None:
        with self._lock:
            self._transports.append(transport)
            stopped = self._stopped
        if stopped:
            transport.stop()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            transports = list(self._transports)
        for each in transports:
            each.stop()


def _measure_device(
    wanted: Wanted, device: Device, work: Work, update: progress.Update, opened: Callable[[Transport], None]
) -> None:
    """Measure one model after the other, equal files once; each result is kept as soon as it is there."""
    steps = _steps(device, work)
    number = 0
    title = ""

    def said(text: str) -> None:
        update(number, len(steps), f"{title}: {text}")

    measured: dict[str, BenchmarkResult] = {}
    by_program: dict[str, ProgramResult] = {}
    # The baseline on this machine has none: a request that names this machine was refused before.
    transport = open_transport(device, said, "" if device.transport == "local" else wanted.power_mode)
    opened(transport)  # before it connects: Ctrl-C ends that too
    with transport:
        if device.api == program.API:
            title = program.NAME
            asked = program.ask(device, transport)
        for number, step in enumerate(steps):  # `said` reads it
            title = step.title
            update(number, len(steps), title)
            if device.api == program.API:
                if step.key not in by_program:
                    _rest(wanted, device, said, by_program)
                    by_program[step.key] = program.benchmark(*work[number], device, wanted.suite, asked, transport)
                kept = dataclasses.replace(by_program[step.key], artifact=step.artifacts[0])
                program.save(wanted.run.path / "bench", kept)
                continue
            if step.key not in measured:
                _rest(wanted, device, said, measured)
                model = step.model(transport, wanted)
                found = session.benchmark(model, device, wanted.suite, wanted.samples, transport)
                here = wanted.peaks if _is_this_cpu(device, found, wanted.peaks) else None
                limits = roofline.described(wanted.costs, model.artifact.precision, device, here)
                measured[step.key] = dataclasses.replace(found, environment={**found.environment, **limits})
            result = measured[step.key]
            artifact = next(a for a in step.artifacts if a.sha256 == result.artifact.sha256)
            results.save(wanted.run.path / "bench", dataclasses.replace(result, artifact=artifact))
        update(len(steps), len(steps))


def _rest(wanted: Wanted, device: Device, said: Callable[[str], None], before: Mapping[str, object]) -> None:
    """Let a phone cool down of what it measured before, where the suite wants it."""
    seconds = wanted.suite.cooldown_s if before and device.transport == "adb" else 0.0
    if seconds:
        said(f"cooling down for {seconds:.0f} s")
        if wanted.ended.wait(seconds):
            raise KeyboardInterrupt


def _is_this_cpu(device: Device, result: BenchmarkResult, peaks: roofline.Peaks | None) -> bool:
    """Whether the peaks are of what ran: this machine's CPU, with as many threads."""
    local = device.transport == "local" and not device.emulated and result.environment["processor"] == "cpu"
    return local and peaks is not None and peaks.threads == device.threads


@dataclass(frozen=True)
class _Step:
    """One measurement: equal keys give equal results; `model` makes ready what is measured."""

    title: str
    key: str
    artifacts: tuple[Artifact, ...]
    model: Callable[[Transport, Wanted], session.Model]


def _steps(device: Device, work: Work) -> list[_Step]:
    """A step for each artifact; on TensorRT one for each precision of a target."""
    if device.runtime == "tensorrt":
        return [_engine_step(device, kit) for kit in engines.kits(work)]
    return [_file_step(device, artifact, path) for artifact, path in work]


def _file_step(device: Device, artifact: Artifact, path: Path) -> _Step:
    if artifact.is_baseline and artifact.runtime == "tensorrt":
        return _engine_step(device, engines.Kit(artifact.precision, path.parent, {"onnx": (artifact, path)}))
    key = f"{artifact.sha256} {session.host_runtime(artifact)}"
    return _Step(artifact.name, key, (artifact,), lambda transport, wanted: session.as_exported(artifact, path, device))


def _engine_step(device: Device, kit: engines.Kit) -> _Step:
    artifacts = tuple(artifact for artifact, _ in kit.files.values())

    def model(transport: Transport, wanted: Wanted) -> session.Model:
        for artifact, path in kit.files.values():
            session.verify(artifact, path)
        ready = _in_batches(kit, device)
        engine = None if wanted.rebuild else engines.find(ready, device)
        return engines.as_model(engine or build(ready, device, transport), device)

    key = " ".join(sorted(artifact.sha256 for artifact in artifacts))
    title = artifacts[0].name if artifacts[0].is_baseline else f"{artifacts[0].target}, {kit.precision}"
    return _Step(title, key, artifacts, model)


def build_all(device: Device, work: Work) -> None:
    """Build the engines of every precision on the device."""
    kits = engines.kits(work)
    number = 0
    with progress.bar(f"building on {device.name}") as update:

        def said(text: str) -> None:
            update(number, len(kits), f"{kits[number].precision}: {text}")

        with open_transport(device, said) as transport:
            for number, kit in enumerate(kits):  # `said` reads it
                update(number, len(kits), kit.precision)
                for artifact, path in kit.files.values():
                    session.verify(artifact, path)
                build(_in_batches(kit, device), device, transport)


def _in_batches(kit: engines.Kit, device: Device) -> engines.Kit:
    """The kit for the batch of the device."""
    from edgekit.convert import onnx

    return engines.in_batches(kit, device, onnx.with_batch)


def build(kit: engines.Kit, device: Device, transport: Transport) -> engines.Engine:
    """Build one engine, and say what was built by what."""
    engine = engines.build(kit, device, transport)
    record = engine.record
    progress.note(
        f"  {engine.path}  {engine.path.stat().st_size / 1e6:.1f} MB, from {record['onnx']} by TensorRT "
        f"{record['tensorrt']} on {device.name} in {record.get('seconds', '?')} s"
    )
    if placement := record.get("placement"):
        progress.note(
            f"  on the DLA: {len(placement['dla'])} layers; on the GPU: {len(placement['gpu'])}"
            + (f"; the DLA refuses: {', '.join(placement['refused'][:8])}" if placement["refused"] else "")
        )
    return engine


def devices_of(names: list[str], threads: int | None, host: str | None, power_mode: str) -> list[Device]:
    """The devices of these names, which can be reached and do what is asked for as far as their files say."""
    devices = [_with_threads(config.load_device(name), threads) for name in names]
    if host is not None:
        devices = [transport.at(devices, host)]
    if len({each.name for each in devices}) < len(devices):
        raise UsageError("two devices of one name: their engines and results would mix", "rename one .toml file")
    _check(devices, power_mode)
    return devices


def _check(devices: list[Device], power_mode: str) -> None:
    """
    Raises:
        EdgekitError: one of them cannot be measured on as it is asked for.
    """
    from edgekit.bench import program
    from edgekit.devices import transport

    for each in devices:
        if each.api == program.API:
            program.find(each)
        transport.open_transport(each, power_mode=power_mode)


def with_gates(suite: Suite, asked: dict[str, float | None]) -> Suite:
    """The suite with the gates that the command line sets over its own."""
    given = {name: limit for name, limit in asked.items() if limit is not None}
    return dataclasses.replace(suite, gates=dataclasses.replace(suite.gates, **given))


def _with_threads(device: Device, threads: int | None) -> Device:
    return dataclasses.replace(device, threads=threads or device.threads)


def plan_of(bench: Intermediates, devices: list[Device], desktop: Work) -> list[tuple[Device, Work]]:
    """What runs where: the exports that each device can run, and on this machine the baselines."""
    from edgekit.api.artifacts import current_artifacts

    exported = current_artifacts(bench.run, bench.checkpoint.sha256)
    if not exported:
        progress.note(f"nothing is exported yet; next: edgekit export {bench.run.handle} --target jetson")
    files = [(artifact, bench.run.path / "export" / artifact.name) for artifact in exported]
    plan = []
    for device in devices:
        own = [(artifact, path) for artifact, path in files if artifact.target == device.name]
        work = [(artifact, path) for artifact, path in own or files if _runs(artifact, device)]
        plan.append((device, work if _is_apart(device) else [*desktop, *work]))
    if all(_is_apart(device) for device in devices):
        plan.insert(0, (_with_threads(config.load_device("local"), devices[0].threads), desktop))
    return plan


def _is_apart(device: Device) -> bool:
    """Whether it runs one kind of files in its own way, not all in this Python's runtimes: the baseline stays here."""
    return bool(device.python) or device.transport != "local" or device.runtime in ("tensorrt", "litert")


def _runs(artifact: Artifact, device: Device) -> bool:
    """Whether `device` can run the artifact; what this machine lacks a runtime for is named."""
    from edgekit.bench.session import host_runtime, is_installed

    if device.precisions and artifact.precision not in device.precisions:
        return False
    if device.runtime == "tensorrt":
        return artifact.runtime == "tensorrt"
    if _is_apart(device):
        return host_runtime(artifact) == device.runtime
    if not is_installed(host_runtime(artifact)):
        progress.note(f"left out: {artifact.name} (no runtime for it here; edgekit doctor says what brings it)")
        return False
    return True


def test_set(bench: Intermediates, scratch: Path) -> EvaluationSet:
    """The test split, decoded into one file; the images must be as they were indexed."""
    import numpy as np

    from edgekit.bench.session import EvaluationSet
    from edgekit.data import dataset, images

    chosen = bench.data.split("test")
    paths = dataset.check_unchanged(bench.data, chosen)
    preprocess = bench.checkpoint.preprocess
    with progress.working(f"reading {len(paths)} test images"):
        images.save_pixels(paths, preprocess, scratch / "pixels.npy")
    return EvaluationSet(scratch / "pixels.npy", np.array([s.label for s in chosen]), preprocess)

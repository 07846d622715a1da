"""Benchmark: engines are built, models measured on devices, results kept, gates judged."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import config, progress, runs
from edgekit.analysis import gates as judged
from edgekit.bench import engines, program, results, roofline, session
from edgekit.devices import ssh, transport
from edgekit.devices.transport import Transport, open_transport
from edgekit.errors import EdgekitError, GateError, MissingError, UsageError
from edgekit.measurements import LEAST_SAMPLES, BenchmarkResult, Gates, LayerCost, ProgramResult, Suite, Summary
from edgekit.progress import Callback, reporting
from edgekit.records import BASELINES, Artifact, Device
from edgekit.stats.latency import series_of
from edgekit.stats.quantiles import early_stopping_rank

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.bench.session import EvaluationSet


Work = list[tuple[Artifact, Path]]


_ACCURACY = "edgekit quant debug says where accuracy is lost; more test images narrow its interval"
_LATENCY = "edgekit benchmark --suite standard on an idle machine; a network or a device that is faster"
_HINTS = {"max_drop": _ACCURACY, "min_accuracy": _ACCURACY, "max_p90_ms": _LATENCY, "min_speedup": _LATENCY}
# Names of an artifact and of a device: what a benchmark measured, beside what the run has of earlier ones.
Measured = Set[tuple[str, str]]


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of a benchmark.

    Attributes:
        devices: names or .toml files. suite: name or .toml file.
        gates: limits that replace those of the suite, by the names of the fields of `Gates`.
        threads: CPU threads; None: the device's. host: address of the one device.
        rebuild: build TensorRT engines anew. power_mode: set on the device while it measures; "": as it is.
        baselines: names of `BASELINES`, or "all"; None: those that are installed and need no compiling.
    """

    devices: tuple[str, ...] = ("local",)
    suite: str = "standard"
    gates: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    host: str | None = None
    rebuild: bool = False
    power_mode: str = ""
    baselines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Benchmarked:
    """Measurements of a run after a benchmark.

    Attributes:
        results, rows: raw and summarized measurements of all that the run has, also from earlier benchmarks.
        measured: (artifact, device) of what this benchmark measured.
    """

    run: runs.Run
    suite: Suite
    results: list[BenchmarkResult]
    rows: list[Summary]
    measured: Measured


def benchmark(
    run: runs.Run | str | Path | None = None,
    devices: Sequence[str] = ("local",),
    suite: str = "standard",
    *,
    strict_gates: bool = False,
    runs_dir: str | Path = "runs",
    progress: Callback | None = None,
    **options: Any,
) -> list[Summary]:
    """Measure latency and accuracy of a run's exported models, beside the baselines on this machine.

    Every latency and every score is kept in ``<run>/bench``.

    Args:
        run: a run, its name or path; None for the newest.
        devices: names of ``edgekit devices``, or .toml files.
        suite: when to stop: "quick", "standard", "mlperf-mobile", or a .toml file.
        strict_gates: a gate must be shown to hold with its 95 % interval.
        runs_dir: the folder of the runs.
        progress: called with a `Progress` whenever the state changes, from other threads too.
        options: fields of `BenchmarkOptions`, such as ``gates={"max_drop": 1.0}`` or ``threads=2``.

    Returns:
        One summary per artifact and device, also of earlier benchmarks of these weights.

    Raises:
        MissingError: a device cannot be reached. GateError: a gate is broken; everything is measured and kept.

    Example:
        >>> rows = edgekit.benchmark("tour", suite="quick", baselines=["pytorch"])
        >>> [row.artifact for row in rows]
        ['baseline/pytorch', 'desktop/model.fp32.onnx']
        >>> rows[1].agreement
        100.0
    """
    if options.get("baselines") is not None:
        options["baselines"] = tuple(options["baselines"])
    with reporting(progress):
        found = measure_run(run, BenchmarkOptions(tuple(devices), suite, **options), runs_dir)
        report_missing(found)
        check_gates(found, strict_gates)
    return found.rows


def measure_run(
    run: runs.Run | str | Path | None, options: BenchmarkOptions, runs_dir: str | Path = "runs"
) -> Benchmarked:
    """Measure, keep and summarize. What can be refused without the run and without work is refused first."""
    from edgekit.api import baselines, report
    from edgekit.api.intermediates import Intermediates

    devices = _devices(options)
    suite = config.load_suite(options.suite)
    suite = dataclasses.replace(suite, gates=dataclasses.replace(suite.gates, **options.gates))
    chosen = baselines.choose(None if options.baselines is None else list(options.baselines))
    opened = runs.choose_run(runs_dir, run)
    intermediates = Intermediates(opened)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        plan = _plan(intermediates, devices, baselines.made(intermediates, chosen, Path(scratch)))
        wanted = Wanted(
            opened,
            suite,
            test_set(intermediates, Path(scratch)),
            options.rebuild,
            options.power_mode,
            costs=tuple(report.layers(intermediates)),
            peaks=roofline.measure(plan[0][0].threads),
        )
        measure_all(wanted, plan)
    found, rows = report.measured(opened)
    if not found:
        raise MissingError(f"the run {opened.name!r} has no measurements yet", f"edgekit benchmark {opened.handle}")
    return Benchmarked(
        opened, suite, found, rows, {(artifact.name, each.name) for each, work in plan for artifact, _ in work}
    )


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
                measured[step.key] = dataclasses.replace(found, environment=found.environment.with_values(**limits))
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
    local = device.transport == "local" and not device.emulated and result.environment.processor == "cpu"
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


def _devices(options: BenchmarkOptions) -> list[Device]:
    """Load the devices, and check as far as their files tell that they can do what is asked for."""
    devices = [_with_threads(config.load_device(name), options.threads) for name in options.devices]
    if options.host is not None:
        devices = [transport.at(devices, options.host)]
    if len({each.name for each in devices}) < len(devices):
        raise UsageError("two devices of one name: their engines and results would mix", "rename one .toml file")
    _check(devices, options.power_mode)
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


def _with_threads(device: Device, threads: int | None) -> Device:
    return dataclasses.replace(device, threads=threads or device.threads)


def _plan(bench: Intermediates, devices: list[Device], desktop: Work) -> list[tuple[Device, Work]]:
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


def report_missing(found: Benchmarked) -> None:
    """Log each measurement that has too few queries for a percentile of its suite."""
    for result in (
        r for r in found.results if (r.artifact.name, r.device) in found.measured and r.source != "emulated"
    ):
        series = series_of(result)
        queries, cut = len(series.settled_ns), series.cut
        lacking = [p for p in found.suite.percentiles if p > 50 and early_stopping_rank(queries, p) is None]
        if lacking:
            needs = ", ".join(f"p{p} needs {LEAST_SAMPLES[p]}" for p in lacking)
            behind = f" behind a start-up of {cut}" if cut else ""
            progress.note(
                f"{result.artifact.name} on {result.device}: insufficient samples, {queries} queries{behind}; {needs}"
            )


def check_gates(found: Benchmarked, strict: bool = False) -> None:
    """Judge the gates of the suite, and log those that do not hold.

    Raises:
        GateError: one is broken or could not be shown; with `strict` also where it is doubtful.
    """
    gates = found.suite.gates
    if gates == Gates():
        return
    own = [row for row in found.rows if (row.artifact, row.device) in found.measured]
    verdicts = judged.judge(own, gates, _without_rows(own, found.measured))
    failed = [verdict for verdict in verdicts if verdict.fails(strict)]
    for verdict in verdicts:
        if verdict.outcome != judged.Outcome.HELD:
            progress.note(f"gate {verdict.outcome}: {verdict.text}")
    if all(row.baseline for row in own):
        raise GateError(
            "gates are set, and no artifact was measured that they could be judged on",
            "edgekit export, or another --device: what benchmark_model measures has no answers and no percentiles",
        )
    if failed:
        broken = sorted({verdict.gate for verdict in failed})
        raise GateError(
            f"{len(failed)} of {len(verdicts)} gates are not kept ({', '.join(map(_option, broken))}); everything was "
            "measured and kept",
            "; ".join(dict.fromkeys(_HINTS[gate] for gate in broken)),
        )
    progress.note(f"gates: {sum(v.outcome == judged.Outcome.HELD for v in verdicts)} of {len(verdicts)} held")


def _without_rows(own: Sequence[Summary], measured: Measured) -> set[tuple[str, str]]:
    """What was measured on devices that gave no row: by a program, which says no single times.

    Where a device gave some, the others are files of which one engine was built, and that has its row.
    """
    devices = {row.device for row in own}
    return {(name, device) for name, device in measured if device not in devices and not name.startswith(BASELINES)}


def _option(gate: str) -> str:
    return f"--{gate.replace('_', '-')}"

"""Benchmark: build engines, measure models on devices, save the results, and judge gates."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import config, files, progress, runs
from edgekit.analysis import gates as judged
from edgekit.api.run import choose
from edgekit.bench import engines, program, results, roofline, session
from edgekit.devices import ssh, transport
from edgekit.devices.transport import Transport, open_transport
from edgekit.errors import EdgekitError, GateError, MissingError, UsageError, unknown
from edgekit.measurements import LEAST_SAMPLES, BenchmarkResult, Gates, LayerCost, ProgramResult, Suite, Summary
from edgekit.progress import Callback, reporting
from edgekit.records import BASELINES, Artifact, Device
from edgekit.stats.latency import series_of
from edgekit.stats.quantiles import early_stopping_rank

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.bench.session import EvaluationSet


_ACCURACY = "edgekit quant debug shows where accuracy is lost; more test images make its interval smaller"
_LATENCY = "edgekit benchmark --suite standard on an idle machine, or a faster network or device"
_HINTS = {"max_drop": _ACCURACY, "min_accuracy": _ACCURACY, "max_p90_ms": _LATENCY, "min_speedup": _LATENCY}
_NOISE = 32  # images for a latency without images
# Artifacts and their files, measured on one device.
Work = list[tuple[Artifact, Path]]
# Names of artifacts and devices.
Measured = Set[tuple[str, str]]


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of a benchmark.

    Attributes:
        devices: names or .toml files. suite: name or .toml file.
        gates: limits that replace those of the suite, by name of the fields of `Gates`.
        threads: CPU threads; None: as in the device's file. host: address of the device, if there is only one.
        rebuild: rebuild TensorRT engines. power_mode: power mode while measuring; "": unchanged.
        baselines: names of `BASELINES`, or "all"; None: those that are installed and need no compiler.
        artifacts: names of the models to measure, such as "android/model.int8.tflite"; empty: all. Gates judge those
            that are named, else all but the FP32 references of targets that have another precision.
    """

    devices: tuple[str, ...] = ("local",)
    suite: str = "standard"
    gates: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    host: str | None = None
    rebuild: bool = False
    power_mode: str = ""
    baselines: tuple[str, ...] | None = None
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmarked:
    """Measurements of a run after a benchmark.

    Attributes:
        results, rows: raw and summarized measurements of the run, including earlier benchmarks.
        measured: (artifact, device) that this benchmark measured. named: artifacts that were asked for by name.
        latencies: those of this benchmark that have no answers to test images, because there were no images.
    """

    run: runs.Run
    suite: Suite
    results: list[BenchmarkResult]
    rows: list[Summary]
    measured: Measured
    named: tuple[str, ...] = ()
    latencies: list[BenchmarkResult] = field(default_factory=list)


def benchmark(
    run: runs.Run | str | Path | None = None,
    devices: Sequence[str] = ("local",),
    suite: str = "standard",
    *,
    strict_gates: bool = False,
    runs_dir: str | Path = "runs",
    data: str | Path | None = None,
    progress: Callback | None = None,
    **options: Any,
) -> list[Summary]:
    """Measure latency and accuracy of a run's exported models, and of baselines on this machine.

    Every latency and every logit is saved in ``<run>/bench``.

    Args:
        run: a run, its name or path; None for the newest.
        devices: names of ``edgekit devices``, or .toml files.
        suite: duration and gates: "quick", "standard", "mlperf-mobile", or a .toml file.
        strict_gates: pass a gate only if its 95 % interval shows that it holds.
        runs_dir: the folder of the runs.
        data: folder that the test images are in now; by default that of the training.
        progress: called with a `Progress` whenever the state changes, from other threads too.
        options: fields of `BenchmarkOptions`, such as ``gates={"max_drop": 1.0}`` or ``threads=2``.

    Returns:
        One summary per artifact and device, including earlier benchmarks of these weights.

    Raises:
        MissingError: a device cannot be reached. GateError: a gate is broken; all results are saved.

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
        found = measure_run(run, BenchmarkOptions(tuple(devices), suite, **options), runs_dir, data)
        report_missing(found)
        check_gates(found, strict_gates)
    return found.rows


def measure_run(
    run: runs.Run | str | Path | None,
    options: BenchmarkOptions,
    runs_dir: str | Path = "runs",
    data: str | Path | None = None,
) -> Benchmarked:
    """Measure, save and summarize. Invalid options are refused before any work."""
    from edgekit.api import baselines, report
    from edgekit.api.intermediates import Intermediates

    devices = _devices(options)
    suite = config.load_suite(options.suite)
    suite = dataclasses.replace(suite, gates=dataclasses.replace(suite.gates, **options.gates))
    chosen = baselines.choose(None if options.baselines is None else list(options.baselines))
    opened = choose(runs_dir, run, data)
    intermediates = Intermediates(opened)
    with files.scratch() as scratch:
        plan = _plan(
            intermediates, devices, options.artifacts, baselines.made(intermediates, chosen, scratch, options.baselines)
        )
        samples = test_set(intermediates, scratch)
        wanted = Wanted(
            opened,
            suite,
            samples,
            options.rebuild,
            options.power_mode,
            costs=tuple(report.layer_costs(intermediates)),
            answers=known_answers(opened, samples),
            peaks=roofline.measure(plan[0][0].threads),
        )
        measure_all(wanted, plan)
    found, rows = report.load_measurements(opened)
    measured = {(artifact.name, each.name) for each, work in plan for artifact, _ in work}
    latencies = [
        result
        for result in results.load(opened.path / "bench", lambda text: None)
        if (result.artifact.name, result.device) in measured and not len(result.expected)
    ]
    if not found and not latencies:
        raise MissingError(f"the run {opened.name!r} has no measurements yet", f"edgekit benchmark {opened.handle}")
    return Benchmarked(opened, suite, found, rows, measured, options.artifacts, latencies)


@dataclass(frozen=True)
class Wanted:
    """Settings of a benchmark that all devices share.

    Attributes:
        rebuild: rebuild engines. power_mode: power mode of the devices while measuring; "": unchanged.
        stop: set to end the benchmark; interrupts pauses.
        costs: of the network's layers, for the roofline limit. peaks: of this machine's CPU.
        answers: see `known_answers`.
    """

    run: runs.Run
    suite: Suite
    samples: session.EvaluationSet
    rebuild: bool = False
    power_mode: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    costs: tuple[LayerCost, ...] = ()
    answers: Mapping[tuple[str, str, str], BenchmarkResult] = field(default_factory=dict)
    peaks: roofline.Peaks | None = None


def measure_all(wanted: Wanted, plan: list[tuple[Device, Work]]) -> None:
    """Measure devices on this machine one after the other, then those on other hosts at the same time.

    Raises:
        EdgekitError: of the first device that failed; the others are measured first.
    """
    hosts: dict[str, list[Task]] = {}
    failed: list[EdgekitError] = []
    one_phone = any(device.transport == "adb" and not device.host for device, _ in plan)
    with progress.bars() as add:
        for device, work in plan:
            task = _task(wanted, device, work, add(f"benchmarking on {device.name}"), failed)
            hosts.setdefault(_host_key(device, one_phone), []).append(task)
        for task in hosts.pop("", []):
            task(lambda transport: None)
        _at_once(list(hosts.values()), wanted.stop)
    for error in failed[1:]:
        progress.log.error("%s", error.message)
    if failed:
        raise failed[0]


def _host_key(device: Device, one_phone: bool) -> str:
    """Return a key that devices share which must not be measured at the same time; "" for this machine.

    Args:
        one_phone: a device over adb has no serial number, so only one phone can be connected.
    """
    if device.transport == "local":
        return ""
    if device.transport == "adb":
        return "adb" if one_phone else f"adb {device.host}"
    return ssh.address(device.host)


# Measures one device; its argument is called with the transport once it is opened.
Task = Callable[[Callable[[Transport], None]], None]


def _task(wanted: Wanted, device: Device, work: Work, update: progress.Update, failed: list[EdgekitError]) -> Task:
    def task(opened: Callable[[Transport], None]) -> None:
        try:
            _measure_device(wanted, device, work, update, opened)
        except EdgekitError as error:
            failed.append(error)

    return task


def _at_once(hosts: list[list[Task]], stop: threading.Event) -> None:
    """Run the tasks of each host one after the other, each host in a thread; Ctrl-C and bugs end all.

    Args:
        stop: set when all are to end.
    """
    if not hosts:
        return
    opened = _Opened()

    def in_turn(tasks: list[Task]) -> None:
        for task in tasks:
            if not stop.is_set():
                task(opened.add)

    with ThreadPoolExecutor(len(hosts)) as pool:
        try:
            for future in as_completed([pool.submit(in_turn, tasks) for tasks in hosts]):
                future.result()
        except BaseException:
            stop.set()
            opened.stop()
            raise


class _Opened:
    """Transports that threads have opened. After `stop`, a transport that is added is stopped immediately."""

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
    """Measure one model after the other, identical files once; each result is saved immediately."""
    steps = _steps(device, work)
    number = 0
    title = ""

    def say(text: str) -> None:
        update(number, len(steps), f"{title}: {text}")

    measured: dict[str, BenchmarkResult] = {}
    by_program: dict[str, ProgramResult] = {}
    # This machine runs the baseline, and has no power mode to set.
    transport = open_transport(device, say, "" if device.transport == "local" else wanted.power_mode)
    opened(transport)  # before it connects: Ctrl-C ends that too
    with transport:
        if device.api == program.API:
            title = program.NAME
            asked = program.ask(device, transport)
        for number, step in enumerate(steps):  # `say` reads it
            title = step.title
            update(number, len(steps), title)
            if device.api == program.API:
                if step.key not in by_program:
                    _cool_down(wanted, device, say, by_program)
                    by_program[step.key] = program.benchmark(*work[number], device, wanted.suite, asked, transport)
                kept = dataclasses.replace(by_program[step.key], artifact=step.artifacts[0])
                program.save(wanted.run.path / "bench", kept)
                continue
            if step.key not in measured:
                _cool_down(wanted, device, say, measured)
                model = step.model(transport, wanted)
                found = session.benchmark(model, device, wanted.suite, wanted.samples, transport)
                here = wanted.peaks if _is_this_cpu(device, found, wanted.peaks) else None
                limits = roofline.described(wanted.costs, model.artifact.precision, device, here)
                measured[step.key] = dataclasses.replace(found, environment=found.environment.with_values(**limits))
            result = measured[step.key]
            artifact = next(a for a in step.artifacts if a.sha256 == result.artifact.sha256)
            result = dataclasses.replace(result, artifact=artifact)
            results.save(wanted.run.path / "bench", _with_known_answers(result, wanted.answers))
        update(len(steps), len(steps))


# Device, runtime, and the hash of the file; of a baseline, its name and that of the weights.
_Key = tuple[str, str, str]


def _key(result: BenchmarkResult) -> _Key:
    artifact = result.artifact
    own = f"{artifact.name} {artifact.parent}" if artifact.is_baseline else artifact.sha256
    return result.device, result.runtime, own


def known_answers(run: runs.Run, samples: EvaluationSet) -> dict[_Key, BenchmarkResult]:
    """Return the newest results with answers, for a benchmark without images; a file gives the same answers again."""
    if len(samples.expected):
        return {}
    earlier = results.load_all(run.path / "bench", lambda text: None)
    return {_key(result): result for result in earlier if len(result.expected)}


def _with_known_answers(result: BenchmarkResult, answers: Mapping[_Key, BenchmarkResult]) -> BenchmarkResult:
    """Return a result without images with the answers of an earlier measurement of the same file, if there is one."""
    known = answers.get(_key(result))
    if known is None or len(result.expected):
        return result
    when = known.environment.measured
    progress.note(f"{result.artifact.name} on {result.device}: accuracy as measured at {when}, of the same file")
    return dataclasses.replace(result, logits=known.logits, expected=known.expected)


def _cool_down(wanted: Wanted, device: Device, say: Callable[[str], None], before: Mapping[str, object]) -> None:
    """Let a phone cool down between two measurements, if the suite has a pause."""
    seconds = wanted.suite.cooldown_s if before and device.transport == "adb" else 0.0
    if seconds:
        say(f"cooling down for {seconds:.0f} s")
        if wanted.stop.wait(seconds):
            raise KeyboardInterrupt


def _is_this_cpu(device: Device, result: BenchmarkResult, peaks: roofline.Peaks | None) -> bool:
    """Return True if the result is of this machine's CPU with the number of threads of `peaks`."""
    local = device.transport == "local" and not device.emulated and result.environment.processor == "cpu"
    return local and peaks is not None and peaks.threads == device.threads


@dataclass(frozen=True)
class _Step:
    """One measurement. Steps with equal keys give equal results; `model` prepares the model to measure."""

    title: str
    key: str
    artifacts: tuple[Artifact, ...]
    model: Callable[[Transport, Wanted], session.Model]


def _steps(device: Device, work: Work) -> list[_Step]:
    """Return one step per artifact; for TensorRT one per target and precision."""
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

        def say(text: str) -> None:
            update(number, len(kits), f"{kits[number].precision}: {text}")

        with open_transport(device, say) as transport:
            for number, kit in enumerate(kits):  # `say` reads it
                update(number, len(kits), kit.precision)
                for artifact, path in kit.files.values():
                    session.verify(artifact, path)
                build(_in_batches(kit, device), device, transport)


def _in_batches(kit: engines.Kit, device: Device) -> engines.Kit:
    """Return the kit for the device's batch size."""
    from edgekit.convert import onnx

    return engines.in_batches(kit, device, onnx.with_batch)


def build(kit: engines.Kit, device: Device, transport: Transport) -> engines.Engine:
    """Build one engine, and log its origin."""
    engine = engines.build(kit, device, transport)
    record = engine.record
    progress.note(
        f"  {engine.path}  {engine.path.stat().st_size / 1e6:.1f} MB, from {record['onnx']} by TensorRT "
        f"{record['tensorrt']} on {device.name} in {record.get('seconds', '?')} s"
    )
    if placement := record.get("placement"):
        progress.note(
            f"  on the DLA: {len(placement['dla'])} layers; on the GPU: {len(placement['gpu'])}"
            + (f"; not supported by the DLA: {', '.join(placement['refused'][:8])}" if placement["refused"] else "")
        )
    return engine


def _devices(options: BenchmarkOptions) -> list[Device]:
    """Load the devices, and check the options against their files."""
    devices = [_with_threads(config.load_device(name), options.threads) for name in options.devices]
    if options.host is not None:
        devices = [transport.at(devices, options.host)]
    if len({each.name for each in devices}) < len(devices):
        raise UsageError(
            "two devices have the same name, which would mix their engines and results", "rename one .toml file"
        )
    _check(devices, options.power_mode)
    return devices


def _check(devices: list[Device], power_mode: str) -> None:
    """Check that all devices can be measured with these options.

    Raises:
        EdgekitError: one of them cannot.
    """
    from edgekit.bench import program
    from edgekit.devices import transport

    for each in devices:
        if each.api == program.API:
            program.find(each)
        transport.open_transport(each, power_mode=power_mode)


def _with_threads(device: Device, threads: int | None) -> Device:
    return dataclasses.replace(device, threads=threads or device.threads)


def _plan(
    intermediates: Intermediates, devices: list[Device], named: tuple[str, ...], desktop: Work
) -> list[tuple[Device, Work]]:
    """Return the devices with the exports that each can run; this machine also runs the baselines."""
    from edgekit.api.artifacts import current_artifacts

    exported = current_artifacts(intermediates.run, intermediates.checkpoint.sha256)
    if not exported:
        progress.note(f"nothing is exported yet; next: edgekit export {intermediates.run.handle} --target jetson")
    for name in named:
        if name not in (known := [artifact.name for artifact in exported]):
            raise unknown("artifact", name, known)
    wanted = [artifact for artifact in exported if not named or artifact.name in named]
    files = [(artifact, intermediates.run.path / "export" / artifact.name) for artifact in wanted]
    plan = []
    for device in devices:
        own = [(artifact, path) for artifact, path in files if artifact.target == device.name]
        work = [(artifact, path) for artifact, path in own or files if _runs(artifact, device)]
        plan.append((device, work if _is_apart(device) else [*desktop, *work]))
    if all(_is_apart(device) for device in devices):
        plan.insert(0, (_with_threads(config.load_device("local"), devices[0].threads), desktop))
    return plan


def _is_apart(device: Device) -> bool:
    """Return True if a device does not use the runtimes of this Python, so that the baselines do not run on it."""
    return bool(device.python) or device.transport != "local" or device.runtime in ("tensorrt", "litert")


def _runs(artifact: Artifact, device: Device) -> bool:
    """Return True if `device` can run the artifact; log artifacts whose runtime is not installed here."""
    from edgekit.bench.session import host_runtime, is_installed

    if device.precisions and artifact.precision not in device.precisions:
        return False
    if device.runtime == "tensorrt":
        return artifact.runtime == "tensorrt"
    if _is_apart(device):
        return host_runtime(artifact) == device.runtime
    if not is_installed(host_runtime(artifact)):
        progress.note(
            f"left out: {artifact.name} (its runtime is not installed; edgekit doctor shows how to install it)"
        )
        return False
    return True


def test_set(intermediates: Intermediates, scratch: Path) -> EvaluationSet:
    """Decode the test split into one file; noise, with a warning, if the folder of the images does not exist any more.

    A run that was imported without labelled images has unlabelled ones, of its calibration folder, or noise.

    Raises:
        MissingError: an image does not exist any more. DataError: it has changed since training.
    """
    if intermediates.run.info.source is not None and intermediates.run.info.data is None:
        return _unlabelled_set(intermediates, scratch)
    import numpy as np

    from edgekit.bench.session import EvaluationSet
    from edgekit.data import images, location

    if not (root := location.root_of(intermediates.run, intermediates.data)).is_dir():
        progress.warn(
            f"only latency is measured, on noise: the test images are gone, there is no folder {root}; "
            "--data DIR measures the accuracy too"
        )
        return _noise(intermediates, scratch)
    found = location.take(intermediates.run, intermediates.data.split("test"), "the accuracy", intermediates.data)
    chosen, paths = found.samples, [found.root / sample.path for sample in found.samples]
    preprocess = intermediates.checkpoint.preprocess
    with progress.working(f"reading {len(paths)} test images"):
        images.save_pixels(paths, preprocess, scratch / "pixels.npy")
    return EvaluationSet(scratch / "pixels.npy", np.array([s.label for s in chosen]), preprocess)


def _noise(intermediates: Intermediates, scratch: Path) -> EvaluationSet:
    import numpy as np

    from edgekit.bench.session import EvaluationSet

    size = intermediates.checkpoint.preprocess.image_size
    noise = np.random.default_rng(0).integers(0, 256, (_NOISE, size, size, 3), np.uint8)
    np.save(scratch / "pixels.npy", noise)
    return EvaluationSet(scratch / "pixels.npy", np.zeros(0, np.int64), intermediates.checkpoint.preprocess)


def _unlabelled_set(intermediates: Intermediates, scratch: Path) -> EvaluationSet:
    """Decode the unlabelled images of a run that was imported with some, else make noise."""
    import numpy as np

    from edgekit.bench.session import EvaluationSet
    from edgekit.data import calibration, images

    folder, run = intermediates.calibration_data, intermediates.run
    if folder is None:
        progress.warn(
            f"only latency is measured, on noise: {run.name} was imported without images; --data DIR (a folder for "
            "each class) measures the accuracy too"
        )
        return _noise(intermediates, scratch)
    chosen = intermediates.unlabelled
    progress.note(
        f"no labels, so no accuracy: answers are compared with the baseline's for {len(chosen)} images of "
        f"{folder.name}; --data DIR (a folder for each class) measures the accuracy"
    )
    with progress.working(f"reading {len(chosen)} images"):
        images.save_pixels(chosen, intermediates.checkpoint.preprocess, scratch / "pixels.npy")
    expected = np.full(len(chosen), calibration.UNLABELLED)
    return EvaluationSet(scratch / "pixels.npy", expected, intermediates.checkpoint.preprocess)


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
            excluded = f" without {cut} of the start-up" if cut else ""
            progress.note(
                f"{result.artifact.name} on {result.device}: insufficient samples, {queries} queries{excluded}; {needs}"
            )


def check_gates(found: Benchmarked, strict: bool = False) -> None:
    """Judge the gates of a benchmark, and log those that do not hold.

    Raises:
        GateError: a gate is broken, or has too few samples; with `strict`, also if its 95 % interval is inconclusive.
    """
    gates = found.suite.gates
    if gates == Gates():
        return
    own = [row for row in found.rows if (row.artifact, row.device) in found.measured]
    left = {row.artifact for row in own if _is_reference(row, own) and row.artifact not in found.named}
    verdicts = judged.judge([r for r in own if r.artifact not in left], gates, _without_rows(own, found.measured))
    if left:
        progress.note(f"gates: not of {', '.join(sorted(left))}, for reference; --artifact NAME judges one too")
    failed = [verdict for verdict in verdicts if verdict.fails(strict)]
    for verdict in verdicts:
        if verdict.outcome != judged.Outcome.HELD:
            progress.note(f"gate {verdict.outcome}: {verdict.text}")
    if found.latencies:
        raise GateError(
            "gates are set, but without test images there is no accuracy to judge",
            "add --data DIR, the folder that the images are in now",
        )
    if all(row.baseline for row in own):
        raise GateError(
            "gates are set, but no artifact was measured to judge",
            "edgekit export, or another --device: benchmark_model gives no predictions and no percentiles",
        )
    if failed:
        broken = sorted({verdict.gate for verdict in failed})
        raise GateError(
            f"{len(failed)} of {len(verdicts)} gates do not hold ({', '.join(map(_option, broken))}); all results were "
            "saved",
            "; ".join(dict.fromkeys(_HINTS[gate] for gate in broken)),
        )
    progress.note(f"gates: {sum(v.outcome == judged.Outcome.HELD for v in verdicts)} of {len(verdicts)} held")


def _is_reference(row: Summary, rows: Sequence[Summary]) -> bool:
    """Return whether a row is of an FP32 file beside which another precision of its target was measured.

    One whose answers are no numbers is judged like all others.
    """
    others = any(r.target == row.target and r.precision != "fp32" for r in rows)
    return not row.baseline and row.precision == "fp32" and others and not row.no_answer


def _without_rows(own: Sequence[Summary], measured: Measured) -> set[tuple[str, str]]:
    """Return what was measured on devices without any summary: by a program, which prints no single latencies.

    On other devices, artifacts without a summary belong to an engine that has one.
    """
    devices = {row.device for row in own}
    return {(name, device) for name, device in measured if device not in devices and not name.startswith(BASELINES)}


def _option(gate: str) -> str:
    return f"--{gate.replace('_', '-')}"

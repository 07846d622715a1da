"""``edgekit benchmark``."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import config, progress
from edgekit.cli import baselines
from edgekit.cli.options import Json, Run, RunsDir, StrictGates, open_run, options_of
from edgekit.errors import UsageError
from edgekit.measurements import Gates, Suite
from edgekit.records import Artifact, Device

if TYPE_CHECKING:
    from edgekit.bench.session import EvaluationSet
    from edgekit.cli.workbench import Workbench


Work = list[tuple[Artifact, Path]]


@options_of(Gates)
def benchmark(
    run: Run = None,
    device: Annotated[list[str] | None, typer.Option("--device", "-d", help="A device name or .toml file.")] = None,
    suite: Annotated[
        str, typer.Option(help=f"When to stop: {', '.join(config.names('benchmarks/suites'))}, or a .toml file.")
    ] = "standard",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: the device's.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Where the device is: user@address, or a Host of ~/.ssh/config; over adb its serial."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build TensorRT engines anew, also those that fit.")
    ] = False,
    set_power_mode: Annotated[
        str | None,
        typer.Option(
            help="Jetson: a mode of nvpmodel, and locked clocks; Android: fixed-performance. Put back, come what may.",
            metavar="MODE",
            show_default=False,
        ),
    ] = None,
    strict_gates: StrictGates = False,
    baseline: baselines.Names = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
    **gates: float | None,
) -> None:
    """Measure latency and accuracy of the exported models.

    Each model runs in a process of its own through the runner that also travels to devices: single stream, batch 1,
    every latency kept. The baseline is PyTorch on CUDA where there is a GPU, else on the CPU; the fastest of the
    other baselines is named beside it. ONNX made for TensorRT runs in ONNX Runtime here: its accuracy tells, its
    latency does not; on a Jetson over ssh its engines are built, where they are not yet, and measured. Phones are
    reached over adb. Several devices are measured at once. Gates are judged when all is measured and kept; one that
    is broken, or that too few samples could show, is exit status 7.
    """
    from edgekit.bench import roofline
    from edgekit.cli import gating, measuring, network
    from edgekit.cli.report import print_table
    from edgekit.cli.workbench import Workbench

    devices = _devices(device or ["local"], threads, host, set_power_mode or "")
    limits, chosen = _with_gates(config.load_suite(suite), gates), baselines.choose(baseline)
    opened = open_run(runs_dir, run)
    bench = Workbench(opened)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        plan = _plan(bench, devices, baselines.made(bench, chosen, Path(scratch)))
        wanted = measuring.Wanted(opened, limits, test_set(bench, Path(scratch)), rebuild, set_power_mode or "")
        costs, peaks = tuple(network.layers(bench)), roofline.measure(plan[0][0].threads)
        measuring.measure_all(dataclasses.replace(wanted, costs=costs, peaks=peaks), plan)
    results, rows = print_table(opened, json)
    measured = {(artifact.name, each.name) for each, work in plan for artifact, _ in work}
    gating.say_missing(limits, results, measured)
    gating.check(limits.gates, rows, measured, strict_gates)


def _devices(names: list[str], threads: int | None, host: str | None, power_mode: str) -> list[Device]:
    """The devices of these names, which can be reached and do what is asked for as far as their files say."""
    devices = [_with_threads(config.load_device(name), threads) for name in names]
    if host is not None:
        devices = [at(devices, host)]
    if len({each.name for each in devices}) < len(devices):
        raise UsageError("two devices of one name: their engines and results would mix", "rename one .toml file")
    _check(devices, power_mode)
    return devices


def _check(devices: list[Device], power_mode: str) -> None:
    """
    Raises:
        EdgekitError: one of them cannot be measured on as it is asked for.
    """
    from edgekit.bench import program, transport

    for each in devices:
        if each.api == program.API:
            program.find(each)
        transport.open_transport(each, power_mode=power_mode)


def _with_gates(suite: Suite, asked: dict[str, float | None]) -> Suite:
    """The suite with the gates that the command line sets over its own."""
    given = {name: limit for name, limit in asked.items() if limit is not None}
    return dataclasses.replace(suite, gates=dataclasses.replace(suite.gates, **given))


def _with_threads(device: Device, threads: int | None) -> Device:
    return dataclasses.replace(device, threads=threads or device.threads)


def _plan(bench: Workbench, devices: list[Device], desktop: Work) -> list[tuple[Device, Work]]:
    """What runs where: the exports that each device can run, and on this machine the baselines."""
    from edgekit.cli.artifacts import current_artifacts

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


def at(devices: list[Device], host: str) -> Device:
    """The one device of the request, at `host`."""
    if len(devices) != 1 or devices[0].transport not in ("ssh", "adb"):
        raise UsageError(
            "--host goes with one device that is reached over ssh or adb", "edgekit devices probe HOST --name X"
        )
    return dataclasses.replace(devices[0], host=host)


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


def test_set(bench: Workbench, scratch: Path) -> EvaluationSet:
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

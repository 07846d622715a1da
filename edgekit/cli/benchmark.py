"""``edgekit benchmark``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import config, store
from edgekit.cli import show
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.records import Artifact, Device, Preprocess, Suite

if TYPE_CHECKING:
    import numpy as np

    from edgekit.cli.workbench import Workbench

    Work = list[tuple[Artifact, Path]]
    Samples = tuple[np.ndarray, np.ndarray, Preprocess]

# Above this load per core, before anything is measured, the user is warned.
_BUSY = 0.75


def benchmark(
    run: Run = None,
    device: Annotated[list[str] | None, typer.Option("--device", "-d", help="A device name or .toml file.")] = None,
    suite: Annotated[
        str, typer.Option(help=f"When to stop: {', '.join(config.names('benchmarks/suites'))}, or a .toml file.")
    ] = "standard",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: the device's.", show_default=False)
    ] = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure latency and accuracy of the exported models.

    Each model runs in a process of its own through the runner that also travels to devices: single
    stream, batch 1, every latency kept. The baseline is PyTorch on CUDA where there is a GPU, else on
    the CPU. ONNX made for TensorRT runs in ONNX Runtime here: its accuracy tells, its latency does not.
    """
    from edgekit.bench import transport
    from edgekit.cli.report import print_table
    from edgekit.cli.workbench import Workbench

    devices = [_with_threads(config.load_device(name), threads) for name in device or ["local"]]
    for each in devices:
        transport.open_transport(each)
    limits = config.load_suite(suite)
    opened = open_run(runs_dir, run)
    bench = Workbench(opened, config.load_recipe("default"))
    plan = _plan(bench, devices)
    samples = _test_samples(bench)
    _warn_if_busy()
    for each, work in plan:
        _benchmark_device(opened, each, limits, work, samples)
    print_table(opened, json)


def _with_threads(device: Device, threads: int | None) -> Device:
    return dataclasses.replace(device, threads=threads or device.threads)


def _warn_if_busy() -> None:
    """Say so where other work will lengthen every latency."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > _BUSY * cores:
        show.note(f"this machine is busy (load {load:.1f} on {cores} cores): latencies will come out too long")


def _plan(bench: Workbench, devices: list[Device]) -> list[tuple[Device, Work]]:
    """What runs where. The baseline belongs to this machine, and is measured wherever else one asks."""
    from edgekit.cli.artifacts import current_artifacts

    exported = {a.sha256: a for a in reversed(current_artifacts(bench.run, bench.checkpoint.sha256))}
    if not exported:
        show.note(f"nothing is exported yet; next: edgekit export {bench.run.name} --target jetson")
    files = [(a, bench.run.path / "export" / a.name) for a in reversed(exported.values()) if "only" not in a.details]
    plan = [(device, [(a, path) for a, path in files if _runs(a, device)]) for device in devices]
    hosts = [number for number, device in enumerate(devices) if not device.python]
    at = hosts[0] if hosts else 0
    if not hosts:
        plan.insert(0, (config.load_device("local"), []))
    plan[at][1].insert(0, _baseline(bench))
    return plan


def _baseline(bench: Workbench) -> tuple[Artifact, Path]:
    """The network as trained, in PyTorch."""
    path = bench.baseline
    digest, parent = store.sha256_file(path), bench.checkpoint.sha256
    return Artifact("baseline/pytorch", "desktop", "fp32", "torch", "NCHW", digest, parent), path


def _runs(artifact: Artifact, device: Device) -> bool:
    """Whether `device` can run the artifact; what this machine lacks a runtime for is named."""
    from edgekit.bench.session import HOST_RUNTIME, is_installed

    if device.python:
        return HOST_RUNTIME[artifact.runtime] == device.runtime
    if not is_installed(HOST_RUNTIME[artifact.runtime]):
        show.note(f"left out: {artifact.name} (no runtime for it here; edgekit doctor says what brings it)")
        return False
    return True


def _test_samples(bench: Workbench) -> Samples:
    """The test split: uint8 pixels, labels, preprocessing; files must be as they were indexed."""
    import numpy as np

    from edgekit.data import dataset, images

    chosen = bench.data.split("test")
    paths = dataset.check_unchanged(bench.data, chosen)
    preprocess = bench.checkpoint.preprocess
    with show.working(f"reading {len(paths)} test images"):
        pixels = images.load_pixels(paths, preprocess)
    return pixels, np.array([s.label for s in chosen]), preprocess


def _benchmark_device(run: store.Run, device: Device, suite: Suite, work: Work, samples: Samples) -> None:
    """Measure one artifact after the other; each result is kept as soon as it is there."""
    from edgekit.bench import session

    with show.bar(f"benchmarking on {device.name}") as update:
        for number, (artifact, path) in enumerate(work):
            update(number, len(work), artifact.name)
            session.save(run.path / "bench", session.benchmark(artifact, path, device, suite, samples))

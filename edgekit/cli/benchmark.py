"""``edgekit benchmark``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import config, store
from edgekit.cli import show
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import EdgekitError
from edgekit.records import Artifact, Device, Preprocess, Suite

if TYPE_CHECKING:
    import numpy as np

    from edgekit.cli.workbench import Workbench

    Samples = tuple[np.ndarray, np.ndarray, Preprocess]


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
    opened = store.open_run(runs_dir, run)
    if run is None:
        show.note(f"run: {opened.name} (the newest)")
    bench = Workbench(opened, config.load_recipe("default"))
    work = _runnable(bench)
    samples = _test_samples(bench)
    for each in devices:
        _benchmark_device(opened, each, limits, work, samples)
    print_table(opened, json)


def _with_threads(device: Device, threads: int | None) -> Device:
    return dataclasses.replace(device, threads=threads or device.threads)


def _runnable(bench: Workbench) -> list[tuple[Artifact, Path]]:
    """The baseline and every exported file that a runtime here can run; equal files once."""
    from edgekit.cli.artifacts import load_artifacts

    baseline = bench.baseline
    record = Artifact(
        name="baseline/pytorch",
        target="desktop",
        precision="fp32",
        runtime="torch",
        layout="NCHW",
        sha256=store.sha256_file(baseline),
        parent=bench.checkpoint.sha256,
    )
    found: dict[str, tuple[Artifact, Path]] = {record.sha256: (record, baseline)}
    for manifest in sorted((bench.run.path / "export").glob("*/manifest.json")):
        for artifact in load_artifacts(manifest.parent):
            if artifact.parent != bench.checkpoint.sha256:
                raise EdgekitError(
                    f"{artifact.name} was exported from other weights than this run's",
                    f"edgekit export {bench.run.name} --target {artifact.target}",
                )
            if "only" not in artifact.details:
                found.setdefault(artifact.sha256, (artifact, manifest.parent / Path(artifact.name).name))
    if len(found) == 1:
        show.note("nothing is exported yet, so only the baseline is measured; edgekit export --target jetson")
    return list(found.values())


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


def _benchmark_device(
    run: store.Run, device: Device, suite: Suite, work: list[tuple[Artifact, Path]], samples: Samples
) -> None:
    """Measure one artifact after the other; each result is kept as soon as it is there."""
    from edgekit.bench import session

    with show.bar(f"benchmarking on {device.name}") as update:
        for number, (artifact, path) in enumerate(work):
            update(number, len(work), artifact.name)
            session.save(run.path / "bench", session.benchmark(artifact, path, device, suite, samples))

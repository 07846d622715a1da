"""Benchmark artifacts on one device and keep every raw value in the run."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__, files
from edgekit.bench import replies
from edgekit.devices.jobs import Job
from edgekit.devices.transport import Transport
from edgekit.errors import DataError, MissingError, StorageError
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.records import Artifact, Device, Preprocess

# Artifacts run in the runtime of their target, where this machine can, or in a stand-in.
_HOST_RUNTIME = {
    "tensorrt": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "litert": "litert",
    "torch": "torch",
    "openvino": "openvino",
}
# What a device says of LiteRT, and `edgekit.ondevice.run_tflite` hears.
_LITERT_OPTIONS = ("api", "accelerator", "xnnpack", "emulated")
# Of a suite, what `edgekit.ondevice.measure` hears.
LIMITS = ("warmup_queries", "warmup_s", "min_queries", "min_s", "max_s")


@dataclass(frozen=True)
class EvaluationSet:
    """What every artifact is shown: an .npy file of uint8 (N, H, W, 3) pixels, and N labels."""

    pixels: Path
    expected: np.ndarray
    preprocess: Preprocess


def host_runtime(artifact: Artifact) -> str:
    """What runs the artifact on this machine: a row of `edgekit.ondevice.runner.RUNNERS`."""
    return str(artifact.details.get("host_runtime") or _HOST_RUNTIME[artifact.runtime])


def verify(artifact: Artifact, path: Path) -> None:
    """Check that the file is the one that was exported.

    Raises:
        MissingError: it is gone. StorageError: it has changed.
    """
    run = f"{path.parents[2]} " if len(path.parents) > 2 and path.parents[1].name == "export" else ""
    again = f"edgekit export {run}--target {artifact.target}"
    if not path.is_file():
        raise MissingError(f"{path} is missing", again)
    if files.sha256_file(path) != artifact.sha256:
        raise StorageError(f"{path} has changed since export", again)


@dataclass(frozen=True)
class Model:
    """What is measured: an artifact, the file that runs, and what runs it.

    Attributes:
        path: the artifact's file, or the engine that was built from it.
        runtime: a row of `edgekit.ondevice.runner.RUNNERS`. options: of the runtime, as `ondevice.main` has them.
    """

    artifact: Artifact
    path: Path
    runtime: str
    options: dict[str, Any] = field(default_factory=dict)


def as_exported(artifact: Artifact, path: Path, device: Device) -> Model:
    """An artifact as it was exported, to be run as `device` says, where it runs such files.

    Raises:
        MissingError: its file is gone. StorageError: it has changed.
    """
    verify(artifact, path)
    runtime = host_runtime(artifact)
    options = {name: getattr(device, name) for name in _LITERT_OPTIONS} if runtime == "litert" else {}
    return Model(artifact, path, runtime, options)


def benchmark(
    model: Model, device: Device, suite: Suite, samples: EvaluationSet, transport: Transport
) -> BenchmarkResult:
    """Measure latency, then run every sample.

    Raises:
        EdgekitError: the job failed.
    """
    file = f"model{model.path.suffix}"  # never the file's own name: the job's folder is on Python's path
    settings = {
        "model": file,
        "runtime": model.runtime,
        "options": model.options,
        "threads": device.threads,
        "batch": device.batch,
        "pixels": "pixels.npy",
        "mean": samples.preprocess.mean,
        "std": samples.preprocess.std,
        "layout": model.artifact.layout,
        "input": model.artifact.input,
        "limits": {name: getattr(suite, name) for name in LIMITS},
        "offline_s": suite.offline_s if "offline" in suite.scenarios else 0.0,
        "power_s": suite.power_s,
        "layers": not device.emulated,
    }
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        work = Path(name)
        transport.run(Job(settings, {file: model.path, "pixels.npy": samples.pixels}), work)
        answer = replies.read(work, device.name, len(samples.expected))
        if answer.logits.shape[1] <= int(samples.expected.max()):
            raise DataError(f"{device.name} sent answers of too few classes", "edgekit benchmark again")
    source = "emulated" if device.emulated else "host" if device.transport == "local" else "device"
    return BenchmarkResult(
        artifact=model.artifact,
        device=device.name,
        runtime=model.runtime,
        source=source,
        environment={
            **answer.environment,
            **transport.environment,
            "batch": device.batch,
            "suite": suite.name,
            "edgekit": __version__,
            "measured": files.now(),
        },
        latencies_ns=answer.latencies_ns,
        logits=answer.logits,
        expected=samples.expected,
        size_bytes=model.path.stat().st_size,
        compute_ns=answer.compute_ns,
        layers=replies.name_layers(answer.layers, model.path),
        power=answer.power,
        warmup_ns=answer.warmup_ns,
        offline_ns=answer.offline_ns,
    )


def is_installed(runtime: str) -> bool:
    """Whether this Python has the runtime."""
    modules = {"litert": ("ai_edge_litert", "tflite_runtime")}.get(runtime, (runtime.partition("-")[0],))
    return any(importlib.util.find_spec(module) is not None for module in modules)


def infer_here(artifact: Artifact, path: Path, pixels: Iterable[np.ndarray], preprocess: Preprocess) -> np.ndarray:
    """Run an artifact in this process. Returns float32 (N, classes) logits of uint8 (N, H, W, 3) pixels.

    Raises:
        MissingError: its file, or its runtime here. StorageError: the file has changed.
    """
    verify(artifact, path)
    from edgekit.ondevice.preprocess import prepare
    from edgekit.ondevice.runner import open_runner

    try:
        runner = open_runner(host_runtime(artifact), str(path), 1)
    except ImportError as error:
        raise MissingError(
            f"{artifact.name} needs {error.name}, which is not installed here", "edgekit doctor"
        ) from None
    try:
        feed = {"mean": preprocess.mean, "std": preprocess.std, "layout": artifact.layout, "input": artifact.input}
        return np.stack([runner.infer(prepare(image, feed)) for image in pixels])
    finally:
        runner.close()

"""Measure artifacts on one device."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from edgekit import __version__, files
from edgekit.bench import replies
from edgekit.devices.jobs import Job
from edgekit.devices.transport import Transport
from edgekit.errors import DataError, MissingError, StorageError
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.records import Artifact, Device, Preprocess

# Runtime on this machine, by the runtime of the artifact: the same one, or a stand-in.
_HOST_RUNTIME = {
    "tensorrt": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "litert": "litert",
    "torch": "torch",
    "openvino": "openvino",
}
# Fields of a device that are options of `edgekit.ondevice.run_tflite`.
_LITERT_OPTIONS = ("api", "accelerator", "xnnpack", "emulated")
# Fields of a suite that are limits of `edgekit.ondevice.measure`.
LIMITS = ("warmup_queries", "warmup_s", "min_queries", "min_s", "max_s")


@dataclass(frozen=True)
class EvaluationSet:
    """Images that every artifact classifies: an .npy file of uint8 (N, H, W, 3) pixels, and N labels.

    Labels are -1 for images whose classes are not known. Without images `expected` is empty, and the pixels are noise:
    only the latency is measured.
    """

    pixels: Path
    expected: np.ndarray
    preprocess: Preprocess

    @property
    def count(self) -> int:
        """Number of images in the file."""
        return len(np.load(self.pixels, mmap_mode="r", allow_pickle=False))


def host_runtime(artifact: Artifact) -> str:
    """Return the runtime of an artifact on this machine, a name of `edgekit.ondevice.runner.RUNNERS`."""
    return str(artifact.details.get("host_runtime") or _HOST_RUNTIME[artifact.runtime])


def verify(artifact: Artifact, path: Path) -> None:
    """Check that a file is the one that was exported.

    Raises:
        MissingError: it does not exist. StorageError: it has changed.
    """
    run = f"{quote(str(path.parents[2]))} " if len(path.parents) > 2 and path.parents[1].name == "export" else ""
    again = f"edgekit export {run}--target {quote(artifact.target)}"
    if not path.is_file():
        raise MissingError(f"{path} is missing", again)
    if files.sha256_file(path) != artifact.sha256:
        raise StorageError(f"{path} has changed since export", again)


@dataclass(frozen=True)
class Model:
    """An artifact to measure, the file that runs, and its runtime.

    Attributes:
        path: the artifact's file, or the engine that was built from it.
        runtime: a name of `edgekit.ondevice.runner.RUNNERS`. options: of the runtime, as in a job of `ondevice.main`.
    """

    artifact: Artifact
    path: Path
    runtime: str
    options: dict[str, Any] = field(default_factory=dict)


def as_exported(artifact: Artifact, path: Path, device: Device) -> Model:
    """Return an exported artifact as a model for `device`.

    Raises:
        MissingError: its file does not exist. StorageError: it has changed.
    """
    verify(artifact, path)
    runtime = host_runtime(artifact)
    options = {name: getattr(device, name) for name in _LITERT_OPTIONS} if runtime == "litert" else {}
    return Model(artifact, path, runtime, options)


def benchmark(
    model: Model, device: Device, suite: Suite, samples: EvaluationSet, transport: Transport
) -> BenchmarkResult:
    """Measure the latency of a model, and its answers to all samples.

    Raises:
        EdgekitError: the job failed. DataError: the reply is not what a runner writes.
    """
    file = f"model{model.path.suffix}"  # not the name of the file: the folder of the job is on Python's path
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
    with files.scratch() as work:
        transport.run(Job(settings, {file: model.path, "pixels.npy": samples.pixels}), work)
        reply = replies.read(work, device.name, samples.count)
        if len(samples.expected) and reply.logits.shape[1] <= int(samples.expected.max()):
            raise DataError(f"{device.name} sent logits of too few classes", "edgekit benchmark again")
    source = "emulated" if device.emulated else "host" if device.transport == "local" else "device"
    return BenchmarkResult(
        artifact=model.artifact,
        device=device.name,
        runtime=model.runtime,
        source=source,
        environment=reply.environment.with_values(
            **{
                **transport.environment,
                "batch": device.batch,
                "suite": suite.name,
                "edgekit": __version__,
                "measured": files.now(),
            }
        ),
        latencies_ns=reply.latencies_ns,
        logits=reply.logits[: len(samples.expected)],
        expected=samples.expected,
        size_bytes=model.path.stat().st_size,
        compute_ns=reply.compute_ns,
        layers=replies.name_layers(reply.layers, model.path),
        power=reply.power,
        warmup_ns=reply.warmup_ns,
        offline_ns=reply.offline_ns,
    )


def is_installed(runtime: str) -> bool:
    """Return whether this Python has a runtime."""
    modules = {"litert": ("ai_edge_litert", "tflite_runtime")}.get(runtime, (runtime.partition("-")[0],))
    return any(importlib.util.find_spec(module) is not None for module in modules)


def infer_here(artifact: Artifact, path: Path, pixels: Iterable[np.ndarray], preprocess: Preprocess) -> np.ndarray:
    """Run an artifact in this process: float32 (N, classes) logits of uint8 (N, H, W, 3) pixels.

    Raises:
        MissingError: the file or the runtime is not there. StorageError: the file has changed.
    """
    verify(artifact, path)
    from edgekit.convert import tflite
    from edgekit.ondevice.preprocess import prepare
    from edgekit.ondevice.runner import open_runner

    try:
        with tflite.quiet():  # LiteRT says which delegate it made
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

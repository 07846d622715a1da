"""Benchmark artifacts on one device and keep every raw value in the run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import atomic, store
from edgekit.bench.transport import open_transport
from edgekit.config import from_table
from edgekit.errors import DataError, MissingError, StorageError
from edgekit.labels import visible
from edgekit.records import Artifact, BenchmarkResult, Device, Preprocess, Suite

SCHEMA = 1
# Artifacts run in the runtime of their target, where this machine can, or in a stand-in.
_HOST_RUNTIME = {"tensorrt": "onnxruntime", "onnxruntime": "onnxruntime", "litert": "litert", "torch": "torch"}
_SAID = ("runtime", "version", "processor", "threads")
_MOST_TEXT = 200
_DESCRIBED = ("artifact", "device", "runtime", "source", "environment", "size_bytes")


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
    if store.sha256_file(path) != artifact.sha256:
        raise StorageError(f"{path} has changed since export", again)


def benchmark(artifact: Artifact, path: Path, device: Device, suite: Suite, samples: EvaluationSet) -> BenchmarkResult:
    """Measure latency, then run every sample.

    Raises:
        StorageError: the file is not the one that was exported. EdgekitError: the job failed.
    """
    verify(artifact, path)
    runtime = host_runtime(artifact)
    limits = {k: v for k, v in dataclasses.asdict(suite).items() if k not in ("name", "description")}
    model = f"model{path.suffix}"  # never the file's own name: the job's folder is on Python's path
    job = {
        "model": model,
        "runtime": runtime,
        "threads": device.threads,
        "pixels": "pixels.npy",
        "mean": samples.preprocess.mean,
        "std": samples.preprocess.std,
        "layout": artifact.layout,
        "limits": limits,
    }
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        work = Path(name)
        open_transport(device).run(job, {model: path, "pixels.npy": samples.pixels}, work)
        environment, latencies, logits = _read_answer(work, device, len(samples.expected))
    source = "emulated" if device.emulated else "host" if device.transport == "local" else "device"
    return BenchmarkResult(
        artifact=artifact,
        device=device.name,
        runtime=runtime,
        source=source,
        environment={**environment, "suite": suite.name, "measured": store.now()},
        latencies_ns=tuple(int(v) for v in latencies),
        logits=logits,
        expected=samples.expected,
        size_bytes=path.stat().st_size,
    )


def _read_answer(work: Path, device: Device, samples: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What a job left: environment, int64 latencies in ns, float32 (samples, classes) logits; nothing is trusted.

    Raises:
        DataError: it is not what a runner writes.
    """
    try:
        said = json.loads((work / "result.json").read_text(encoding="utf-8"))
        latencies = np.load(work / "latencies_ns.npy", allow_pickle=False)
        logits = np.load(work / "logits.npy", allow_pickle=False)
    except (ValueError, EOFError, RecursionError) as error:
        raise DataError(f"{device.name} sent results that cannot be read: {visible(str(error))}") from None
    sound = (
        isinstance(said, dict)
        and (latencies.dtype, latencies.ndim) == (np.int64, 1)
        and (logits.dtype, logits.ndim, len(logits)) == (np.float32, 2, samples)
        and bool((latencies > 0).all())
    )
    if not sound or any(name not in said for name in _SAID):
        raise DataError(f"{device.name} sent results that no runner of edgekit writes", "edgekit benchmark again")
    return {visible(str(k))[:_MOST_TEXT]: _plain(v) for k, v in said.items()}, latencies, logits


def _plain(value: Any) -> Any:
    """A number as it is, anything else as short printable text."""
    return value if isinstance(value, bool | int | float | None) else visible(str(value))[:_MOST_TEXT]


def save(folder: Path, result: BenchmarkResult) -> None:
    """Write ``<device>/<artifact>.npz`` (raw values) and, last, the .json that describes it."""
    stem = folder / _slug(result.device) / _slug(result.artifact.name)
    raw = stem.with_name(stem.name + ".npz")
    with atomic.writing(raw) as temporary, open(temporary, "wb") as file:
        latencies = np.array(result.latencies_ns, np.int64)
        np.savez_compressed(file, latencies_ns=latencies, logits=result.logits, expected=result.expected)
    described: dict[str, Any] = {"schema": SCHEMA, "raw_sha256": store.sha256_file(raw)}
    for name in _DESCRIBED:
        described[name] = getattr(result, name)
    store.save_json(stem.with_name(stem.name + ".json"), described)


def load(folder: Path) -> list[BenchmarkResult]:
    """Every result below `folder`, sorted by device and artifact.

    Raises:
        DataError: raw values that do not belong to their description.
    """
    return list(_load_all(sorted(folder.glob("*/*.json"))))


def _load_all(paths: Iterable[Path]) -> Iterable[BenchmarkResult]:
    for path in paths:
        described = store.load_document(path, SCHEMA, "raw_sha256", *_DESCRIBED)
        raw = path.with_suffix(".npz")
        if not raw.is_file() or store.sha256_file(raw) != described["raw_sha256"]:
            raise DataError(f"{raw} does not belong to {path.name}", "edgekit benchmark")
        with np.load(raw, allow_pickle=False) as values:
            yield BenchmarkResult(
                artifact=from_table(described["artifact"], Artifact, str(path)),
                latencies_ns=tuple(int(v) for v in values["latencies_ns"]),
                logits=values["logits"],
                expected=values["expected"],
                **{k: described[k] for k in _DESCRIBED if k != "artifact"},
            )


def _slug(name: str) -> str:
    """A file name out of an artifact's or a device's name; different names stay different."""
    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__")).lstrip(".")
    return slug if slug == name.replace("/", "__") else f"{slug}-{store.sha256_text([name])[:8]}"


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
    from edgekit.ondevice.preprocess import normalize
    from edgekit.ondevice.runner import open_runner

    try:
        runner = open_runner(host_runtime(artifact), str(path), 1)
    except ImportError as error:
        raise MissingError(
            f"{artifact.name} needs {error.name}, which is not installed here", "edgekit doctor"
        ) from None
    try:
        inputs = (normalize(image, preprocess.mean, preprocess.std, artifact.layout) for image in pixels)
        return np.stack([runner.infer(image) for image in inputs])
    finally:
        runner.close()

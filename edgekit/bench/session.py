"""Benchmark artifacts on one device and keep every raw value in the run."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import store
from edgekit.bench.transport import open_transport
from edgekit.config import from_table
from edgekit.errors import DataError, MissingError, StorageError
from edgekit.records import Artifact, BenchmarkResult, Device, Preprocess, Suite

SCHEMA = 1
# Artifacts run in the runtime of their target, where this machine has it, or in a stand-in.
HOST_RUNTIME = {"tensorrt": "onnxruntime", "onnxruntime": "onnxruntime", "litert": "litert", "torch": "torch"}


def benchmark(
    artifact: Artifact,
    path: Path,
    device: Device,
    suite: Suite,
    samples: tuple[np.ndarray, np.ndarray, Preprocess],
) -> BenchmarkResult:
    """Measure latency, then run every sample.

    Args:
        path: the artifact's file; its hash must still be the recorded one.
        samples: uint8 (N, H, W, 3) pixels, int labels (N,), and the preprocessing.
    Raises:
        StorageError: the file is not the one that was exported. EdgekitError: the job failed.
    """
    if not path.is_file():
        raise MissingError(f"{path} is missing", f"edgekit export --target {artifact.target}")
    if store.sha256_file(path) != artifact.sha256:
        raise StorageError(f"{path} has changed since export", f"edgekit export --target {artifact.target}")
    pixels, expected, preprocess = samples
    runtime = HOST_RUNTIME[artifact.runtime]
    limits = {k: v for k, v in dataclasses.asdict(suite).items() if k not in ("name", "description")}
    job = {
        "model": path.name,
        "runtime": runtime,
        "threads": device.threads,
        "pixels": "pixels.npy",
        "mean": preprocess.mean,
        "std": preprocess.std,
        "layout": artifact.layout,
        "limits": limits,
    }
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        work = Path(name)
        np.save(work / "pixels.npy", pixels)
        open_transport(device).run(job, {path.name: path, "pixels.npy": work / "pixels.npy"}, work)
        environment = store.load_json(work / "result.json")
        latencies = np.load(work / "latencies_ns.npy", allow_pickle=False)
        logits = np.load(work / "logits.npy", allow_pickle=False)
    source = "host" if device.transport == "local" else "device"
    return BenchmarkResult(
        artifact=artifact,
        device=device.name,
        runtime=runtime,
        source=source,
        environment={**environment, "suite": suite.name, "measured": store.now()},
        latencies_ns=tuple(int(v) for v in latencies),
        logits=logits,
        expected=expected,
        size_bytes=path.stat().st_size,
    )


def save(folder: Path, result: BenchmarkResult) -> None:
    """Write ``<device>/<artifact>.npz`` (raw values) and, last, the .json that describes it."""
    stem = folder / _slug(result.device) / _slug(result.artifact.name)
    raw = stem.with_name(stem.name + ".npz")
    with store.writing(raw) as temporary, open(temporary, "wb") as file:
        latencies = np.array(result.latencies_ns, np.int64)
        np.savez_compressed(file, latencies_ns=latencies, logits=result.logits, expected=result.expected)
    described: dict[str, Any] = {"schema": SCHEMA, "raw_sha256": store.sha256_file(raw)}
    for name in ("artifact", "device", "runtime", "source", "environment", "size_bytes"):
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
        described = store.load_json(path)
        raw = path.with_suffix(".npz")
        if not isinstance(described, dict) or described.get("schema") != SCHEMA:
            raise DataError(f"{path} is no measurement of this edgekit (format {SCHEMA})", "edgekit benchmark")
        if not raw.is_file() or store.sha256_file(raw) != described["raw_sha256"]:
            raise DataError(f"{raw} does not belong to {path.name}", "edgekit benchmark")
        with np.load(raw, allow_pickle=False) as values:
            yield BenchmarkResult(
                artifact=from_table(described["artifact"], Artifact, str(path)),
                latencies_ns=tuple(int(v) for v in values["latencies_ns"]),
                logits=values["logits"],
                expected=values["expected"],
                **{k: described[k] for k in ("device", "runtime", "source", "environment", "size_bytes")},
            )


def _slug(name: str) -> str:
    """A file name out of an artifact's or a device's name; different names stay different."""
    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__")).lstrip(".")
    return slug if slug == name.replace("/", "__") else f"{slug}-{store.sha256_text([name])[:8]}"


def is_installed(runtime: str) -> bool:
    """Whether this Python has the runtime."""
    modules = {"litert": ("ai_edge_litert", "tflite_runtime")}.get(runtime, (runtime,))
    return any(importlib.util.find_spec(module) is not None for module in modules)


def infer_here(artifact: Artifact, path: Path, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Run an artifact in this process. Returns float32 (N, classes) logits of uint8 (N, H, W, 3) pixels.

    Raises:
        EdgekitError: its runtime is not installed here.
    """
    from edgekit.ondevice.preprocess import normalize
    from edgekit.ondevice.runner import open_runner

    try:
        runner = open_runner(HOST_RUNTIME[artifact.runtime], str(path), 1)
    except ImportError as error:
        raise MissingError(
            f"{artifact.name} needs {error.name}, which is not installed here", "edgekit doctor"
        ) from None
    try:
        inputs = (normalize(image, preprocess.mean, preprocess.std, artifact.layout) for image in pixels)
        return np.stack([runner.infer(image) for image in inputs])
    finally:
        runner.close()

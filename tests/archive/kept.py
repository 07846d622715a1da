"""Runs with kept results, made up, for tests of the history."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import files
from edgekit.bench import results
from edgekit.records import DatasetIndex, Sample
from tests.bench.results import CLASSES, artifact, result

SAMPLES = 40
INT8 = artifact("android/model.int8.tflite", "int8", "litert", sha256="c" * 64)


def make_run(folder: Path, name: str = "digits", samples: int = SAMPLES, seed: str = "f") -> Path:
    """A run with so many test images; another `seed` has other images."""
    path = folder / name
    path.mkdir(parents=True)
    files.save_json(path / "run.json", {"schema": 1, "arch": "mobilenet_v2", "status": "finished"})
    (path / "checkpoint.pt").touch()
    chosen = tuple(Sample(f"{n}.png", n % CLASSES, "test", f"{seed}{n:063d}") for n in range(samples))
    files.save_json(path / "data.json", DatasetIndex(Path("/data"), ("a", "b", "c"), chosen, seed * 64))
    return path


def measure(run: Path, ms: float = 2.0, when: str = "2026-11-26T07:00:00+00:00", **more: Any) -> Path:
    """Keep one result of a run, of 700 latencies around `ms`, 3 % apart, no two series alike.

    Args:
        more: ``said``: changes of the environment; else as for `result`.
    """
    said = more.pop("said", {})
    made = result(**{"of": INT8, **more})
    noise = np.random.default_rng(zlib.crc32(repr((ms, when, more)).encode())).normal(0, 0.03, 700)
    times = tuple(int(v) for v in ms * 1e6 * np.exp(noise))
    environment = made.environment.with_values(**{"edgekit": "0.1.0", "cores": 2, "measured": when, **said})
    latencies = more.get("latencies_ns", times)
    return results.save(run / "bench", dataclasses.replace(made, environment=environment, latencies_ns=latencies))

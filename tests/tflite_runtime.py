"""Run a .tflite file in tflite-runtime 2.14, which needs numpy < 2 and so a Python of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit import files
from edgekit.devices.jobs import Job
from edgekit.devices.transport import LocalTransport
from edgekit.records import Device, Preprocess

_OWN = Path(__file__).parent.parent / ".venv-tflite" / "bin" / "python"
_ONCE = {"warmup_queries": 1, "warmup_s": 0.0, "min_queries": 1, "min_s": 0.0, "max_s": 60.0}


def python() -> str:
    """The Python that has tflite-runtime; skips the test where there is none."""
    found = shutil.which(_OWN) or shutil.which(os.environ.get("EDGEKIT_TFLITE_PYTHON", ""))
    if found is None or not list(Path(found).parent.parent.glob("lib/python*/site-packages/tflite_runtime")):
        pytest.skip("no tflite-runtime: make .venv-tflite/.ready (needs Python 3.10 or 3.11)")
    return found


def run(path: Path, pixels: np.ndarray, preprocess: Preprocess, folder: Path, taken: str = "float32") -> np.ndarray:
    """The logits of uint8 (N, H, W, 3) pixels, through the runner that travels to devices."""
    np.save(folder / "pixels.npy", pixels)
    job = {
        "model": path.name,
        "runtime": "litert",
        "threads": 1,
        "pixels": "pixels.npy",
        "mean": preprocess.mean,
        "std": preprocess.std,
        "layout": "NHWC",
        "input": taken,
        "limits": _ONCE,
    }
    device = Device("old board", "rpi", transport="local", python=python())
    LocalTransport(device).run(Job(job, {path.name: path, "pixels.npy": folder / "pixels.npy"}), folder)
    assert files.load_json(folder / "result.json")["runtime"] == "tflite-runtime"
    return np.load(folder / "logits.npy")

"""The seam between what is measured and what measures: load, infer, close."""

from __future__ import annotations

import importlib
from typing import Any, Dict

import numpy as np

# Runtime name in a job -> module and class of its runner, imported when used.
RUNNERS = {
    "null": "runner:NullRunner",
    "onnxruntime": "run_onnxruntime:OnnxRuntimeRunner",
    "onnxruntime-unoptimized": "run_onnxruntime:UnoptimizedRunner",
    "litert": "run_tflite:TfliteRunner",
    "torch": "run_torch:TorchRunner",
}


class Runner:
    """One loaded model. Subclasses load in ``__init__(path, threads)``."""

    def __init__(self, path: str, threads: int) -> None:
        self.path = path
        self.threads = threads

    def infer(self, image: np.ndarray) -> np.ndarray:
        """float32 (1, ...) in the model's layout to float32 (classes,) logits; blocks until done."""
        raise NotImplementedError

    def info(self) -> Dict[str, Any]:
        """Which runtime this is: name, version, what it runs on."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the model."""


class NullRunner(Runner):
    """Does nothing: its latency is what the harness itself costs."""

    def infer(self, image: np.ndarray) -> np.ndarray:
        return np.zeros(2, np.float32)

    def info(self) -> Dict[str, Any]:
        return {"runtime": "null", "version": "0", "processor": "none"}


def open_runner(runtime: str, path: str, threads: int) -> Runner:
    """The runner for `runtime` with the model at `path` loaded.

    Raises:
        ValueError: an unknown runtime. ImportError: it is not installed here.
    """
    if runtime not in RUNNERS:
        raise ValueError("unknown runtime {!r}; known: {}".format(runtime, ", ".join(RUNNERS)))
    module, _, name = RUNNERS[runtime].partition(":")
    runner: Runner = getattr(importlib.import_module("." + module, __package__), name)(path, threads)
    return runner

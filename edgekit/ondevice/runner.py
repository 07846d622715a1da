"""The seam between what is measured and what measures: load, infer, close."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

# Runtime name in a job -> module and class of its runner, imported when used.
RUNNERS = {
    "null": "runner:NullRunner",
    "onnxruntime": "run_onnxruntime:OnnxRuntimeRunner",
    "onnxruntime-unoptimized": "run_onnxruntime:UnoptimizedRunner",
    "litert": "run_tflite:TfliteRunner",
    "onnxruntime-cuda": "run_onnxruntime:CudaRunner",
    "openvino": "run_openvino:OpenVinoRunner",
    "torch": "run_torch:TorchRunner",
    "torch-compile": "run_torch:CompiledRunner",
    "torch-fp16": "run_torch:HalfRunner",
    "tensorrt": "run_tensorrt:TensorRtRunner",
    "trtexec": "run_trtexec:TrtexecRunner",
}


class Runner:
    """One loaded model. Subclasses load in ``__init__``; `options` are the job's, of some runtimes only."""

    # Whether queries follow each other without pause, so that power can be measured meanwhile.
    steady = True

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        self.path = path
        self.threads = threads
        self.options = options or {}

    def infer(self, image: np.ndarray) -> np.ndarray:
        """float32 (batch, ...) in the model's layout to float32 logits; blocks until done.

        They are (classes,) for one image, else (batch, classes).
        """
        raise NotImplementedError

    def info(self) -> Dict[str, Any]:
        """Which runtime this is: name, version, what it runs on."""
        raise NotImplementedError

    def measure(self, inputs: Sequence[np.ndarray], limits: Dict[str, Any]) -> Optional[List[int]]:
        """Latencies in nanoseconds of a runtime that measures by itself; None: the loop does."""
        return None

    def passes(self, inputs: Sequence[np.ndarray], seconds: float) -> Optional[List[int]]:
        """Nanoseconds of each pass over all inputs, of a runtime that batches by itself; None: the loop passes."""
        return None

    def compute_times(self, inputs: Sequence[np.ndarray], count: int) -> List[int]:
        """Nanoseconds of the model alone, by the device's own clock; empty where there is none."""
        return []

    def layer_times(self, inputs: Sequence[np.ndarray], count: int) -> List[Tuple[str, float]]:
        """Each layer and its median time in milliseconds; empty where the runtime does not tell."""
        return []

    def close(self) -> None:
        """Free the model."""


class NullRunner(Runner):
    """Does nothing: its latency is what the harness itself costs."""

    def infer(self, image: np.ndarray) -> np.ndarray:
        return np.zeros(2, np.float32)

    def info(self) -> Dict[str, Any]:
        return {"runtime": "null", "version": "0", "processor": "none"}


def open_runner(runtime: str, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> Runner:
    """The runner for `runtime` with the model at `path` loaded.

    Raises:
        ValueError: an unknown runtime. ImportError: it is not installed here.
    """
    if runtime not in RUNNERS:
        raise ValueError("unknown runtime {!r}; known: {}".format(runtime, ", ".join(RUNNERS)))
    module, _, name = RUNNERS[runtime].partition(":")
    runner: Runner = getattr(importlib.import_module("." + module, __package__), name)(path, threads, options)
    return runner

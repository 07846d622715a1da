"""Interface of the runtimes: load a model, infer, close."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

# Name of a runtime in a job -> module and class of its runner, imported when it is used.
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
    """A loaded model. Subclasses load it in ``__init__``; `options` are those of the job."""

    # Queries follow each other without a pause, so that power can be measured during them.
    steady = True

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        self.path = path
        self.threads = threads
        self.options = options or {}

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Return the float32 logits of a batch in the model's layout; waits until they are computed.

        Their shape is (classes,) for one image, else (batch, classes).
        """
        raise NotImplementedError

    def info(self) -> Dict[str, Any]:
        """Return name and version of the runtime, and the processor it runs on."""
        raise NotImplementedError

    def measure(self, inputs: Sequence[np.ndarray], limits: Dict[str, Any]) -> Optional[List[int]]:
        """Return the latencies in nanoseconds if the runtime measures them itself, else None."""
        return None

    def passes(self, inputs: Sequence[np.ndarray], seconds: float) -> Optional[List[int]]:
        """Return the nanoseconds of each pass over all inputs if the runtime batches by itself, else None."""
        return None

    def compute_times(self, inputs: Sequence[np.ndarray], count: int) -> List[int]:
        """Return nanoseconds of the model without transfers, by the clock of the device; empty if it has none."""
        return []

    def layer_times(self, inputs: Sequence[np.ndarray], count: int) -> List[Tuple[str, float]]:
        """Return each layer and its median time in milliseconds; empty if the runtime has no profiler."""
        return []

    def close(self) -> None:
        """Free the model."""


class NullRunner(Runner):
    """Does nothing: its latency is the overhead of the measurement loop."""

    def infer(self, image: np.ndarray) -> np.ndarray:
        return np.zeros(2, np.float32)

    def info(self) -> Dict[str, Any]:
        return {"runtime": "null", "version": "0", "processor": "none"}


def open_runner(runtime: str, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> Runner:
    """Return the runner for `runtime` with the model at `path` loaded.

    Raises:
        ValueError: the runtime is unknown. ImportError: it is not installed.
    """
    if runtime not in RUNNERS:
        raise ValueError("unknown runtime {!r}; known: {}".format(runtime, ", ".join(RUNNERS)))
    module, _, name = RUNNERS[runtime].partition(":")
    runner: Runner = getattr(importlib.import_module("." + module, __package__), name)(path, threads, options)
    return runner

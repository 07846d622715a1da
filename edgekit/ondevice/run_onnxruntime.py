"""ONNX Runtime on the CPU, or with its CUDA provider."""

from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnxruntime

from .runner import Runner

_NODE, _SUFFIX = "Node", "_kernel_time"
_WARMUP, _SECONDS = 3, 1.0


class OnnxRuntimeRunner(Runner):
    """Runs an ONNX file with the default graph optimizations."""

    provider, processor = "CPUExecutionProvider", "cpu"
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        """
        Raises:
            RuntimeError: its provider is not in this package, or does not start.
        """
        super().__init__(path, threads, options)
        self.session = self._open(self._settings())
        self.input = self.session.get_inputs()[0].name
        self.layers_by: Dict[str, Any] = {}

    def _settings(self) -> Any:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = self.level
        settings.intra_op_num_threads = self.threads
        settings.log_severity_level = 3
        # On x86 CPUs without VNNI, sums of 8-bit products saturate unless this is set: some answers become wrong.
        settings.add_session_config_entry("session.x64quantprecision", "1")
        return settings

    def _open(self, settings: Any) -> Any:
        """Create a session on the requested provider; ONNX Runtime would silently fall back to the CPU."""
        if self.provider not in onnxruntime.get_available_providers():
            raise RuntimeError("this onnxruntime has no {}: install onnxruntime-gpu".format(self.provider))
        session = onnxruntime.InferenceSession(self.path, settings, providers=[self.provider])
        if session.get_providers()[0] != self.provider:
            raise RuntimeError("{} cannot be started".format(self.provider))
        return session

    def infer(self, image: np.ndarray) -> np.ndarray:
        scores: np.ndarray = self.session.run(None, {self.input: image})[0][0]
        return scores

    def layer_times(self, inputs: Sequence[np.ndarray], count: int) -> List[Tuple[str, float]]:
        """Return layer times of ONNX Runtime's profiler, for the nodes after optimization, from a separate session."""
        with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
            settings = self._settings()
            settings.enable_profiling = True
            settings.profile_file_prefix = os.path.join(folder, "profile")
            session, runs = self._open(settings), 0
            begun = time.perf_counter()
            while runs < count + _WARMUP and (runs < 3 * _WARMUP or time.perf_counter() - begun < _SECONDS):
                session.run(None, {self.input: inputs[runs % len(inputs)]})
                runs += 1
            with open(session.end_profiling(), encoding="utf-8") as file:
                found, whole = read_profile(json.load(file), _WARMUP)
        self.layers_by = {"layers_by": "ONNX Runtime's profiler", "layers_run_ms": whole}
        return found

    def info(self) -> Dict[str, Any]:
        said = {"runtime": "onnxruntime", "version": onnxruntime.__version__, "processor": self.processor}
        said.update(self.layers_by)
        return said


class UnoptimizedRunner(OnnxRuntimeRunner):
    """Runs an ONNX file without optimizations: for those that the optimizer (1.31) gets wrong."""

    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def info(self) -> Dict[str, Any]:
        return dict(super().info(), version=onnxruntime.__version__ + " plain")


class CudaRunner(OnnxRuntimeRunner):
    """Runs on the first GPU; latencies include transfers. Not verified on hardware."""

    provider, processor = "CUDAExecutionProvider", "CUDA GPU"


def read_profile(events: Sequence[Dict[str, Any]], skip: int) -> Tuple[List[Tuple[str, float]], float]:
    """Return (node, median milliseconds) in the order of execution, and the median of whole runs.

    A node's time in the first `skip` runs does not count.
    """
    times: Dict[str, List[int]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == _NODE and name.endswith(_SUFFIX):
            times.setdefault(name[: -len(_SUFFIX)], []).append(int(event["dur"]))
    whole = [int(event["dur"]) for event in events if event.get("name") == "model_run"]
    nodes = [(name, float(np.median(taken[skip:])) / 1000) for name, taken in times.items() if len(taken) > skip]
    return nodes, float(np.median(whole[skip:] or [0])) / 1000

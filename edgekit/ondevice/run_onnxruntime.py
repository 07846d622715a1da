"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np
import onnxruntime

from .runner import Runner


class OnnxRuntimeRunner(Runner):
    """An ONNX file, optimized as ONNX Runtime does by default."""

    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = self.level
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def infer(self, image: np.ndarray) -> np.ndarray:
        scores: np.ndarray = self.session.run(None, {self.input: image})[0][0]
        return scores

    def info(self) -> Dict[str, Any]:
        return {"runtime": "onnxruntime", "version": onnxruntime.__version__, "processor": "cpu"}


class UnoptimizedRunner(OnnxRuntimeRunner):
    """Every node as the file has it: for float16 Q/DQ, which the optimizer (1.31) gets wrong."""

    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def info(self) -> Dict[str, Any]:
        return dict(super().info(), version=onnxruntime.__version__ + " plain")

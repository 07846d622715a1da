"""OpenVINO on the CPU, a desktop baseline."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np
import openvino

from .runner import Runner


class OpenVinoRunner(Runner):
    """Runs an ONNX file in float32; by default OpenVINO would use bfloat16 where the CPU supports it."""

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.model = openvino.Core().compile_model(path, "CPU", settings)
        self.request = self.model.create_infer_request()

    def infer(self, image: np.ndarray) -> np.ndarray:
        self.request.infer([image], share_inputs=True)
        scores: np.ndarray = self.request.get_output_tensor(0).data[0].copy()
        return scores

    def info(self) -> Dict[str, Any]:
        return {"runtime": "openvino", "version": openvino.__version__.partition("-")[0], "processor": "cpu"}

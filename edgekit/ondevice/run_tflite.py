"""LiteRT on the CPU: ``ai-edge-litert`` where it is installed, else ``tflite-runtime``."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np

from .runner import Runner

try:
    from ai_edge_litert.interpreter import Interpreter

    PACKAGE = "ai-edge-litert"
except ImportError:
    from tflite_runtime.interpreter import Interpreter

    PACKAGE = "tflite-runtime"


class TfliteRunner(Runner):
    """A ``.tflite`` file with one image input and one output, float32 or of 8 bits."""

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        self.interpreter = Interpreter(model_path=path, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def infer(self, image: np.ndarray) -> np.ndarray:
        self.interpreter.set_tensor(self.input["index"], _to_type(image, self.input))
        self.interpreter.invoke()
        return _to_float(self.interpreter.get_tensor(self.output["index"])[0], self.output)

    def info(self) -> Dict[str, Any]:
        return {"runtime": PACKAGE, "version": _version(PACKAGE), "processor": "cpu"}


def _to_type(values: np.ndarray, detail: Dict[str, Any]) -> np.ndarray:
    """float32 to the tensor's type, by its scale and zero point; what has the type already is what it is."""
    if detail["dtype"] == values.dtype:
        return values
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def _to_float(values: np.ndarray, detail: Dict[str, Any]) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return values
    scale, zero_point = detail["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)

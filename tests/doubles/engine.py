"""What the doubles of TensorRT call an engine: a line of JSON (what built it), then the ONNX bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

MAGIC = b"an engine of a double of TensorRT: "


def pack(onnx: bytes, **built_by: Any) -> bytes:
    return MAGIC + json.dumps(built_by).encode() + b"\n" + onnx


def unpack(engine: bytes) -> tuple[dict[str, Any], bytes]:
    """What built it, and the ONNX bytes; ValueError for anything else."""
    if not engine.startswith(MAGIC):
        raise ValueError("no engine")
    head, _, onnx = engine[len(MAGIC) :].partition(b"\n")
    return json.loads(head), onnx


def session(onnx: bytes) -> Any:
    """ONNX Runtime without its optimizer, so that the graph is run as it is in the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def run(opened: Any, image: np.ndarray) -> np.ndarray:
    """float32 (1, 3, H, W) to float32 (1, classes)."""
    scores: np.ndarray = opened.run(None, {opened.get_inputs()[0].name: image})[0]
    return scores

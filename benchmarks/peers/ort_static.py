"""Quantize the ONNX model with ONNX Runtime's ``quantize_static``.

    python benchmarks/peers/ort_static.py FOLDER [--variant NAME]

Packages: onnxruntime==1.31.1 onnx==1.23.2 (edgekit's own environment has them).
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

default     every default: QDQ, min-max, asymmetric int8 activations, symmetric int8 weights with one scale per tensor
symmetric   min-max, symmetric int8 activations and weights, one weight scale per channel, as TensorRT requires
channels    the default, with one weight scale per channel
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "symmetric": {
        "per_channel": True,
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "calibrate_method": CalibrationMethod.MinMax,
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
    },
    "channels": {"per_channel": True},
}


class Reader(CalibrationDataReader):
    """Feeds one image at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next feed, or None after the last."""
        image = next(self.images, None)
        return None if image is None else {"image": image[None]}


def main() -> None:
    """Write FOLDER/ort_static.VARIANT.onnx, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="default")
    options = parser.parse_args()
    started, path = time.perf_counter(), options.folder / f"ort_static.{options.variant}.onnx"
    reader = Reader(np.load(options.folder / "calibration.npy", mmap_mode="r"))
    quantize_static(options.folder / "model.fp32.onnx", path, reader, **VARIANTS[options.variant])
    about = {"versions": {name: version(name) for name in ("onnxruntime", "onnx")}}
    path.with_suffix(".json").write_text(json.dumps({**about, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()

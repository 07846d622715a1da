"""Quantize the ONNX model to INT8 with NVIDIA Model Optimizer.

    python benchmarks/peers/model_optimizer.py FOLDER [--variant NAME]

Packages: nvidia-modelopt==0.47.0 onnx==1.21.0 onnxruntime==1.24.4 onnx-graphsurgeon onnxconverter-common onnxslim
polygraphy cppimport lief (those of nvidia-modelopt[onnx], with onnxruntime instead of onnxruntime-gpu).
https://github.com/NVIDIA/Model-Optimizer

max       calibration_method max: the largest magnitude
entropy   calibration_method entropy, its default for INT8

Both calibrate on the CPU. Layers that are not INT8 stay float32: with the default, float16, ONNX Runtime's answers on a
CPU depend on its version and on its graph optimizations (agreement with FP32 from 0 to 85 % for one file); with float32
they do not. It gets a copy of the model, because it writes into the file that it reads.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from modelopt.onnx.quantization import quantize

VARIANTS = ("max", "entropy")


def main() -> None:
    """Write FOLDER/model_optimizer.VARIANT.onnx, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="max")
    options = parser.parse_args()
    started, path = time.perf_counter(), options.folder / f"model_optimizer.{options.variant}.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        quantize(
            shutil.copy(options.folder / "model.fp32.onnx", scratch),
            quantize_mode="int8",
            calibration_data={"image": np.load(options.folder / "calibration.npy")},
            calibration_method=options.variant,
            calibration_eps=["cpu"],
            output_path=str(path),
            high_precision_dtype="fp32",
        )
    about = {"versions": {name: version(name) for name in ("nvidia-modelopt", "onnx", "onnxruntime")}}
    path.with_suffix(".json").write_text(json.dumps({**about, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()

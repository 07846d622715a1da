"""Qualcomm's AIMET, post-training quantization of the ONNX model.

    python benchmarks/peers/aimet_ptq.py FOLDER [--variant NAME]

Packages: aimet-onnx==2.42.0 onnx==1.23.2 onnxruntime==1.31.1
https://github.com/quic/aimet

default    ``QuantizationSimModel`` as it comes: min-max, asymmetric activations, one weight scale per channel
equalize   the default after cross-layer equalization (``equalize_model``, which replaces ReLU6 by ReLU)
htp        the configuration of Qualcomm's HTP v81
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import aimet_onnx
import numpy as np
import onnx
from aimet_onnx.cross_layer_equalization import equalize_model

VARIANTS = {"default": "default", "equalize": "default", "htp": "htp_v81"}  # name -> configuration


def quantize(model: onnx.ModelProto, images: np.ndarray, variant: str) -> onnx.ModelProto:
    """The model with Q/DQ pairs."""
    feeds = [{"image": np.ascontiguousarray(image[None])} for image in images]
    if variant == "equalize":
        equalize_model(model)
    sim = aimet_onnx.QuantizationSimModel(model, config_file=VARIANTS[variant], providers=["CPUExecutionProvider"])
    sim.compute_encodings(feeds)
    return sim.to_onnx_qdq(prequantize_constants=True)  # int8 weights in the file, as the others have


def main() -> None:
    """Write FOLDER/aimet_ptq.VARIANT.onnx, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="default")
    options = parser.parse_args()
    started, path = time.perf_counter(), options.folder / f"aimet_ptq.{options.variant}.onnx"
    images = np.load(options.folder / "calibration.npy", mmap_mode="r")
    onnx.save(quantize(onnx.load(options.folder / "model.fp32.onnx"), images, options.variant), path)
    about = {"versions": {name: version(name) for name in ("aimet-onnx", "onnx", "onnxruntime")}}
    path.with_suffix(".json").write_text(json.dumps({**about, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()

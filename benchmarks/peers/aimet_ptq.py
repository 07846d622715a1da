"""Quantize the ONNX model with Qualcomm's AIMET.

    python benchmarks/peers/aimet_ptq.py FOLDER [--variant NAME]

Packages: aimet-onnx==2.42.0 onnx==1.23.2 onnxruntime==1.31.1
https://github.com/quic/aimet

default    ``QuantizationSimModel`` with its defaults: min-max, asymmetric activations, one weight scale per channel
equalize   the default after cross-layer equalization (``equalize_model``, which replaces ReLU6 by ReLU)
fused      the default without the rounding between a depthwise convolution and its ReLU6, which AIMET inserts although
           it fuses every other convolution with its activation (the configuration htp_v81 does the same)

AdaRound (``apply_adaround``) is left out: 500 iterations, a twentieth of its default, take half an hour on a CPU.
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

VARIANTS = ("default", "equalize", "fused")


def unround(sim: aimet_onnx.QuantizationSimModel, model: onnx.ModelProto) -> None:
    """Disable the quantizer of every tensor that only a Clip reads."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for name, quantizer in sim.qc_quantize_op_dict.items():
        if readers.get(name) == ["Clip"] and name not in {i.name for i in model.graph.initializer}:
            quantizer.enabled = False


def quantize(model: onnx.ModelProto, images: np.ndarray, variant: str) -> onnx.ModelProto:
    """Return the model with Q/DQ pairs."""
    feeds = [{"image": np.ascontiguousarray(image[None])} for image in images]
    plain = model.SerializeToString()  # AIMET changes its argument
    if variant == "equalize":
        equalize_model(model)
    sim = aimet_onnx.QuantizationSimModel(model, providers=["CPUExecutionProvider"])
    if variant == "fused":
        unround(sim, onnx.load_from_string(plain))
    sim.compute_encodings(feeds)
    return sim.to_onnx_qdq(prequantize_constants=True)  # int8 weights in the file, as others write


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

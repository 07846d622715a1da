"""Convert PyTorch to INT8 LiteRT with Google's tools: LiteRT Torch, then AI Edge Quantizer ``static_wi8_ai8``.

    python benchmarks/peers/litert_torch_ptq.py FOLDER [--variant NAME]

Reads FOLDER/program.pt2, the trained network from ``torch.export``, and FOLDER/calibration.npy.
Packages: litert-torch==0.10.0 ai-edge-quantizer==0.10.0 ai-edge-litert==2.3.0 (edgekit's own environment has them).
https://github.com/google-ai-edge/litert-torch https://github.com/google-ai-edge/ai-edge-quantizer

nchw   ``convert`` with its defaults: the file takes images in the layout of torch
nhwc   with ``to_channel_last_io``, as its documentation recommends for images

Both are calibrated with the quantizer's defaults, and have int8 input and output, as the recipe specifies.
FOLDER/litert_torch_ptq.VARIANT.fp32.tflite is the float file.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

VARIANTS = ("nchw", "nhwc")
PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch")


def convert(program: Path, shape: tuple[int, ...], variant: str, path: Path) -> None:
    """Write the float file; `shape` is that of one image, (1, 3, H, W)."""
    model = torch.export.load(program).module()
    example = torch.zeros(shape)
    if variant == "nhwc":
        model, example = litert_torch.to_channel_last_io(model, args=[0]), example.permute(0, 2, 3, 1).contiguous()
    litert_torch.convert(model, (example,), strict_export=False).export(str(path))


def quantize(model: Path, images: np.ndarray, variant: str, path: Path) -> None:
    """Write the INT8 file, calibrated with `images`, float32 (N, 3, H, W)."""
    (signature,) = Interpreter(str(model)).get_signature_list().items()
    name, (argument,) = signature[0], signature[1]["inputs"]
    shown = (image[None] if variant == "nchw" else image.transpose(1, 2, 0)[None] for image in images)
    q = quantizer.Quantizer(str(model))
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    found = q.calibrate({name: [{argument: np.ascontiguousarray(image)} for image in shown]})
    q.quantize(found).export_model(str(path), overwrite=True)


def main() -> None:
    """Write FOLDER/litert_torch_ptq.VARIANT{,.fp32}.tflite, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default=VARIANTS[0])
    options = parser.parse_args()
    started, path = time.perf_counter(), options.folder / f"litert_torch_ptq.{options.variant}.tflite"
    images = np.load(options.folder / "calibration.npy", mmap_mode="r")
    floats = path.with_suffix(".fp32.tflite")
    convert(options.folder / "program.pt2", (1, *images.shape[1:]), options.variant, floats)
    quantize(floats, images, options.variant, path)
    about = {"versions": {name: version(name) for name in PACKAGES}}
    path.with_suffix(".json").write_text(json.dumps({**about, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()

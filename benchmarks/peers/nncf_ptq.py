"""Quantize the ONNX model with Intel's NNCF.

    python benchmarks/peers/nncf_ptq.py FOLDER [--variant NAME]

Packages: nncf==3.4.0 onnx==1.23.2 onnxruntime==1.31.1
https://github.com/openvinotoolkit/nncf

default    preset performance (symmetric activations), fast bias correction
mixed      preset mixed (asymmetric activations), fast bias correction
accurate   preset mixed, the slower and more accurate bias correction
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "mixed": {"preset": nncf.QuantizationPreset.MIXED},
    "accurate": {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": False},
}


def main() -> None:
    """Write FOLDER/nncf_ptq.VARIANT.onnx, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="default")
    options = parser.parse_args()
    started, path = time.perf_counter(), options.folder / f"nncf_ptq.{options.variant}.onnx"
    images = np.load(options.folder / "calibration.npy", mmap_mode="r")
    data = nncf.Dataset(images, lambda image: {"image": np.ascontiguousarray(image[None])})
    model = onnx.load(options.folder / "model.fp32.onnx")
    onnx.save(nncf.quantize(model, data, subset_size=len(images), **VARIANTS[options.variant]), path)
    about = {"versions": {name: version(name) for name in ("nncf", "onnx", "onnxruntime")}}
    path.with_suffix(".json").write_text(json.dumps({**about, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()

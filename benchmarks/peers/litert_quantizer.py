"""Quantize the LiteRT model with Google's AI Edge Quantizer, recipe ``static_wi8_ai8``.

    python benchmarks/peers/litert_quantizer.py FOLDER [--variant NAME]

Packages: ai-edge-quantizer==0.10.0 ai-edge-litert==2.3.0 (edgekit's own environment has them).
https://github.com/google-ai-edge/ai-edge-quantizer

default   the recipe and ``calibrate`` with their defaults: a moving average of each image's minimum and maximum
minmax    the lowest minimum and the highest maximum over all images (``qsv_utils.min_max_update``)

Both have int8 input and output, as the recipe specifies.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
from ai_edge_quantizer.utils import qsv_utils

VARIANTS = ("default", "minmax")


def calibrate(q: quantizer.Quantizer, model: Path, images: np.ndarray, variant: str) -> Any:
    """Return the calibration statistics of each tensor."""
    (signature,) = Interpreter(str(model)).get_signature_list().items()
    name, (argument,) = signature[0], signature[1]["inputs"]
    data = {name: [{argument: np.ascontiguousarray(image.transpose(1, 2, 0)[None])} for image in images]}
    if variant == "default":
        return q.calibrate(data)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    mode = calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS
    watching = calibrator.Calibrator(str(model), mode=mode, qsv_update_func=qsv_utils.min_max_update)
    watching.calibrate(data, manager)
    return watching.get_model_qsvs()


def main() -> None:
    """Write FOLDER/litert_quantizer.VARIANT.tflite, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="default")
    options = parser.parse_args()
    started, path = time.perf_counter(), options.folder / f"litert_quantizer.{options.variant}.tflite"
    model = options.folder / "model.fp32.tflite"
    q = quantizer.Quantizer(str(model))
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    images = np.load(options.folder / "calibration.npy", mmap_mode="r")
    q.quantize(calibrate(q, model, images, options.variant)).export_model(str(path), overwrite=True)
    about = {"versions": {name: version(name) for name in ("ai-edge-quantizer", "ai-edge-litert")}}
    path.with_suffix(".json").write_text(json.dumps({**about, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()

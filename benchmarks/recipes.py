"""Write and judge edgekit's INT8 files for `fidelity`: every recipe, for TensorRT and LiteRT.

    python -m benchmarks.recipes FOLDER [RECIPE...]

``python -m benchmarks.fidelity make`` makes FOLDER. Writes ``edgekit.<recipe>.onnx`` and ``.tflite`` (``strict``: the
default recipe with ``--parity strict``), judges them, and records seconds and peak memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from benchmarks import fidelity
from edgekit import config, files
from edgekit.convert import fold, onnx, tflite
from edgekit.quant import calibrate, litert, naming, placement, qdq, recover
from edgekit.quantization import CalibrationSet, QuantScheme


def write(folder: Path, name: str) -> list[Path]:
    """Write the two files of one recipe, and beside them a JSON file with seconds and memory."""
    recipe = config.load_recipe("default" if name == "strict" else name)
    images = torch.from_numpy(np.load(folder / "calibration.npy"))
    folded = fold.fold(fidelity.network(fidelity.made(folder)["network"]), fidelity.SIZE)
    start = time.monotonic()
    table = calibrate.calibrate(folded, images.split(16), recipe, CalibrationSet((), "crops"), "pretrained")
    seen = time.monotonic()
    quantized = recover.recover(folded, table, recipe, QuantScheme(name == "strict", everywhere=True), images)
    made = {
        "recipe": asdict(recipe),
        "steps": quantized.steps,
        "seconds_calibrate": round(seen - start, 1),
        "seconds_recover": round(time.monotonic() - seen, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "command": f"python -m benchmarks.recipes FOLDER {name}",
    }
    probe = images[:1]
    known = calibrate.run_all(folded, probe), placement.written_by(folded), placement.trained_weights(folded)
    paths = [folder / f"edgekit.{name}.onnx", folder / f"edgekit.{name}.tflite"]
    graph = ir.load(folder / fidelity.REFERENCE)
    qdq.quantize(
        graph,
        quantized,
        naming.name_exported(*known, onnx.run_all(folder / fidelity.REFERENCE, probe.numpy())),
        name == "strict",
    )
    onnx.save(graph, paths[0])
    source = folder / "model.fp32.tflite"
    with tflite.quiet():
        litert.quantize(
            source, quantized, naming.name_exported(*known, tflite.run_all(source, probe.numpy())), paths[1]
        )
    files.save_json(folder / f"edgekit.{name}.json", made)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("recipes", nargs="*", default=[*config.names("calibration"), "strict"])
    options = parser.parse_args()
    for each in options.recipes:
        fidelity.judge_all(options.folder, write(options.folder, each))

"""Quantize the ONNX model to INT8 LiteRT with onnx2tf and its documented option ``-oiqt``.

    python benchmarks/peers/onnx2tf_ptq.py FOLDER [--variant NAME]

Reads FOLDER/model.fp32.onnx, FOLDER/calibration.npy and FOLDER/preprocess.json (mean and std), and runs the command
``onnx2tf -i model.fp32.onnx -oiqt -cind image calibration.npy MEAN STD`` of the environment that it runs in.
Packages: see peers/README.md. https://github.com/PINTO0309/onnx2tf

tensorflow   onnx2tf 1.x: a SavedModel, then TensorFlow's converter and its quantizer
direct       onnx2tf 2.x: writes the file directly

Keeps ``*_full_integer_quant.tflite``, with int8 input and output. FOLDER/onnx2tf_ptq.VARIANT.fp32.tflite is the
float file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

# Images with which onnx2tf 1.x checks operators during the conversion; it downloads them if they are missing.
SAMPLES, SAMPLE_SIZE = "calibration_image_sample_data_20x128x128x3_float32.npy", 128
VARIANTS = {"tensorflow": "1", "direct": "2"}  # name -> first number of the version
PACKAGES = ("onnx2tf", "tensorflow", "onnx", "onnxsim", "ai-edge-litert")


def constant(values: list[float]) -> str:
    """Return the value of the option for one number per channel: four dimensions, channels last."""
    return f"[[[[{','.join(map(str, values))}]]]]"


def run(folder: Path, work: Path) -> None:
    """Run the command; its output is in `work`.

    Raises:
        SystemExit: it failed; the message contains the end of its output.
    """
    preprocess = json.loads((folder / "preprocess.json").read_text())
    normalized = np.load(folder / "calibration.npy").transpose(0, 2, 3, 1)  # the command normalizes
    images = (normalized * np.array(preprocess["std"]) + np.array(preprocess["mean"])).clip(0, 1).astype(np.float32)
    pixels = work / "calibration.npy"
    np.save(pixels, images)
    chosen = np.arange(SAMPLE_SIZE) * images.shape[1] // SAMPLE_SIZE
    np.save(work / SAMPLES, images[:20, chosen][:, :, chosen])
    model = work / "model.onnx"
    shutil.copyfile(folder / "model.fp32.onnx", model)  # the command writes into the file that it reads
    program = str(Path(sys.executable).absolute().with_name("onnx2tf"))
    calibration = ["-cind", "image", str(pixels), constant(preprocess["mean"]), constant(preprocess["std"])]
    command = [program, "-i", str(model), "-o", str(work / "out"), "-oiqt", *calibration]
    result = subprocess.run(command, capture_output=True, text=True, cwd=work)
    if result.returncode or not list((work / "out").glob("*_full_integer_quant.tflite")):
        raise SystemExit(f"onnx2tf failed ({result.returncode}): {(result.stdout + result.stderr)[-1500:]}")


def main() -> None:
    """Write FOLDER/onnx2tf_ptq.VARIANT{,.fp32}.tflite, and .json with versions and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=list(VARIANTS), default="tensorflow")
    options = parser.parse_args()
    if version("onnx2tf").partition(".")[0] != VARIANTS[options.variant]:
        raise SystemExit(f"this is onnx2tf {version('onnx2tf')}; {options.variant} is {VARIANTS[options.variant]}.x")
    started, path = time.perf_counter(), options.folder / f"onnx2tf_ptq.{options.variant}.tflite"
    with tempfile.TemporaryDirectory() as name:
        run(options.folder, Path(name))
        (full,) = (Path(name) / "out").glob("*_full_integer_quant.tflite")
        (floats,) = (Path(name) / "out").glob("*_float32.tflite")
        shutil.copyfile(floats, path.with_suffix(".fp32.tflite"))
        shutil.copyfile(full, path)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    about = {"versions": versions, "seconds": round(time.perf_counter() - started, 1)}
    path.with_suffix(".json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()

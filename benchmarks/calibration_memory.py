"""Measure the peak memory of calibration and recovery with 64, 512 and 4,096 images; it must not grow with them.

    python -m benchmarks.calibration_memory FOLDER

``python -m benchmarks.fidelity make`` makes FOLDER; its crops are repeated as often as needed. Each count runs in a
separate process. Writes ``results/calibration_memory.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import fidelity
from edgekit import config, files
from edgekit.convert import fold
from edgekit.quant import calibrate, recover
from edgekit.quantization import CalibrationSet, QuantScheme
from edgekit.training import diagnostics

COUNTS = (64, 512, 4096)
_BATCH = 16


def batches(crops: np.ndarray, count: int) -> Iterator[torch.Tensor]:
    """Yield `count` images in batches, repeating the crops if there are too few."""
    for start in range(0, count, _BATCH):
        yield torch.from_numpy(crops[np.arange(start, min(start + _BATCH, count)) % len(crops)])


def peaks(folder: Path, count: int) -> dict[str, int]:
    """Return the peak resident memory of this process after each stage, in MB."""
    recipe = config.load_recipe("default")
    crops = np.load(folder / "calibration.npy", mmap_mode="r")
    model = fidelity.network(fidelity.made(folder)["network"])
    folded = fold.fold(model, fidelity.SIZE)
    table = calibrate.calibrate(folded, batches(crops, count), recipe, CalibrationSet((), "crops"), "pretrained")
    found = {"images": count, "calibrate_mb": diagnostics.peak_mb()}
    shown = torch.cat(list(batches(crops, min(count, recipe.recovery_samples))))
    recover.recover(folded, table, recipe, QuantScheme(symmetric=False, everywhere=True), shown)
    return {**found, "recover_mb": diagnostics.peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(peaks(arguments.folder, arguments.one)))
        return
    rows = []
    for count in COUNTS:
        command = [sys.executable, "-m", "benchmarks.calibration_memory", str(arguments.folder), "--one", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    files.save_json(Path(__file__).parent / "results" / "calibration_memory.json", {"rows": rows})


if __name__ == "__main__":
    main()

"""Compare training strategies and treatments of rare classes on a data set, with several seeds each.

    python benchmarks/strategies.py DATA [RUNS]

Trains the runs that are missing in RUNS (default: runs-strategies; use a new folder for a new version of edgekit) and
prints mean, lowest and highest over the seeds, on the test split. Writes benchmarks/results/strategies.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "strategies.json"
SEEDS = (0, 1, 2)
COMMON = ["--model", "efficientnet_lite0", "--image-size", "64", "--epochs", "12", "--amp", "off"]
# name of the runs -> options
SIDES = {
    "strategy head": ["--strategy", "head", "--imbalance", "weights"],
    "strategy partial": ["--strategy", "partial", "--imbalance", "weights"],
    "strategy full": ["--strategy", "full", "--imbalance", "weights"],
    "strategy scratch": ["--strategy", "scratch", "--imbalance", "weights"],
    "full, imbalance none": ["--strategy", "full", "--imbalance", "none"],
    "full, imbalance focal": ["--strategy", "full", "--imbalance", "focal"],
    "full, imbalance sampling": ["--strategy", "full", "--imbalance", "sampling"],
}
FIGURES = ("top1", "macro_f1", "balanced_accuracy")


def figures(data: str, runs: Path, side: str, seed: int) -> dict[str, float]:
    """Return the test figures of one run; train it if it does not exist."""
    name = f"{side.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (runs / name / "evaluation.json").is_file():
        command = [sys.executable, "-m", "edgekit", "train", data, *COMMON, *SIDES[side], "--seed", str(seed)]
        subprocess.run([*command, "--name", name, "--runs-dir", str(runs)], check=True, capture_output=True)
    scores = json.loads((runs / name / "evaluation.json").read_text())["splits"]["test"]["scores"]
    meta = json.loads((runs / name / "run.json").read_text())
    return {
        "top1": scores["top1"],
        "macro_f1": scores["macro"]["f1"],
        "balanced_accuracy": scores["balanced_accuracy"],
        "epoch_s": statistics.median(e["seconds"] for e in meta["history"][1:]),
        "peak_rss_mb": meta["peak_rss_mb"],
    }


def main() -> None:
    """Train, summarize, print and record the raw values."""
    data, runs = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "runs-strategies")
    rows = {}
    for side in SIDES:
        found = [figures(data, runs, side, seed) for seed in SEEDS]
        rows[side] = found
        cells = []
        for name in FIGURES:
            values = [f[name] for f in found]
            cells.append(f"{name} {statistics.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})")
        print(f"{side:26} {', '.join(cells)}, epoch {statistics.median(f['epoch_s'] for f in found):.2f} s", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    about = {"data": Path(data).name, "python": platform.python_version(), "options": COMMON, "seeds": SEEDS}
    RESULT.write_text(json.dumps({**about, "test": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

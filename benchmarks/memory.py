"""Measure the peak memory of indexing and reading a data set of 1,000 and of 100,000 images.

Each figure is the peak resident size of a new process. The images are small and all different, so only edgekit's own
bookkeeping grows with their number. "again" indexes with every file in the index cache.
"""

from __future__ import annotations

import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = (1_000, 100_000)
CLASSES = 10
BATCHES = 300
RESULT = Path(__file__).parent / "results" / "memory.json"
STEPS = ("import", "index", "again", "loader")


def make(root: Path, count: int) -> None:
    """Write `count` different images ``root/<class>/<number>``, half 32 px PNG, half 48 px JPEG."""
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        png = number // CLASSES % 2 == 0
        side = 32 if png else 48
        image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))
        content = io.BytesIO()
        image.save(content, "PNG" if png else "JPEG", **({"compress_level": 1} if png else {"quality": 85}))
        (folder / f"{number:06d}.{'png' if png else 'jpg'}").write_bytes(content.getvalue())


def index(root: Path) -> None:
    """Index the data set, the first step of ``edgekit train``."""
    from edgekit.data import dataset

    dataset.index(root)


def load(root: Path) -> None:
    """Index the data set, then read `BATCHES` batches as training does, in this process."""
    import torch

    from edgekit.data import dataset
    from edgekit.models.zoo import preprocess_for
    from edgekit.training.batches import Batches
    from edgekit.training.distributed import Team
    from edgekit.training.options import TrainOptions

    arch = "mobilenet_v2"
    options = TrainOptions(arch=arch, image_size=64, batch_size=16)
    batches = Batches(
        dataset.index(root), preprocess_for(arch, options.image_size), options, Team(0, 1, torch.device("cpu"))
    )
    seen = epoch = 0
    while seen < BATCHES:
        epoch += 1
        for _ in batches.epoch(epoch):
            seen += 1
            if seen == BATCHES:
                break


def imports(_: Path) -> None:
    """Import the modules that the other steps use, without any data."""
    import edgekit.data.dataset
    import edgekit.training.batches  # noqa: F401


def one(step: str, root: Path) -> dict[str, float]:
    """Run one step in this process; return the peak resident size in MB and the seconds."""
    started = time.perf_counter()
    {"import": imports, "index": index, "again": index, "loader": load}[step](root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_mb": round(peak / 1e6, 1), "seconds": round(time.perf_counter() - started, 2)}


def measure(step: str, root: Path, cache: Path) -> dict[str, float]:
    """Run one step in a new process."""
    command = [sys.executable, __file__, step, str(root)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "EDGEKIT_CACHE": str(cache)}
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print and record."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / "data", count)
            time.sleep(2.5)  # younger files are not cached
            figures[str(count)] = {s: measure(s, Path(folder) / "data", Path(folder) / "cache") for s in STEPS}
        for step, figure in figures[str(count)].items():
            print(f"{count:>7} images  {step:7} {figure['peak_mb']:7.1f} MB  {figure['seconds']:7.2f} s", flush=True)
    few, many = (figures[str(count)] for count in COUNTS)
    more = COUNTS[1] - COUNTS[0]
    each = {s: round((many[s]["peak_mb"] - few[s]["peak_mb"]) * 1e6 / more) for s in STEPS}
    print("bytes per additional image: " + ", ".join(f"{step} {value}" for step, value in each.items()))
    RESULT.parent.mkdir(exist_ok=True)
    environment = {"python": platform.python_version(), "processors": os.cpu_count(), "batches": BATCHES}
    RESULT.write_text(json.dumps({**environment, "figures": figures, "bytes_each": each}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()

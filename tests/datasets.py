"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgekit.data import dataset
from edgekit.records import DatasetIndex, Sample


def indexed(root: Path, labels: tuple[str, ...], samples: tuple[Sample, ...]) -> DatasetIndex:
    """The index of images that need not exist, with the fingerprint that belongs to it."""
    return DatasetIndex(root, labels, samples, dataset.fingerprint(labels, samples))


def write_images(folder: Path, classes: dict[str, int], size: int = 40, seed: int = 0) -> Path:
    """Write ``folder/<class>/<number>.png``: noise around one colour per class, so classes can be learnt."""
    rng = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        colour = rng.integers(40, 216, 3)
        for number in range(count):
            pixels = np.clip(rng.normal(colour, 25, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    return folder

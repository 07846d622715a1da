"""Training images, decoded and augmented on the fly; each one's randomness has a seed of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from edgekit.data.images import fit, load_image
from edgekit.errors import EdgekitError
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training.options import TrainOptions

Key = tuple[int, int]


def seed_of(*parts: int | str) -> int:
    """One 63-bit seed out of several values; unlike their sum, equal only for equal values."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def augmentation(preset: str, flip: bool, preprocess: Preprocess) -> Callable[[Any], Any] | None:
    """A transform of PIL images, or None where nothing is to be changed.

    ``light`` takes a random crop of 60-100 % of the area and varies brightness, contrast and
    saturation by 20 %; ``randaugment`` takes the same crops and two of 14 changes of strength 9
    (Cubuk et al. 2020, arXiv:1909.13719). `flip` mirrors every other image (wrong for digits,
    letters, signs). Randomness comes from torch's generator alone.
    """
    from torchvision.transforms import InterpolationMode, v2

    steps: list[Any] = []
    if preset != "none":
        kernel = InterpolationMode(preprocess.resample)
        steps.append(v2.RandomResizedCrop(preprocess.image_size, scale=(0.6, 1.0), interpolation=kernel))
    if preset == "light":
        steps.append(v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2))
    if preset == "randaugment":
        steps.append(v2.RandAugment(num_ops=2, magnitude=9))
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps) if steps else None


class TrainImages(Dataset[tuple[torch.Tensor, int, int]]):
    """The train split: uint8 (H, W, 3) pixels, the label's index and the image's number.

    Items are asked for by (pass, number): the random changes follow from the seed and these two
    alone, not from what was read before, so a resumed training and any number of loader processes
    see the same images.
    """

    def __init__(self, data: DatasetIndex, preprocess: Preprocess, options: TrainOptions) -> None:
        self.samples = data.split("train")
        self.root = data.root
        self.preprocess = preprocess
        self.seed = options.seed
        self.cropped = options.augment != "none"
        self.transform = augmentation(options.augment, options.flip, preprocess)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: list[Key]) -> list[Any]:
        """Items of a batch; where one cannot be read, the error stands in its place."""
        items: list[Any] = []
        for key in keys:
            try:
                items.append(self[key])
            except EdgekitError as error:
                items.append(error)
        return items

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int, int]:
        turn, number = key
        sample = self.samples[number]
        image = load_image(self.root / sample.path)
        if self.transform is not None:
            torch.default_generator.manual_seed(seed_of(self.seed, "augment", turn, number))
            image = self.transform(image)
        pixels = np.array(image, np.uint8) if self.cropped else fit(image, self.preprocess)
        return torch.from_numpy(pixels), sample.label, number

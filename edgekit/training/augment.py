"""Training images, decoded and augmented on the fly; each image has a random seed of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.data.images import fit, seen_in, whole
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training.options import TrainOptions

if TYPE_CHECKING:
    from PIL.Image import Image

Key = tuple[int, int]
_LEAST_AREA = 0.6


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed that is a hash of several values."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def augmentation(preset: str, flip: bool, preprocess: Preprocess) -> Callable[[Any], Any] | None:
    """Return a transform of PIL images, or None if there is nothing to change.

    ``light`` takes random crops of 60 to 100 % of the area, of images squashed or letterboxed to a square where
    `preprocess` does so, and varies brightness, contrast and
    saturation by 20 %. ``randaugment`` takes the same crops and two operations of magnitude 9 (Cubuk et
    al. 2020, arXiv:1909.13719). `flip` mirrors half of the images (wrong for digits, letters, signs).
    All random numbers come from torch's default generator.
    """
    from torchvision.transforms import InterpolationMode, v2

    steps: list[Any] = []
    if preset != "none":
        if preprocess.resize != "crop":
            # As large as the part that the smallest crop magnifies to the size of the input.
            side = math.ceil(preprocess.image_size / math.sqrt(_LEAST_AREA))
            steps.append(partial(whole, side=side, preprocess=preprocess))
        kernel = InterpolationMode(preprocess.resample)
        steps.append(v2.RandomResizedCrop(preprocess.image_size, scale=(_LEAST_AREA, 1.0), interpolation=kernel))
    if preset == "light":
        steps.append(v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2))
    if preset == "randaugment":
        steps.append(v2.RandAugment(num_ops=2, magnitude=9))
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps) if steps else None


class TrainImages:
    """Train split of a data set: pixels uint8 (H, W, 3), label and number of each image.

    The key of an item is (epoch, number). Its augmentation depends on the key and the seed alone, so a
    resumed training and any number of workers see the same images.
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

    def load(self, keys: Sequence[Key], out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the pixels of a batch, uint8 (n, H, W, 3), in `out` if that is given.

        Raises:
            DataError: an image cannot be read.
        """
        return torch.stack([self[key][0] for key in keys], out=out)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int, int]:
        epoch, number = key
        sample = self.samples[number]

        def look(image: Image) -> np.ndarray:
            if self.transform is not None:
                torch.default_generator.manual_seed(seed_of(self.seed, "augment", epoch, number))
                image = self.transform(image)
            return np.array(image, np.uint8) if self.cropped else fit(image, self.preprocess)

        pixels = seen_in(self.root / sample.path, self.preprocess, look)
        return torch.from_numpy(pixels), sample.label, number

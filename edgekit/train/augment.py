"""Training images, decoded and augmented on the fly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from edgekit.data.images import fit, load_image
from edgekit.records import DatasetIndex, Preprocess

AUGMENTS = ("none", "light")


class TrainImages(Dataset[tuple[torch.Tensor, int]]):
    """The train split: uint8 (H, W, 3) pixels and the label's index.

    ``light`` takes a random crop of 60-100 % of the area and varies brightness, contrast and
    saturation by 20 %; `flip` mirrors every other image (wrong for digits, letters, signs).
    Randomness comes from torch's generator alone, so a seed fixes it.
    """

    def __init__(self, data: DatasetIndex, preprocess: Preprocess, augment: str, flip: bool) -> None:
        from torchvision.transforms import InterpolationMode, v2

        self.samples = data.split("train")
        self.root = data.root
        self.preprocess = preprocess
        self.cropped = augment == "light"
        steps: list[Any] = []
        if augment == "light":
            kernel = InterpolationMode(preprocess.resample)
            steps.append(v2.RandomResizedCrop(preprocess.image_size, scale=(0.6, 1.0), interpolation=kernel))
            steps.append(v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2))
        if flip:
            steps.append(v2.RandomHorizontalFlip())
        self.transform = v2.Compose(steps) if steps else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        sample = self.samples[number]
        image = load_image(self.root / sample.path)
        if self.transform is not None:
            image = self.transform(image)
        pixels = np.array(image, np.uint8) if self.cropped else fit(image, self.preprocess)
        return torch.from_numpy(pixels), sample.label

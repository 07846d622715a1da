"""Batches of training images, determined by the seed, the epoch and the step alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from edgekit.cores import cores
from edgekit.errors import DataError
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training.augment import TrainImages, seed_of
from edgekit.training.distributed import Team
from edgekit.training.features import Features
from edgekit.training.options import TrainOptions
from edgekit.training.workers import Workers

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def order(
    count: int, options: TrainOptions, epoch: int, chances: torch.Tensor | None, processes: int = 1
) -> list[torch.Tensor]:
    """Return the batches of one epoch as image numbers, over all processes.

    Every image comes once in random order, or, with `chances` (N,), as many are drawn with
    replacement. The last batch is left out if it has fewer than two images per process, which batch
    norm needs.
    """
    generator = torch.Generator().manual_seed(seed_of(options.seed, "order", epoch))
    if chances is None:
        numbers = torch.randperm(count, generator=generator)
    else:
        numbers = torch.multinomial(chances, count, replacement=True, generator=generator)
    batches = list(numbers.split(options.batch_size))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < 2 * processes else batches


class Batches:
    """Batches of the train split, from any step of any epoch on."""

    def __init__(self, data: DatasetIndex, preprocess: Preprocess, options: TrainOptions, team: Team) -> None:
        self.images = TrainImages(data, preprocess, options)
        if len(self.images) < 2 * team.size:
            raise DataError(f"training needs at least {2 * team.size} images", "add images to the train split")
        self.options = options
        self.team = team
        self.features: Features | None = None
        self.chances: torch.Tensor | None = None
        self._workers: Workers | None = None

    @property
    def steps(self) -> int:
        """Return the number of steps per epoch."""
        whole, rest = divmod(len(self.images), self.options.batch_size)
        return whole + (rest >= 2 * self.team.size or not whole)

    def paths(self, numbers: Sequence[int]) -> list[Path]:
        """Return the files of images."""
        return [self.images.root / self.images.samples[n].path for n in numbers]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """Yield (size of the whole batch, this process's share of it) from step `start` (counted from 0) on.

        A share holds inputs, labels int64 (n,) and image numbers int64 (n,). Inputs are pixels, uint8
        (n, H, W, 3), or cached features, float32 (n, F).
        """
        whole = order(len(self.images), self.options, epoch, self.chances, self.team.size)[start:]
        own = [self.team.share(batch).tolist() for batch in whole]
        batches = self._features(own, epoch) if self.features else self._pixels(own, epoch)
        for batch, loaded in zip(whole, batches):
            yield len(batch), loaded

    def _features(self, own: list[list[int]], epoch: int) -> Iterator[Batch]:
        assert self.features is not None
        for numbers in own:
            labels = torch.tensor([self.images.samples[n].label for n in numbers])
            yield self.features.rows(numbers, epoch), labels, torch.tensor(numbers)

    def _pixels(self, own: list[list[int]], epoch: int) -> Iterator[Batch]:
        wanted = [[(epoch, number) for number in numbers] for numbers in own]
        if self._workers is None and (count := self._worker_count()):
            size = self.images.preprocess.image_size
            most = -(-self.options.batch_size // self.team.size)
            self._workers = Workers(self.images, count, (most, size, size, 3))
        loaded = self._workers.batches(wanted) if self._workers else map(self.images.load, wanted)
        for numbers, pixels in zip(own, loaded):
            labels = torch.tensor([self.images.samples[n].label for n in numbers])
            batch = pixels, labels, torch.tensor(numbers)
            yield tuple(part.pin_memory() for part in batch) if self.team.device.type == "cuda" else batch  # type: ignore[misc]

    def _worker_count(self) -> int:
        """Return the number of processes that decode images; they live until `close`."""
        if self.options.workers is not None:
            return self.options.workers
        share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return min(8, share) if self.team.device.type == "cuda" else 0

    def close(self) -> None:
        """End the worker processes; another epoch starts new ones."""
        if self._workers:
            self._workers.close()
        self._workers = None


def balanced(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Return sampling weights of the images, float64 (N,), that make all classes equally frequent."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(1.0 / counts[labels])

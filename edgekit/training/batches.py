"""Batches of training images, determined by the seed, the epoch and the step alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from edgekit.errors import DataError, EdgekitError
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training.augment import Key, TrainImages, seed_of
from edgekit.training.distributed import Team
from edgekit.training.features import Features
from edgekit.training.options import TrainOptions

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
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = None

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
        if self._loader is None:
            self._loader = self._open()
        self._keys.batches = [[(epoch, number) for number in numbers] for numbers in own]
        for loaded in self._loader:
            if isinstance(loaded, EdgekitError):
                raise loaded
            yield loaded

    def _open(self) -> DataLoader[Any]:
        """Return a loader whose worker processes live until `close`."""
        gpu = self.team.device.type == "cuda"
        cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = self.options.workers if self.options.workers is not None else min(8 if gpu else 0, cores)
        return DataLoader(
            self.images,
            batch_sampler=self._keys,
            num_workers=workers,
            pin_memory=gpu,
            collate_fn=_collate,
            worker_init_fn=_ignore_signals,
            persistent_workers=workers > 0,
        )

    def close(self) -> None:
        """End the worker processes; another epoch starts new ones."""
        self._loader = None


class _Keys:
    """Batch sampler whose batches are set before each epoch, so that the workers can be kept."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _collate(items: list[Any]) -> Any:
    """Return a batch, or the error of one of its images, which the loader would wrap in a traceback."""
    return next((item for item in items if isinstance(item, EdgekitError)), None) or default_collate(items)


def _ignore_signals(worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a worker; the training process decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def balanced(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Return sampling weights of the images, float64 (N,), that make all classes equally frequent."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(1.0 / counts[labels])

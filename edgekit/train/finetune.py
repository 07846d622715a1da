"""The one training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from edgekit.data.images import load_batches
from edgekit.errors import EdgekitError, UsageError, unknown
from edgekit.records import Checkpoint, DatasetIndex, Preprocess
from edgekit.train import checkpoints, models
from edgekit.train.augment import AUGMENTS, TrainImages
from edgekit.train.memory import keep_freed_memory

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides the weights, besides the data."""

    arch: str
    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3  # peak, AdamW
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1  # of all steps, linear; cosine to zero after it
    label_smoothing: float = 0.1  # Szegedy et al. 2016, arXiv:1512.00567, section 7
    image_size: int | None = None  # pixels; None: the model's native size
    seed: int = 0
    weights: str = "pretrained"
    augment: str = "light"
    flip: bool = True
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        models.row(self.arch)
        if self.augment not in AUGMENTS:
            raise unknown("augmentation", self.augment, AUGMENTS)
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        pick_device(self.device)
        models.check_weights(self.weights)
        for name, fits in (
            ("epochs must be at least 1", self.epochs >= 1),
            ("the batch size must be at least 2: batch norm needs it", self.batch_size >= 2),
            ("the learning rate must lie between 0 and 10", 0 < self.lr < 10),
        ):
            if not fits:
                raise UsageError(name, "edgekit train --help")


@dataclass(frozen=True)
class EpochStats:
    """What one epoch gave; accuracies in percent, `images_per_s` of the training part alone."""

    epoch: int
    train_loss: float
    val_loss: float
    val_top1: float
    seconds: float
    images_per_s: float
    best: bool


class Watcher(Protocol):
    """Whoever shows the progress."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

    def epoch(self, stats: EpochStats) -> None: ...


def finetune(data: DatasetIndex, options: TrainOptions, path: Path, watcher: Watcher) -> Checkpoint:
    """Train on the train split; keep at `path` the weights that did best on the val split.

    Raises:
        EdgekitError: the loss became NaN or infinite; the best weights so far stay at `path`.
    """
    keep_freed_memory()
    torch.manual_seed(options.seed)
    device = pick_device(options.device)
    preprocess = models.preprocess_for(options.arch, options.image_size)
    model = models.build(options.arch, len(data.labels))
    models.load_weights(model, options.arch, options.weights)
    model = model.to(device).to(memory_format=torch.channels_last)
    loader = _loader(data, options, preprocess)
    val_paths = [data.root / s.path for s in data.split("val")]
    val_labels = torch.tensor([s.label for s in data.split("val")])
    optimizer = torch.optim.AdamW(_parameter_groups(model, options.weight_decay), lr=options.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(options, len(loader)))
    criterion = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)

    best = (-1.0, -math.inf)
    for epoch in range(1, options.epochs + 1):
        started, total, seen = time.perf_counter(), 0.0, 0
        model.train()
        for step, (pixels, labels) in enumerate(loader, 1):
            images = normalize(pixels.to(device), preprocess)
            loss = criterion(model(images), labels.to(device))
            value = loss.item()
            _check_finite(value, f"epoch {epoch}, step {step}", options)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total, seen = total + value * len(labels), seen + len(labels)
            watcher.step(epoch, step, len(loader), value)
        trained = time.perf_counter() - started
        batches = load_batches(val_paths, preprocess, options.batch_size)
        logits = torch.cat([predict_logits(model, pixels, preprocess) for pixels in batches])
        val_loss = nn.functional.cross_entropy(logits, val_labels).item()
        _check_finite(val_loss, f"epoch {epoch}, validation", options)
        top1 = 100 * (logits.argmax(1) == val_labels).float().mean().item()
        is_best = (top1, -val_loss) > best
        if is_best:
            best = (top1, -val_loss)
            checkpoint = checkpoints.save(path, model, options.arch, data.labels, preprocess)
        seconds = time.perf_counter() - started
        watcher.epoch(EpochStats(epoch, total / seen, val_loss, top1, seconds, seen / trained, is_best))
    return checkpoint


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a GPU; asking for one that is not there is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA GPU is usable here", "edgekit doctor says why; or use --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def normalize(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (N, H, W, 3) to normalized float32 (N, 3, H, W), channels_last in memory."""
    mean = torch.tensor(preprocess.mean, device=pixels.device) * 255
    scale = 1 / (torch.tensor(preprocess.std, device=pixels.device) * 255)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)


@torch.inference_mode()
def predict_logits(model: nn.Module, pixels: np.ndarray, preprocess: Preprocess) -> torch.Tensor:
    """Logits, float32 (N, classes) on the CPU, of one batch of uint8 (N, H, W, 3) pixels; in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return model(normalize(torch.from_numpy(pixels).to(device), preprocess)).float().cpu()


def _check_finite(loss: float, where: str, options: TrainOptions) -> None:
    """Stop a run that diverged; what was kept before stays."""
    if not math.isfinite(loss):
        raise EdgekitError(f"the loss became {loss} ({where})", f"try a lower learning rate: --lr {options.lr / 10:g}")


def _loader(data: DatasetIndex, options: TrainOptions, preprocess: Preprocess) -> DataLoader[Any]:
    """Shuffled training batches; a last batch of one image is dropped (batch norm needs two)."""
    images = TrainImages(data, preprocess, options.augment, options.flip)
    if len(images) < 2:
        raise EdgekitError("training needs at least two images")
    generator = torch.Generator().manual_seed(options.seed)
    drop_last = len(images) % options.batch_size == 1 and len(images) > options.batch_size
    workers = min(options.workers, os.cpu_count() or 1)
    return DataLoader(
        images, options.batch_size, shuffle=True, num_workers=workers, generator=generator, drop_last=drop_last
    )


def _parameter_groups(model: nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Weight decay for matrices and kernels only: not for biases and batch-norm scales."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    yield {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}


def _warmup_cosine(options: TrainOptions, steps_per_epoch: int) -> Any:
    """Linear warm-up, then cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    steps = options.epochs * steps_per_epoch
    warmup = max(1, round(steps * options.warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor

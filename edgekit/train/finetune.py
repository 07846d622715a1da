"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from edgekit import files
from edgekit.errors import EdgekitError, UsageError
from edgekit.records import Checkpoint, DatasetIndex, Preprocess
from edgekit.train import checkpoints, losses, memory, models, progress, schedule, stopping, trouble, weights
from edgekit.train.augment import seed_of
from edgekit.train.batches import Batches, balanced
from edgekit.train.distributed import Team
from edgekit.train.features import Update, View, backbone, extract, views_of
from edgekit.train.learner import Learner, normalize
from edgekit.train.options import TrainOptions
from edgekit.train.progress import STATE_FILE, EpochStats, Progress
from edgekit.train.validation import Validation

__all__ = ["EpochStats", "Training", "Watcher", "finetune", "normalize", "pick_device", "predict_logits"]
# The state is written after an epoch, but not this soon after the last time (epochs on cached features
# take milliseconds), and in a long epoch this often; in seconds.
LEAST_BETWEEN_SAVES, MOST_BETWEEN_SAVES = 2.0, 600.0


class Watcher(Protocol):
    """Whoever shows the progress."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

    def epoch(self, stats: EpochStats) -> None: ...

    def update(self, done: int, total: int, text: str = "") -> None: ...

    def resumed(self, history: Sequence[EpochStats]) -> None: ...


class Training:
    """Everything that one training needs, made from its data and options."""

    def __init__(self, data: DatasetIndex, options: TrainOptions, team: Team, update: Update) -> None:
        memory.keep_freed_memory()
        torch.manual_seed(options.seed)
        self.data, self.options, self.team = data, options, team
        self._saved = time.monotonic()
        self.preprocess = models.preprocess_for(options.arch, options.image_size)
        model = models.build(options.arch, len(data.labels), options.image_size, options.hidden)
        weights.load_weights(model, options.arch, options.start)
        model = model.to(team.device)
        self.model = model.to(memory_format=torch.channels_last) if options.channels_last else model
        self.batches = Batches(data, self.preprocess, options, team)
        self.validation = Validation(data, self.preprocess, options, team)
        if options.caches:
            self._cache(update)
        labels = np.array([s.label for s in data.split("train")])
        if options.imbalance == "sampling":
            self.batches.chances = balanced(labels, len(data.labels))
        self.learner = Learner(self.model, self.preprocess, options, team)
        self.learner.criterion = losses.criterion(options, labels, len(data.labels), team.device)
        start = "" if options.start in ("pretrained", "none") else files.sha256_file(Path(options.start))
        features = [f.digest() for f in (self.batches.features, self.validation.features) if f]
        self.fingerprint = files.sha256_text([data.fingerprint, repr(options), start, *features])

    def save(self, path: Path, now: Progress, between: float = 0.0) -> None:
        """Write the state, if the last time is at least `between` seconds ago; the leader alone does."""
        if self.team.leads and time.monotonic() - self._saved >= between:
            place = (self.team.size, self.team.device.type)
            progress.save(path, now, self.learner.state(), self.fingerprint, place)
            self._saved = time.monotonic()

    def _cache(self, update: Update) -> None:
        """The features of both splits: each process computes its share, and reads the others'."""
        source = backbone(self.model, self.options.arch, self.preprocess)
        views = views_of(self.options.views, self.options.augment, self.options.flip, self.options.seed)
        train, val = self.data.split("train"), self.data.split("val")
        if self.team.size > 1:
            extract(source, self.data.root, train[self.team.rank :: self.team.size], views, update)
            extract(source, self.data.root, val[self.team.rank :: self.team.size], [View(0)], update)
            self.team.wait()
        self.batches.features = extract(source, self.data.root, train, views, update)
        self.validation.features = extract(source, self.data.root, val, [View(0)], update)


def finetune(
    data: DatasetIndex, options: TrainOptions, folder: Path, watcher: Watcher, team: Team, resume: bool = False
) -> Checkpoint | None:
    """Train on the train split; keep in ``folder/checkpoint.pt`` the weights that did best on val.

    ``folder/resume.pt`` holds the state after every epoch, and after the last step when the
    training is told to stop. With `resume` the training goes on from there: on one CPU the weights
    become the same, bit for bit. Only the leading process writes, and gets the checkpoint.

    Raises:
        EdgekitError: the loss is no longer finite, or memory ran out; what was saved before stays.
        KeyboardInterrupt: it was told to stop, and the state is saved.
    """
    memory.reset_peak()
    now, state_file, state = Progress(), folder / STATE_FILE, None
    if resume:
        state = progress.load(team.tell(progress.read(state_file) if team.leads else None))
        state.check_place(team.size, team.device.type)
        torch.set_num_threads(state.threads)
    training = Training(data, options, team, watcher.update)
    if state is not None:
        state.check_purpose(training.fingerprint)
        training.learner.load_state(state.learner)
        now = state.progress
        watcher.resumed(now.history)
    with stopping.graceful() as stop:
        while now.epoch <= options.epochs and not (options.patience and now.stale >= options.patience):
            with trouble.explained(training.learner):
                completed = _train_epoch(training, now, watcher, stop, state_file)
            if completed:
                stats = _judge(training, now, folder)
                now.history.append(stats)
                now.next_epoch()
            stopping_now = bool(team.sum(stop.asked))
            training.save(state_file, now, 0.0 if stopping_now or not options.caches else LEAST_BETWEEN_SAVES)
            if completed:
                watcher.epoch(stats)
            if stopping_now:
                raise KeyboardInterrupt
        if team.sum(stop.asked):
            raise KeyboardInterrupt
    team.wait()
    return checkpoints.load(folder / "checkpoint.pt")[0] if team.leads else None


def _train_epoch(training: Training, now: Progress, watcher: Watcher, stop: stopping.Stop, state_file: Path) -> bool:
    """The rest of an epoch. Returns whether its end was reached, or a signal came before."""
    options, team, learner = training.options, training.team, training.learner
    steps = training.batches.steps
    learner.begin(now.epoch)
    started, before = time.perf_counter(), now.seconds
    for whole, (inputs, labels, numbers) in training.batches.epoch(now.epoch, now.step):
        torch.manual_seed(seed_of(options.seed, "step", now.epoch, now.step, team.rank))
        done = (now.epoch - 1) * steps + now.step
        rate = schedule.factor(options, done, options.epochs * steps) * schedule.PLATEAU_FACTOR**now.cuts
        values, moved = learner.step(inputs, labels, whole, rate)
        if not moved:
            where = f"epoch {now.epoch}, batch {now.step + 1}"
            files = training.batches.paths(numbers.tolist())
            raise trouble.diverged(values, files, where, trouble.remedy(options, bool(now.score)))
        now.step, now.images = now.step + 1, now.images + whole
        now.loss += team.sum(values.sum().item())
        now.seconds = before + time.perf_counter() - started
        watcher.step(now.epoch, now.step, steps, now.loss / now.images)
        if team.sum(stop.asked):
            return now.step == steps
        training.save(state_file, now, MOST_BETWEEN_SAVES)
    return True


def _judge(training: Training, now: Progress, folder: Path) -> EpochStats:
    """Measure on val, keep the weights if they are the best, and count how long none was."""
    options, learner, team = training.options, training.learner, training.team
    started = time.perf_counter()
    team.follow(learner.kept)
    val = training.validation.measure(learner)
    if not math.isfinite(val.loss):
        raise EdgekitError(
            f"the loss on val became {val.loss} (epoch {now.epoch})", trouble.remedy(options, bool(now.score))
        )
    score = {"top1": (val.top1, -val.loss), "macro_f1": (val.macro_f1, -val.loss), "loss": (-val.loss,)}[
        options.monitor
    ]
    better = not now.score or score > now.score
    now.stale = 0 if better else now.stale + 1
    if better:
        now.score = score
        if team.leads:
            whole = learner.whole()
            checkpoints.save(
                folder / "checkpoint.pt", whole, options.arch, training.data.labels, training.preprocess, options.hidden
            )
    plateau = options.schedule == "plateau" and now.epoch - now.cut_at >= schedule.PLATEAU_PATIENCE
    if plateau and now.stale >= schedule.PLATEAU_PATIENCE:
        now.cuts, now.cut_at = now.cuts + 1, now.epoch
    rate = max(group["lr"] for group in learner.optimizer.param_groups)
    trained, seconds = now.seconds, now.seconds + time.perf_counter() - started
    return EpochStats(
        epoch=now.epoch,
        train_loss=now.loss / now.images,
        val_loss=val.loss,
        val_top1=val.top1,
        seconds=seconds,
        images_per_s=now.images / trained,
        best=better,
        val_macro_f1=val.macro_f1,
        lr=rate,
    )


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a GPU; asking for one that is not there is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA GPU is usable here", "edgekit doctor says why; or use --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@torch.inference_mode()
def predict_logits(model: nn.Module, pixels: np.ndarray, preprocess: Preprocess) -> torch.Tensor:
    """Logits, float32 (N, classes) on the CPU, of one batch of uint8 (N, H, W, 3) pixels; in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return model(normalize(torch.from_numpy(pixels).to(device), preprocess)).float().cpu()

"""The training loop: epochs, validation, checkpoints, and an orderly end after Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from edgekit import files, progress
from edgekit.errors import EdgekitError
from edgekit.models import build, checkpoints
from edgekit.records import Checkpoint, DatasetIndex
from edgekit.scores import EpochStats
from edgekit.training import diagnostics, learner, resume
from edgekit.training.augment import seed_of
from edgekit.training.batches import Batches, balanced
from edgekit.training.distributed import Team
from edgekit.training.features import Update, View, backbone, extract, views_of
from edgekit.training.learner import PLATEAU_FACTOR, PLATEAU_PATIENCE, Learner, learning_rate_factor
from edgekit.training.options import TrainOptions
from edgekit.training.resume import STATE_FILE, TrainingProgress, load, read
from edgekit.training.validation import Validation
from edgekit.training.workers import WorkerError

# Seconds between two writes of the resumable state: at least after epochs on cached features, which take
# milliseconds, and at most within a long epoch.
LEAST_BETWEEN_SAVES, MOST_BETWEEN_SAVES = 2.0, 600.0
# Steps between two readings of the losses from a GPU: each one waits for all steps in its queue.
READ_EVERY = 20


class Watcher(Protocol):
    """Receiver of the progress of a training."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

    def epoch(self, stats: EpochStats) -> None: ...

    def update(self, done: int, total: int, text: str = "") -> None: ...

    def resumed(self, history: Sequence[EpochStats]) -> None: ...


class Training:
    """Network, data and learner of one training, built from its data set and options."""

    def __init__(self, data: DatasetIndex, options: TrainOptions, team: Team, update: Update) -> None:
        diagnostics.keep_freed_memory()
        torch.manual_seed(options.seed)
        self.data, self.options, self.team = data, options, team
        self._saved = time.monotonic()
        self.preprocess = options.preprocess
        model = build.build(options.arch, len(data.labels), options.image_size, options.hidden)
        build.load_weights(model, options.arch, options.start, progress.note, options.image_size)
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
        self.learner.criterion = learner.criterion(options, labels, len(data.labels), team.device)
        start = "" if options.start in ("pretrained", "none") else files.sha256_file(Path(options.start))
        features = [f.digest() for f in (self.batches.features, self.validation.features) if f]
        self.fingerprint = files.sha256_text([data.fingerprint, options.identity, start, *features])

    def save(self, path: Path, now: TrainingProgress, between: float = 0.0) -> None:
        """Write the resumable state if the last write is at least `between` seconds ago; only the leader writes."""
        if self.team.leads and time.monotonic() - self._saved >= between:
            learner = self.learner.state()
            resume.save(path, now, learner, self.fingerprint, self.team.size, self.team.device.type)
            self._saved = time.monotonic()

    def _cache(self, update: Update) -> None:
        """Compute the features of both splits; each process computes its share and reads those of the others."""
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
    """Train on the train split, and keep the weights of the best epoch on val in ``folder/checkpoint.pt``.

    ``folder/resume.pt`` holds the state after every epoch, and after the last step if the training was
    interrupted. With `resume` the training continues from there; on one CPU the resulting weights are
    bit for bit those of an uninterrupted training.

    Returns:
        The checkpoint in the leading process, None in all others.
    Raises:
        EdgekitError: the loss is not finite, or memory ran out; files that were saved before stay.
        WorkerError: a process that decodes images ended; the state is saved.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the state is saved.
    """
    diagnostics.reset_peak()
    now, state_file, state = TrainingProgress(), folder / STATE_FILE, None
    if resume:
        state = load(team.broadcast(read(state_file) if team.leads else None))
        state.check_place(team.size, team.device.type)
        torch.set_num_threads(state.threads)
    training = Training(data, options, team, watcher.update)
    if state is not None:
        state.check_purpose(training.fingerprint)
        training.learner.load_state(state.learner)
        now = state.progress
        watcher.resumed(now.history)
    with graceful() as stop, closing(training.batches):
        while now.epoch <= options.epochs and not (options.patience and now.stale >= options.patience):
            with diagnostics.explained(training.learner):
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


def _train_epoch(training: Training, now: TrainingProgress, watcher: Watcher, stop: Stop, state_file: Path) -> bool:
    """Train the rest of an epoch. Returns True if its end was reached, False if a signal came before."""
    options, team, learner = training.options, training.team, training.learner
    steps, first = training.batches.steps, now.step + 1
    losses = _Losses(training, now)
    read_every = 1 if learner.checks_before_update else READ_EVERY
    learner.begin(now.epoch)
    started, before = time.perf_counter(), now.seconds
    try:
        for whole, (inputs, labels, numbers) in training.batches.epoch(now.epoch, now.step):
            torch.manual_seed(seed_of(options.seed, "step", now.epoch, now.step, team.rank))
            done = (now.epoch - 1) * steps + now.step
            rate = learning_rate_factor(options, done, options.epochs * steps) * PLATEAU_FACTOR**now.cuts
            losses.add(learner.step(inputs, labels, whole, rate), numbers, whole)
            now.step += 1
            reads = now.step in (first, steps) or len(losses) >= read_every
            if reads:
                losses.read()
            now.seconds = before + time.perf_counter() - started
            watcher.step(now.epoch, now.step, steps, now.loss / now.images)
            if (reads or team.size == 1) and team.sum(stop.asked):
                losses.read()
                return now.step == steps
            if reads:
                training.save(state_file, now, MOST_BETWEEN_SAVES)
    except WorkerError:
        if team.size == 1:  # the other processes wait elsewhere, and torchrun ends them
            losses.read()
            training.save(state_file, now)
        raise
    return True


@dataclass(frozen=True)
class _StepLosses:
    """Losses of one step, float32 (n,) on the training device, and the numbers of its images, int64 (n,)."""

    step: int
    losses: torch.Tensor
    numbers: torch.Tensor
    whole: int


class _Losses:
    """Losses of the steps of one epoch, left on the training device until they are read."""

    def __init__(self, training: Training, now: TrainingProgress) -> None:
        self._training, self._now = training, now
        self._unread: list[_StepLosses] = []

    def __len__(self) -> int:
        return len(self._unread)

    def add(self, losses: torch.Tensor, numbers: torch.Tensor, whole: int) -> None:
        """Keep the losses of the current step until `read`."""
        self._unread.append(_StepLosses(self._now.step, losses, numbers, whole))

    def read(self) -> None:
        """Copy the losses to the CPU and add them to the sums of the epoch, in the order of the steps.

        Raises:
            EdgekitError: a loss is not finite; the message names the first such step and its files.
        """
        if not self._unread:
            return
        now, team = self._now, self._training.team
        own = torch.cat([s.losses for s in self._unread]).cpu().split([len(s.losses) for s in self._unread])
        bad = [float(not torch.isfinite(losses).all()) for losses in own]
        sums = team.sums([*bad, *(losses.sum().item() for losses in own)])
        for step, losses, not_finite, total in zip(self._unread, own, sums, sums[len(own) :]):
            if not_finite:
                everyones = team.gather(losses, step.whole)
                numbers = team.gather(step.numbers, step.whole).tolist()
                where = f"epoch {now.epoch}, batch {step.step + 1}"
                hint = diagnostics.remedy(self._training.options, bool(now.score))
                raise diagnostics.diverged(everyones, self._training.batches.paths(numbers), where, hint)
            now.loss += total
            now.images += step.whole
        self._unread.clear()


def _judge(training: Training, now: TrainingProgress, folder: Path) -> EpochStats:
    """Validate, save the weights if they are the best so far, and update the counts of epochs without improvement."""
    options, learner, team = training.options, training.learner, training.team
    started = time.perf_counter()
    team.follow(learner.kept)
    val = training.validation.measure(learner)
    if not math.isfinite(val.loss):
        raise EdgekitError(
            f"the loss on val became {val.loss} (epoch {now.epoch})", diagnostics.remedy(options, bool(now.score))
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
    plateau = options.schedule == "plateau" and now.epoch - now.cut_at >= PLATEAU_PATIENCE
    if plateau and now.stale >= PLATEAU_PATIENCE:
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


class Stop:
    """Request to end the training, checked between two steps so that no saved state is half a step."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: object) -> None:
        """Handle a signal: the first one takes effect at the end of the step, a second one immediately."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def graceful() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM inside the context, and restore the former handlers afterwards."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

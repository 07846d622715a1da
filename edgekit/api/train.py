"""A training from its first image to its pictures: what ``edgekit train`` composes."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgekit import files, progress, runs
from edgekit.config import from_table
from edgekit.data import check, dataset
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError
from edgekit.models import zoo
from edgekit.models.build import pick_device
from edgekit.runs import DataInfo, Parameters, Run, RunInfo, check_free, create_run, free_name
from edgekit.scores import EpochStats
from edgekit.training import diagnostics, distributed, plan, trackers
from edgekit.training.loop import finetune
from edgekit.training.options import TrainOptions
from edgekit.training.resume import STATE_FILE

if TYPE_CHECKING:
    from edgekit.records import Checkpoint, DatasetIndex
    from edgekit.training.distributed import Team
    from edgekit.training.trackers import Tracker

_PACKAGES = ("torch", "torchvision", "numpy", "pillow")


def train_runs(
    data: str, wanted: list[TrainOptions], place: tuple[Path, str | None], skip_bad: bool, log: str | None
) -> list[Run]:
    """Train one run for each of `wanted` on the same images; returns those that this process leads.

    Args:
        place: the folder of the runs, and the run's name if it has been given one.
    """
    runs_dir, name = place
    root = dataset.resolve(data)
    if name:
        check_free(runs_dir, name)
    device = pick_device(wanted[0].device)
    with diagnostics.memory_ran_out(), distributed.join(device, wanted[0].batch_size) as team:
        with progress.bar("reading images") as update:
            index = dataset.index(root, skip_bad, update)
        team.same("the data set", index.fingerprint)
        progress.note(_describe(data, index))
        for line in check.warnings(index):
            progress.warn(line)
        trained: list[Run | None] = []
        for options in wanted:
            decisions: list[str] = []
            with progress.bar("deciding") as update:
                options = plan.decide(index, options, team, update, decisions.append)
            for line in decisions:
                progress.note(line)
            run = None
            if team.leads:
                run_name = name or free_name(runs_dir, f"{root.name}-{options.arch}")
                run = create_run(runs_dir, run_name, _info(index, options, decisions))
                files.save_json(run.path / "data.json", index)
            done = _sit(run, index, options, team, log)
            if trained and done is not None:  # freed memory is kept for the next training: the peak is not its own
                done = done.save(peak_rss_mb=None)
            trained.append(done)
    return [run for run in trained if run is not None]


def resume_run(runs_dir: Path, name: str, log: str | None) -> None:
    """Go on with a training that was stopped or killed.

    Raises:
        MissingError: no such run, or nothing of it to go on with. UsageError: it was finished.
    """
    path = next((p for p in (runs_dir / name, Path(name)) if (p / runs.RUN_FILE).is_file()), None)
    if path is None:
        raise MissingError(f"there is no run {name!r}", "edgekit train DATA starts one")
    run = runs.read_run(path, "options", "status")
    if run.info.status == "finished":
        raise UsageError(f"the training of {run.name} was finished", f"edgekit export {run.handle} --target jetson")
    options = from_table(run.info.options, TrainOptions, f"{path / runs.RUN_FILE}: options")
    if not (path / "data.json").is_file():  # killed right after its first file
        raise MissingError(f"{run.name} has not begun", "edgekit train DATA starts a new training")
    index = dataset.load_index(path / "data.json")
    device = pick_device(options.device)
    with diagnostics.memory_ran_out(), distributed.join(device, options.batch_size) as team:
        for split in ("train", "val"):
            dataset.check_unchanged(index, index.split(split))
        _sit(run if team.leads else None, index, options, team, log, resume=True)


def _sit(
    run: runs.Run | None, index: DatasetIndex, options: TrainOptions, team: Team, log: str | None, resume: bool = False
) -> runs.Run | None:
    """Train until the end or until something stops it; only the leading process has a run."""
    with runs.alone_in(run.path) if run else contextlib.nullcontext():
        checkpoint = _train(run, index, options, team, (log, resume))
    if run is None or checkpoint is None:
        return None
    done = runs.open_run(run.path.parent, run.name)
    _evaluate(done, options)
    return done


def _train(
    run: runs.Run | None, index: DatasetIndex, options: TrainOptions, team: Team, how: tuple[str | None, bool]
) -> Checkpoint | None:
    """Train, and write into the run what came of it.

    Args:
        how: where else to log, and whether to go on from a state.
    """
    log, resume = how
    watcher = _Watcher(run, options)
    finished = False
    try:
        watcher.tracker = trackers.open_tracker(log, run.path, options) if run else None
        with progress.bar(f"training {options.arch}") as watcher.update:  # type: ignore[method-assign]
            # Killed before there was a state: the same run begins anew.
            resuming = resume and bool(team.sum(run is not None and (run.path / STATE_FILE).is_file()))
            checkpoint = finetune(index, options, run.path if run else Path(), watcher, team, resuming)
        finished = True
    except BaseException as error:
        if run is not None:
            _ended_early(watcher, error)
        raise
    finally:
        if watcher.tracker:
            watcher.tracker.close(finished)
    if run is not None and checkpoint is not None:
        watcher.save(status="finished", checkpoint_sha256=checkpoint.sha256, **_cost(checkpoint, options))
        (run.path / STATE_FILE).unlink(missing_ok=True)
    return checkpoint


def _ended_early(watcher: _Watcher, error: BaseException) -> None:
    """Keep what can be used or continued, and say how; a run with neither is removed."""
    run = watcher.run
    assert run is not None
    checkpoint, state = run.path / "checkpoint.pt", run.path / STATE_FILE
    if not checkpoint.is_file() and not state.is_file():
        files.remove_folder(run.path)
        return
    if isinstance(error, UsageError) or (isinstance(error, DataError) and not watcher.stepped):
        return  # nothing was trained
    changes: dict[str, Any] = {"status": "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"}
    if checkpoint.is_file():
        changes["checkpoint_sha256"] = files.sha256_file(checkpoint)
        epochs = f"{len(watcher.history)} finished epoch{'' if len(watcher.history) == 1 else 's'}"
        progress.note(f"the best weights of {epochs} are kept in {run.path}")
    if state.is_file() and type(error) is not EdgekitError:  # which a second try would meet again
        progress.note(f"go on with: edgekit train --resume {run.handle}")
    with contextlib.suppress(StorageError):  # a full disk was the reason, perhaps
        watcher.save(**changes)


def _cost(checkpoint: Checkpoint, options: TrainOptions) -> dict[str, Any]:
    """Parameters in all and trained, and the most memory that the training's last sitting took, in megabytes."""
    from edgekit.models import checkpoints
    from edgekit.training import diagnostics, learner

    peak = diagnostics.peak_mb()
    model = checkpoints.load(checkpoint.path)[1]
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for group in learner.parameter_groups(model, options) for p in group["params"])
    cost: dict[str, Any] = {"parameters": Parameters(total, trainable), "peak_rss_mb": peak}
    if torch.cuda.is_available():
        cost["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return cost


def _evaluate(run: runs.Run, options: TrainOptions) -> None:
    """Judge the kept weights on val and test, draw the pictures, and say what they are worth."""
    from edgekit.api.evaluate import evaluate_run

    kept = [stats.epoch for stats in run.info.epochs if stats.best][-1]
    progress.note(
        f"kept {run.path / 'checkpoint.pt'} (epoch {kept}, the last *): {run.info.val_top1:.1f} % of val right"
    )
    try:
        evaluate_run(run)
    except EdgekitError as error:  # the weights are there: whatever is wrong with the test images
        progress.warn(f"not evaluated: {error.message}")
    progress.note(f"next: edgekit export {run.handle} --target jetson --target android")


def _describe(data: str, index: DatasetIndex) -> str:
    counts = ", ".join(f"{len(index.split(s))} {s}" for s in ("train", "val", "test"))
    skipped = f"; left out: {'; '.join(index.skipped[:3])}" if index.skipped else ""
    skipped += f" and {len(index.skipped) - 3} more" if len(index.skipped) > 3 else ""
    return f"{data}: {len(index.labels)} classes, {counts}{skipped}"


def _info(index: DatasetIndex, options: TrainOptions, decisions: list[str]) -> RunInfo:
    """Describe a run before its first epoch."""
    return RunInfo(
        status="training",
        arch=options.arch,
        labels=index.labels,
        options=dataclasses.asdict(options),
        decisions=tuple(decisions),
        preprocess=zoo.preprocess_for(options.arch, options.image_size),
        data=DataInfo(str(index.root), index.fingerprint, len(index.skipped)),
        versions={"python": platform.python_version(), **{p: metadata.version(p) for p in _PACKAGES}},
        history=(),
    )


class _Watcher:
    """Shows the progress, and keeps the history in run.json after every epoch."""

    def __init__(self, run: runs.Run | None, options: TrainOptions) -> None:
        self.run = run
        self.options = options
        self.tracker: Tracker | None = None
        self.history: tuple[EpochStats, ...] = ()  # `resumed` fills it
        self.stepped = False
        self._began = (0, 0, 0.0)  # epoch, steps done and time at the first step that was seen of it

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        now, self.stepped = time.monotonic(), True
        if self._began[0] != epoch:
            self._began = (epoch, step, now)
        seconds = now - self._began[2]
        rate = f", {(step - self._began[1]) * self.options.batch_size / seconds:.0f} images/s" if seconds else ""
        best = f", best val top-1 {self.best:.1f} %" if self.history else ""
        text = f"epoch {epoch}, loss {loss:.3f}{rate}{best}"
        self.update((epoch - 1) * steps + step, self.options.epochs * steps, text)

    def resumed(self, history: Sequence[EpochStats]) -> None:
        """What the saved state knows is right: a kill may have come before run.json was written."""
        if self.run is not None:
            progress.note(f"going on with {self.run.name}: {len(history)} of {self.options.epochs} epochs are done")
            self.history = tuple(history)
            self.save(history=self.history, val_top1=self.best)

    def update(self, done: int, total: int, text: str = "") -> None:
        """Show progress; the context that has a bar replaces this."""

    @property
    def best(self) -> float:
        """Val top-1 of the epoch that is kept, in percent."""
        return next((stats.val_top1 for stats in reversed(self.history) if stats.best), 0.0)

    def epoch(self, stats: EpochStats) -> None:
        if self.run is None:
            return
        self.history = (*self.history, stats)
        self.save(history=self.history, val_top1=self.best)
        if self.tracker:
            self.tracker.epoch(stats)
        progress.note(
            f"epoch {stats.epoch}/{self.options.epochs}  loss {stats.train_loss:.3f}  val loss {stats.val_loss:.3f}  "
            f"val top-1 {stats.val_top1:.1f} %  macro F1 {stats.val_macro_f1:.1f} %  "
            f"{stats.images_per_s:.0f} images/s{'  *' if stats.best else ''}"
        )

    def save(self, **changes: Any) -> runs.Run:
        """Write run.json with `changes`."""
        assert self.run is not None
        self.run = self.run.save(**changes)
        return self.run

"""Train: index images, fine-tune, evaluate, and save everything in a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import torch

from edgekit import files, progress, runs
from edgekit.config import from_table
from edgekit.data import check, dataset, listing, location, sources, values
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError, unknown
from edgekit.models import catalog, zoo
from edgekit.models.build import pick_device
from edgekit.models.model_row import short_name
from edgekit.progress import Callback, reporting
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


def train(
    data: str | Path,
    model: str = "mobilenet_v2",
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    skip_bad: bool = False,
    log: str | None = None,
    progress: Callback | None = None,
    **options: Any,
) -> Run:
    """Fine-tune a classifier on a folder of images, evaluate it, and save everything in a run.

    Args:
        data: ``DATA/<class>/<image>``, ``DATA/{train,val,test}/<class>/<image>``, the built-in data set "digits", or
            another form that `edgekit.data.sources` reads: a table, an archive, shards, a saved data set, arrays.
        model: an architecture of ``edgekit models``, another classifier of torchvision, or "timm/NAME" of timm.
        name: the run's name; by default ``<data>-<model>``.
        runs_dir: the folder of the runs.
        skip_bad: skip images that cannot be decoded.
        log: tracker to log to as well, "tensorboard" or "mlflow".
        progress: called with a `Progress` whenever the state changes.
        options: fields of `TrainOptions`, such as ``epochs``, ``lr``, ``image_size``; by default chosen from the data.

    Returns:
        The finished run. Training in several processes (torchrun) needs the command ``edgekit train``.

    Raises:
        UsageError: an option has an invalid value. DataError: images cannot be used.
        MissingError: data or pretrained weights are missing. EdgekitError: the loss became NaN, or memory ran out.

    Example:
        >>> run = edgekit.train(images, "efficientnet_lite0", name="tour", weights="none", image_size=64, epochs=1)
        >>> run.info.status, run.info.arch
        ('finished', 'efficientnet_lite0')
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "edgekit.train does not support several processes", "use the command line: torchrun -m edgekit train DATA"
        )
    trackers.check(log)
    wanted = options_for(str(data), [model], **options)
    with reporting(progress):
        return train_all(str(data), wanted, runs_dir=Path(runs_dir), name=name, skip_bad=skip_bad, log=log)[0]


def resume(
    run: Run | str | Path,
    *,
    runs_dir: str | Path = "runs",
    log: str | None = None,
    data: str | Path | None = None,
    progress: Callback | None = None,
) -> Run:
    """Continue a training that was interrupted or killed; the result is bit-for-bit that of an uninterrupted one.

    Args:
        run: the run, its name, or its path. All options come from it.
        data: folder that the images are in now, under whatever names; by default that of the training.
        runs_dir, log, progress: as in `train`.

    Raises:
        MissingError: there is no such run, or nothing to continue from. UsageError: it is finished already.

    Example:
        >>> edgekit.resume("tour")
        Traceback (most recent call last):
        ...
        edgekit.errors.UsageError: the training of tour is finished
    """
    trackers.check(log)
    with reporting(progress):
        return resume_run(Path(runs_dir), run.argument if isinstance(run, Run) else str(run), log, data)


def options_for(data: str, models: Sequence[str], flip: bool | None = None, **chosen: Any) -> list[TrainOptions]:
    """Return the options of each model, checked as far as possible without the data.

    Args:
        flip: flip images horizontally at random; None: yes, except for built-in data sets.
    """
    from edgekit.data import builtin

    mirrored = not builtin.is_meant(data) if flip is None else flip
    if chosen.get("weights") not in (None, "pretrained", "none"):
        chosen["weights"] = str(Path(chosen["weights"]).absolute())  # the run may be resumed from another folder
    known = [f.name for f in dataclasses.fields(TrainOptions)]
    if unknown_names := [name for name in chosen if name not in known]:
        raise unknown("training option", unknown_names[0], known)
    return [TrainOptions(arch=arch.strip(), flip=mirrored, **chosen) for arch in models]


def train_all(
    data: str, wanted: list[TrainOptions], *, runs_dir: Path, name: str | None, skip_bad: bool, log: str | None
) -> list[Run]:
    """Train one run for each of `wanted` on the same images, and return the runs; empty if another process leads."""
    root = dataset.resolve(data)
    if name:
        check_free(runs_dir, name)
    device = pick_device(wanted[0].device)
    with diagnostics.memory_ran_out(), distributed.join(device, wanted[0].batch_size) as team:
        with progress.bar("reading images") as update:
            index = dataset.index(
                root,
                skip_bad,
                update,
                layout=wanted[0].layout,
                skip_empty=wanted[0].skip_empty,
                divide=wanted[0].division,
                chosen=wanted[0].chosen_columns,
            )
        team.same("the data set", index.fingerprint)
        progress.note(_describe(data, index))
        for line in index.notes:
            progress.note(line)
        for left in index.left_out:
            (progress.warn if left.reason in listing.LOSSES else progress.note)(listing.sentence(left))
        for line in check.warnings(index, wanted[0].preprocess):
            progress.warn(line)
        reading = values.reading(list(index.contents.values()), wanted[0].preprocess.pixel_range)
        if reading.strange:
            progress.warn(reading.strange)
        trained: list[Run | None] = []
        for options in wanted:
            decisions = [f"pixels: {reading.sentence}"] if reading.sentence else []
            if options.start == "pretrained" and options.arch not in zoo.MODELS and zoo.row(options.arch).note:
                decisions.append(f"preprocessing: {zoo.row(options.arch).note}; edgekit uses all of it")
            if options.start == "pretrained" and (terms := zoo.row(options.arch).license):
                decisions.append(f"license of the pretrained weights: {terms}{catalog.advice(terms)}")
            if reading.pixel_range:
                options = dataclasses.replace(options, pixel_range=values.written(reading.pixel_range))
            with progress.bar("deciding") as update:
                options = plan.decide(index, options, team, update, decisions.append)
            for line in decisions:
                progress.note(line)
            run = None
            if team.leads:
                run_name = name or free_name(runs_dir, f"{sources.name_of(root)}-{short_name(options.arch)}")
                run = create_run(runs_dir, run_name, _info(index, options, decisions), data=index)
            done = _train_and_evaluate(run, index, options, team, log)
            if (
                trained and done is not None
            ):  # the process keeps freed memory, so the peak may be of an earlier training
                done = done.save(peak_rss_mb=None)
            trained.append(done)
    return [run for run in trained if run is not None]


def resume_run(runs_dir: Path, name: str, log: str | None, data: str | Path | None = None) -> Run:
    """Continue a training that was interrupted or killed.

    Args:
        data: folder that the images are in now.

    Raises:
        MissingError: there is no such run, or nothing to continue from. UsageError: it is finished.
    """
    path = next((p for p in (runs_dir / name, Path(name)) if (p / runs.RUN_FILE).is_file()), None)
    if path is None:
        raise MissingError(f"there is no run {name!r}", "edgekit train DATA starts one")
    run = runs.read_run(path)
    if run.info.source is not None:
        raise UsageError(
            f"{run.name} was imported, not trained here: there is no training to resume",
            f"edgekit train DATA --model {quote(run.info.arch)} --weights {quote(str(path / 'checkpoint.pt'))}",
        )
    run = runs.read_run(path, "options", "status")
    if run.info.status == "finished":
        judged = (run.path / "evaluation.json").is_file()
        raise UsageError(
            f"the training of {run.name} is finished{'' if judged else ', but it is not evaluated yet'}",
            f"edgekit export {run.handle} --target jetson" if judged else f"edgekit evaluate {run.handle}",
        )
    options = from_table(run.info.options, TrainOptions, f"{path / runs.RUN_FILE}: options")
    if not (path / "data.json").is_file():  # killed right after its first file
        raise MissingError(f"the training of {run.name} has not begun", "edgekit train DATA starts a new training")
    index = dataset.of_run(run)
    device = pick_device(options.device)
    run = runs.choose_run(runs_dir, run, data)
    with diagnostics.memory_ran_out(), distributed.join(device, options.batch_size) as team:
        index = _where_they_are(run, index)
        done = _train_and_evaluate(run if team.leads else None, index, options, team, log, resume=True)
    return done or run


def _where_they_are(run: Run, index: DatasetIndex) -> DatasetIndex:
    """Return the index with the files that hold the images now; all of train and val must be there."""
    trained = tuple(sample for sample in index.samples if sample.split != "test")
    found = location.take_all(run, trained, "the training", index, again=f"edgekit train DIR --resume {run.handle}")
    now = iter(found.samples)
    samples = tuple(sample if sample.split == "test" else next(now) for sample in index.samples)
    return dataclasses.replace(found, samples=samples)


def _train_and_evaluate(
    run: Run | None, index: DatasetIndex, options: TrainOptions, team: Team, log: str | None, resume: bool = False
) -> Run | None:
    """Train under the lock of the run, then evaluate it; only the leading process has a run."""
    with runs.alone_in(run.path) if run else contextlib.nullcontext():
        checkpoint = _train(run, index, options, team, log, resume)
    if run is None or checkpoint is None:
        return None
    done = dataclasses.replace(runs.read_run(run.path), images=run.images)
    _evaluate(done, options)
    return done


def _train(
    run: Run | None, index: DatasetIndex, options: TrainOptions, team: Team, log: str | None, resume: bool
) -> Checkpoint | None:
    """Train, and save the result in the run.

    Args:
        log: name of a tracker, or None. resume: continue from the saved state.
    """
    watcher = _Watcher(run, options)
    finished = False
    try:
        watcher.tracker = trackers.open_tracker(log, run.path, options) if run else None
        with progress.bar(f"training {options.arch}") as watcher.update:  # type: ignore[method-assign]
            # A training that was killed before its first state was saved starts again.
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
    """Save the status of a run that ended early, or remove a run that can be neither used nor continued."""
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
        progress.note(f"the best weights of {epochs} are in {run.path}")
    if state.is_file() and type(error) is not EdgekitError:  # which would occur again
        progress.note(f"to continue: edgekit train --resume {run.handle}")
    with contextlib.suppress(StorageError):  # a full disk may have been the reason
        watcher.save(**changes)


def _cost(checkpoint: Checkpoint, options: TrainOptions) -> dict[str, Any]:
    """Return the numbers of parameters, and the peak memory since the training was started or resumed, in MB."""
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


def _evaluate(run: Run, options: TrainOptions) -> None:
    """Evaluate the best weights on val and test."""
    from edgekit.api.evaluate import evaluate_run

    best = [stats.epoch for stats in run.info.epochs if stats.best][-1]
    progress.note(f"best epoch: {best}, val top-1 {run.info.val_top1:.1f} %; saved: {run.path / 'checkpoint.pt'}")
    try:
        evaluate_run(run)
    except EdgekitError as error:  # the trained weights are valid, whatever is wrong with the test images
        progress.warn(f"not evaluated: {error.message}")
    except KeyboardInterrupt:
        progress.note(f"the training is finished; to evaluate it: edgekit evaluate {run.handle}")
        raise
    progress.note(f"next: edgekit export {run.handle} --target jetson --target android")


def _describe(data: str, index: DatasetIndex) -> str:
    counts = ", ".join(f"{len(index.split(s))} {s}" for s in ("train", "val", "test"))
    skipped = f"; skipped: {'; '.join(index.skipped[:3])}" if index.skipped else ""
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
        preprocess=options.preprocess,
        data=DataInfo(str(index.container or index.root), index.fingerprint, len(index.skipped)),
        versions={"python": platform.python_version(), **{p: metadata.version(p) for p in _packages(options.arch)}},
        history=(),
    )


def _packages(arch: str) -> tuple[str, ...]:
    """Return the packages on which the weights depend."""
    return (*_PACKAGES, "timm") if arch.startswith(catalog.TIMM) else _PACKAGES


class _Watcher:
    """Reports progress, and saves the history in run.json after every epoch."""

    def __init__(self, run: Run | None, options: TrainOptions) -> None:
        self.run = run
        self.options = options
        self.tracker: Tracker | None = None
        self.history: tuple[EpochStats, ...] = ()  # `resumed` fills it
        self.stepped = False
        self._began = (0, 0, 0.0)  # epoch, number and time of its first step in this process

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
        """Take over the history of the saved state, since run.json may be older if the process was killed."""
        if self.run is not None:
            progress.note(f"resuming {self.run.name}: {len(history)} of {self.options.epochs} epochs are done")
            self.history = tuple(history)
            self.save(history=self.history, val_top1=self.best)

    def update(self, done: int, total: int, text: str = "") -> None:
        """Report progress; replaced while a progress bar is shown."""

    @property
    def best(self) -> float:
        """Val top-1 of the best epoch, in percent."""
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

    def save(self, **changes: Any) -> Run:
        """Write run.json with `changes`."""
        assert self.run is not None
        self.run = self.run.save(**changes)
        return self.run

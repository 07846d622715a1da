"""``edgekit train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import store
from edgekit.cli import show
from edgekit.cli.options import RunsDir
from edgekit.train import models

if TYPE_CHECKING:
    from edgekit.records import DatasetIndex
    from edgekit.train.finetune import EpochStats, TrainOptions

_PACKAGES = ("torch", "torchvision", "numpy", "pillow")


def train(
    data: Annotated[str, typer.Argument(help="A folder of images, or a built-in data set: digits.")],
    model: Annotated[str, typer.Option(help=f"Architecture: {', '.join(models.MODELS)}.")] = "mobilenet_v2",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate (AdamW, warm-up, then cosine).")] = 1e-3,
    image_size: Annotated[
        int | None, typer.Option(help="Input side in pixels. Default: the model's own (224).", show_default=False)
    ] = None,
    weights: Annotated[str, typer.Option(help="pretrained (ImageNet), none, or a state-dict file.")] = "pretrained",
    augment: Annotated[str, typer.Option(help="light (random crops, colour) or none.")] = "light",
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Mirror images at random. Default: yes, but not for digits."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes the start and the order.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode images; 0 decodes in this one.")] = 0,
    device: Annotated[str, typer.Option(help="auto (CUDA where there is a GPU), cpu or cuda.")] = "auto",
    name: Annotated[str | None, typer.Option(help="The run's name. Default: <data>-<model>.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be decoded.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Fine-tune a classifier on a folder of images.

    DATA is DATA/<class>/<image> (split 70/15/15 by content hash) or
    DATA/train/<class>/<image> with val and test beside train, which is taken as it is.
    The weights that do best on val are kept in runs/<name>, with everything that made them.
    """
    from edgekit.data import builtin, check, dataset

    models.preprocess_for(model, image_size)
    root = dataset.resolve(data)
    from edgekit.train.finetune import TrainOptions

    options = TrainOptions(
        arch=model,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        image_size=image_size,
        seed=seed,
        weights=weights,
        augment=augment,
        flip=data not in builtin.BUILTIN if flip is None else flip,
        workers=workers,
        device=device,
    )
    run_name = store.check_free(runs_dir, name or store.free_name(runs_dir, f"{root.name}-{model}"))
    with show.bar("reading images") as update:
        index = dataset.index(root, skip_bad, update)
    show.note(_describe(data, index))
    for line in check.warnings(index):
        show.note(f"warning: {line}")
    run = _train_into(runs_dir, run_name, index, options)
    show.note(f"kept {run.path / 'checkpoint.pt'}: {run.meta['val_top1']:.1f} % of val images right")
    show.note(f"next: edgekit export {run.handle} --target jetson --target android")


def _describe(data: str, index: DatasetIndex) -> str:
    counts = ", ".join(f"{len(index.split(s))} {s}" for s in ("train", "val", "test"))
    skipped = f"; left out: {'; '.join(index.skipped[:3])}" if index.skipped else ""
    skipped += f" and {len(index.skipped) - 3} more" if len(index.skipped) > 3 else ""
    return f"{data}: {len(index.labels)} classes, {counts}{skipped}"


def _train_into(runs_dir: Path, name: str, index: DatasetIndex, options: TrainOptions) -> store.Run:
    """Train in a new run directory; it is removed again if no epoch was finished."""
    from edgekit.train.finetune import finetune

    run = store.create_run(runs_dir, name, _meta(index, options))
    watcher = _Watcher(run, options)
    try:
        store.save_json(run.path / "data.json", index)
        with show.bar(f"training {options.arch}") as watcher.update:
            checkpoint = finetune(index, options, run.path / "checkpoint.pt", watcher)
    except BaseException as error:
        if not watcher.history:
            store.remove_folder(run.path)
        else:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            watcher.run.save(status=status, checkpoint_sha256=store.sha256_file(run.path / "checkpoint.pt"))
            show.note(f"the best weights of {len(watcher.history)} finished epochs are kept in {run.path}")
        raise
    return watcher.run.save(status="finished", checkpoint_sha256=checkpoint.sha256)


def _meta(index: DatasetIndex, options: TrainOptions) -> dict[str, Any]:
    """What made the run."""
    import platform
    from importlib import metadata

    return {
        "status": "training",
        "arch": options.arch,
        "labels": index.labels,
        "options": options,
        "preprocess": models.preprocess_for(options.arch, options.image_size),
        "data": {"root": index.root, "fingerprint": index.fingerprint, "skipped": len(index.skipped)},
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in _PACKAGES}},
        "history": [],
    }


class _Watcher:
    """Shows the progress, and keeps the history in run.json after every epoch."""

    def __init__(self, run: store.Run, options: TrainOptions) -> None:
        self.run = run
        self.options = options
        self.update: Any = None
        self.history: list[dict[str, Any]] = []

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.update((epoch - 1) * steps + step, self.options.epochs * steps, f"epoch {epoch}, loss {loss:.3f}")

    def epoch(self, stats: EpochStats) -> None:
        self.history.append(dataclasses.asdict(stats))
        best = max(entry["val_top1"] for entry in self.history)
        self.run = self.run.save(history=self.history, val_top1=best)
        show.note(
            f"epoch {stats.epoch}/{self.options.epochs}  loss {stats.train_loss:.3f}  val loss {stats.val_loss:.3f}  "
            f"val top-1 {stats.val_top1:.1f} %  {stats.images_per_s:.0f} images/s{'  *' if stats.best else ''}"
        )

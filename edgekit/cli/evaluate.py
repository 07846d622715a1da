"""``edgekit evaluate``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import files, progress, runs
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench
    from edgekit.scores import Evaluation


_COLUMNS = ("class", "test images", "precision %", "recall %", "F1 %")
_SAMPLES = 32  # augmented images in pictures/samples.png


def evaluate(run: Run = None, json: Json = False, runs_dir: RunsDir = Path("runs")) -> None:
    """Judge a run's weights: every class, calibration, uncertainty.

    Temperature and dropout are fitted on val; what is printed is of the test split. Training does
    this by itself; runs of older versions need it once. It writes evaluation.json and evaluation.npz.
    """
    opened = open_run(runs_dir, run)
    judged = evaluate_run(opened)
    if json:
        console.as_json(files.load_json(opened.path / "evaluation.json"))
    else:
        _print_classes(judged)
    progress.note(f"next: edgekit report {opened.handle}")


def evaluate_run(run: runs.Run) -> Evaluation:
    """Judge the weights of `run`, keep the result and the pictures in it, and say what they are worth.

    Raises:
        MissingError: images are gone. DataError: images have changed since training.
    """
    from edgekit.cli.report import save_pictures
    from edgekit.cli.workbench import Workbench
    from edgekit.data import dataset
    from edgekit.report import verdict
    from edgekit.train import evaluation
    from edgekit.train.finetune import pick_device

    run = runs.open_run(run.path.parent, run.name)  # as it was written: plain values
    bench = Workbench(run)
    checkpoint, model = bench.trained
    for split in ("val", "test"):
        dataset.check_unchanged(bench.data, bench.data.split(split))
    with progress.bar("evaluating") as update:
        device = pick_device(str(run.meta.get("options", {}).get("device", "auto")))
        judged = evaluation.evaluate(checkpoint, model.to(device), bench.data, update)
    evaluation.save(run.path, judged)
    _save_samples(bench)
    save_pictures(run, judged)
    for line in verdict.trained(judged):
        progress.note(line)
    return judged


def _save_samples(bench: Workbench) -> None:
    """Draw some training images as they were augmented, of as many classes as there is room for.

    A run of an older edgekit, whose options mean nothing now, goes without.
    """
    import numpy as np

    from edgekit.config import from_table
    from edgekit.data import dataset
    from edgekit.report import pictures
    from edgekit.train.augment import TrainImages
    from edgekit.train.options import TrainOptions

    try:
        options = from_table({**bench.run.meta["options"], "device": "auto"}, TrainOptions, "options")
    except EdgekitError as error:
        progress.note(f"no picture of augmented images: {error.message}")
        return
    samples = bench.data.split("train")
    counters: dict[int, Iterator[int]] = defaultdict(count)
    turns = [next(counters[s.label]) for s in samples]  # the how manieth of its class
    chosen = sorted(range(len(samples)), key=lambda n: (turns[n], samples[n].label))[:_SAMPLES]
    dataset.check_unchanged(bench.data, tuple(samples[n] for n in chosen))
    images = TrainImages(bench.data, bench.checkpoint.preprocess, options)
    pixels = np.stack([images[1, n][0].numpy() for n in chosen])
    content = pictures.samples(pixels, [bench.checkpoint.labels[samples[n].label] for n in chosen])
    files.save_bytes(bench.run.path / "pictures" / "samples.png", content)


def _print_classes(judged: Evaluation) -> None:
    from edgekit.report.tables import number

    scores = judged.splits["test"].scores
    rows = [
        [name, str(c.support), number(c.precision, 1), number(c.recall, 1), number(c.f1, 1)]
        for name, c in zip(judged.labels, scores.classes)
    ]
    for name, mean in (("(mean of classes)", scores.macro), ("(weighted by images)", scores.weighted)):
        values = (number(v, 1) for v in (mean.precision, mean.recall, mean.f1))
        rows.append([name, str(scores.samples), *values])
    console.table(_COLUMNS, rows, right=_COLUMNS[1:])

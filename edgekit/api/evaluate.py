"""Evaluate: score trained weights, and rank runs."""

from __future__ import annotations

import dataclasses
import statistics as middle
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import files, progress, runs
from edgekit.api.run import choose
from edgekit.errors import DataError, EdgekitError
from edgekit.progress import Callback, reporting

if TYPE_CHECKING:
    import numpy as np

    from edgekit.api.intermediates import Intermediates
    from edgekit.scores import Evaluation


@dataclass(frozen=True)
class RunComparison:
    """One row of a comparison of runs. Rates are in percent, as in `scores`; None: unknown.

    Attributes:
        same_data: the run has the data set that most of the compared runs have; only these are ranked.
        p_value: of McNemar's test, image by image, against the best run; None for the best run.
    """

    run: str
    model: str
    strategy: str | None
    same_data: bool
    samples: int | None = None
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    p_value: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    nll: float | None = None
    ece: float | None = None
    epoch_s: float | None = None
    parameters: int | None = None
    parameters_trained: int | None = None
    peak_rss_mb: float | None = None
    int8_mb: float | None = None


def rank(runs: list[runs.Run], leave_out: bool = False) -> tuple[list[RunComparison], str]:
    """Return the compared runs, best first, and a sentence about the best one.

    Args:
        leave_out: leave out, with a warning, a run whose files are damaged; else that is an error.
    """
    from edgekit.stats.proportions import mcnemar

    compared = _readable(runs, leave_out)
    common = Counter(each.data for each in compared).most_common(1)  # the first one if there are several
    rows = [dataclasses.replace(each.row, same_data=each.data == common[0][0]) for each in compared]
    order = sorted(range(len(rows)), key=lambda n: (not rows[n].same_data, -(rows[n].top1 or -1.0), rows[n].nll or 0.0))
    ranked = [n for n in order if rows[n].same_data and compared[n].correct is not None]
    for n in order:
        if compared[n].correct is None:
            run = compared[n].run
            progress.note(f"{run.name} was not evaluated on the test split; next: {run.evaluate_command}")
    for n in ranked[1:]:
        p_value = mcnemar(*_on_the_same_images(compared[ranked[0]], compared[n]))
        rows[n] = dataclasses.replace(rows[n], p_value=p_value)
    return [rows[n] for n in order], _sentence([rows[n] for n in ranked])


@dataclass(frozen=True)
class _Compared:
    """A run to compare: its row, the fingerprint of its data, and its answers.

    Attributes:
        images: hash and label of each test image that was evaluated, sorted. correct: bool (N,), in the same order;
            None for a run that was not evaluated.
    """

    run: runs.Run
    row: RunComparison
    data: str | None
    images: list[tuple[str, int]] = field(default_factory=list)
    correct: np.ndarray | None = None


def _readable(runs: list[runs.Run], leave_out: bool) -> list[_Compared]:
    from edgekit.evaluation import evaluate

    found = []
    for run in runs:
        try:
            judged = evaluate.load(run.path, run.weights_sha256)
            answers = _answers(run, judged) if judged is not None else {}
            mark = run.info.data.fingerprint if run.info.data else None
            found.append(_Compared(run, _row(run, judged), mark, **answers))
        except EdgekitError as error:
            if not leave_out:
                raise
            progress.warn(f"{run.name} is left out: {error.message}")
    return found


def _row(run: runs.Run, judged: Evaluation | None) -> RunComparison:
    parameters = run.info.parameters
    seconds = [stats.seconds for stats in run.info.epochs if stats.seconds]
    row = RunComparison(
        run=run.name,
        model=run.info.arch or "-",
        strategy=run.info.options.get("strategy") if run.info.source is None else runs.IMPORTED,
        same_data=False,
        epoch_s=middle.median(seconds) if seconds else None,
        parameters=parameters.total if parameters else None,
        parameters_trained=parameters.trainable if parameters else None,
        peak_rss_mb=run.info.peak_rss_mb,
        int8_mb=_int8_mb(run),
    )
    if judged is None:
        return row
    test = judged.splits["test"]
    return dataclasses.replace(
        row,
        samples=test.scores.samples,
        top1=test.scores.top1,
        top1_low=test.scores.top1_low,
        top1_high=test.scores.top1_high,
        precision=test.scores.macro.precision,
        recall=test.scores.macro.recall,
        f1=test.scores.macro.f1,
        nll=(test.after or test.before).nll,
        ece=(test.after or test.before).ece,
    )


def _answers(run: runs.Run, judged: Evaluation) -> dict[str, Any]:
    """Return the fields of `_Compared` about the answers.

    Data sets with equal fingerprints have equal images, but maybe other file names and therefore another order.

    Raises:
        DataError: the evaluation is of other images than those in data.json.
    """
    import numpy as np

    from edgekit.data import dataset

    left_out = set(judged.left_out)
    samples = [sample for sample in dataset.of_run(run).split("test") if sample.sha256 not in left_out]
    if len(samples) != len(judged.raw["test_labels"]):
        raise DataError(f"the evaluation of {run.name} is of other images", f"edgekit evaluate {run.handle}")
    order = sorted(range(len(samples)), key=lambda n: (samples[n].sha256, samples[n].label))
    correct = np.asarray(judged.raw["test_logits"].argmax(1) == judged.raw["test_labels"])[order]
    return {"images": [(samples[n].sha256, samples[n].label) for n in order], "correct": correct}


def _on_the_same_images(one: _Compared, other: _Compared) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of two runs, bool (N,), to the images that both were evaluated on."""
    assert one.correct is not None
    assert other.correct is not None
    if one.images == other.images:
        return one.correct, other.correct
    common = set(one.images) & set(other.images)
    kept = [[n for n, image in enumerate(each.images) if image in common] for each in (one, other)]
    return one.correct[kept[0]], other.correct[kept[1]]


def _int8_mb(run: runs.Run) -> float | None:
    """Return the size in MB of the smallest INT8 model exported from the run's weights."""
    from edgekit.api.artifacts import load_artifacts

    files = [
        run.path / "export" / artifact.name
        for manifest in (run.path / "export").glob("[!.]*/manifest.json")
        for artifact in load_artifacts(manifest.parent)
        if artifact.precision == "int8" and artifact.parent == run.weights_sha256
    ]
    return min((path.stat().st_size / 1e6 for path in files if path.is_file()), default=None)


def _sentence(ranked: list[RunComparison]) -> str:
    """Return a sentence about the best run and the significance of its lead."""
    from edgekit.stats.proportions import SIGNIFICANT

    if not ranked:
        return "nothing to rank: no run was evaluated on the test split"
    best, others = ranked[0], ranked[1:]
    start = f"best: {best.run}, {best.top1:.1f} % of {best.samples} test images"
    if not others:
        return f"{start}; there is no other run on the same data"
    near = [row for row in others if row.p_value is not None and row.p_value >= SIGNIFICANT]
    if not near:
        most = max(row.p_value or 0.0 for row in others)
        what = "the other" if len(others) == 1 else f"the {len(others)} others"
        return f"{start}; significantly better than {what} (largest p: {p_value_text(most)}; McNemar)"
    named = ", ".join(row.run for row in near[:3]) + (f" and {len(near) - 3} more" if len(near) > 3 else "")
    most = max(row.p_value or 0.0 for row in near)
    return f"{start}; not significantly better than {named} (largest p: {p_value_text(most)}; McNemar)"


def p_value_text(value: float) -> str:
    """Write a p-value with three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


_SAMPLES = 32  # augmented images in pictures/samples.png


def evaluate(
    run: runs.Run | str | Path | None = None,
    *,
    runs_dir: str | Path = "runs",
    data: str | Path | None = None,
    progress: Callback | None = None,
) -> Evaluation:
    """Evaluate a run's weights on the val and test splits: every class, calibration, uncertainty.

    Training does this at its end. Temperature and dropout are fitted on val. Writes evaluation.json, evaluation.npz
    and pictures/ in the run.

    Args:
        run: a run, its name or path; None for the newest.
        runs_dir: the folder of the runs.
        data: folder that the images are in now, under whatever names; by default that of the training.
        progress: called with a `Progress` whenever the state changes.

    Returns:
        The evaluation. A few images that are missing are left out: `Evaluation.left_out`.

    Raises:
        MissingError: images do not exist any more. DataError: images have changed since training.

    Example:
        >>> evaluation = edgekit.evaluate("tour")
        >>> evaluation.splits["test"].scores.samples
        9
    """
    with reporting(progress):
        return evaluate_run(choose(runs_dir, run, data))


def evaluate_run(run: runs.Run) -> Evaluation:
    """Evaluate the weights of a run, save the result and the pictures in it, and log a summary.

    Raises:
        MissingError: images do not exist any more. DataError: images have changed since training.
    """
    from edgekit.api.intermediates import Intermediates
    from edgekit.api.report import save_pictures
    from edgekit.data import location
    from edgekit.evaluation import evaluate, label_order
    from edgekit.models.build import pick_device
    from edgekit.reporting import decide

    run = dataclasses.replace(runs.read_run(run.path), images=run.images)  # plain values, as in the file
    intermediates = Intermediates(run)
    checkpoint, model = intermediates.trained
    wanted = tuple(sample for split in ("val", "test") for sample in intermediates.data.split(split))
    found = location.take(run, wanted, "the evaluation", intermediates.data)
    with progress.bar("evaluating") as update:
        device = pick_device(str(run.info.options.get("device", "auto")))
        judged = evaluate.evaluate(checkpoint, model.to(device), found, update)
    there = {sample.sha256 for sample in found.samples}
    judged = dataclasses.replace(judged, left_out=tuple(s.sha256 for s in wanted if s.sha256 not in there))
    evaluate.save(run.path, judged)
    if run.info.source is None:
        _save_samples(intermediates)
    save_pictures(run, judged)
    for line in decide.training_verdicts(judged):
        progress.note(line)
    if run.info.source is not None:
        order = label_order.better_order(judged.raw["test_logits"], judged.raw["test_labels"])
        if order is not None:
            progress.warn(label_order.sentence(order, judged.labels))
    return judged


def _save_samples(intermediates: Intermediates) -> None:
    """Draw some augmented training images, of as many classes as possible.

    A run whose options this version of edgekit does not know, or whose training images are gone, gets no picture.
    """
    import numpy as np

    from edgekit.config import from_table
    from edgekit.data import location
    from edgekit.reporting import pictures
    from edgekit.training.augment import TrainImages
    from edgekit.training.options import TrainOptions

    try:
        options = from_table({**intermediates.run.info.options, "device": "auto"}, TrainOptions, "options")
    except EdgekitError as error:
        progress.note(f"no picture of augmented images: {error.message}")
        return
    samples = intermediates.data.split("train")
    counters: dict[int, Iterator[int]] = defaultdict(count)
    turns = [next(counters[s.label]) for s in samples]  # position within the class
    chosen = sorted(range(len(samples)), key=lambda n: (turns[n], samples[n].label))[:_SAMPLES]
    run = intermediates.run
    root = location.root_of(run, intermediates.data)
    wanted = [samples[n] for n in chosen]
    found, lost = location.find(root, intermediates.data, wanted, search=run.images is not None)
    if not found.samples:
        progress.note("no picture of augmented images: the training images are gone")
        return
    missing = [each.sample for each in lost]
    chosen = [n for n in chosen if samples[n] not in missing]
    now = dict(zip(chosen, found.samples))
    data = dataclasses.replace(found, samples=tuple(now.get(n, sample) for n, sample in enumerate(samples)))
    images = TrainImages(data, intermediates.checkpoint.preprocess, options)
    pixels = np.stack([images[1, n][0].numpy() for n in chosen])
    content = pictures.samples(pixels, [intermediates.checkpoint.labels[samples[n].label] for n in chosen])
    files.save_bytes(intermediates.run.path / "pictures" / "samples.png", content)

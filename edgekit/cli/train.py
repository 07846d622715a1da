"""``edgekit train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import files, progress, runs
from edgekit.api.evaluate import RunComparison, evaluate_run, p_value_text, rank
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, options_of
from edgekit.errors import MissingError, UsageError
from edgekit.models import zoo
from edgekit.runs import choose_run, list_runs, open_run
from edgekit.training.options import TrainOptions

if TYPE_CHECKING:
    from edgekit.scores import Evaluation


# What --resume leaves to say: everything else stands in the run.
_FREE_TO_RESUME = {"resume", "runs_dir", "log"}
_COLUMNS = (
    "run", "model", "strategy", "top-1 % (95 %)", "p", "precision", "recall", "F1", "NLL", "ECE %", "s/epoch",
    "parameters (trained)", "peak MB", "INT8 MB",
)  # fmt: skip
_NARROW = ("run", "top-1 % (95 %)", "p", "F1", "INT8 MB")
_EVALUATE_COLUMNS = ("class", "test images", "precision %", "recall %", "F1 %")


@options_of(TrainOptions, "arch", "flip")
def train(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Argument(help="A folder of images, or a built-in data set: digits.", show_default=False)
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            *("--model", "--models"), help=f"An architecture, or several (a,b,c), of: {', '.join(zoo.MODELS)}."
        ),
    ] = "mobilenet_v2",
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Mirror images at random. Default: yes, but not for digits."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name. Default: <data>-<model>.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted or killed.")
    ] = None,
    log: Annotated[str | None, typer.Option(help="Also log to tensorboard or mlflow.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be decoded.")] = False,
    runs_dir: RunsDir = Path("runs"),
    **chosen: Any,
) -> None:
    """Fine-tune a classifier on a folder of images.

    DATA is DATA/<class>/<image> (split 70/15/15 by content hash) or
    DATA/train/<class>/<image> with val and test beside train, which is taken as it is.
    What is left open (auto) is decided from the data, and said. The weights that do best on val
    are kept in runs/<name>, with everything that made them. With several processes:
    torchrun --nproc-per-node N -m edgekit train DATA ...
    """
    from edgekit.training import trackers

    trackers.check(log)
    if resume is not None:
        given = _given(context)
        if others := sorted(given - _FREE_TO_RESUME):
            raise UsageError(
                f"--resume takes everything from the run, also {', '.join(others)}",
                f"edgekit train --resume {resume}, or leave out --resume for a new run",
            )
        from edgekit.api.train import resume_run

        resume_run(runs_dir, resume, log)
        return
    if data is None:
        raise UsageError("train needs images", "edgekit train DATA --model efficientnet_lite0   (or DATA: digits)")
    wanted = _options(model, data, flip, chosen)
    if name and len(wanted) > 1:
        raise UsageError("several models get a run each, and one --name", "leave out --name")
    from edgekit.api.train import train_runs

    trained = train_runs(data, wanted, (runs_dir, name), skip_bad, log)
    if len(trained) > 1:
        print_comparison(trained, json=False)


def _given(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }


def _options(model: str, data: str, flip: bool | None, chosen: dict[str, Any]) -> list[TrainOptions]:
    """One record per model; everything that can be refused without looking at the data is refused."""
    from edgekit.data import builtin

    mirrored = data not in builtin.BUILTIN if flip is None else flip
    if chosen["weights"] not in (None, "pretrained", "none"):
        chosen["weights"] = str(Path(chosen["weights"]).absolute())  # a resume may start elsewhere
    wanted = [TrainOptions(arch=arch.strip(), flip=mirrored, **chosen) for arch in model.split(",")]
    for options in wanted:
        zoo.preprocess_for(options.arch, options.image_size)
    return wanted


# ``edgekit compare``.


def compare(
    runs: Annotated[list[str] | None, typer.Argument(help="Names or paths. Default: all runs.")] = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare several trained runs in one table, the best first.

    Runs are ranked by top-1 on the test split. Those trained on other data are listed, not ranked.
    """
    names = list(dict.fromkeys(runs or [path.name for path in list_runs(runs_dir)]))
    if not names:
        raise MissingError(f"no finished run in {runs_dir}", "edgekit train DATA --model efficientnet_lite0")
    print_comparison([open_run(runs_dir, name) for name in names], json)


def print_comparison(runs: list[runs.Run], json: bool) -> None:
    """The runs as a table or as JSON, and which is best in one sentence."""
    # As they were written: a run that was just trained holds records, not plain values.
    rows, sentence = rank([open_run(run.path.parent, run.name) for run in runs])
    if json:
        console.as_json({"rows": [dataclasses.asdict(row) for row in rows], "sentence": sentence})
        return
    console.table(_COLUMNS, [_cells(row) for row in rows], right=_COLUMNS[3:], narrow=_NARROW)
    progress.note(
        "p: McNemar, paired, against the first; precision, recall, F1: mean of the classes; NLL, ECE: calibrated"
    )
    if not all(row.same_data for row in rows):
        progress.note("other data: another data set or split; its figures cannot be compared with the others'")
    progress.note(sentence)


def _cells(row: RunComparison) -> list[str]:
    from edgekit.reporting.tables import number

    def count(value: int | None) -> str:
        return "-" if value is None else f"{value / 1e6:.2f} M"

    interval = "-" if row.top1 is None else f"{row.top1:.1f} ({row.top1_low:.1f}-{row.top1_high:.1f})"
    p_value = "other data" if not row.same_data else "" if row.p_value is None else p_value_text(row.p_value)
    figures = [
        *(number(value, 1) for value in (row.precision, row.recall, row.f1)),
        number(row.nll, 3),
        number(row.ece, 1),
        number(row.epoch_s, 1),
        f"{count(row.parameters)} ({count(row.parameters_trained)})" if row.parameters is not None else "-",
        number(row.peak_rss_mb, 0),
        number(row.int8_mb, 1),
    ]
    return [row.run, row.model, str(row.strategy or "-"), interval, p_value, *figures]


# ``edgekit evaluate``.


def evaluate(run: Run = None, json: Json = False, runs_dir: RunsDir = Path("runs")) -> None:
    """Judge a run's weights: every class, calibration, uncertainty.

    Temperature and dropout are fitted on val; what is printed is of the test split. Training does
    this by itself; runs of older versions need it once. It writes evaluation.json and evaluation.npz.
    """
    opened = choose_run(runs_dir, run)
    judged = evaluate_run(opened)
    if json:
        console.as_json(files.load_json(opened.path / "evaluation.json"))
    else:
        _print_classes(judged)
    progress.note(f"next: edgekit report {opened.handle}")


def _print_classes(judged: Evaluation) -> None:
    from edgekit.reporting.tables import number

    scores = judged.splits["test"].scores
    rows = [
        [name, str(c.support), number(c.precision, 1), number(c.recall, 1), number(c.f1, 1)]
        for name, c in zip(judged.labels, scores.classes)
    ]
    for name, mean in (("(mean of classes)", scores.macro), ("(weighted by images)", scores.weighted)):
        values = (number(v, 1) for v in (mean.precision, mean.recall, mean.f1))
        rows.append([name, str(scores.samples), *values])
    console.table(_EVALUATE_COLUMNS, rows, right=_EVALUATE_COLUMNS[1:])

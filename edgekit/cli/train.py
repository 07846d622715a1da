"""The commands ``train``, ``evaluate`` and ``compare``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import cores, files, progress, runs
from edgekit.api.run import choose
from edgekit.cli import console
from edgekit.cli.options import Data, Json, Run, RunsDir, Threads, Verbose, options_of
from edgekit.errors import MissingError, UsageError
from edgekit.models import zoo
from edgekit.runs import list_runs, open_run, readable_runs
from edgekit.training.options import TrainOptions

if TYPE_CHECKING:
    from edgekit.api.evaluate import RunComparison
    from edgekit.scores import Evaluation


# Options that may be given with --resume; all others come from the run.
_FREE_TO_RESUME = {"resume", "runs_dir", "log"}
_COLUMNS = (
    "run", "model", "strategy", "top-1 % (95 %)", "p", "precision", "recall", "F1", "NLL", "ECE %", "s/epoch",
    "parameters (trained)", "peak MB", "INT8 MB",
)  # fmt: skip
_SHORT = ("run", "top-1 % (95 %)", "p", "F1", "INT8 MB")
_EVALUATE_COLUMNS = ("class", "test images", "precision %", "recall %", "F1 %")


@options_of(TrainOptions, "arch", "flip")
def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Folder of images, table, archive or shards (docs/data.md), or the built-in digits.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            *("--model", "--models"),
            help=f"Architecture, or several (a,b,c): {', '.join(zoo.MODELS)}, another classifier of torchvision, or "
            "timm/NAME (edgekit models --all).",
            rich_help_panel="What to train",
        ),
    ] = "mobilenet_v2",
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Random horizontal flips. Default: on, except for digits.", rich_help_panel="Data"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: <data>-<model>.", rich_help_panel="Output")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Run to continue after it was interrupted or killed. DATA: the folder that its images are in now, if "
            "they were moved.",
            rich_help_panel="Output",
        ),
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="Tracker to log to as well: tensorboard or mlflow.", rich_help_panel="Output")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip images that cannot be decoded.", rich_help_panel="Data")
    ] = False,
    threads: Threads = None,
    runs_dir: RunsDir = Path("runs"),
    **chosen: Any,
) -> None:
    """Fine-tune a classifier on a folder of images.

    DATA holds one folder per class, DATA/<class>/<image>, and is split 70/15/15 by content hash; or it holds the
    splits, DATA/{train,val,test}/<class>/<image>. It may also be a CSV of path,label[,split], a zip or tar file,
    WebDataset shards, a data set that Hugging Face saved, Parquet, IDX or NPZ files. Options that you leave unset are
    chosen from the data and the machine, and printed. The weights of the best epoch on val are saved in runs/<name>,
    with everything that made them.

    Several GPUs: torchrun --nproc-per-node N -m edgekit train DATA ...
    """
    from edgekit.api import train as api
    from edgekit.training import trackers

    trackers.check(log)
    if resume is not None:
        given = _given(context) - {"data"}  # where the images are now
        if others := sorted(given - _FREE_TO_RESUME):
            raise UsageError(
                f"--resume takes all options from the run; remove {', '.join(others)}",
                f"edgekit train --resume {quote(resume)}, or leave out --resume for a new run",
            )
        api.resume_run(runs_dir, resume, log, data)
        return
    if data is None:
        raise UsageError("train needs images", "edgekit train DATA --model efficientnet_lite0   (or DATA: digits)")
    wanted = api.options_for(data, model.split(","), flip, **chosen)
    if name and len(wanted) > 1:
        raise UsageError("--name needs a single model", "leave out --name: each model gets its own run")
    cores.use_threads(threads)
    trained = api.train_all(data, wanted, runs_dir=runs_dir, name=name, skip_bad=skip_bad, log=log)
    if len(trained) > 1:
        print_comparison(trained, json=False)


def _given(context: typer.Context) -> set[str]:
    """Return the parameters that were given on the command line."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }


def compare(
    runs: Annotated[list[str] | None, typer.Argument(help="Names or paths of runs. Default: all runs.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare trained runs in one table, best first.

    Runs are ranked by top-1 on the test split. Runs on other data are listed, but not ranked. p: McNemar's test, image
    by image, against the first run.
    """
    names = list(dict.fromkeys(runs or [path.name for path in list_runs(runs_dir)]))
    if not names:
        raise MissingError(f"no finished run in {runs_dir}", "edgekit train DATA --model efficientnet_lite0")
    opened = [open_run(runs_dir, name) for name in names] if runs else readable_runs(runs_dir)
    print_comparison(opened, json, verbose, leave_out=not runs)


def print_comparison(runs: list[runs.Run], json: bool, verbose: bool = False, leave_out: bool = False) -> None:
    """Print runs as a table or as JSON, and a sentence about the best one; see `rank` for `leave_out`."""
    from edgekit.api.evaluate import rank

    # Read again: a run that was just trained holds records, not plain values.
    rows, sentence = rank([open_run(run.path.parent, run.name) for run in runs], leave_out)
    if not rows:
        raise MissingError("no run that can be read", "edgekit train DATA --model efficientnet_lite0")
    if json:
        console.as_json({"rows": [dataclasses.asdict(row) for row in rows], "sentence": sentence})
        return
    console.table(_COLUMNS, [_cells(row) for row in rows], right=_COLUMNS[3:], short=_SHORT, verbose=verbose)
    if verbose:
        progress.note(
            "p: McNemar's test against the first run; precision, recall, F1: mean of the classes; NLL, ECE: calibrated"
        )
    if not all(row.same_data for row in rows):
        progress.note("other data: another data set or split; the figures are not comparable")
    progress.note(sentence)


def _cells(row: RunComparison) -> list[str]:
    from edgekit.api.evaluate import p_value_text
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


def evaluate(
    run: Run = None,
    data: Data = None,
    threads: Threads = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Evaluate a run on its val and test splits: every class, calibration, uncertainty.

    edgekit train does this at its end. Temperature and dropout are fitted on val; the printed figures are of test.
    Writes evaluation.json, evaluation.npz and pictures/ in the run.
    """
    from edgekit.api.evaluate import evaluate_run

    cores.use_threads(threads)
    opened = choose(runs_dir, run, data)
    evaluation = evaluate_run(opened)
    if json:
        console.as_json(files.load_json(opened.path / "evaluation.json"))
    else:
        _print_classes(evaluation)
    progress.note(f"next: edgekit report {opened.handle}")


def _print_classes(evaluation: Evaluation) -> None:
    from edgekit.reporting.tables import number

    scores = evaluation.splits["test"].scores
    rows = [
        [name, str(c.support), number(c.precision, 1), number(c.recall, 1), number(c.f1, 1)]
        for name, c in zip(evaluation.labels, scores.classes)
    ]
    for name, mean in (("(mean of classes)", scores.macro), ("(weighted by images)", scores.weighted)):
        values = (number(v, 1) for v in (mean.precision, mean.recall, mean.f1))
        rows.append([name, str(scores.samples), *values])
    console.table(_EVALUATE_COLUMNS, rows, right=_EVALUATE_COLUMNS[1:])

"""``edgekit train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli.options import RunsDir, options_of
from edgekit.errors import UsageError
from edgekit.train import models
from edgekit.train.options import TrainOptions

# What --resume leaves to say: everything else stands in the run.
_FREE_TO_RESUME = {"resume", "runs_dir", "log"}


@options_of(TrainOptions, "arch", "flip")
def train(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Argument(help="A folder of images, or a built-in data set: digits.", show_default=False)
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            *("--model", "--models"), help=f"An architecture, or several (a,b,c), of: {', '.join(models.MODELS)}."
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
    from edgekit.train import trackers

    trackers.check(log)
    if resume is not None:
        given = _given(context)
        if others := sorted(given - _FREE_TO_RESUME):
            raise UsageError(
                f"--resume takes everything from the run, also {', '.join(others)}",
                f"edgekit train --resume {resume}, or leave out --resume for a new run",
            )
        from edgekit.cli.training import resume_run

        resume_run(runs_dir, resume, log)
        return
    if data is None:
        raise UsageError("train needs images", "edgekit train DATA --model efficientnet_lite0   (or DATA: digits)")
    wanted = _options(model, data, flip, chosen)
    if name and len(wanted) > 1:
        raise UsageError("several models get a run each, and one --name", "leave out --name")
    from edgekit.cli.training import train_runs

    train_runs(data, wanted, (runs_dir, name), skip_bad, log)


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
        models.preprocess_for(options.arch, options.image_size)
    return wanted

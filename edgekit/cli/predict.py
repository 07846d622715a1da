"""The command ``predict``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import cores, progress
from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir, Threads
from edgekit.errors import UsageError
from edgekit.runs import RUN_FILE, choose_run

if TYPE_CHECKING:
    from edgekit.api.predict import Prediction


def predict(
    run: Annotated[str, typer.Argument(help="Name or path of a run. Default, and -: the newest run.")],
    image: Annotated[
        list[str] | None, typer.Argument(help="Image files, and folders of images.", show_default=False)
    ] = None,
    artifact: Annotated[
        str | None,
        typer.Option(help="Exported model, such as android/model.int8.tflite. Default: the checkpoint."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print.")] = 3,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Uncertainty of each prediction, by Monte Carlo dropout.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Classify images with the checkpoint of a run, or with an exported model.

    Probabilities are calibrated with the temperature that was fitted on val. --uncertainty draws 64 dropout samples of
    the network's head, and adds mean and standard deviation of the predicted class's probability, and the entropy.
    """
    from edgekit.api import predict as api

    cores.use_threads(threads)
    images = list(image or [])
    if Path(run).is_file() or (Path(run).is_dir() and not images and not (Path(run) / RUN_FILE).exists()):
        images, run = [run, *images], "-"
    if not images:
        raise UsageError("no image to classify", f"edgekit predict {quote(run)} IMAGE")
    opened = choose_run(runs_dir, None if run == "-" else run)
    found = api.predict_all(opened, images, artifact, top, uncertainty)
    if json:
        console.as_json([_plain(answer) for answer in found.answers])
    elif found.answers:
        _print(found.answers, top)
        temperature = found.answers[0].temperature
        progress.note(
            f"probabilities: calibrated on val (temperature {temperature:.2f})"
            if temperature
            else f"probabilities: not calibrated; {api.how_to_fit(opened)}"
        )
    found.check()


def _plain(answer: Prediction) -> dict[str, Any]:
    plain = dataclasses.asdict(answer)
    return plain if answer.uncertainty else {key: value for key, value in plain.items() if key != "uncertainty"}


def _print(answers: list[Prediction], top: int) -> None:
    columns = ["image", f"top {top}"]
    rows = [[a.image, ", ".join(f"{t.label} {100 * t.probability:.1f} %" for t in a.top)] for a in answers]
    if answers[0].uncertainty:
        columns += ["mean %", "spread", "entropy (share)"]
        for row, answer in zip(rows, answers):
            assert answer.uncertainty
            row += [f"{100 * answer.uncertainty.mean_probability:.1f}", f"{100 * answer.uncertainty.spread:.1f}"]
            row += [f"{answer.uncertainty.entropy:.2f} ({100 * answer.uncertainty.entropy_share:.0f} %)"]
        progress.note(
            "mean, spread: of the top class's probability over 64 dropout samples; entropy: nats (share of maximum)"
        )
    console.table(columns, rows, right=columns[2:])

"""``edgekit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit import progress
from edgekit.api.predict import answer_of, read_images, run_artifact, run_network, uncertainty_of
from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.runs import choose_run


def predict(
    run: Annotated[str, typer.Argument(help="A run's name or path, or - for the newest.")],
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    artifact: Annotated[
        str | None,
        typer.Option(help="Use an exported file, such as android/model.int8.tflite. Default: the checkpoint."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 3,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Show how doubtful each answer is (dropout at test time).")
    ] = False,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Classify images with a run's model.

    The checkpoint answers, or with --artifact one of the exported files. Probabilities are calibrated
    with the temperature that was fitted on val. --uncertainty runs 64 thinned copies of the
    network's head and adds the mean and the spread of the answer's probability, and the entropy.
    """
    if Path(run).is_file():
        raise UsageError("the first argument is a run, not an image", f"edgekit predict - {run}")
    if uncertainty and artifact is not None:
        raise UsageError(
            "--uncertainty is not for exported files: dropout acts inside the network",
            f"leave --artifact out: edgekit predict {run} IMAGES --uncertainty; or leave --uncertainty out",
        )
    opened = choose_run(runs_dir, None if run == "-" else run)
    from edgekit.api.intermediates import Intermediates
    from edgekit.evaluation import evaluate

    checkpoint, model = Intermediates(opened).trained
    judged = evaluate.load(opened.path, checkpoint.sha256)
    if uncertainty and judged is None:
        raise MissingError(f"the run {opened.name!r} was not judged yet", f"edgekit evaluate {opened.handle}")
    paths, pixels, bad = read_images(image, checkpoint)
    if artifact is None:
        logits, doubt = run_network(model, pixels, checkpoint, judged if uncertainty else None)
    else:
        logits, doubt = run_artifact(opened, artifact, pixels, checkpoint), None
    temperature = judged.temperature if judged else None
    answers = [answer_of(path, scores, checkpoint.labels, top, temperature) for path, scores in zip(paths, logits)]
    if doubt is not None:
        for number, answer in enumerate(answers):
            answer["uncertainty"] = uncertainty_of(doubt, number, int(logits[number].argmax()))
    if json:
        console.as_json(answers)
    elif answers:
        _print(answers, top)
        note = f"calibrated: temperature {temperature:.2f}, fitted on val" if temperature else "not calibrated"
        progress.note(note if judged else f"{note}; edgekit evaluate {opened.handle}")
    if bad:
        raise (
            bad[0] if len(bad) == 1 else DataError("\n  ".join([f"{len(bad)} images cannot be used:", *map(str, bad)]))
        )


def _print(answers: list[dict[str, Any]], top: int) -> None:
    columns = ["image", f"top {top}"]
    cells = [[a["image"], ", ".join(f"{t['label']} {100 * t['probability']:.1f} %" for t in a["top"])] for a in answers]
    if "uncertainty" in answers[0]:
        columns += ["mean %", "spread", "entropy (share)"]
        for row, answer in zip(cells, answers):
            of = answer["uncertainty"]
            row += [f"{100 * of['mean_probability']:.1f}", f"{100 * of['spread']:.1f}"]
            row += [f"{of['entropy']:.2f} ({100 * of['entropy_share']:.0f} %)"]
        progress.note(
            "mean, spread: of the first class over the thinned heads, in %; entropy: in nats, share of the most"
        )
    console.table(columns, cells, right=columns[2:])

"""``edgekit predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import progress, runs
from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir, open_run
from edgekit.errors import DataError, EdgekitError, MissingError, UsageError, unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgekit.records import Checkpoint
    from edgekit.scores import Evaluation
    from edgekit.train.uncertainty import Doubt


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
    opened = open_run(runs_dir, None if run == "-" else run)
    from edgekit.cli.workbench import Workbench
    from edgekit.train import evaluation

    checkpoint, model = Workbench(opened).trained
    judged = evaluation.load(opened.path, checkpoint.sha256)
    if uncertainty and judged is None:
        raise MissingError(f"the run {opened.name!r} was not judged yet", f"edgekit evaluate {opened.handle}")
    paths, pixels, bad = _read(image, checkpoint)
    if artifact is None:
        logits, doubt = _run_network(model, pixels, checkpoint, judged if uncertainty else None)
    else:
        logits, doubt = _run_artifact(opened, artifact, pixels, checkpoint), None
    temperature = judged.temperature if judged else None
    answers = [_answer(path, scores, checkpoint.labels, top, temperature) for path, scores in zip(paths, logits)]
    if doubt is not None:
        for number, answer in enumerate(answers):
            answer["uncertainty"] = _uncertainty(doubt, number, int(logits[number].argmax()))
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


def _read(paths: list[Path], checkpoint: Checkpoint) -> tuple[list[Path], list[np.ndarray], list[EdgekitError]]:
    """The images that can be used, their pixels, and what is wrong with the others."""
    from edgekit.data import images

    used, pixels, bad = [], [], []
    for path in paths:
        try:
            pixels.append(images.fit(images.load_image(path), checkpoint.preprocess))
            used.append(path)
        except EdgekitError as error:
            bad.append(error)
    return used, pixels, bad


def _run_network(
    model: nn.Module, pixels: list[np.ndarray], checkpoint: Checkpoint, judged: Evaluation | None
) -> tuple[Sequence[np.ndarray], Doubt | None]:
    """The logits of each image, and if `judged` is given also what the thinned heads say."""
    import torch

    from edgekit.train import models, uncertainty
    from edgekit.train.finetune import predict_logits

    head = models.head_of(model, checkpoint.arch)
    with uncertainty.features_into(head) as features:
        logits = [predict_logits(model, one[None], checkpoint.preprocess).numpy()[0] for one in pixels]
    doubt = uncertainty.doubt(head, torch.cat(features), judged.dropout) if judged and pixels else None
    return logits, doubt


def _run_artifact(run: runs.Run, name: str, pixels: list[np.ndarray], checkpoint: Checkpoint) -> Sequence[np.ndarray]:
    from edgekit.bench import session
    from edgekit.cli.artifacts import current_artifacts

    known = {a.name: a for a in current_artifacts(run, checkpoint.sha256)}
    if not known:
        raise MissingError("nothing is exported yet", f"edgekit export {run.handle} --target android")
    path, exports = Path(name).resolve(), (run.path / "export").resolve()
    name = path.relative_to(exports).as_posix() if path.is_file() and path.is_relative_to(exports) else name
    if name not in known:
        raise unknown("artifact", name, sorted(known))
    if not pixels:
        return []
    return list(session.infer_here(known[name], run.path / "export" / name, pixels, checkpoint.preprocess))


def _answer(
    path: Path, scores: np.ndarray, labels: tuple[str, ...], top: int, temperature: float | None
) -> dict[str, Any]:
    """One image's best classes. A temperature changes the probabilities, never their order."""
    import numpy as np

    from edgekit.train.metrics import softmax

    probabilities = softmax(scores, temperature or 1.0)
    order = np.argsort(-scores, kind="stable")[:top]
    best = [{"label": labels[i], "probability": round(float(probabilities[i]), 6)} for i in order]
    return {"image": str(path), "top": best, "temperature": temperature}


def _uncertainty(doubt: Doubt, number: int, answer: int) -> dict[str, float]:
    """What the thinned heads say of one image's answer; entropies in nats."""
    found = {
        "mean_probability": doubt.probabilities[number, answer],
        "spread": doubt.spread[number, answer],
        "entropy": doubt.entropy[number],
        "entropy_share": doubt.entropy_share[number],
        "mutual_information": doubt.mutual_information[number],
    }
    return {name: round(float(value), 6) for name, value in found.items()}


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

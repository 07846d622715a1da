"""``edgekit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import store
from edgekit.cli import show
from edgekit.cli.options import Json, RunsDir, open_run
from edgekit.errors import UsageError, unknown

if TYPE_CHECKING:
    import numpy as np

    from edgekit.records import Checkpoint


def predict(
    run: Annotated[str, typer.Argument(help="A run's name or path, or - for the newest.")],
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    artifact: Annotated[
        str | None,
        typer.Option(help="Use an exported file, such as android/model.int8.tflite. Default: the checkpoint."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 3,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Classify images with a run's model.

    The checkpoint answers, or with --artifact one of the exported files.
    """
    opened = open_run(runs_dir, None if run == "-" else run)
    from edgekit.data import images
    from edgekit.train import checkpoints

    checkpoint, model = checkpoints.load(opened.path / "checkpoint.pt")
    pixels = images.load_pixels(image, checkpoint.preprocess)
    if artifact is None:
        from edgekit.train.finetune import predict_logits

        logits = predict_logits(model, pixels, checkpoint.preprocess).numpy()
    else:
        logits = _run_artifact(opened, artifact, pixels, checkpoint)
    answers = [_answer(path, scores, checkpoint.labels, top) for path, scores in zip(image, logits)]
    if json:
        show.as_json(answers)
    else:
        cells = [
            [a["image"], ", ".join(f"{t['label']} {100 * t['probability']:.1f} %" for t in a["top"])] for a in answers
        ]
        show.table(["image", f"top {top}"], cells)


def _run_artifact(run: store.Run, name: str, pixels: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    from edgekit.bench import session
    from edgekit.cli.artifacts import current_artifacts

    known = {a.name: a for a in current_artifacts(run, checkpoint.sha256)}
    if name not in known:
        raise unknown("artifact", name, sorted(known) or ["none; edgekit export --target android"])
    if only := known[name].details.get("only"):
        raise UsageError(f"{name} is for {only}; no runtime here computes it as meant")
    return session.infer_here(known[name], run.path / "export" / name, pixels, checkpoint.preprocess)


def _answer(path: Path, scores: np.ndarray, labels: tuple[str, ...], top: int) -> dict[str, Any]:
    import numpy as np

    shifted = np.exp(scores - scores.max())
    probabilities = shifted / shifted.sum()
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"label": labels[i], "probability": round(float(probabilities[i]), 6)} for i in order]
    return {"image": str(path), "top": best}

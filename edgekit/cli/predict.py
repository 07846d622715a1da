"""``edgekit predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import store
from edgekit.cli import show
from edgekit.cli.options import Json, RunsDir, open_run
from edgekit.errors import DataError, EdgekitError, MissingError, UsageError, unknown

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
    if Path(run).is_file():
        raise UsageError("the first argument is a run, not an image", f"edgekit predict - {run}")
    opened = open_run(runs_dir, None if run == "-" else run)
    from edgekit.cli.workbench import Workbench

    checkpoint, model = Workbench(opened).trained
    paths, pixels, bad = _read(image, checkpoint)
    if artifact is None:
        from edgekit.train.finetune import predict_logits

        logits: Sequence[np.ndarray] = [
            predict_logits(model, one[None], checkpoint.preprocess).numpy()[0] for one in pixels
        ]
    else:
        logits = _run_artifact(opened, artifact, pixels, checkpoint)
    answers = [_answer(path, scores, checkpoint.labels, top) for path, scores in zip(paths, logits)]
    if json:
        show.as_json(answers)
    elif answers:
        cells = [
            [a["image"], ", ".join(f"{t['label']} {100 * t['probability']:.1f} %" for t in a["top"])] for a in answers
        ]
        show.table(["image", f"top {top}"], cells)
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


def _run_artifact(run: store.Run, name: str, pixels: list[np.ndarray], checkpoint: Checkpoint) -> Sequence[np.ndarray]:
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


def _answer(path: Path, scores: np.ndarray, labels: tuple[str, ...], top: int) -> dict[str, Any]:
    import numpy as np

    shifted = np.exp(scores - scores.max())
    probabilities = shifted / shifted.sum()
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"label": labels[i], "probability": round(float(probabilities[i]), 6)} for i in order]
    return {"image": str(path), "top": best}

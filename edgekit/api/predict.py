"""``edgekit predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import runs
from edgekit.errors import EdgekitError, MissingError, unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgekit.evaluation.uncertainty import Doubt
    from edgekit.records import Checkpoint
    from edgekit.scores import Evaluation


def read_images(paths: list[Path], checkpoint: Checkpoint) -> tuple[list[Path], list[np.ndarray], list[EdgekitError]]:
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


def run_network(
    model: nn.Module, pixels: list[np.ndarray], checkpoint: Checkpoint, judged: Evaluation | None
) -> tuple[Sequence[np.ndarray], Doubt | None]:
    """The logits of each image, and if `judged` is given also what the thinned heads say."""
    import torch

    from edgekit.evaluation import uncertainty
    from edgekit.models import build
    from edgekit.models.build import predict_logits

    head = build.head_of(model, checkpoint.arch)
    with uncertainty.features_into(head) as features:
        logits = [predict_logits(model, one[None], checkpoint.preprocess).numpy()[0] for one in pixels]
    doubt = uncertainty.doubt(head, torch.cat(features), judged.dropout) if judged and pixels else None
    return logits, doubt


def run_artifact(run: runs.Run, name: str, pixels: list[np.ndarray], checkpoint: Checkpoint) -> Sequence[np.ndarray]:
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench import session

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


def answer_of(
    path: Path, scores: np.ndarray, labels: tuple[str, ...], top: int, temperature: float | None
) -> dict[str, Any]:
    """One image's best classes. A temperature changes the probabilities, never their order."""
    import numpy as np

    from edgekit.evaluation.metrics import softmax

    probabilities = softmax(scores, temperature or 1.0)
    order = np.argsort(-scores, kind="stable")[:top]
    best = [{"label": labels[i], "probability": round(float(probabilities[i]), 6)} for i in order]
    return {"image": str(path), "top": best, "temperature": temperature}


def uncertainty_of(doubt: Doubt, number: int, answer: int) -> dict[str, float]:
    """What the thinned heads say of one image's answer; entropies in nats."""
    found = {
        "mean_probability": doubt.probabilities[number, answer],
        "spread": doubt.spread[number, answer],
        "entropy": doubt.entropy[number],
        "entropy_share": doubt.entropy_share[number],
        "mutual_information": doubt.mutual_information[number],
    }
    return {name: round(float(value), 6) for name, value in found.items()}

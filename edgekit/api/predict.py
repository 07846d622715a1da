"""Predict: classify images with the checkpoint of a run or with an exported model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from edgekit import progress, runs
from edgekit.errors import DataError, EdgekitError, MissingError, UsageError, unknown
from edgekit.labels import visible

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgekit.evaluation.uncertainty import Doubt
    from edgekit.records import Checkpoint
    from edgekit.scores import Evaluation


_AT_ONCE = 1024  # images whose pixels are in memory at the same time
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}")  # a path folds the two slashes


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of one prediction, from 64 samples of Monte Carlo dropout.

    Attributes:
        mean_probability, spread: mean and standard deviation of the top class's probability.
        entropy: of the mean probabilities, in nats. entropy_share: share of the largest possible entropy.
        mutual_information: between prediction and weights, in nats.
    """

    mean_probability: float
    spread: float
    entropy: float
    entropy_share: float
    mutual_information: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        top: the most probable classes, best first.
        temperature: with which the probabilities were calibrated; None: not calibrated.
    """

    image: str
    top: tuple[ClassProbability, ...]
    temperature: float | None = None
    uncertainty: Uncertainty | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions for several images, and the errors of those that cannot be read or classified."""

    answers: list[Prediction]
    errors: list[EdgekitError]

    def check(self) -> None:
        """Check that all images were classified.

        Raises:
            DataError: images could not be read. EdgekitError: the scores of one are no numbers. The others were
                classified.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            kinds = {type(error) for error in self.errors}
            kind = kinds.pop() if len(kinds) == 1 else DataError
            raise kind("\n  ".join([f"{len(self.errors)} images were not classified:", *map(str, self.errors)]))


def predict(
    run: runs.Run | str | Path | None,
    images: Sequence[str | Path],
    *,
    artifact: str | None = None,
    top: int = 3,
    uncertainty: bool = False,
    runs_dir: str | Path = "runs",
) -> list[Prediction]:
    """Classify images with the checkpoint of a run, or with an exported model.

    Args:
        run: a run, its name or path; None for the newest.
        images: image files, and folders of images.
        artifact: name of an exported model, such as "android/model.int8.tflite"; None for the checkpoint.
        top: number of classes in each prediction.
        uncertainty: add the uncertainty of each prediction, by Monte Carlo dropout; needs the checkpoint.
        runs_dir: the folder of the runs.

    Returns:
        One prediction per image, with probabilities calibrated by the temperature that was fitted on val.

    Raises:
        DataError: an image cannot be read. UsageError: no such artifact. MissingError: nothing is exported.

    Example:
        >>> [answer] = edgekit.predict("tour", [image], top=2)
        >>> len(answer.top), answer.top[0].probability >= answer.top[1].probability
        (2, True)
    """
    found = predict_all(runs.choose_run(runs_dir, run), images, artifact, top, uncertainty)
    found.check()
    return found.answers


def predict_all(
    run: runs.Run, images: Sequence[str | Path], artifact: str | None, top: int, uncertainty: bool
) -> Predictions:
    """Classify the images that can be read, and return the errors of the others; memory holds `_AT_ONCE` of them."""
    import numpy as np

    from edgekit.api.intermediates import Intermediates
    from edgekit.evaluation import evaluate

    if uncertainty and artifact is not None:
        raise UsageError(
            "--uncertainty needs the checkpoint: exported models have no dropout",
            "leave out --artifact, or leave out --uncertainty",
        )
    paths, errors = _files(images)
    found = Predictions([], errors)
    checkpoint, model = Intermediates(run).trained
    evaluation = evaluate.load(run.path, checkpoint.sha256)
    if uncertainty:
        _check_dropout(run, model, evaluation)
    temperature = evaluation.temperature if evaluation else None
    with progress.bar("predicting") as update:
        for start in range(0, max(1, len(paths)), _AT_ONCE):
            used, pixels, bad = _read(paths[start : start + _AT_ONCE], checkpoint)
            errors += bad
            doubt = None
            if artifact is None:
                logits, doubt = _run_network(model, pixels, checkpoint, evaluation if uncertainty else None)
            else:
                logits = _run_artifact(run, artifact, pixels, checkpoint)
            for number, (path, scores) in enumerate(zip(used, logits)):
                if not np.isfinite(scores).all():
                    errors.append(_not_finite(run, artifact, path))
                    continue
                answer = _answer(path, scores, checkpoint.labels, top, temperature)
                if doubt is not None:
                    answer = replace(answer, uncertainty=_uncertainty(doubt, number, int(scores.argmax())))
                found.answers.append(answer)
            update(min(start + _AT_ONCE, len(paths)), len(paths))
    return found


def _check_dropout(run: runs.Run, model: nn.Module, evaluation: Evaluation | None) -> None:
    """Raise an error unless dropout was fitted to the head of the network."""
    from edgekit.models import build

    if build.linear_head(model, str(run.info.arch)) is None:
        kept = run.info.source is not None and run.info.source.as_is
        raise UsageError(
            "--uncertainty drops inputs of the last linear layer, and "
            + ("this run keeps its ONNX file as it is" if kept else f"{run.info.arch} does not end in one"),
            "leave out --uncertainty",
        )
    if evaluation is None:
        raise MissingError(f"the run {run.name!r} was not evaluated yet", how_to_fit(run))
    if evaluation.dropout is None:
        raise MissingError(f"no dropout was fitted for {run.name!r}: it was evaluated without val", how_to_fit(run))


def how_to_fit(run: runs.Run) -> str:
    """Return what to type for a temperature and a dropout rate that are fitted on val."""
    from edgekit.data import dataset

    where = ", where DIR has val/<class>/<image> and test/<class>/<image>"
    if run.info.source is None:
        return run.evaluate_command
    if run.info.data is None:
        return run.evaluate_command + where
    return run.evaluate_command if dataset.of_run(run).split("val") else f"import it again with --data DIR{where}"


def _not_finite(run: runs.Run, artifact: str | None, path: Path) -> EdgekitError:
    hint = f"edgekit evaluate {run.handle}" if artifact is None else f"edgekit benchmark {run.handle} counts them"
    return EdgekitError(f"the scores of {artifact or run.name} for {path} are NaN or infinite", hint)


def _files(images: Sequence[str | Path]) -> tuple[list[Path], list[EdgekitError]]:
    """Return the image files that are meant, those of folders in order, and an error for each that cannot be one."""
    from edgekit.data import listing
    from edgekit.data.formats import EXTENSIONS

    paths: list[Path] = []
    errors: list[EdgekitError] = []
    for image in images:
        path = Path(image)
        if _ADDRESS.match(str(image)) and not path.exists():
            address = _ADDRESS.sub(r"\1://", str(image))
            errors.append(
                UsageError(
                    f"{address}: edgekit reads files, not addresses",
                    f"download it first: curl -LO {quote(address)}",
                )
            )
        elif path.is_dir():
            found = listing.find_any(path)
            paths += [path / image.path for image in found.files]
            if not found.files:
                errors.append(
                    DataError(f"{path}: no images in this folder", f"edgekit reads {', '.join(sorted(EXTENSIONS))}")
                )
            elif found.left_out:
                progress.note(f"{path}: {len(found.files)} images")
                for left in found.counted:
                    progress.note(listing.sentence(left))
        else:
            paths.append(path)
    return paths, errors


def _read(paths: list[Path], checkpoint: Checkpoint) -> tuple[list[Path], list[np.ndarray], list[EdgekitError]]:
    """Return the images that can be read, their pixels, and the errors of the others."""
    from edgekit.data import images, values

    preprocess = checkpoint.preprocess
    used, pixels, bad = [], [], []
    for path in paths:
        try:
            content, fitted = images.examine(path, lambda image: images.fit(image, preprocess), preprocess)
            if problem := values.misread(content, preprocess.pixel_range):
                progress.warn(f"{visible(str(path))}: {problem}")
            pixels.append(fitted)
            used.append(path)
        except EdgekitError as error:
            bad.append(error)
    return used, pixels, bad


def _run_network(
    model: nn.Module, pixels: list[np.ndarray], checkpoint: Checkpoint, judged: Evaluation | None
) -> tuple[Sequence[np.ndarray], Doubt | None]:
    """Return the logits of each image, and its uncertainty if `judged` is given."""
    import torch

    from edgekit.evaluation import uncertainty
    from edgekit.models import build
    from edgekit.models.build import predict_logits

    if judged is None or judged.dropout is None:
        return [predict_logits(model, one[None], checkpoint.preprocess).numpy()[0] for one in pixels], None
    head = build.linear_head(model, checkpoint.arch)
    assert head is not None  # dropout was fitted to its inputs
    with uncertainty.features_into(head) as features:
        logits = [predict_logits(model, one[None], checkpoint.preprocess).numpy()[0] for one in pixels]
    return logits, uncertainty.doubt(head, torch.cat(features), judged.dropout) if pixels else None


def _run_artifact(run: runs.Run, name: str, pixels: list[np.ndarray], checkpoint: Checkpoint) -> Sequence[np.ndarray]:
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


def _answer(path: Path, scores: np.ndarray, labels: tuple[str, ...], top: int, temperature: float | None) -> Prediction:
    """Return the top classes of one image. A temperature changes the probabilities, never their order."""
    import numpy as np

    from edgekit.evaluation.metrics import softmax

    probabilities = softmax(scores, temperature or 1.0)
    order = np.argsort(-scores, kind="stable")[:top]
    best = tuple(ClassProbability(labels[i], round(float(probabilities[i]), 6)) for i in order)
    return Prediction(str(path), best, temperature)


def _uncertainty(doubt: Doubt, number: int, answer: int) -> Uncertainty:
    """Return the uncertainty of one image; `answer` is the predicted class."""
    values = (
        doubt.probabilities[number, answer],
        doubt.spread[number, answer],
        doubt.entropy[number],
        doubt.entropy_share[number],
        doubt.mutual_information[number],
    )
    return Uncertainty(*(round(float(value), 6) for value in values))

"""Evaluation of a checkpoint on val and test.

``evaluation.npz`` holds the raw logits, ``evaluation.json`` the derived metrics. Temperature and dropout
are fitted on val; test is used for reporting only. torch is imported to evaluate, but not to load.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import files
from edgekit.config import from_table
from edgekit.data.images import load_batches, load_pixels
from edgekit.errors import DataError, EdgekitError, raise_if_not_damage
from edgekit.evaluation import metrics, temperature
from edgekit.records import Checkpoint, DatasetIndex
from edgekit.scores import Evaluation, Mistake, SplitScores

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgekit.evaluation.uncertainty import Doubt


SCHEMA = 1
FILE, RAW_FILE = "evaluation.json", "evaluation.npz"
MOST_MISTAKES = 24
SHOWN_SIDE = 96  # pixels of the picture of a mistake
_BATCH = 32
Progress = Callable[[int, int], None]


def evaluate(
    checkpoint: Checkpoint, model: nn.Module, data: DatasetIndex, progress: Progress | None = None
) -> Evaluation:
    """Evaluate `model`, which holds the weights of the checkpoint, on val, if there is one, and test.

    Keeps the features of all val and test images in memory, as float32.

    Args:
        progress: called with (images done, images in all).
    Raises:
        EdgekitError: the outputs of the network are not finite.
    """
    import torch

    from edgekit.evaluation import uncertainty
    from edgekit.models import build

    head = build.linear_head(model, checkpoint.arch)
    sizes = {name: images for name in ("val", "test") if (images := len(data.split(name)))}
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if progress:
            progress(done, sum(sizes.values()))

    raw: dict[str, Any] = {}
    features: dict[str, list[torch.Tensor]] = {}
    for name in sizes:
        raw[f"{name}_logits"], features[name] = _run(checkpoint, model, head, data, name, count)
        raw[f"{name}_labels"] = np.array([s.label for s in data.split(name)], np.int64)
    fitted, dropout = None, None
    if "val" in sizes:
        fitted = temperature.fit_temperature(raw["val_logits"], raw["val_labels"])
        if head is not None:
            dropout = uncertainty.fit(head, torch.cat(features["val"]), raw["val_labels"])
    splits = {}
    for name in sizes:
        doubt = None
        if head is not None and dropout is not None:
            doubt = uncertainty.doubt(head, torch.cat(features[name]), dropout)
        splits[name] = _judge(raw[f"{name}_logits"], raw[f"{name}_labels"], fitted, doubt)
    mistakes = _mistakes(data, metrics.softmax(raw["test_logits"], fitted or 1.0), raw["test_labels"])
    raw["mistake_pixels"] = _pictures([data.root / m.path for m in mistakes], checkpoint)
    return Evaluation(checkpoint.sha256, checkpoint.labels, fitted, dropout, splits, mistakes, raw)


def save(run_path: Path, evaluation: Evaluation) -> None:
    """Write ``evaluation.npz``, then ``evaluation.json``."""
    with files.writing(run_path / RAW_FILE) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **evaluation.raw)
    described = {f.name: getattr(evaluation, f.name) for f in dataclasses.fields(evaluation) if f.name != "raw"}
    document = {"schema": SCHEMA, "raw_sha256": files.sha256_file(run_path / RAW_FILE), **described}
    files.save_document(run_path / FILE, document)


def load(run_path: Path, checkpoint_sha256: str) -> Evaluation | None:
    """Load the evaluation of these weights from a run. Returns None if there is none.

    Raises:
        DataError: a file is damaged. StorageError: a file cannot be read, or a newer edgekit wrote it.
    """
    path, raw_path = run_path / FILE, run_path / RAW_FILE
    if not path.is_file():
        return None
    document = files.load_document(path, SCHEMA, "checkpoint_sha256", "raw_sha256", "temperature", "dropout", "splits")
    if document["checkpoint_sha256"] != checkpoint_sha256:
        return None
    if not raw_path.is_file() or files.sha256_file(raw_path) != document["raw_sha256"]:
        raise DataError(f"{raw_path} does not belong to {path.name}", "run: edgekit evaluate")
    try:
        with np.load(raw_path, allow_pickle=False) as values:
            raw = {name: values[name] for name in values.files}
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise_if_not_damage(error, raw_path)
        raise DataError(f"{raw_path} is damaged: {error}", "run: edgekit evaluate") from error
    described = {key: value for key, value in document.items() if key not in ("schema", "raw_sha256")}
    try:
        evaluation = from_table({**described, "raw": raw}, Evaluation, str(path))
    except EdgekitError as error:
        why = error.message.removeprefix(f"{path}: ")
        raise DataError(f"{path} is damaged: {why}", "run: edgekit evaluate") from error
    _check_raw(evaluation, raw_path)
    return evaluation


def _check_raw(evaluation: Evaluation, path: Path) -> None:
    """Check names, shapes and dtypes of the raw arrays.

    Raises:
        DataError: they do not fit the metrics.
    """
    raw, classes = evaluation.raw, len(evaluation.labels)
    wanted = {f"{split}_{kind}" for split in evaluation.splits for kind in ("logits", "labels")} | {"mistake_pixels"}
    fits = wanted <= raw.keys() and raw["mistake_pixels"].dtype == np.uint8
    fits = fits and raw["mistake_pixels"].shape[::3] == (len(evaluation.mistakes), 3)
    for split in evaluation.splits:
        count = evaluation.splits[split].scores.samples
        fits = fits and raw[f"{split}_logits"].shape == (count, classes) and raw[f"{split}_labels"].shape == (count,)
    if not fits:
        raise DataError(f"{path} is damaged: its arrays do not fit evaluation.json", "run: edgekit evaluate")


def _run(
    checkpoint: Checkpoint,
    model: nn.Module,
    head: nn.Module | None,
    data: DatasetIndex,
    split: str,
    count: Callable[[int], None],
) -> tuple[np.ndarray, list[torch.Tensor]]:
    """Return logits float32 (N, classes) of one split, and the batches of inputs of the head; [] without a head."""
    from edgekit.evaluation.uncertainty import features_into
    from edgekit.models.build import predict_logits

    paths = [data.root / s.path for s in data.split(split)]
    logits = []
    features: list[torch.Tensor] = []
    with ExitStack() as watching:
        if head is not None:
            features = watching.enter_context(features_into(head))
        for pixels in load_batches(paths, checkpoint.preprocess, _BATCH):
            logits.append(predict_logits(model, pixels, checkpoint.preprocess).numpy())
            count(len(pixels))
    found = np.concatenate(logits)
    if not np.isfinite(found).all():
        raise EdgekitError(
            f"outputs of {checkpoint.arch} are not finite on the {split} split", "train again with a lower --lr"
        )
    return found, features


def _judge(logits: np.ndarray, labels: np.ndarray, fitted: float | None, doubt: Doubt | None) -> SplitScores:
    calibrated = metrics.softmax(logits, fitted or 1.0)
    measures = {"confidence": -calibrated.max(1)}
    if doubt is not None:
        measures["entropy"] = doubt.entropy
        measures["spread"] = doubt.spread[np.arange(len(logits)), logits.argmax(1)]
        measures["mutual_information"] = doubt.mutual_information
    found = {name: metrics.auroc(values, logits.argmax(1) != labels) for name, values in measures.items()}
    return SplitScores(
        scores=metrics.scores(logits, labels),
        before=metrics.calibration(metrics.softmax(logits), labels),
        after=None if fitted is None else metrics.calibration(calibrated, labels),
        dropout=None if doubt is None else metrics.calibration(doubt.probabilities, labels),
        error_auroc={name: value for name, value in found.items() if value is not None},
    )


def _mistakes(data: DatasetIndex, probabilities: np.ndarray, labels: np.ndarray) -> tuple[Mistake, ...]:
    """Return the misclassified test images, the most confident ones first."""
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES]
    samples = data.split("test")
    return tuple(Mistake(samples[n].path, int(labels[n]), int(predicted[n]), float(confidence[n])) for n in worst)


def _pictures(paths: list[Path], checkpoint: Checkpoint) -> np.ndarray:
    """Return the network's inputs, scaled to at most `SHOWN_SIDE` pixels: uint8 (N, side, side, 3)."""
    from PIL import Image

    pixels = load_pixels(paths, checkpoint.preprocess)
    side = min(SHOWN_SIDE, checkpoint.preprocess.image_size)
    shown = np.empty((len(pixels), side, side, 3), np.uint8)
    for number, image in enumerate(pixels):
        shown[number] = np.asarray(Image.fromarray(image).resize((side, side)))
    return shown

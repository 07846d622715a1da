"""What the quantized files of one run hold: decided once, kept in the run, used again."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

from edgekit import files, progress
from edgekit.quantization import CalibrationTable, LayerWeights, QuantizedModel, QuantScheme

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench


_MOST_SCORES = 500_000  # for two numbers


def quantized(bench: Workbench) -> QuantizedModel:
    """The weights for INT8 activations."""
    if "rounding" in bench.recipe.steps and "bias" not in bench.recipe.steps:
        progress.note(
            'recovery: "rounding" moves the mean of every output; without "bias" it can lose more than it gains'
        )
    return _recovered(bench, bench.table, ".symmetric.npz" if bench.symmetric else ".npz", bench.symmetric)


def weights_only(bench: Workbench) -> QuantizedModel:
    """The weights for float32 activations; 16 bits are as good as these."""
    return _recovered(bench, dataclasses.replace(bench.table, ranges={}), ".weights.npz", False)


def _recovered(bench: Workbench, table: CalibrationTable, suffix: str, symmetric: bool) -> QuantizedModel:
    """The weights under which the network loses least when the tensors of `table` are rounded."""
    from edgekit.quant import keep, recover

    path = bench.table_path.with_suffix(suffix)
    made_by = {"table": files.sha256_file(bench.table_path), "checkpoint": bench.checkpoint.sha256}
    if (kept := keep.load(path, made_by)) is not None:
        return QuantizedModel(bench.table, kept[0], symmetric, bench.recipe.steps, kept[1])
    images = bench.calibration_images(bench.recipe.recovery_samples if bench.recipe.steps else 1)
    with progress.bar("recovering accuracy") as update:
        scheme = QuantScheme(symmetric, everywhere=True)
        model = recover.recover(bench.folded, table, bench.recipe, scheme, images, update)
    model = dataclasses.replace(model, table=bench.table)
    if bench.recipe.steps:
        keep.save(path, model, made_by)
        progress.note(f"recovery: {', '.join(bench.recipe.steps)} on up to {len(images)} images")
    return model


def first_layer(bench: Workbench, rounded: bool, rewritten: dict[str, LayerWeights]) -> LayerWeights | None:
    """The first layer on pixels less 255 times their mean, as trained or rounded; None if it cannot normalize.

    Args:
        rewritten: of the quantized model whose file it is for.
    """
    from edgekit.quant import keep, litert_io, pixels, placement

    preprocess, trained = bench.checkpoint.preprocess, pixels.exported(bench.folded)
    if trained is None or not litert_io.begins_with(bench.tflite, trained):
        return None
    folded = placement.with_weights(bench.folded, rewritten)
    exact = pixels.trained(folded, preprocess)
    if not rounded or exact is None:
        return exact
    digest = hashlib.sha256(exact.weight.tobytes() + (b"" if exact.bias is None else exact.bias.tobytes())).hexdigest()
    path = bench.table_path.with_suffix(f".pixels.{digest[:8]}.npz" if rewritten else ".pixels.npz")
    made_by = {"table": files.sha256_file(bench.table_path), "checkpoint": bench.checkpoint.sha256, "first": digest}
    if (kept := keep.load(path, made_by)) is not None:
        return next(iter(kept[0].values()))
    images = bench.calibration_images(bench.recipe.recovery_samples if bench.recipe.steps else 1)
    decided = pixels.decided(folded, preprocess, bench.recipe, images)
    if decided is not None:
        keep.save(path, QuantizedModel(bench.table, {"first": decided}), made_by)
    return decided


def score_calibration(bench: Workbench) -> tuple[float, float] | None:
    """Platt scaling on val; None, and a note, where the run was never evaluated."""
    from edgekit.train import evaluation, platt

    judged = evaluation.load(bench.run.path, bench.checkpoint.sha256)
    if judged is None:
        progress.note(
            f"no score calibration in the files: it needs edgekit evaluate {bench.run.handle}, then export again"
        )
        return None
    most = max(1, _MOST_SCORES // len(bench.checkpoint.labels))
    return platt.fit(judged.raw["val_logits"][:most], judged.raw["val_labels"][:most])

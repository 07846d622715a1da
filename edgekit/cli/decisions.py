"""What the quantized files of one run hold: decided once, kept in the run, used again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgekit import store
from edgekit.cli import show
from edgekit.quantization import CalibrationTable, LayerWeights, QuantizedModel, QuantScheme

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench


def quantized(bench: Workbench) -> QuantizedModel:
    """The weights for INT8 activations."""
    if "rounding" in bench.recipe.steps and "bias" not in bench.recipe.steps:
        show.note('recovery: "rounding" moves the mean of every output; without "bias" it can lose more than it gains')
    return _recovered(bench, bench.table, ".symmetric.npz" if bench.symmetric else ".npz", bench.symmetric)


def weights_only(bench: Workbench) -> QuantizedModel:
    """The weights for float32 activations; 16 bits are as good as these."""
    return _recovered(bench, dataclasses.replace(bench.table, ranges={}), ".weights.npz", False)


def _recovered(bench: Workbench, table: CalibrationTable, suffix: str, symmetric: bool) -> QuantizedModel:
    """The weights under which the network loses least when the tensors of `table` are rounded."""
    from edgekit.quant import keep, recover

    path = bench.table_path.with_suffix(suffix)
    made_by = {"table": store.sha256_file(bench.table_path), "checkpoint": bench.checkpoint.sha256}
    if (kept := keep.load(path, made_by)) is not None:
        return QuantizedModel(bench.table, kept, symmetric, bench.recipe.steps)
    images = bench.calibration_images(bench.recipe.recovery_samples if bench.recipe.steps else 1)
    with show.bar("recovering accuracy") as update:
        scheme = QuantScheme(symmetric, everywhere=True)
        model = recover.recover(bench.folded, table, bench.recipe, scheme, images, update)
    model = dataclasses.replace(model, table=bench.table)
    if bench.recipe.steps:
        keep.save(path, model, made_by)
        show.note(f"recovery: {', '.join(bench.recipe.steps)} on up to {len(images)} images")
    return model


def first_layer(bench: Workbench, precision: str) -> LayerWeights | None:
    """The first layer on pixels less 255 times their mean, as a file of this precision has it; None if it cannot be."""
    from edgekit.quant import pixels

    preprocess = bench.checkpoint.preprocess
    layers = iter(bench.quantized.layers.values()) if precision == "int8" else iter(())
    stays_float = (first := next(layers, None)) is not None and first.scales is None
    if precision in ("fp32", "fp16") or stays_float:
        return pixels.trained(bench.folded, preprocess)
    images = bench.calibration_images(bench.recipe.recovery_samples if bench.recipe.steps else 1)
    return pixels.decided(bench.folded, preprocess, bench.recipe, images)

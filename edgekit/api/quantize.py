"""Quantize: measure the error of INT8 layer by layer, and read and convert calibration tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import config, files, progress
from edgekit.api.run import choose
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationRecipe, CalibrationTable
from edgekit.runs import Run
from edgekit.targets import base

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.quant.debug import Inspection


SCHEMA = 1
_BATCH = 8


@dataclass(frozen=True)
class Debugged:
    """Result of ``edgekit quant debug``: layers, JSON document, and the path of both files without suffix."""

    found: Inspection
    document: dict[str, Any]
    path: Path


def _stem(target: str, recipe: str) -> str:
    """Return the name of both files, with the recipe unless it is the default one."""
    return f"debug-{target}" if recipe == "default" else f"debug-{target}-{recipe}"


def debug(
    run: Run | str | Path | None, target: str, recipe: str, images: int, runs_dir: Path, data: Path | None = None
) -> Debugged:
    """Measure the quantization error of every layer; write ``quant/debug-<target>.svg`` and ``.json``.

    Args:
        images: number of calibration images to compare on.
    """
    resolved = base.resolve(target)
    base.precisions(resolved, ("int8",))
    chosen = config.load_recipe(recipe)
    opened = choose(runs_dir, run, data)
    from edgekit.api.intermediates import Intermediates
    from edgekit.reporting import pictures, svg

    intermediates = Intermediates(opened, chosen)
    found = _inspect(intermediates, resolved, images)
    document = _document(intermediates, resolved, found)
    path = opened.path / "quant" / _stem(resolved.name, chosen.name)
    with progress.working("drawing"):
        picture = svg.standalone(pictures.inspection(document))
    files.save_bytes(path.with_name(f"{path.name}.svg"), picture.encode())
    files.save_json(path.with_name(f"{path.name}.json"), document)
    return Debugged(found, document, path)


def _inspect(intermediates: Intermediates, resolved: base.Resolved, images: int) -> Inspection:
    from edgekit.quant import debug as debugging
    from edgekit.quant import observers

    observers.check(intermediates.recipe.observer)
    native = LITERT_SCHEME if resolved.target.runtime == "litert" else TENSORRT_SCHEME
    batches = intermediates.calibration_images(images).split(_BATCH)
    with progress.bar("quantizing one layer at a time") as update:
        return debugging.inspect(intermediates.folded, intermediates.quantized, native, batches, update)


def _document(intermediates: Intermediates, resolved: base.Resolved, found: Inspection) -> dict[str, Any]:
    """Return the contents of debug-<target>.json."""
    import dataclasses

    table = intermediates.table
    return {
        "schema": SCHEMA,
        "run": intermediates.run.name,
        "target": resolved.name,
        "checkpoint_sha256": intermediates.checkpoint.sha256,
        "calibration": {"recipe": table.recipe, "observer": table.observer, "samples": table.samples},
        "steps": intermediates.quantized.steps,
        **dataclasses.asdict(found),
    }


def open_intermediates(
    runs_dir: Path, run: str | None, recipe: CalibrationRecipe, data: Path | None = None
) -> Intermediates:
    """Return the intermediates of a run for a recipe; `data` is the folder that its images are in now."""
    opened = choose(runs_dir, run, data)
    from edgekit.api.intermediates import Intermediates
    from edgekit.quant import observers

    observers.check(recipe.observer)
    return Intermediates(opened, recipe)


def other_table(name: str, runs_dir: Path, recipe: CalibrationRecipe) -> CalibrationTable:
    """Return the calibration table in a .json file, or of a run."""
    if not name.endswith(".json"):
        return open_intermediates(runs_dir, name, recipe).table
    from edgekit.api.intermediates import load_table

    return load_table(Path(name))[1]


def as_text(value: Any) -> str:
    """Return JSON text of plain values and records."""
    return json.dumps(value, indent=1, default=vars, ensure_ascii=False) + "\n"


def _as_json(intermediates: Intermediates) -> str:
    """Return the text of the file in the run."""
    assert intermediates.table
    return intermediates.table_path.read_text(encoding="utf-8")


def _as_tensorrt(intermediates: Intermediates) -> str:
    from edgekit.quant import formats

    text = formats.tensorrt_cache(intermediates.table, intermediates.onnx_naming.tensors, TENSORRT_SCHEME)
    progress.note(
        f"for {intermediates.onnx}; its first line names the version of TensorRT, which must match (not verified)"
    )
    return text


def _as_litert(intermediates: Intermediates) -> str:
    from edgekit.quant import formats, litert

    text = as_text(
        formats.litert_result(
            litert.spans(intermediates.tflite, intermediates.table, intermediates.tflite_naming), LITERT_SCHEME
        )
    )
    progress.note(f"for {intermediates.tflite}")
    return text


FORMATS: dict[str, Callable[[Intermediates], str]] = {"json": _as_json, "tensorrt": _as_tensorrt, "litert": _as_litert}


def table_changes(ours: CalibrationTable, theirs: CalibrationTable) -> list[dict[str, Any]]:
    """Return the ranges that differ, largest difference first."""
    from edgekit.quant import formats

    changes = [vars(change) for change in formats.diff(ours, theirs)]
    same = len({**ours.ranges, **theirs.ranges}) - len(changes)
    progress.note(f"{len(changes)} ranges differ, {same} are equal ({ours.observer}; other: {theirs.observer})")
    return [{**change, "ratio": _finite(change["ratio"])} for change in changes]


def _finite(ratio: float) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return ratio if abs(ratio) < float("inf") else None

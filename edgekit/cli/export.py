"""``edgekit export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, store
from edgekit.cli import show
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import GateError, UsageError
from edgekit.quantization import check_parity_mode
from edgekit.records import PRECISIONS
from edgekit.targets import base
from edgekit.train import models

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench


MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Points of top-1 that INT8 may cost on val: search the cheapest recipe that keeps it, then the layers "
        "that must stay in floating point. Exit status 7 if none keeps it.",
        show_default=False,
    ),
]
CalibrationData = Annotated[
    Path | None,
    typer.Option(help="A folder of unlabelled images to calibrate with. Default: the train split.", metavar="DIR"),
]
Parity = Annotated[
    str, typer.Option(help="best: each target the scheme that suits it. strict: the same integers for all.")
]


def export(
    run: Run = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help=f"A family ({', '.join(base.FAMILIES)}), a device (edgekit devices), or a .toml file.",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help=f"Only these: {', '.join(PRECISIONS)}.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"Calibration: {', '.join(config.names('calibration'))}, or a .toml file. Default: default.",
            show_default=False,
        ),
    ] = None,
    max_drop: MaxDrop = None,
    calibration_data: CalibrationData = None,
    parity: Parity = "best",
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the models that a target runs.

    jetson: FP32, typed FP16 and QDQ INT8 ONNX with build.sh, which builds the TensorRT engines on the device.
    android, ios, rpi: FP32, FP16 and INT8 .tflite. desktop: ONNX. All INT8 files come from one calibration, kept in
    the run. Repeat --target and --precision for several.
    """
    if not target:
        raise UsageError(
            "export needs a target", f"edgekit export --target jetson   (known: {', '.join(base.FAMILIES)})"
        )
    wanted = [(r, base.precisions(r, tuple(precision or ()))) for r in map(base.resolve, target)]
    chosen = config.load_recipe(recipe or "default")
    check_parity_mode(parity)
    opened = open_run(runs_dir, run)
    wanted = [(r, _writable(opened, r, able, precision)) for r, able in wanted]
    from edgekit.cli.workbench import Workbench
    from edgekit.quant import observers, recover

    observers.check(chosen.observer)
    recover.check(chosen.steps)
    bench = Workbench(opened, chosen, parity == "strict", calibration_data)
    recipes = (recipe,) if recipe else ()
    each = [_export(bench, r, precisions, max_drop, recipes) for r, precisions in wanted]
    if json:
        show.as_json([manifest for manifest, _ in each])
    else:
        show.note(f"next: edgekit benchmark {opened.handle}")
    if over := "; ".join(text for _, text in each if text):
        raise GateError(
            f"no INT8 model was shown to keep {max_drop:g} points; the nearest was written: {over}",
            f"edgekit quant debug {opened.handle}, or a higher --max-drop, or --precision fp16",
        )


def _export(
    bench: Workbench,
    resolved: base.Resolved,
    precisions: tuple[str, ...],
    max_drop: float | None,
    recipes: tuple[str, ...],
) -> tuple[dict[str, Any], str]:
    """Write one target; returns its manifest, and what misses the budget, if there is one and it does."""
    from edgekit.cli import artifacts, search

    if max_drop is None or "int8" not in precisions:
        return artifacts.export_target(bench, resolved, precisions), ""
    found, trial, kept = search.Search(bench, resolved, recipes or search.RECIPES).run(max_drop)
    missed = "" if kept else f"{resolved.name}: {search.described(trial)}"
    return artifacts.export_target(found, resolved, precisions), missed


def _writable(
    run: store.Run, resolved: base.Resolved, able: tuple[str, ...], asked: list[str] | None
) -> tuple[str, ...]:
    """`able` without what edgekit cannot write of this run's network, and a note that says so."""
    arch = str(run.meta.get("arch"))
    chosen = models.precisions(arch, able, tuple(asked or ()))
    if left := [p for p in able if p not in chosen]:
        show.note(f"{resolved.name}: without {', '.join(left)}, which edgekit cannot make of {arch} yet")
    return chosen

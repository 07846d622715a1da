"""``edgekit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit import config, store
from edgekit.cli import show
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import UsageError
from edgekit.records import PRECISIONS
from edgekit.targets import base
from edgekit.train import models


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
        str, typer.Option(help=f"Calibration: {', '.join(config.names('calibration'))}, or a .toml file.")
    ] = "default",
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the models that a target runs.

    jetson: FP32, typed FP16 and QDQ INT8 ONNX with build.sh, which builds the TensorRT engines
    on the device. android, ios, rpi: FP32, FP16 and INT8 .tflite. desktop: ONNX. All INT8
    files come from one calibration, kept in the run. Repeat --target and --precision for several.
    """
    if not target:
        raise UsageError(
            "export needs a target", f"edgekit export --target jetson   (known: {', '.join(base.FAMILIES)})"
        )
    wanted = [(r, base.precisions(r, tuple(precision or ()))) for r in map(base.resolve, target)]
    chosen = config.load_recipe(recipe)
    opened = open_run(runs_dir, run)
    wanted = [(r, _writable(opened, r, able, precision)) for r, able in wanted]
    from edgekit.cli.artifacts import export_target
    from edgekit.cli.workbench import Workbench
    from edgekit.quant import observers

    observers.check(chosen.observer)
    bench = Workbench(opened, chosen)
    manifests = [export_target(bench, resolved, precisions) for resolved, precisions in wanted]
    if json:
        show.as_json(manifests)
    else:
        show.note(f"next: edgekit benchmark {opened.handle}")


def _writable(
    run: store.Run, resolved: base.Resolved, able: tuple[str, ...], asked: list[str] | None
) -> tuple[str, ...]:
    """`able` without what edgekit cannot write of this run's network, and a note that says so."""
    arch = str(run.meta.get("arch"))
    chosen = models.precisions(arch, able, tuple(asked or ()))
    if left := [p for p in able if p not in chosen]:
        show.note(f"{resolved.name}: without {', '.join(left)}, which edgekit cannot make of {arch} yet")
    return chosen

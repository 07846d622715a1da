"""The command ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit import config, cores, progress
from edgekit.cli import console
from edgekit.cli.options import Data, Json, Run, RunsDir, Threads
from edgekit.errors import UsageError
from edgekit.records import PRECISIONS
from edgekit.targets import base


def export(
    run: Run = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help=f"Family of devices ({', '.join(base.FAMILIES)}), device of edgekit devices, or .toml file; repeat it "
            "for several.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision", "-p", help=f"Precision: {', '.join(PRECISIONS)}; repeat it for several.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"Calibration recipe: {', '.join(config.names('calibration'))}, or a .toml file. Default: default.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of top-1 by INT8, in percentage points on val. Searches the cheapest recipe that keeps "
            "it, then the layers that must stay in floating point. Exit status 7 if none keeps it.",
            show_default=False,
        ),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            help="Unlabelled images for calibration: a folder, archive or shards. Default: the train split.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    parity: Annotated[
        str, typer.Option(help="best: quantize as suits each target. strict: the same integers on all targets.")
    ] = "best",
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Input of LiteRT models: uint8 (RGB bytes, normalized inside), int8 (RGB bytes minus 128), float "
            "(normalized outside). Default: uint8; float with --parity strict.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[str, typer.Option(help="Output of INT8 LiteRT models: float, int8 or uint8.")] = "float",
    about: Annotated[
        Path | None,
        typer.Option(
            help=".toml file with title, description, version, author and license, for the metadata of LiteRT models.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Jetson that builds the engines over ssh: user@address.", show_default=False),
    ] = None,
    build: Annotated[
        bool, typer.Option(help="Build engines if the device is known, from --host or its .toml file.")
    ] = True,
    threads: Threads = None,
    data: Data = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Export a run to the models that a target runs.

    jetson: FP32, FP16 and INT8 (QDQ) ONNX, and TensorRT engines, which the device that --host names builds now, or any
    Jetson later, with build.sh. android, ios, rpi: FP32, FP16 and INT8 .tflite; with --precision also w8 (int8 weights)
    and 16x8 (int16 activations). desktop: ONNX. All INT8 models come from one calibration, which is saved in the run.
    """
    if not target:
        raise UsageError(
            "export needs a target", f"edgekit export --target jetson   (known: {', '.join(base.FAMILIES)})"
        )
    from edgekit.api import export as api

    cores.use_threads(threads)
    options = api.ExportOptions(
        precisions=tuple(precision or ()),
        recipe=recipe,
        max_drop=max_drop,
        calibration_data=calibration_data,
        parity=parity,
        input=input_,
        output=output,
        about=about,
        host=host,
        build=build,
    )
    opened, exported = api.export_targets(run, target, options, runs_dir, data)
    if json:
        console.as_json([each.manifest for each in exported])
    else:
        progress.note(f"next: edgekit benchmark {opened.handle}")
    api.check_budget(opened, max_drop, exported)

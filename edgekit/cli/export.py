"""``edgekit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit import config, progress
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import UsageError
from edgekit.records import PRECISIONS
from edgekit.targets import base

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
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", help=f"A family ({', '.join(base.FAMILIES)}), a device (edgekit devices), or a .toml file."
    ),
]
Precisions = Annotated[
    list[str] | None, typer.Option("--precision", "-p", help=f"Only these: {', '.join(PRECISIONS)}.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help=f"Calibration: {', '.join(config.names('calibration'))}, or a .toml file. Default: default.",
        show_default=False,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(help="A Jetson, user@address: its engines are built there over ssh.", show_default=False),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="What LiteRT files take: uint8 (RGB bytes, normalized inside), int8 (those less 128), float (normalized "
        "outside). Default: uint8; float with --parity strict.",
        show_default=False,
    ),
]
Output = Annotated[str, typer.Option(help="What INT8 LiteRT files give: float, int8 or uint8.")]
About = Annotated[
    Path | None,
    typer.Option(
        help="A .toml file with title, description, version, author, license: the metadata of LiteRT files.",
        metavar="FILE",
        show_default=False,
    ),
]
Build = Annotated[bool, typer.Option(help="Build engines where the device is known, by --host or its .toml file.")]


def export(
    run: Run = None,
    target: Targets = None,
    precision: Precisions = None,
    recipe: Recipe = None,
    max_drop: MaxDrop = None,
    calibration_data: CalibrationData = None,
    parity: Parity = "best",
    input_: Input = None,
    output: Output = "float",
    about: About = None,
    host: Host = None,
    build: Build = True,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the models that a target runs.

    jetson: FP32, typed FP16 and QDQ INT8 ONNX, and TensorRT engines built on the device that --host names; without
    one, build.sh builds them there.
    android, ios, rpi: FP32, FP16 and INT8 .tflite; asked for, w8 (int8 weights only) and 16x8 (int16 activations) too.
    desktop: ONNX. All INT8 files come from one calibration, kept in
    the run. Repeat --target and --precision for several.
    """
    if not target:
        raise UsageError(
            "export needs a target", f"edgekit export --target jetson   (known: {', '.join(base.FAMILIES)})"
        )
    from edgekit.api import export as api

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
    opened, exported = api.export_targets(run, target, options, runs_dir)
    if json:
        console.as_json([one.manifest for one in exported])
    else:
        progress.note(f"next: edgekit benchmark {opened.handle}")
    api.check_budget(opened, max_drop, exported)

"""The command ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit import cores
from edgekit.cli.options import RunsDir, Threads
from edgekit.records import RESAMPLES, RESIZES

_PREPROCESS, _IMAGES = "Preprocessing", "Images"


def import_(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="State dict (.pth, .pt, .safetensors), .onnx file, or module.py:build, a function that returns the "
            "network.",
        ),
    ],
    arch: Annotated[
        str | None, typer.Option(help="Network of a state dict: a name of edgekit models.", show_default=False)
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Names of the classes, one a line, in the order of the outputs; .json too; or imagenet.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State dict for module.py:build.", show_default=False)
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            help="Entry of the checkpoint that holds the weights. Default: averaged ones (EMA) if there are some.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Output of an .onnx file that holds the scores.", show_default=False),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Unpickle a module that was saved whole: runs the code that it names.")
    ] = False,
    preprocess: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="preprocess.json of edgekit, config.json of timm, or preprocessor_config.json of transformers. "
            "Default: that of the pretrained network.",
            show_default=False,
            rich_help_panel=_PREPROCESS,
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the input, pixels.", show_default=False, rich_help_panel=_PREPROCESS)
    ] = None,
    resize_size: Annotated[
        int | None,
        typer.Option(help="Shorter side before the crop, pixels.", show_default=False, rich_help_panel=_PREPROCESS),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(help=f"To a square: {', '.join(RESIZES)}.", show_default=False, rich_help_panel=_PREPROCESS),
    ] = None,
    resample: Annotated[
        str | None,
        typer.Option(help=f"Resize kernel: {', '.join(RESAMPLES)}.", show_default=False, rich_help_panel=_PREPROCESS),
    ] = None,
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Mean of R, G and B, for pixels of 0 to 1.", show_default=False, rich_help_panel=_PREPROCESS),
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Standard deviation of R, G and B.", show_default=False, rich_help_panel=_PREPROCESS),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(help="Colour behind transparent parts.", show_default=False, rich_help_panel=_PREPROCESS),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Labelled images for the accuracy: DIR/<class>/<image>, or DIR/{train,val,test}/<class>/<image>.",
            show_default=False,
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Images without labels, for INT8.", show_default=False, rich_help_panel=_IMAGES
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: <file>-<network>.", show_default=False)
    ] = None,
    threads: Threads = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Make a run of a network that was trained elsewhere.

    Everything from export on works for it. The file is read without running code in it; module.py:build runs your code.
    Without --data there is no accuracy; without --data and --calibration-data no INT8.
    """
    from edgekit.api import import_model as api
    from edgekit.importing.preprocessing import Changes

    cores.use_threads(threads)
    changes = Changes(image_size, resize_size, resample, mean, std, resize, background)
    options = api.ImportOptions(
        arch, weights, entry, output, trust, labels, preprocess, changes, name, data, calibration_data
    )  # fmt: skip
    api.import_run(model, options, runs_dir)

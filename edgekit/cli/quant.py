"""The commands ``quant debug`` and ``quant table``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, files, labels, progress
from edgekit.cli import console
from edgekit.cli.options import Data, Json, Run, RunsDir, Verbose
from edgekit.errors import UsageError, unknown
from edgekit.quantization import CalibrationTable, Range
from edgekit.targets import base

if TYPE_CHECKING:
    from edgekit.quant.debug import Agreement, Inspection, LayerReport


_COLUMNS = (
    "layer", "kind", "runs in", "weights dB", "cosine", "alone dB", "cosine", "accumulated dB", "cosine", "logits dB",
    "cosine", "top-1 changed",
)  # fmt: skip
_SHORT = ("layer", "runs in", "alone dB", "accumulated dB", "logits dB", "top-1 changed")
_TABLE_COLUMNS = ("tensor", "low", "high", "symmetric scale", "asymmetric scale", "zero point")
_TABLE_SHORT = _TABLE_COLUMNS[:3]
_DIFF_COLUMNS = ("tensor", "low", "high", "other low", "other high", "width")
quant_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Recipe = Annotated[
    str, typer.Option(help=f"Calibration recipe: {', '.join(config.names('calibration'))}, or a .toml file.")
]


@quant_app.callback()
def _quant() -> None:
    """Inspect the quantized network."""


@quant_app.command()
def debug(
    run: Run = None,
    target: Annotated[
        str, typer.Option("--target", "-t", help=f"Family of devices ({', '.join(base.FAMILIES)}) or device.")
    ] = "android",
    recipe: Recipe = "default",
    images: Annotated[int, typer.Option(min=1, help="Number of calibration images to compare on.")] = 32,
    data: Data = None,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Rank the layers by the accuracy that they lose in INT8.

    Figures are signal-to-quantization-noise ratios (dB, higher is better) against the float network. alone: output of
    the layer with only it quantized; accumulated: with all layers before it quantized too; logits: with only this
    layer quantized, by which the layers are ranked. Layers that run in float because there is no INT8 kernel have
    rounded weights, too.

    Writes quant/debug-<target>.json with all figures, and quant/debug-<target>.svg with the histograms and ranges of
    the most sensitive tensors.
    """
    from edgekit.api import quantize

    debugged = quantize.debug(run, target, recipe, images, runs_dir, data)
    if json:
        console.as_json(debugged.document)
    else:
        _print_layers(debugged.found, verbose)
    progress.note(f"picture: {debugged.path}.svg")
    progress.note(f"figures: {debugged.path}.json")


def _print_layers(found: Inspection, verbose: bool) -> None:
    """Print the layers, most sensitive first, then the whole network."""
    console.table(_COLUMNS, [_cells(layer) for layer in found.layers], _COLUMNS[3:], _SHORT, verbose=verbose)
    logits = found.effect.logits
    changed = round(found.effect.changed * found.images)
    print(
        f"all quantized: logits {_db(logits)} dB, cosine {logits.cosine:.5f}; "
        f"top-1 changed on {changed} of {found.images} images"
    )
    clipped = max(found.tensors, key=lambda tensor: tensor.clipped, default=None)
    if clipped and clipped.clipped:
        share = f"{100 * clipped.clipped:.2g} % of its values"
        print(f"most clipped: {labels.printable(clipped.name)}, {share}, at [{clipped.low:.4g}, {clipped.high:.4g}]")


def _cells(layer: LayerReport) -> list[str]:
    pairs = (layer.weight, layer.alone, layer.accumulated, layer.effect.logits)
    figures = [text for pair in pairs for text in (_db(pair), f"{pair.cosine:.5f}")]
    changed = f"{100 * layer.effect.changed:.0f} %"
    return [layer.name, layer.kind, "INT8" if layer.int8 else "float", *figures, changed]


def _db(agreement: Agreement) -> str:
    """Format a ratio in dB; "exact" if nothing differs."""
    from edgekit.quant.debug import EXACT_DB

    return "exact" if agreement.sqnr_db >= EXACT_DB else f"{agreement.sqnr_db:.1f}"


@quant_app.command("table")
def table(
    run: Run = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="Format to write: json, tensorrt (calibration cache) or litert.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")
    ] = None,
    recipe: Recipe = "default",
    diff: Annotated[
        str | None, typer.Option("--diff", help="Table (calibration/*.json of a run) or run to compare with.")
    ] = None,
    data: Data = None,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show the calibration table of a run: the range of every tensor, and its int8 scales.

    The table is made if the run has none for this recipe. --as tensorrt: calibration cache of TensorRT before 11, for
    trtexec --int8 --calib=FILE with model.fp32.onnx. --as litert: calibration result of LiteRT's quantizer. --diff:
    ranges that differ from another table, largest difference first.
    """
    from edgekit.api import quantize

    if as_ is not None and as_ not in quantize.FORMATS:
        raise unknown("format", as_, quantize.FORMATS)
    if output is not None and as_ is None:
        raise UsageError("--output needs a format", f"add --as json   (known: {', '.join(quantize.FORMATS)})")
    if diff is not None and as_ not in (None, "json"):
        raise UsageError(f"--diff cannot write {as_}", "leave out --as, or use --as json")
    chosen = config.load_recipe(recipe)
    intermediates = quantize.open_intermediates(runs_dir, run, chosen, data)
    if diff is not None:
        changes = quantize.table_changes(intermediates.table, quantize.other_table(diff, runs_dir, chosen))
        if as_ is None:
            _print_changes(changes)
        else:
            _write(quantize.as_text(changes), output)
    elif as_ is not None:
        _write(quantize.FORMATS[as_](intermediates), output)
    else:
        _print_table(intermediates.table, verbose)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        files.save_output(output, text.encode())
        progress.note(f"written: {output}")


def _print_table(found: CalibrationTable, verbose: bool) -> None:
    from edgekit.quant import affine

    rows = []
    for name, span in found.ranges.items():
        symmetric, asymmetric = (affine.activation_grid(span, wanted) for wanted in (True, False))
        scales = f"{symmetric.scale:.4g}", f"{asymmetric.scale:.4g}", str(asymmetric.zero_point)
        rows.append((name, *_ends(span), *scales))
    console.table(_TABLE_COLUMNS, rows, _TABLE_COLUMNS[1:], _TABLE_SHORT, verbose=verbose)
    progress.note(f"{len(rows)} tensors, observer {found.observer}, recipe {found.recipe}")


def _print_changes(changes: list[dict[str, Any]]) -> None:
    if changes:
        rows = [
            (
                change["tensor"],
                *_ends(change["before"]),
                *_ends(change["after"]),
                "" if change["ratio"] is None else f"x {change['ratio']:.3g}",
            )
            for change in changes
        ]
        console.table(_DIFF_COLUMNS, rows, right=_DIFF_COLUMNS[1:])


def _ends(span: Range | None) -> tuple[str, str]:
    return ("-", "-") if span is None else (f"{span.low:.4g}", f"{span.high:.4g}")

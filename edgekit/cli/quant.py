"""``edgekit quant debug``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, files, labels, progress
from edgekit.api import quantize
from edgekit.api.quantize import FORMATS
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import UsageError, unknown
from edgekit.quantization import CalibrationTable, Range
from edgekit.targets import base

if TYPE_CHECKING:
    from edgekit.quant.debug import Agreement, Inspection, LayerReport


_COLUMNS = ("layer", "kind", "runs in", "weights dB", "cosine", "alone dB", "cosine", "accumulated dB", "cosine")
_EFFECTS = ("logits dB", "cosine", "top-1 changed")
_NARROW = ("layer", "alone dB", "accumulated dB", "logits dB")
quant_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


_TABLE_COLUMNS = ("tensor", "low", "high", "symmetric scale", "asymmetric scale", "zero point")
_DIFF_COLUMNS = ("tensor", "low", "high", "other low", "other high", "width")


@quant_app.callback()
def _quant() -> None:
    """Look into the quantized network."""


@quant_app.command()
def debug(
    run: Run = None,
    target: Annotated[
        str, typer.Option("--target", "-t", help=f"A family ({', '.join(base.FAMILIES)}), or a device.")
    ] = "android",
    recipe: Annotated[
        str, typer.Option(help=f"Calibration: {', '.join(config.names('calibration'))}, or a .toml file.")
    ] = "default",
    images: Annotated[
        int, typer.Option(min=1, help="Images to compare on, from the calibration set; the time grows with them.")
    ] = 32,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say which layers lose accuracy in INT8, the most sensitive first.

    Signal to quantization noise (SQNR, dB: more is better) and cosine against the float network. weights: of the
    layer; alone: its outputs with nothing but this layer quantized; accumulated: with all before it quantized too;
    logits: what quantizing this layer alone does to the answers, by which the layers are ranked. Layers that run
    in float for want of an INT8 kernel carry rounded weights too. It writes quant/debug-<target>.svg, with the
    histograms of the most sensitive tensors and the ranges chosen for them, and quant/debug-<target>.json, which
    has every tensor.
    """
    from edgekit.api import quantize

    debugged = quantize.debug(run, target, recipe, images, runs_dir)
    if json:
        console.as_json(debugged.document)
    else:
        _print(debugged.found)
    progress.note(f"picture: {debugged.path}.svg")
    progress.note(f"figures: {debugged.path}.json")


def _print(found: Inspection) -> None:
    """The layers, the most sensitive first; then the network as a whole."""
    columns = (*_COLUMNS, *_EFFECTS)
    right = tuple(column for column in columns if column not in ("layer", "kind", "runs in"))
    console.table(columns, [_cells(layer) for layer in found.layers], right=right, narrow=_NARROW)
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
    """A ratio in dB; values that do not differ have none."""
    from edgekit.quant.debug import EXACT_DB

    return "exact" if agreement.sqnr_db >= EXACT_DB else f"{agreement.sqnr_db:.1f}"


# ``edgekit quant table``.


@quant_app.command("table")
def table(
    run: Run = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="Write it for a program: json, tensorrt (calibration cache), litert.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where --as writes; else it prints.")] = None,
    recipe: Annotated[
        str, typer.Option(help=f"Calibration: {', '.join(config.names('calibration'))}, or a .toml file.")
    ] = "default",
    diff: Annotated[
        str | None, typer.Option("--diff", help="Another table (calibration/*.json of a run), or another run.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show a run's calibration table: the range of every tensor, and the int8 scales that come of it.

    It is made if the run has none for this recipe yet. --as tensorrt: the calibration cache of TensorRT before 11
    (trtexec --int8 --calib=FILE, with model.fp32.onnx). --as litert: the calibration result of LiteRT's quantizer.
    --diff: which ranges differ from another table, the most different first.
    """
    if as_ is not None and as_ not in FORMATS:
        raise unknown("format", as_, FORMATS)
    if output is not None and as_ is None:
        raise UsageError("--output needs a format", f"add --as json   (known: {', '.join(FORMATS)})")
    if diff is not None and as_ not in (None, "json"):
        raise UsageError(f"--diff has no {as_} format", "leave --as out, or --as json")
    chosen = config.load_recipe(recipe)
    bench = quantize.open_intermediates(runs_dir, run, chosen)
    if diff is not None:
        changes = quantize.table_changes(bench.table, quantize.other_table(diff, runs_dir, chosen))
        if as_ is None:
            _print_changes(changes)
        else:
            _write(quantize.as_text(changes), output)
    elif as_ is not None:
        _write(FORMATS[as_](bench), output)
    else:
        _print_table(bench.table)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        files.save_bytes(output, text.encode())
        progress.note(f"written: {output}")


def _print_table(found: CalibrationTable) -> None:
    from edgekit.quant import affine

    rows = []
    for name, span in found.ranges.items():
        symmetric, free = (affine.activation_grid(span, wanted) for wanted in (True, False))
        scales = f"{symmetric.scale:.4g}", f"{free.scale:.4g}", str(free.zero_point)
        rows.append((name, *_ends(span), *scales))
    console.table(_TABLE_COLUMNS, rows, right=_TABLE_COLUMNS[1:], narrow=_TABLE_COLUMNS[:3])
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

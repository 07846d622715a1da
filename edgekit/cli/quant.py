"""``edgekit quant debug``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, files, labels, progress
from edgekit.cli import console, table
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME
from edgekit.targets import base
from edgekit.train import models

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench
    from edgekit.quant.agreement import Agreement
    from edgekit.quant.debug import Inspection, LayerReport


SCHEMA = 1
_BATCH = 8
_COLUMNS = ("layer", "kind", "runs in", "weights dB", "cosine", "alone dB", "cosine", "accumulated dB", "cosine")
_EFFECTS = ("logits dB", "cosine", "top-1 changed")
_NARROW = ("layer", "alone dB", "accumulated dB", "logits dB")
quant_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@quant_app.callback()
def _quant() -> None:
    """Look into the quantized network."""


quant_app.command("table")(table.table)


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
    resolved = base.resolve(target)
    able = base.precisions(resolved, ("int8",))
    chosen = config.load_recipe(recipe)
    opened = open_run(runs_dir, run)
    models.precisions(str(opened.meta.get("arch")), able, able)
    from edgekit.cli.workbench import Workbench
    from edgekit.report import quantpictures, svg

    bench = Workbench(opened, chosen)
    found = _inspect(bench, resolved, images)
    document = _document(bench, resolved, found)
    path = opened.path / "quant" / _stem(resolved.name, chosen.name)
    with progress.working("drawing"):
        picture = svg.standalone(quantpictures.inspection(document))
    files.save_bytes(path.with_name(f"{path.name}.svg"), picture.encode())
    files.save_json(path.with_name(f"{path.name}.json"), document)
    if json:
        console.as_json(document)
    else:
        _print(found)
    progress.note(f"picture: {path}.svg")
    progress.note(f"figures: {path}.json")


def _stem(target: str, recipe: str) -> str:
    """The name of both files: other recipes are told apart by theirs."""
    return f"debug-{target}" if recipe == "default" else f"debug-{target}-{recipe}"


def _inspect(bench: Workbench, resolved: base.Resolved, images: int) -> Inspection:
    from edgekit.quant import debug as debugging
    from edgekit.quant import observers

    observers.check(bench.recipe.observer)
    native = LITERT_SCHEME if resolved.target.runtime == "litert" else TENSORRT_SCHEME
    batches = bench.calibration_images(images).split(_BATCH)
    with progress.bar("quantizing one layer at a time") as update:
        return debugging.inspect(bench.folded, bench.quantized, native, batches, update)


def _document(bench: Workbench, resolved: base.Resolved, found: Inspection) -> dict[str, Any]:
    """What debug-<target>.json holds."""
    import dataclasses

    table = bench.table
    return {
        "schema": SCHEMA,
        "run": bench.run.name,
        "target": resolved.name,
        "checkpoint_sha256": bench.checkpoint.sha256,
        "calibration": {"recipe": table.recipe, "observer": table.observer, "samples": table.samples},
        "steps": bench.quantized.steps,
        **dataclasses.asdict(found),
    }


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
    from edgekit.quant.agreement import EXACT_DB

    return "exact" if agreement.sqnr_db >= EXACT_DB else f"{agreement.sqnr_db:.1f}"

"""``edgekit quant table``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, files, progress
from edgekit.cli import console
from edgekit.cli.options import Run, RunsDir, open_run
from edgekit.errors import UsageError, unknown
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationRecipe, CalibrationTable, Range

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench


_COLUMNS = ("tensor", "low", "high", "symmetric scale", "asymmetric scale", "zero point")
_DIFF_COLUMNS = ("tensor", "low", "high", "other low", "other high", "width")


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
    bench = _open(runs_dir, run, chosen)
    if diff is not None:
        changes = _changes(bench.table, _other(diff, runs_dir, chosen))
        if as_ is None:
            _print_changes(changes)
        else:
            _write(_json(changes), output)
    elif as_ is not None:
        _write(FORMATS[as_](bench), output)
    else:
        _print(bench.table)


def _open(runs_dir: Path, run: str | None, recipe: CalibrationRecipe) -> Workbench:
    opened = open_run(runs_dir, run)
    from edgekit.cli.workbench import Workbench
    from edgekit.quant import observers

    observers.check(recipe.observer)
    return Workbench(opened, recipe)


def _other(name: str, runs_dir: Path, recipe: CalibrationRecipe) -> CalibrationTable:
    """The table in a file, or of a run."""
    if not name.endswith(".json"):
        return _open(runs_dir, name, recipe).table
    from edgekit.cli.workbench import SCHEMA

    document = files.load_document(Path(name), SCHEMA, "table")
    return config.from_table(document["table"], CalibrationTable, name)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=vars, ensure_ascii=False) + "\n"


def _as_json(bench: Workbench) -> str:
    """The file as it lies in the run."""
    assert bench.table
    return bench.table_path.read_text(encoding="utf-8")


def _as_tensorrt(bench: Workbench) -> str:
    from edgekit.quant import exchange

    text = exchange.tensorrt_cache(bench.table, bench.onnx_naming.tensors, TENSORRT_SCHEME)
    progress.note(
        f"for {bench.onnx}; other versions of TensorRT want theirs in the first line (not verified on hardware)"
    )
    return text


def _as_litert(bench: Workbench) -> str:
    from edgekit.quant import exchange, litert

    text = _json(exchange.litert_result(litert.spans(bench.tflite, bench.table, bench.tflite_naming), LITERT_SCHEME))
    progress.note(f"for {bench.tflite}")
    return text


FORMATS: dict[str, Callable[[Workbench], str]] = {"json": _as_json, "tensorrt": _as_tensorrt, "litert": _as_litert}


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        files.save_bytes(output, text.encode())
        progress.note(f"written: {output}")


def _print(found: CalibrationTable) -> None:
    from edgekit.quant import affine

    rows = []
    for name, span in found.ranges.items():
        symmetric, free = (affine.activation_grid(span, wanted) for wanted in (True, False))
        scales = f"{symmetric.scale:.4g}", f"{free.scale:.4g}", str(free.zero_point)
        rows.append((name, *_ends(span), *scales))
    console.table(_COLUMNS, rows, right=_COLUMNS[1:], narrow=_COLUMNS[:3])
    progress.note(f"{len(rows)} tensors, observer {found.observer}, recipe {found.recipe}")


def _changes(ours: CalibrationTable, theirs: CalibrationTable) -> list[dict[str, Any]]:
    from edgekit.quant import exchange

    changes = [vars(change) for change in exchange.diff(ours, theirs)]
    same = len({**ours.ranges, **theirs.ranges}) - len(changes)
    progress.note(f"{len(changes)} ranges differ, {same} are equal ({ours.observer}; other: {theirs.observer})")
    return [{**change, "ratio": _finite(change["ratio"])} for change in changes]


def _finite(ratio: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return ratio if abs(ratio) < float("inf") else None


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

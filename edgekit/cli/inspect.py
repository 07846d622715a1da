"""The command ``inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir
from edgekit.labels import printable

if TYPE_CHECKING:
    from edgekit.targets.contents import Contents, OpInfo, TensorInfo
    from edgekit.targets.delegates import Verdict


def inspect(
    run: Annotated[str, typer.Argument(help="Name or path of the run that has the artifact. Default: the newest run.")],
    model: Annotated[
        str | None,
        typer.Argument(help=".tflite, .onnx or .engine file, or artifact of the run.", show_default=False),
    ] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="List of all operators, with their input and output tensors.")
    ] = False,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show the contents of a model file: inputs, outputs, operators, weights, hashes and origin.

    For .tflite files, also the operators that a GPU or NPU delegate is not expected to run, according to its
    documentation. The model is not run. For an engine, the record of its build is shown.
    """
    from edgekit.api import inspect as api

    found = api.inspect(*api.in_order(run, model), runs_dir)
    if found.contents is None:
        console.as_json(found.facts) if json else _print_engine(found.facts)
    elif json:
        console.as_json({**found.facts, **api.plain_contents(found.contents, found.verdicts, ops)})
    else:
        _print(found.facts, found.contents, found.verdicts, ops)


def _print(found: dict[str, Any], contents: Contents, verdicts: list[Verdict], ops: bool) -> None:
    from edgekit.targets import contents as figures

    total = figures.macs(contents)
    facts = [[k, str(v)] for k, v in {**contents.about, **contents.metadata}.items() if v != ""]
    facts += [["multiplications", f"{total / 1e6:.1f} million"]] if total is not None else []
    _print_facts(found, contents.form, [*facts, *(["signature", text] for text in contents.signatures)])
    rows = [["input", *_cells(t)] for t in contents.inputs] + [["output", *_cells(t)] for t in contents.outputs]
    _section("inputs and outputs", ["", "name", "shape", "type", "scale", "zero point", "holds"], rows)
    _print_operators(contents, total)
    _print_weights(contents)
    if ops:
        _section("every operator", ["#", "operator", "reads", "writes"], [_op_cells(op) for op in contents.ops])
    if verdicts:
        _print_verdicts(verdicts)
    _print_lineage(found["lineage"])


def _print_operators(contents: Contents, total: int | None) -> None:
    from edgekit.targets.contents import kinds

    columns = ["operator", "types", "count", *(["% of multiplications"] if total else [])]
    rows = []
    for kind, types, count, macs in kinds(contents.ops):
        share = [f"{100 * macs / total:.1f}" if macs else ""] if total else []
        rows.append([kind, types, str(count), *share])
    _section("operators", columns, rows, right=columns[2:])


def _print_weights(contents: Contents) -> None:
    from edgekit.api.inspect import LARGEST
    from edgekit.targets.contents import largest, weight_bytes

    held = weight_bytes(contents)
    share = [[dtype, f"{n / 1e6:.3f}", f"{100 * n / max(1, sum(held.values())):.1f}"] for dtype, n in held.items()]
    _section("weights", ["type", "MB", "%"], share, right=["MB", "%"])
    rows = [[t.name, t.kind, _shape(t), f"{t.nbytes / 1e6:.3f}"] for t in largest(contents, LARGEST)]
    _section("largest weights", ["tensor", "type", "shape", "MB"], rows, right=["MB"])


def _print_verdicts(verdicts: list[Verdict]) -> None:
    from edgekit.targets.delegates import DELEGATES

    rows = []
    for verdict in verdicts:
        kept = f"{verdict.stays} of {verdict.ops}" + (f" in {verdict.parts} parts" if verdict.parts > 1 else "")
        leaving = [f"{kind} x{n}: {why}" for kind, why, n in verdict.leaving] or ["nothing"]
        rows += [[DELEGATES[verdict.delegate].title, kept, leaving[0]], *(["", "", text] for text in leaving[1:])]
    title = "delegates, according to their documentation (not verified on hardware)"
    _section(title, ["delegate", "expected to run", "expected to leave"], rows, prose=["expected to leave"])


def _print_engine(found: dict[str, Any]) -> None:
    _print_facts(found, found["form"], [[k.replace("_", " "), str(v)] for k, v in found["engine"].items()])
    _print_lineage(found["lineage"])


def _print_lineage(lineage: dict[str, Any]) -> None:
    rows = [[key, str(value)] for key, value in lineage.items()] or [["", "unknown: there is no manifest beside it"]]
    _section("origin", ["", ""], rows)


def _print_facts(found: dict[str, Any], form: str, rows: list[list[str]]) -> None:
    size = f"{found['size_bytes'] / 1e6:.3f} MB"
    print(printable(found["file"]))
    console.table(["", ""], [["form", form], ["size", size], ["sha256", found["sha256"]], *rows])


def _section(
    title: str, columns: Sequence[str], rows: list[list[str]], right: Sequence[str] = (), prose: Sequence[str] = ()
) -> None:
    print(f"\n{title}")
    console.table(columns, rows, right, prose=prose)


def _cells(tensor: TensorInfo) -> list[str]:
    scale = f"{tensor.scales[0]:.6g}" if len(tensor.scales) == 1 else "per channel" if tensor.scales else ""
    zero = str(tensor.zero_points[0]) if len(tensor.zero_points) == 1 else ""
    holds = "{:.4g} to {:.4g}".format(*tensor.real_range) if tensor.real_range else ""
    return [tensor.name, _shape(tensor), tensor.dtype, scale, zero, holds]


def _shape(tensor: TensorInfo) -> str:
    return "?" if tensor.shape is None else str(list(tensor.shape))


def _op_cells(op: OpInfo) -> list[str]:
    reads = ", ".join(f"{t.name} {t.kind}" if t else "-" for t in op.inputs)
    return [str(op.index), op.kind, reads, ", ".join(f"{t.name} {t.kind}" for t in op.outputs)]

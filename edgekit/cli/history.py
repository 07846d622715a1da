"""The commands ``history``, ``diff`` and ``check``: list, compare and gate kept measurements."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import labels, progress
from edgekit.api.history import GRAMMAR
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, Verbose
from edgekit.errors import GateError, MissingError, UsageError

if TYPE_CHECKING:
    from edgekit.analysis.difference import Comparison
    from edgekit.analysis.regression import Verdict
    from edgekit.api.history import HistoryRow
    from edgekit.archive.entry import Entry


_COLUMNS = (
    "id", "measured (UTC)", "run", "model", "artifact", "on", "edgekit", "ran in", "top-1 %", "95 %", "p50 ms",
    "p90 ms", "MB", "change",
)  # fmt: skip
_RIGHT = _COLUMNS[8:13]
_SHORT = ("id", "measured (UTC)", "run", "artifact", "top-1 %", "p50 ms", "change")
# Columns that are left out if all rows have the same value, which is then printed below.
_COMMON = ("run", "model", "on", "edgekit", "ran in")
_FIGURE_ORDER = ("top-1", "p50", "p90", "size")
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar="EDGEKIT_DB",
        metavar="URL",
        help="Shared database: postgresql://user@host/name; the password is read from PGPASSWORD or ~/.pgpass.",
        show_default=False,
        show_envvar=True,
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", "-d", help="Device to restrict the results to.", show_default=False)
]


def history(
    runs: Annotated[list[str] | None, typer.Argument(help="Names or paths of runs. Default: all runs.")] = None,
    device: Device = None,
    model: Annotated[
        str | None, typer.Option(help="Architecture to restrict the results to.", metavar="ARCH", show_default=False)
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="Artifact to restrict the results to.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Earliest date of measurement, UTC.", metavar="YYYY-MM-DD", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Largest number of results, newest first.")] = 50,
    push: Annotated[
        bool, typer.Option("--push", help="Send the results of these runs to the database of --db first.")
    ] = False,
    db: Database = None,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """List all measurements, newest first, and what changed.

    The last column compares a measurement with the one before it of the same artifact, run and device; * marks a
    significant change (5 %). edgekit diff compares any two. The index is rebuilt from the runs when it is missing or
    outdated.
    """
    from edgekit.api import history as api

    if push:
        api.push(list(runs or []), db, runs_dir)
    given: dict[str, Any] = {"device": device or "", "model": model or "", "artifact": artifact or "", "since": since}
    rows = api.history(list(runs or []), **given, limit=limit, db=db, runs_dir=runs_dir)
    if not rows and not json:
        what = "no measurement matches these options" if any((*given.values(), runs)) else "nothing was measured yet"
        raise MissingError(
            what, "edgekit history without options lists all measurements; edgekit benchmark makes new ones"
        )
    _print_history(rows, limit, json, verbose)


def _print_history(found: list[HistoryRow], limit: int, json: bool, verbose: bool) -> None:
    if json:
        console.as_json([_plain(row) for row in found])
        return
    rows = [_cells(row.entry, row.change) for row in found]
    common = {c: rows[0][n] for n, c in enumerate(_COLUMNS) if c in _COMMON and len({row[n] for row in rows}) == 1}
    positions = [n for n, column in enumerate(_COLUMNS) if column not in common]
    console.table(
        [_COLUMNS[n] for n in positions],
        [[row[n] for n in positions] for row in rows],
        right=_RIGHT,
        short=_SHORT,
        prose=["change"],
        verbose=verbose,
    )
    if values := ", ".join(f"{name} {value}" for name, value in common.items() if value != "-"):
        progress.note(f"all: {values}")
    if len(found) == limit:
        progress.note(f"the newest {limit}; --limit lists more")
    if any(row.entry.busy for row in found):
        progress.note("! measured while other programs used the CPU: not reliable")
    if any("*" in row[-1] or "?" in row[-1] for row in rows) or (verbose and any(row.change for row in found)):
        progress.note(
            "change: since the previous measurement. * significant (5 %); ? significant, but the CPU was busy"
        )


def _cells(entry: Entry, change: Comparison | None) -> list[str]:
    from edgekit.reporting.tables import latency, number
    from edgekit.stats.proportions import wilson

    low, high = wilson(entry.correct, entry.images)
    return [
        entry.id,
        entry.measured[:16].replace("T", " "),
        entry.run,
        entry.model or "-",
        entry.artifact,
        f"{entry.device} x{entry.threads}" + (" (emulated)" if entry.source == "emulated" else ""),
        entry.edgekit or "-",
        f"{entry.runtime} {entry.version}".strip(),
        number(entry.top1, 1),
        "-" if entry.top1 is None else f"{100 * low:.1f}-{100 * high:.1f}",
        latency(entry.p50_ms) + ("!" if entry.busy else ""),
        latency(entry.p90_ms),
        f"{entry.size_bytes / 1e6:.1f}",
        "" if change is None else change_text(change),
    ]


def change_text(change: Comparison) -> str:
    """Return a comparison in a few words; a missing figure is named, never counted as unchanged."""
    parts = []
    if change.top1 is not None and (change.top1.value or change.top1.significant):
        parts.append(f"top-1 {change.top1.value:+.1f}{'*' if change.top1.significant else ''}")
    parts.append(_p50_text(change))
    if not change.same_file:
        parts.append("other file")
    return ", ".join(parts)


def _p50_text(change: Comparison) -> str:
    from edgekit.analysis.difference import bounds, doubtful, not_compared

    if why := change.machines or not_compared(change, 50):
        return f"p50 not compared: {why}"
    if change.p50 is None:
        return "p50 insufficient samples"
    if not bounds(change.p50, ""):
        return f"p50 x {change.p50.value:.2g}, no interval"
    star = "" if not change.p50.significant else "?" if doubtful(change, change.p50) else "*"
    return f"p50 {100 * (change.p50.value - 1):+.1f} %{star}"


def _plain(row: HistoryRow) -> dict[str, object]:
    from edgekit.api.history import as_plain

    entry, change = row.entry, row.change
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "samples"}
    return {"id": entry.id, **fields, "top1": entry.top1, "change": None if change is None else as_plain(change)}


def diff(
    before: Annotated[str, typer.Argument(help=GRAMMAR, metavar="A", show_default=False)],
    after: Annotated[
        str | None, typer.Argument(help="As A. Default: the newest measurement of A.", metavar="B")
    ] = None,
    device: Device = None,
    db: Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare two measurements, or all measurements of two runs.

    A and B are RUN, RUN/ARTIFACT, or an id that edgekit history prints. A run or an artifact may end in @previous,
    @first or a date such as @2026-11-26 (the newest measurement until then, UTC). edgekit diff RUN compares the newest
    measurement with the one before it.

    Measurements of the same artifact on the same device are compared, or the two artifacts that you name. Top-1 is
    compared image by image if both saw the same images.
    """
    from edgekit.analysis import difference
    from edgekit.api import history as api

    compared = api.diff(before, after, device=device, db=db, runs_dir=runs_dir)
    if json:
        console.as_json([api.as_plain(comparison) for comparison in compared])
        return
    for number, comparison in enumerate(compared):
        if number:
            print()
        print(labels.printable(f"{_title(comparison.before)}\n -> {_title(comparison.after)}"))
        for sentence in difference.sentences(comparison):
            print(labels.printable(f"  {sentence}"))
    if any(comparison.p50 is not None and not comparison.p50.repeats for comparison in compared):
        progress.note(
            "the intervals do not include the variation between measurements; repeat edgekit benchmark with the same "
            "files to estimate it"
        )


def _title(entry: Entry) -> str:
    when = entry.measured[:16].replace("T", " ")
    return f"{entry.id}  {entry.run}/{entry.artifact} on {entry.device} x{entry.threads}, {when}"


def _percent(text: str) -> float:
    """Parse a percentage with or without its sign."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None
    if not 0 <= value < 1e6:
        raise typer.BadParameter(f"{text!r} must be 0 or greater")
    return value


def _tolerance(what: str, unit: str) -> typer.models.OptionInfo:
    return typer.Option(help=f"Tolerated {what}, in {unit}.", parser=_percent, metavar="NUMBER")


def check(
    run: Run = None,
    against: Annotated[
        str | None, typer.Option(help=f"Reference: @previous, a .json file, or {GRAMMAR}.", metavar="REF")
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option(help="File to write the newest results to, as a reference; nothing is checked.", metavar="FILE"),
    ] = None,
    device: Device = None,
    artifact: Annotated[
        str | None, typer.Option(help="Artifact to restrict the results to.", show_default=False)
    ] = None,
    tolerance_p50: Annotated[float, _tolerance("increase of p50", "percent")] = "5%",  # type: ignore[assignment]
    tolerance_p90: Annotated[float | None, _tolerance("increase of p90", "percent. Default: not checked")] = None,
    tolerance_top1: Annotated[float, _tolerance("loss of top-1", "percentage points")] = "1.0",  # type: ignore[assignment]
    tolerance_size: Annotated[float, _tolerance("increase of the file size", "percent")] = "5%",  # type: ignore[assignment]
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 7 for 'cannot tell' and 'not compared' too.")
    ] = False,
    db: Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Check that the newest results of a run are no worse than a reference.

    A figure is "worse" (exit status 7) if its change exceeds the tolerance and is significant. If it only exceeds the
    tolerance, the result is "cannot tell", which passes unless you add --strict. Latencies are compared only for the
    same device, CPU, number of cores and number of threads. Exit status 4: nothing can be compared.
    """
    from edgekit.analysis.regression import Tolerances
    from edgekit.api import history as api

    if (against is None) == (save_reference is None):
        raise UsageError("check needs either --against or --save-reference", "edgekit check RUN --against @previous")
    options: dict[str, Any] = {"device": device, "artifact": artifact, "db": db, "runs_dir": runs_dir}
    if save_reference is not None:
        number = api.save_reference(run, save_reference, **options)
        progress.note(f"{save_reference}: {number} results; next: edgekit check --against {quote(str(save_reference))}")
        return
    assert against is not None
    tolerances = Tolerances(tolerance_p50, tolerance_p90, tolerance_top1, tolerance_size)
    verdicts = api.check(run, against, tolerances, **options)
    _print_verdicts(verdicts, json)
    _raise_if_worse(verdicts, strict)


def _print_verdicts(verdicts: list[Verdict], json: bool) -> None:
    if json:
        console.as_json([{"state": v.state, **dataclasses.asdict(v)} for v in verdicts])
        return
    from edgekit.analysis.regression import State

    for verdict in verdicts:
        figures = sorted(verdict.figures, key=lambda f: _FIGURE_ORDER.index(f.name) if f.name in _FIGURE_ORDER else 0)
        text = "; ".join(
            f"{f.name} {f.why}" if f.state == verdict.state == State.PASS else f"{f.name} {f.state}: {f.why}"
            for f in figures
        )
        print(labels.printable(f"{verdict.state:<12}  {verdict.artifact} on {verdict.device}: {text}"))


def _raise_if_worse(verdicts: list[Verdict], strict: bool) -> None:
    """
    Raises:
        GateError: a result is worse, or with `strict` could not be judged. MissingError: nothing could be compared.
    """
    from edgekit.analysis.regression import SAME_RESULT, State

    figures = [figure for verdict in verdicts for figure in verdict.figures]
    worse = [v for v in verdicts if v.state == State.WORSE]
    if worse:
        names = ", ".join(f"{v.artifact} on {v.device}" for v in worse[:5])
        raise GateError(
            f"significantly worse than the reference, beyond the tolerance: {names}",
            f"edgekit diff {quote(worse[0].before)} {quote(worse[0].after)} shows details",
        )
    if all(figure == SAME_RESULT for figure in figures):
        raise MissingError(
            "the newest results are the reference itself: nothing was measured since",
            "edgekit benchmark, then edgekit check again",
        )
    if all(figure.state == State.NOT_COMPARED or figure.name == "size" for figure in figures):
        raise MissingError(
            "no latency and no accuracy could be compared with the reference",
            "measure both on the same device; edgekit check --save-reference FILE writes a reference for this machine",
        )
    if strict and (unsure := [v for v in verdicts if v.state != State.PASS]):
        raise GateError(
            f"--strict: {len(unsure)} of {len(verdicts)} artifacts could not be fully judged",
            "measure longer, on the machine of the reference: edgekit benchmark --suite standard",
        )

"""``edgekit history``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import labels, progress
from edgekit.api.history import GRAMMAR
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import GateError, MissingError, UsageError

if TYPE_CHECKING:
    from edgekit.analysis.difference import Comparison
    from edgekit.analysis.regression import Verdict
    from edgekit.api.history import HistoryRow
    from edgekit.archive.entry import Entry


_COLUMNS = (
    "id", "measured (UTC)", "run", "model", "artifact", "on", "edgekit", "ran in", "top-1 % (95 %)", "p50 ms", "p90 ms",
    "MB", "change",
)  # fmt: skip
_RIGHT = _COLUMNS[8:12]
_NARROW = ("id", "measured (UTC)", "run", "artifact", "top-1 % (95 %)", "p50 ms", "change")
# What is the same in every line is said once, below.
_ONCE = ("run", "model", "on", "edgekit", "ran in")


_ORDER = ("top-1", "p50", "p90", "size")
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar="EDGEKIT_DB",
        metavar="URL",
        help="A team's database: postgresql://user@host/name; its password in PGPASSWORD or ~/.pgpass.",
        show_default=False,
        show_envvar=True,
    ),
]
OnDevice = Annotated[
    str | None, typer.Option("--device", "-d", help="Only results of this device.", show_default=False)
]


def history(
    runs: Annotated[list[str] | None, typer.Argument(help="Names or paths. Default: all runs.")] = None,
    device: OnDevice = None,
    model: Annotated[str | None, typer.Option(help="Only this network.", metavar="ARCH", show_default=False)] = None,
    artifact: Annotated[str | None, typer.Option(help="Only this artifact.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what was measured since, UTC.", metavar="YYYY-MM-DD", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many of the newest.")] = 50,
    push: Annotated[
        bool, typer.Option("--push", help="First send the results of these runs to the database of --db.")
    ] = False,
    db: Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """List all that was ever measured, the newest first, and what changed each time.

    The last column compares a measurement with the one before it of the same artifact, run and device: a star is a
    change beyond chance (5 %). The index behind it is made again from the runs whenever it is missing or does not
    fit. edgekit diff compares any two.
    """
    from edgekit.api import history as api

    if push:
        api.push(list(runs or []), db, runs_dir)
    given: dict[str, Any] = {"device": device or "", "model": model or "", "artifact": artifact or "", "since": since}
    rows = api.history(list(runs or []), **given, limit=limit, db=db, runs_dir=runs_dir)
    if not rows and not json:
        what = "nothing fits these options" if any((*given.values(), runs)) else "nothing was measured yet"
        raise MissingError(what, "edgekit benchmark; edgekit history without options lists all")
    _print(rows, limit, json)


def _print(found: list[HistoryRow], limit: int, json: bool) -> None:
    if json:
        console.as_json([_plain(row) for row in found])
        return
    rows = [_cells(row.entry, row.change) for row in found]
    same = {c: rows[0][n] for n, c in enumerate(_COLUMNS) if c in _ONCE and len({row[n] for row in rows}) == 1}
    kept = [n for n, column in enumerate(_COLUMNS) if column not in same]
    shown = [_COLUMNS[n] for n in kept]
    console.table(
        shown,
        [[row[n] for n in kept] for row in rows],
        right=[c for c in _RIGHT if c in shown],
        narrow=[c for c in _NARROW if c in shown],
    )
    if said := ", ".join(f"{name} {value}" for name, value in same.items() if value != "-"):
        progress.note(f"all: {said}")
    if len(found) == limit:
        progress.note(f"the newest {limit}; --limit lists more")
    if any(row.entry.busy for row in found):
        progress.note("!: the machine was busy: other work took more than a fifth of its cores just before")
    if any(row.change for row in found):
        progress.note(
            "change: since the measurement before. *: beyond chance (5 %), as far as these measurements tell; "
            "?: so too, but other work ran. edgekit diff says more"
        )


def _cells(entry: Entry, change: Comparison | None) -> list[str]:
    from edgekit.reporting.tables import latency
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
        "-" if entry.top1 is None else f"{entry.top1:.1f} ({100 * low:.1f}-{100 * high:.1f})",
        latency(entry.p50_ms) + ("!" if entry.busy else ""),
        latency(entry.p90_ms),
        f"{entry.size_bytes / 1e6:.1f}",
        "" if change is None else in_short(change),
    ]


def in_short(change: Comparison) -> str:
    """A comparison in one cell; never "no change" where a figure is missing."""
    said = []
    if change.top1 is not None and (change.top1.value or change.top1.significant):
        said.append(f"top-1 {change.top1.value:+.1f}{'*' if change.top1.significant else ''}")
    said.append(_p50_in_short(change))
    if not change.same_file:
        said.append("other file")
    return ", ".join(said)


def _p50_in_short(change: Comparison) -> str:
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


def _percent(text: str) -> float:
    """``5`` and ``5%`` are the same."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None
    if not 0 <= value < 1e6:
        raise typer.BadParameter(f"{text!r} must be 0 or greater")
    return value


def _tolerance(what: str, unit: str) -> typer.models.OptionInfo:
    return typer.Option(help=f"How much worse {what} may be, {unit}.", parser=_percent, metavar="NUMBER")


def check(
    run: Run = None,
    against: Annotated[
        str | None, typer.Option(help=f"The reference: {GRAMMAR}, @previous, or a .json file.", metavar="REF")
    ] = None,
    save_reference: Annotated[
        Path | None, typer.Option(help="Write the newest results as a reference, and check nothing.", metavar="FILE")
    ] = None,
    device: OnDevice = None,
    artifact: Annotated[str | None, typer.Option(help="Only this artifact.", show_default=False)] = None,
    tolerance_p50: Annotated[float, _tolerance("p50", "percent")] = "5%",  # type: ignore[assignment]
    tolerance_p90: Annotated[float | None, _tolerance("p90", "percent; default: not checked")] = None,
    tolerance_top1: Annotated[float, _tolerance("top-1", "points")] = "1.0",  # type: ignore[assignment]
    tolerance_size: Annotated[float, _tolerance("the file's size", "percent")] = "5%",  # type: ignore[assignment]
    strict: Annotated[bool, typer.Option("--strict", help="What cannot be told or compared fails too.")] = False,
    db: Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Check that the newest results of a run are no worse than a reference; else the exit status is 7.

    A figure fails where its change is beyond the tolerance and beyond chance. Beyond the tolerance alone it "cannot
    tell", and does not fail, unless --strict. Latencies of another device, CPU, number of cores or of threads are not
    compared, and the line says so; where nothing can be compared the status is 4.
    """
    from edgekit.analysis.regression import Tolerances
    from edgekit.api import history as api

    if (against is None) == (save_reference is None):
        raise UsageError("check needs one of --against and --save-reference", "edgekit check RUN --against @previous")
    where: dict[str, Any] = {"device": device, "artifact": artifact, "db": db, "runs_dir": runs_dir}
    if save_reference is not None:
        number = api.save_reference(run, save_reference, **where)
        progress.note(f"{save_reference}: {number} results; next: edgekit check --against {save_reference}")
        return
    assert against is not None
    tolerances = Tolerances(tolerance_p50, tolerance_p90, tolerance_top1, tolerance_size)
    verdicts = api.check(run, against, tolerances, **where)
    _print_check(verdicts, json)
    _end(verdicts, strict)


def _print_check(verdicts: list[Verdict], json: bool) -> None:
    if json:
        console.as_json([{"state": v.state, **dataclasses.asdict(v)} for v in verdicts])
        return
    from edgekit.analysis.regression import State

    for verdict in verdicts:
        figures = sorted(verdict.figures, key=lambda f: _ORDER.index(f.name) if f.name in _ORDER else 0)
        said = "; ".join(
            f"{f.name} {f.why}" if f.state == verdict.state == State.PASS else f"{f.name} {f.state}: {f.why}"
            for f in figures
        )
        print(labels.printable(f"{verdict.state:<12}  {verdict.artifact} on {verdict.device}: {said}"))


def _end(verdicts: list[Verdict], strict: bool) -> None:
    """The exit status, and why."""
    from edgekit.analysis.regression import SAME_RESULT, State

    figures = [figure for verdict in verdicts for figure in verdict.figures]
    worse = [v for v in verdicts if v.state == State.WORSE]
    if worse:
        named = ", ".join(f"{v.artifact} on {v.device}" for v in worse[:5])
        raise GateError(
            f"worse than the reference beyond tolerance and chance: {named}",
            f"edgekit diff {worse[0].before} {worse[0].after} says more",
        )
    if all(figure == SAME_RESULT for figure in figures):
        raise MissingError(
            "the newest results are the reference itself: nothing was measured since",
            "edgekit benchmark, then this again",
        )
    if all(figure.state == State.NOT_COMPARED or figure.name == "size" for figure in figures):
        raise MissingError(
            "no latency and no accuracy could be compared with the reference",
            "measure both on one device; edgekit check --save-reference FILE makes a reference of this machine",
        )
    if strict and (unsure := [v for v in verdicts if v.state != State.PASS]):
        raise GateError(
            f"--strict: {len(unsure)} of {len(verdicts)} artifacts could not be judged in full",
            "measure longer, and on the machine of the reference: edgekit benchmark --suite standard",
        )


# ``edgekit diff``.


def diff(
    before: Annotated[str, typer.Argument(help=GRAMMAR, metavar="A", show_default=False)],
    after: Annotated[
        str | None, typer.Argument(help="The same. Default: what was measured last of A.", metavar="B")
    ] = None,
    device: OnDevice = None,
    db: Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare two measurements, or all of two runs: models, devices, precisions or versions.

    A and B are each a RUN, or RUN/ARTIFACT; either may end in @previous, @first or a date such as @2026-11-26 (the
    newest until then, UTC). Or an id that edgekit history prints. B alone missing: edgekit diff RUN compares the last
    measurement with the one before. The same artifact on the same device goes together; two artifacts are compared
    where both are named. Top-1 is compared image by image where the images are the same.
    """
    from edgekit.analysis import difference
    from edgekit.api import history as api

    compared = api.diff(before, after, device=device, db=db, runs_dir=runs_dir)
    if json:
        console.as_json([api.as_plain(one) for one in compared])
        return
    for number, one in enumerate(compared):
        if number:
            print()
        print(labels.printable(f"{_title(one.before)}\n -> {_title(one.after)}"))
        for sentence in difference.sentences(one):
            print(labels.printable(f"  {sentence}"))
    if any(one.p50 is not None and not one.p50.repeats for one in compared):
        progress.note(
            "a machine differs from one measurement to the next, of which two say nothing: with more of the same file "
            "the intervals have that in them; edgekit benchmark again"
        )


def _title(entry: Entry) -> str:
    when = entry.measured[:16].replace("T", " ")
    return f"{entry.id}  {entry.run}/{entry.artifact} on {entry.device} x{entry.threads}, {when}"

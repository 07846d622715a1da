"""``edgekit history``."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import progress
from edgekit.cli import console, pairing, recall
from edgekit.cli.options import Json, RunsDir
from edgekit.errors import MissingError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from edgekit.bench.database import Wanted
    from edgekit.bench.difference import Comparison
    from edgekit.bench.entries import Entry


# A place, and the runs that are asked of it; none are all.
Part = tuple[recall.Sources, tuple[str, ...]]
_COLUMNS = (
    "id", "measured (UTC)", "run", "model", "artifact", "on", "edgekit", "ran in", "top-1 % (95 %)", "p50 ms", "p90 ms",
    "MB", "change",
)  # fmt: skip
_RIGHT = _COLUMNS[8:12]
_NARROW = ("id", "measured (UTC)", "run", "artifact", "top-1 % (95 %)", "p50 ms", "change")
# What is the same in every line is said once, below.
_ONCE = ("run", "model", "on", "edgekit", "ran in")


def history(
    runs: Annotated[list[str] | None, typer.Argument(help="Names or paths. Default: all runs.")] = None,
    device: recall.OnDevice = None,
    model: Annotated[str | None, typer.Option(help="Only this network.", metavar="ARCH", show_default=False)] = None,
    artifact: Annotated[str | None, typer.Option(help="Only this artifact.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what was measured since, UTC.", metavar="YYYY-MM-DD", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many of the newest.")] = 50,
    push: Annotated[
        bool, typer.Option("--push", help="First send the results of these runs to the database of --db.")
    ] = False,
    db: recall.Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """List all that was ever measured, the newest first, and what changed each time.

    The last column compares a measurement with the one before it of the same artifact, run and device: a star is a
    change beyond chance (5 %). The index behind it is made again from the runs whenever it is missing or does not
    fit. edgekit diff compares any two.
    """
    from edgekit.bench.database import Wanted
    from edgekit.bench.entries import moment

    start = moment(since) if since else ""
    if start is None:
        raise UsageError(f"--since takes a date, not {since!r}", "--since 2026-11-26")
    names = list(runs or [])
    sources = recall.open_sources(runs_dir, names, db)
    asked = [_run(recall.parse(name, runs_dir, sources)) for name in names]
    parts = _parts(sources, asked)
    wanted = Wanted((), device or "", artifact or "", model or "", start, limit=limit)
    if push:
        _push(sources.team, parts)
    found, changes = _listed(parts, wanted)
    if not found:
        wanted = dataclasses.replace(wanted, runs=tuple(named.run for named in asked), limit=None)
        what = "nothing was measured that fits" if any(dataclasses.astuple(wanted)) else "nothing was measured yet"
        if not json:
            raise MissingError(what, "edgekit benchmark; edgekit history without options lists all")
    _print(found, changes, limit, json)


def _run(named: recall.Named) -> recall.Named:
    """What is named, if it is a run and nothing else.

    Raises:
        UsageError: it is something else.
    """
    if not named.run or named.artifact or named.when != "latest":
        raise UsageError(
            f"history lists runs, and {named.text!r} names more or other than one", "--artifact, --since; edgekit diff"
        )
    return named


def _parts(sources: recall.Sources, asked: list[recall.Named]) -> list[Part]:
    """Where each run is looked for: one here in its folder alone, one of somebody else's everywhere, place by place."""
    runs: dict[Path | None, list[str]] = {} if asked else {None: []}
    for named in asked:
        runs.setdefault(named.folder, []).append(named.run)
    return [(each, tuple(dict.fromkeys(names))) for folder, names in runs.items() for each in sources.of(folder).each()]


def _push(team: Engine | None, parts: list[Part]) -> None:
    from edgekit.bench import database
    from edgekit.bench.database import Wanted

    if team is None:
        raise UsageError("--push sends results to a database, and none is named", "--db postgresql://user@host/name")
    with database.speaking(team):
        with team.connect() as connection:
            there = database.keys(connection)
        sent = 0
        for sources, runs in parts:
            if sources.team is None:
                own = [e for e in recall.find(sources, Wanted(runs)) if (e.sha256, e.run) not in there]
                with team.begin() as connection:
                    database.put(connection, list(recall.with_samples(sources, own).values()))
                there |= {(e.sha256, e.run) for e in own}
                sent += len(own)
    progress.note(f"sent {sent} results to {database.name_of(team)}")


def _listed(parts: list[Part], wanted: Wanted) -> tuple[list[Entry], dict[tuple[str, str], Comparison]]:
    """The entries of all parts, each once, the newest first, and each against the one before it in the same place."""
    places: dict[tuple[str, str], int] = {}
    entries: dict[tuple[str, str], Entry] = {}
    for number, (sources, runs) in enumerate(parts):
        for entry in recall.find(sources, dataclasses.replace(wanted, runs=runs)):
            if places.setdefault((entry.sha256, entry.run), number) == number:
                entries[entry.sha256, entry.run] = entry
    found = recall.newest_first(entries.values())[: wanted.limit]
    changes: dict[tuple[str, str], Comparison] = {}
    for number, (sources, _) in enumerate(parts):
        changes |= _changes(sources, [e for e in found if places[e.sha256, e.run] == number])
    return found, changes


def _changes(sources: recall.Sources, shown: list[Entry]) -> dict[tuple[str, str], Comparison]:
    """Each of `shown` against the one before it."""
    from edgekit.bench import difference
    from edgekit.bench.database import Wanted

    if not shown:
        return {}
    runs = tuple(sorted({entry.run for entry in shown}))
    keys = {(entry.sha256, entry.run) for entry in shown}
    compared: list[tuple[Entry, Entry, list[Entry]]] = []
    for group in pairing.grouped(recall.find(sources, Wanted(runs))):
        compared += [(a, b, group) for a, b in itertools.pairwise(group) if (b.sha256, b.run) in keys]
    samples = recall.with_samples(sources, [entry for a, b, _ in compared for entry in (a, b)])
    return {
        (b.sha256, b.run): difference.compare(samples[a.sha256, a.run], samples[b.sha256, b.run], group)
        for a, b, group in compared
    }


def _print(found: list[Entry], changes: dict[tuple[str, str], Comparison], limit: int, json: bool) -> None:
    if json:
        console.as_json([_plain(entry, changes.get((entry.sha256, entry.run))) for entry in found])
        return
    rows = [_cells(entry, changes.get((entry.sha256, entry.run))) for entry in found]
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
    if any(entry.busy for entry in found):
        progress.note("!: the machine was busy: other work took more than a fifth of its cores just before")
    if changes:
        progress.note(
            "change: since the measurement before. *: beyond chance (5 %), as far as these measurements tell; "
            "?: so too, but other work ran. edgekit diff says more"
        )


def _cells(entry: Entry, change: Comparison | None) -> list[str]:
    from edgekit.report.tables import latency
    from edgekit.statistics import wilson

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
    from edgekit.bench.difference import bounds, doubtful, not_compared

    if why := change.machines or not_compared(change, 50):
        return f"p50 not compared: {why}"
    if change.p50 is None:
        return "p50 insufficient samples"
    if not bounds(change.p50, ""):
        return f"p50 x {change.p50.value:.2g}, no interval"
    star = "" if not change.p50.significant else "?" if doubtful(change, change.p50) else "*"
    return f"p50 {100 * (change.p50.value - 1):+.1f} %{star}"


def _plain(entry: Entry, change: Comparison | None) -> dict[str, object]:
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "samples"}
    return {"id": entry.id, **fields, "top1": entry.top1, "change": None if change is None else as_plain(change)}


def as_plain(change: Comparison) -> dict[str, object]:
    """A comparison as plain values; latencies as ratios."""
    from edgekit.bench import difference

    fields = {f.name: getattr(change, f.name) for f in dataclasses.fields(change)}
    ends = {name: fields.pop(name) for name in ("before", "after")}
    return {
        **{name: {"id": e.id, "sha256": e.sha256, "run": e.run, "artifact": e.artifact, "device": e.device,
                  "measured": e.measured, "top1": e.top1, "p50_ms": e.p50_ms, "p90_ms": e.p90_ms,
                  "size_bytes": e.size_bytes} for name, e in ends.items()},
        **fields,
        "sentences": difference.sentences(change),
    }  # fmt: skip

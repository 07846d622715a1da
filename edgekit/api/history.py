"""History: find saved measurements, compare them, and check them against a reference."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from edgekit import progress, runs
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.runs import Run, open_run

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from edgekit.analysis.difference import Comparison
    from edgekit.analysis.regression import Tolerances, Verdict
    from edgekit.archive.database import Wanted
    from edgekit.archive.entry import Entry


# Names of results on the command line.
GRAMMAR = "RUN, RUN/ARTIFACT, RUN@previous, RUN@first, RUN@2026-11-26, or an id of edgekit history"
_MOMENT = re.compile(r"latest|previous|first|\d{4}-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?")
_MOMENTS = {"previous": "twice", "first": "at all", "latest": "at all"}
_MOST_NAMES = 12  # in a message
_MOST_AT_ONCE = 1 << 22  # images of the results whose samples are in memory at the same time


@dataclass(frozen=True)
class HistoryRow:
    """A saved measurement, and the change since the one before it; None if it is the first."""

    entry: Entry
    change: Comparison | None = None


def history(
    runs: Sequence[str] = (),
    *,
    device: str = "",
    model: str = "",
    artifact: str = "",
    since: str | None = None,
    limit: int | None = 50,
    db: str | None = None,
    runs_dir: str | Path = "runs",
) -> list[HistoryRow]:
    """List measurements, the newest first, each with its change since the one before.

    Args:
        runs: names or paths; empty for all runs.
        device, model, artifact: only measurements of these; "" for all.
        since: a date or time, UTC, such as "2026-11-26".
        limit: largest number of rows; None for all.
        db: URL of a shared database to search too, ``postgresql://user@host/name``.
        runs_dir: the folder of the runs.

    Raises:
        UsageError: `since` is not a date, or one of `runs` is not a run. MissingError: there is no such run.

    Example:
        >>> [row.entry.artifact for row in edgekit.history(["tour"], artifact="desktop/model.fp32.onnx")]
        ['desktop/model.fp32.onnx']
    """
    from edgekit.archive.database import Wanted

    sources = open_sources(Path(runs_dir), runs, db)
    asked = [only_run(parse(name, Path(runs_dir), sources)) for name in runs]
    wanted = Wanted((), device, artifact, model, moment_of(since), limit=limit)
    found, changes = listed(parts_of(sources, asked), wanted)
    return [HistoryRow(entry, changes.get((entry.sha256, entry.run))) for entry in found]


def diff(
    before: str,
    after: str | None = None,
    *,
    device: str | None = None,
    db: str | None = None,
    runs_dir: str | Path = "runs",
) -> list[Comparison]:
    """Compare two measurements, or all of two runs: the same artifact on the same device.

    Args:
        before, after: RUN or RUN/ARTIFACT, either with @previous, @first or a date such as @2026-11-26; or an id.
            Without `after`, the newest of `before` against the one before it.
        device: only measurements of this device.
        db, runs_dir: as in `history`.

    Raises:
        MissingError: there is no such measurement, or no artifact in common. UsageError: both are the same.

    Example:
        >>> [one] = edgekit.diff("tour/desktop/model.fp32.onnx", "tour/baseline/pytorch")
        >>> one.top1.value
        0.0
    """
    runs_dir = Path(runs_dir)
    sources = open_sources(runs_dir, [name for name in (before, after) if name], db)
    if after is None:
        named = parse(before, runs_dir, sources)
        if named.id or named.when != "latest":
            after = named.text
        else:
            before, after = f"{before}@previous", before
    return compare_sides((before, after), runs_dir, sources, device)


def compare_sides(sides: tuple[str, str], runs_dir: Path, sources: Sources, device: str | None) -> list[Comparison]:
    """Compare the results that two names refer to; log those that only one of them has."""
    from edgekit.analysis import difference

    found = [resolve(name, runs_dir, sources, device) for name in sides]
    paired = pairs(found[0].entries, found[1].entries)
    different = [(a, b) for a, b in paired if (a.sha256, a.run) != (b.sha256, b.run)]
    if not different:
        raise UsageError(
            f"{sides[0]} and {sides[1]} are the same measurement ({', '.join(sorted({b.id for _, b in paired})[:5])})",
            f"edgekit history {quote(paired[0][1].run)} lists others",
        )
    samples = [with_samples(side.sources, side.entries) for side in found]
    repeats = difference.Repeats(entry for side in found for entry in others(side))
    for name, rest in zip(sides, left_out(found[0].entries, found[1].entries, paired)):
        if rest:
            progress.note(f"only in {name}, and not compared: {rest}")
    whole = [(samples[0].get((a.sha256, a.run)), samples[1].get((b.sha256, b.run))) for a, b in different]
    compared = [difference.compare(a, b, repeats) for a, b in whole if a is not None and b is not None]
    if not compared:
        raise DataError(
            f"the samples of {sides[0]} or {sides[1]} cannot be read", "remove that row, and send the result again"
        )
    return compared


def check(
    run: Run | str | None,
    reference: str | Path,
    tolerances: Tolerances | None = None,
    *,
    device: str | None = None,
    artifact: str | None = None,
    db: str | None = None,
    runs_dir: str | Path = "runs",
) -> list[Verdict]:
    """Check the newest measurements of a run against a reference.

    Args:
        run: a run or its name; None for the newest.
        reference: as `before` in `diff`; "@previous"; or a .json file that `save_reference` wrote.
        tolerances: how much worse each figure may be; by default 5 % of p50 and of the size, 1 point of top-1.
        device, artifact: only measurements of these.
        db, runs_dir: as in `history`.

    Returns:
        One verdict per artifact and device. Its ``state`` equals "pass", "worse", "cannot tell" or "not compared".

    Raises:
        MissingError: there is no such measurement.

    Example:
        >>> edgekit.save_reference("tour", "reference.json")
        2
        >>> [verdict.state.value for verdict in edgekit.check("tour", "reference.json")]
        ['not compared', 'not compared']
    """
    from edgekit.analysis.regression import Tolerances

    runs_dir, against, name = Path(runs_dir), str(reference), _name_of(run, Path(runs_dir))
    names = [name, against] if against[0] != "@" and not against.endswith(".json") else [name]
    sources = open_sources(runs_dir, names, db)
    if against.startswith("@"):
        against = parse(name, runs_dir, sources).text + against
    newest = _newest(name, runs_dir, sources, device, artifact)
    entries, more = reference_entries(against, runs_dir, sources, device)
    return judge_all(newest, of_artifact(entries, artifact), more, tolerances or Tolerances())


def save_reference(
    run: Run | str | None,
    path: str | Path,
    *,
    device: str | None = None,
    artifact: str | None = None,
    db: str | None = None,
    runs_dir: str | Path = "runs",
) -> int:
    """Write the newest measurements of a run as a reference for `check`, and return their number.

    Args:
        run: a run or its name; None for the newest. path: of the .json file.
        device, artifact: only measurements of these.
        db, runs_dir: as in `history`.

    Example:
        >>> edgekit.save_reference("tour", "reference.json", artifact="baseline/pytorch")
        1
    """
    from edgekit.analysis import regression

    runs_dir, name = Path(runs_dir), _name_of(run, Path(runs_dir))
    newest = _newest(name, runs_dir, open_sources(runs_dir, [name], db), device, artifact)
    entries = list(with_samples(newest.sources, newest.entries).values())
    if not entries:
        raise DataError(f"the samples of {name} cannot be read", "remove its rows, and send the results again")
    regression.save_reference(Path(path), entries)
    return len(entries)


def _name_of(run: Run | str | None, runs_dir: Path) -> str:
    if run is None:
        return open_run(runs_dir, None).name
    return run.argument if isinstance(run, Run) else str(run)


def _newest(name: str, runs_dir: Path, sources: Sources, device: str | None, artifact: str | None) -> Resolved:
    found = resolve(name, runs_dir, sources, device)
    return Resolved(of_artifact(found.entries, artifact), found.sources)


def moment_of(since: str | None) -> str:
    """Return a date or time as it is stored; "" for None.

    Raises:
        UsageError: it is not a date.
    """
    from edgekit.archive.entry import moment

    start = moment(since) if since else ""
    if start is None:
        raise UsageError(f"--since takes a date, not {since!r}", "--since 2026-11-26")
    return start


def grouped(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group entries by run, artifact and device; each group is sorted from old to new.

    Entries of the same weights are sorted by their number, which does not depend on a clock, others by time.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.run, entry.artifact, entry.device), []).append(entry)
    ordered = []
    for group in groups.values():
        last = {w: max(e.measured for e in group if e.weights_sha256 == w) for w in {e.weights_sha256 for e in group}}
        ordered.append(sorted(group, key=lambda e: (last[e.weights_sha256], e.weights_sha256, e.number, e.measured)))
    return sorted(ordered, key=lambda group: (group[0].run, group[0].artifact, group[0].device))


def at(group: list[Entry], when: str) -> Entry | None:
    """Return the entry of a sorted group that `when` refers to; None if there is none."""
    if when == "latest":
        return group[-1]
    if when == "previous":
        return group[-2] if len(group) > 1 else None
    if when == "first":
        return group[0]
    return next((entry for entry in reversed(group) if entry.measured[: len(when)] <= when), None)


def _by_name(entry: Entry) -> tuple[str, ...]:
    return (entry.artifact, entry.device)


def _by_target(entry: Entry) -> tuple[str, ...]:
    return (entry.artifact.partition("/")[0], entry.device)


def _by_device(entry: Entry) -> tuple[str, ...]:
    return (entry.device,)


def pairs(before: list[Entry], after: list[Entry]) -> list[tuple[Entry, Entry]]:
    """Return the pairs of entries to compare.

    These are the same artifacts on the same devices. If there are none, entries are paired that are the only ones of
    their target and device, then of their device, then of their side.

    Raises:
        MissingError: there is no pair.
    """
    found: list[tuple[Entry, Entry]] = []
    for key in (_by_name, _by_target, _by_device, lambda entry: ()):
        if not found and (key is _by_name or all(len({key(e) for e in side}) == len(side) for side in (before, after))):
            known = {key(entry): entry for entry in before}
            found = [(known[key(entry)], entry) for entry in after if key(entry) in known]
    if not found:
        has = [names(sorted({f"{e.artifact} on {e.device}" for e in side})) for side in (before, after)]
        raise MissingError(
            f"the two sides have no artifact in common; the first has {has[0]}; the second has {has[1]}",
            "name one artifact of each, RUN/ARTIFACT, and a --device if it was measured on several",
        )
    return found


def left_out(before: list[Entry], after: list[Entry], found: list[tuple[Entry, Entry]]) -> tuple[str, str]:
    """Return the names of the entries of each side that are in no pair."""
    compared = {id(entry) for pair in found for entry in pair}
    rest = [[e for e in side if id(e) not in compared] for side in (before, after)]
    first, second = (names(sorted(f"{e.artifact} on {e.device}" for e in side)) if side else "" for side in rest)
    return first, second


def names(known: Sequence[str]) -> str:
    """Join names for a message, at most the first 12."""
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return (", ".join(known[:_MOST_NAMES]) + more) or "none yet"


@dataclass(frozen=True)
class Sources:
    """Places to search: the indexes of folders of runs, and a shared database, if one is given."""

    indexes: dict[Path, Engine]
    team: Engine | None

    def of(self, folder: Path | None) -> Sources:
        """Return one folder only, since two folders may have runs of the same name; all sources for None."""
        return self if folder is None else Sources({folder: self.indexes[folder]}, None)

    def each(self) -> list[Sources]:
        """Return each source by itself."""
        folders = [self.of(folder) for folder in self.indexes]
        return [*folders, *([Sources({}, self.team)] if self.team is not None else [])]


@dataclass(frozen=True)
class Named:
    """A parsed name of results: a run, maybe with an artifact and a moment, or the beginning of a hash.

    Attributes:
        text: the name without the moment. folder: of runs, for a run on this machine; None for one in the database.
    """

    text: str
    run: str = ""
    artifact: str = ""
    when: str = "latest"
    id: str = ""
    folder: Path | None = None


@dataclass(frozen=True)
class Resolved:
    """The results that a name refers to, and the source that has their run."""

    entries: list[Entry]
    sources: Sources


def open_sources(runs_dir: Path, named: Iterable[str], url: str | None) -> Sources:
    """Update the indexes of the folders that `named` need, and connect to the database; log damaged results.

    Raises:
        MissingError: the database cannot be reached.
    """
    from edgekit.archive import database, index

    folders = {runs_dir.resolve(): runs_dir}
    for name in named:
        path = _local(runs_dir, name)[0]
        if path is not None:
            folders.setdefault(_place(path)[0], path.parent)
    opened = {}
    with progress.working("reading results"):
        for resolved, folder in folders.items():
            found = index.refresh(folder)
            opened[resolved] = found.engine
            for problem in found.problems:
                progress.note(f"left out: {problem}")
    return Sources(opened, None if not url else database.connect(url))


def _place(run: Path) -> tuple[Path, str]:
    """Return the folder of a run, and the run's name in it; links to runs are not followed."""
    whole = run if run.name not in ("", "..") else run.resolve()
    return whole.parent.resolve(), whole.name


def find(sources: Sources, wanted: Wanted) -> list[Entry]:
    """Return the entries of all sources without duplicates, newest first."""
    from edgekit.archive import database

    found: dict[tuple[str, str], Entry] = {}
    for engine in _engines(sources):
        with database.speaking(engine), engine.connect() as connection:
            for entry in database.find(connection, wanted):
                found.setdefault((entry.sha256, entry.run), entry)
    return newest_first(found.values())[: wanted.limit]


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """Sort by time of measurement, newest first."""
    return sorted(entries, key=lambda e: (e.measured, e.number), reverse=True)


def with_samples(sources: Sources, entries: Sequence[Entry]) -> dict[tuple[str, str], Entry]:
    """Return the entries with their samples, by hash and run."""
    from edgekit.archive import database

    found: dict[tuple[str, str], Entry] = {}
    for engine in _engines(sources):
        missing = [entry for entry in entries if (entry.sha256, entry.run) not in found]
        with database.speaking(engine), engine.connect() as connection:
            for entry in database.with_samples(connection, missing):
                found[entry.sha256, entry.run] = entry
    return found


def others(newest: Resolved) -> list[Entry]:
    """Return all measurements of the same runs, artifacts and devices."""
    from edgekit.archive.database import Wanted

    found: list[Entry] = []
    for run, artifact, device in sorted({(e.run, e.artifact, e.device) for e in newest.entries}):
        found += find(newest.sources, Wanted(runs=(run,), artifact=artifact, device=device))
    return found


def holding(sources: Sources, entries: Sequence[Entry]) -> list[Resolved]:
    """Return those of `entries` that the sources have, for each source."""
    from edgekit.archive.database import Wanted

    runs, hashes = tuple(sorted({entry.run for entry in entries})), {entry.sha256 for entry in entries}
    found = [(each, find(each, Wanted(runs=runs))) for each in sources.each()]
    return [Resolved([entry for entry in there if entry.sha256 in hashes], each) for each, there in found]


def _engines(sources: Sources) -> list[Engine]:
    return [*sources.indexes.values(), *([sources.team] if sources.team is not None else [])]


def _local(runs_dir: Path, text: str) -> tuple[Path | None, str, str]:
    """Split the name of a run on this machine into path, artifact and moment; the path is None for other names."""
    head, _, when = text.rpartition("@")
    for name, moment in ((text, "latest"), (head, when)):
        parts = name.split("/")
        for k in range(len(parts), 0, -1):
            run, artifact = "/".join(parts[:k]), "/".join(parts[k:])
            for path in (runs_dir / run, Path(run)) if run and "@" not in artifact else ():
                if (path / runs.RUN_FILE).is_file():
                    return path, artifact, moment
    return None, "", ""


def parse(text: str, runs_dir: Path, sources: Sources) -> Named:
    """Parse a name of results.

    Raises:
        MissingError: there is no such run or result. UsageError: the moment is not valid.
    """
    from edgekit.archive.database import Wanted
    from edgekit.archive.entry import text as as_kept

    path, artifact, when = _local(runs_dir, text)
    folder, name = _place(path) if path is not None else (None, "")
    run = as_kept(name)
    if not run:  # a run in the shared database
        head, _, when = text.rpartition("@") if "@" in text else (text, "", "latest")
        first, _, artifact = head.partition("/")
        run = first if first and find(sources, Wanted(runs=(first,), limit=1)) else ""
    if run:
        if not _is_time(when):
            raise UsageError(
                f"{when!r} is not a moment", "use @latest, @previous, @first or a date such as @2026-11-26 (UTC)"
            )
        return Named(text.removesuffix(f"@{when}"), run, artifact, when, folder=folder)
    if re.fullmatch("[0-9a-f]{4,64}", text):
        return Named(text, id=text)
    known = sorted({entry.run for entry in find(sources, Wanted(limit=1000))})
    raise MissingError(f"there is no run and no result {text!r}", f"use {GRAMMAR}; measured runs: {names(known)}")


def _is_time(when: str) -> bool:
    if not _MOMENT.fullmatch(when):
        return False
    try:
        return when in _MOMENTS or bool(datetime.fromisoformat(f"{when}-01" if len(when) == len("2026-11") else when))
    except ValueError:
        return False


def resolve(text: str, runs_dir: Path, sources: Sources, device: str | None) -> Resolved:
    """Return the results that a name refers to, one per artifact and device.

    Raises:
        MissingError: there are none. UsageError: several results begin with the id.
    """
    from edgekit.archive.database import Wanted

    named = parse(text, runs_dir, sources)
    if named.id:
        return _by_id(named.id, sources, device)
    here = sources.of(named.folder)
    found = find(here, Wanted(runs=(named.run,), device=device or ""))
    if not found:
        where = f" on {device!r}" if device else ""
        raise MissingError(f"the run {named.run!r} has no measurements{where}", f"edgekit benchmark {quote(named.run)}")
    if named.artifact:
        chosen = [e for e in found if named.artifact in (e.artifact, e.artifact.partition("/")[2])]
        if not chosen:
            known = sorted({entry.artifact for entry in found})
            raise MissingError(f"{named.run!r} has no measurement of {named.artifact!r}", f"measured: {names(known)}")
        found = chosen
    picked = [entry for group in grouped(found) if (entry := at(group, named.when)) is not None]
    if not picked:
        raise MissingError(
            f"no artifact of {named.run!r} was measured {_MOMENTS.get(named.when, 'until ' + named.when)}",
            f"edgekit history {quote(named.run)} lists its measurements",
        )
    return Resolved(picked, here)


def _by_id(text: str, sources: Sources, device: str | None) -> Resolved:
    """Return the result whose hash begins with `text`, from the first source that has it."""
    from edgekit.archive.database import Wanted

    places = [Resolved(find(each, Wanted(device=device or "", id=text)), each) for each in sources.each()]
    hashes = {entry.sha256 for place in places for entry in place.entries}
    if len(hashes) > 1:
        raise UsageError(f"{len(hashes)} results begin with {text}", "type more characters of the id")
    for place in places:
        if place.entries:
            return Resolved(place.entries[:1], place.sources)
    raise MissingError(f"there is no run and no result {text!r}", "edgekit history lists ids")


def of_artifact(entries: list[Entry], artifact: str | None) -> list[Entry]:
    """Return the entries of one artifact, named with or without its target; None for all."""
    found = [e for e in entries if artifact in (None, e.artifact, e.artifact.partition("/")[2])]
    if not found:
        raise MissingError(
            f"{artifact!r} was not measured", f"measured: {', '.join(sorted({e.artifact for e in entries})[:12])}"
        )
    return found


def reference_entries(
    against: str, runs_dir: Path, sources: Sources, device: str | None
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of a reference with their samples, and all other measurements of the same artifacts."""
    from edgekit.analysis import regression

    if not against.endswith(".json"):
        found = resolve(against, runs_dir, sources, device)
        return list(with_samples(found.sources, found.entries).values()), others(found)
    entries = regression.load_reference(Path(against))
    chosen = [entry for entry in entries if device in (None, entry.device)]
    if not chosen:
        known = ", ".join(sorted({entry.device for entry in entries})[:12])
        raise MissingError(f"{against} has no results of {device!r}", f"it has: {known}")
    return chosen, [entry for place in holding(sources, chosen) for entry in others(place)]


def judge_all(newest: Resolved, reference: list[Entry], more: list[Entry], tolerances: Tolerances) -> list[Verdict]:
    """Judge each artifact and device that at least one side has."""
    from edgekit.analysis import difference, regression

    by_place = {(entry.artifact, entry.device): entry for entry in reference}
    samples = with_samples(newest.sources, newest.entries)
    repeats = difference.Repeats([*others(newest), *more])
    verdicts = []
    for entry in newest.entries:
        before = by_place.pop((entry.artifact, entry.device), None)
        now = samples.get((entry.sha256, entry.run))
        none = regression.NOT_IN_REFERENCE if now is not None else regression.NO_SAMPLES
        if before is not None and before.sha256 == entry.sha256:
            before, none = None, regression.SAME_RESULT
        if before is None or now is None:
            verdicts.append(regression.Verdict(entry.artifact, entry.device, "", entry.id, (none,)))
        else:
            verdicts.append(regression.judge(before, now, tolerances, repeats))
    for entry in by_place.values():
        gone = (regression.NOT_MEASURED_NOW,)
        verdicts.append(regression.Verdict(entry.artifact, entry.device, entry.id, "", gone))
    return verdicts


# A source, and names of runs to find in it; empty: all.
Part = tuple[Sources, tuple[str, ...]]


def only_run(named: Named) -> Named:
    """Return `named` if it is the name of a run.

    Raises:
        UsageError: it is an artifact, a moment or an id.
    """
    if not named.run or named.artifact or named.when != "latest":
        raise UsageError(
            f"{named.text!r} is not a run name",
            "restrict the list with --artifact or --since; edgekit diff compares single results",
        )
    return named


def parts_of(sources: Sources, asked: list[Named]) -> list[Part]:
    """Return the sources to search for each run: its folder for a run on this machine, else all."""
    runs: dict[Path | None, list[str]] = {} if asked else {None: []}
    for named in asked:
        runs.setdefault(named.folder, []).append(named.run)
    return [(each, tuple(dict.fromkeys(names))) for folder, names in runs.items() for each in sources.of(folder).each()]


def push(names: Sequence[str], db: str | None, runs_dir: Path) -> None:
    """Send the results of runs to a shared database; of all runs if `names` is empty.

    Raises:
        UsageError: no database is given. MissingError: it cannot be reached.
    """
    sources = open_sources(runs_dir, names, db)
    push_results(sources.team, parts_of(sources, [only_run(parse(name, runs_dir, sources)) for name in names]))


def push_results(team: Engine | None, parts: list[Part]) -> None:
    """Send those results of `parts` to the database that it does not have."""
    from edgekit.archive import database
    from edgekit.archive.database import Wanted

    if team is None:
        raise UsageError("--push needs a database", "--db postgresql://user@host/name")
    with database.speaking(team):
        with team.connect() as connection:
            there = database.keys(connection)
        sent = 0
        for sources, names in parts:
            if sources.team is None:
                own = [e for e in find(sources, Wanted(names)) if (e.sha256, e.run) not in there]
                whole = with_samples(sources, own)
                with team.begin() as connection:
                    database.put(connection, list(whole.values()))
                there |= whole.keys()
                sent += len(whole)
    progress.note(f"sent {sent} results to {database.name_of(team)}")


def listed(parts: list[Part], wanted: Wanted) -> tuple[list[Entry], dict[tuple[str, str], Comparison]]:
    """Return the entries of all parts, newest first, and each entry's change since the one before it in its source."""
    places: dict[tuple[str, str], int] = {}
    entries: dict[tuple[str, str], Entry] = {}
    for number, (sources, names) in enumerate(parts):
        for entry in find(sources, dataclasses.replace(wanted, runs=names)):
            if places.setdefault((entry.sha256, entry.run), number) == number:
                entries[entry.sha256, entry.run] = entry
    found = newest_first(entries.values())[: wanted.limit]
    changes: dict[tuple[str, str], Comparison] = {}
    for number, (sources, _) in enumerate(parts):
        changes |= _changes(sources, [e for e in found if places[e.sha256, e.run] == number])
    return found, changes


def _changes(sources: Sources, shown: list[Entry]) -> dict[tuple[str, str], Comparison]:
    """Compare each of `shown` with the entry before it."""
    from edgekit.analysis import difference
    from edgekit.archive.database import Wanted

    if not shown:
        return {}
    runs = tuple(sorted({entry.run for entry in shown}))
    keys = {(entry.sha256, entry.run) for entry in shown}
    compared: list[tuple[Entry, Entry, difference.Repeats]] = []
    for group in grouped(find(sources, Wanted(runs))):
        repeats = difference.Repeats(group)
        compared += [(a, b, repeats) for a, b in itertools.pairwise(group) if (b.sha256, b.run) in keys]
    changes: dict[tuple[str, str], Comparison] = {}
    while compared:
        part: list[tuple[Entry, Entry, difference.Repeats]] = []
        images = 0
        while compared and (not part or images < _MOST_AT_ONCE):
            part.append(compared.pop())
            images += part[-1][0].images + part[-1][1].images
        samples = with_samples(sources, [entry for a, b, _ in part for entry in (a, b)])
        for a, b, repeats in part:
            if (a.sha256, a.run) in samples and (b.sha256, b.run) in samples:
                change = difference.compare(samples[a.sha256, a.run], samples[b.sha256, b.run], repeats)
                changes[b.sha256, b.run] = dataclasses.replace(change, before=a, after=b)  # without samples
    return changes


def as_plain(change: Comparison) -> dict[str, object]:
    """Return a comparison as plain values, for JSON; changes of latencies are ratios."""
    from edgekit.analysis import difference

    fields = {f.name: getattr(change, f.name) for f in dataclasses.fields(change)}
    ends = {name: fields.pop(name) for name in ("before", "after")}
    return {
        **{name: {"id": e.id, "sha256": e.sha256, "run": e.run, "artifact": e.artifact, "device": e.device,
                  "measured": e.measured, "top1": e.top1, "p50_ms": e.p50_ms, "p90_ms": e.p90_ms,
                  "size_bytes": e.size_bytes} for name, e in ends.items()},
        **fields,
        "sentences": difference.sentences(change),
    }  # fmt: skip

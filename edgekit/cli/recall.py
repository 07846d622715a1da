"""How kept results are named on the command line, and where they are looked for.

``RUN``, ``RUN/ARTIFACT``, either with ``@previous``, ``@first`` or ``@2026-11-26``; or the id that ``edgekit history``
prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import progress, runs
from edgekit.cli.pairing import at, grouped, names
from edgekit.errors import MissingError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from edgekit.bench.database import Wanted
    from edgekit.bench.entries import Entry


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
GRAMMAR = "RUN, RUN/ARTIFACT, RUN@previous, RUN@first, RUN@2026-11-26, or an id of edgekit history"
_WHEN = re.compile(r"latest|previous|first|\d{4}-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?")
_WORDS = {"previous": "twice", "first": "at all", "latest": "at all"}


@dataclass(frozen=True)
class Sources:
    """Where results are looked for: the indexes of folders of runs, and a team's database, if one is asked."""

    indexes: dict[Path, Engine]
    team: Engine | None

    def of(self, folder: Path | None) -> Sources:
        """One folder alone: runs of one name in two folders are two. None is all."""
        return self if folder is None else Sources({folder: self.indexes[folder]}, None)

    def each(self) -> list[Sources]:
        """One by one."""
        folders = [self.of(folder) for folder in self.indexes]
        return [*folders, *([Sources({}, self.team)] if self.team is not None else [])]


@dataclass(frozen=True)
class Named:
    """What a name of the user's means: a run's, perhaps an artifact of it, and when; or the beginning of a hash.
    `text` is the name without the time. `folder`: of runs, where it is a run here; None where it is somebody else's.
    """

    text: str
    run: str = ""
    artifact: str = ""
    when: str = "latest"
    id: str = ""
    folder: Path | None = None


@dataclass(frozen=True)
class Resolved:
    """The results that a name means, and where their run is: what else is known of it must be from there."""

    entries: list[Entry]
    sources: Sources


def open_sources(runs_dir: Path, named: Iterable[str], url: str | None) -> Sources:
    """Bring the indexes up to date that `named` need; what is damaged is said and left out.

    Raises:
        MissingError: the database cannot be reached.
    """
    from edgekit.bench import database, index

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
    """The folder of runs that a run lies in, and its name there; a link is a run of its own."""
    whole = run if run.name not in ("", "..") else run.resolve()
    return whole.parent.resolve(), whole.name


def find(sources: Sources, wanted: Wanted) -> list[Entry]:
    """Entries of all sources, each once, the newest first."""
    from edgekit.bench import database

    found: dict[tuple[str, str], Entry] = {}
    for engine in _engines(sources):
        with database.speaking(engine), engine.connect() as connection:
            for entry in database.find(connection, wanted):
                found.setdefault((entry.sha256, entry.run), entry)
    return newest_first(found.values())[: wanted.limit]


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """By when they were measured."""
    return sorted(entries, key=lambda e: (e.measured, e.number), reverse=True)


def with_samples(sources: Sources, entries: Sequence[Entry]) -> dict[tuple[str, str], Entry]:
    """Entries with their samples, by hash and run."""
    from edgekit.bench import database

    found: dict[tuple[str, str], Entry] = {}
    for engine in _engines(sources):
        missing = [entry for entry in entries if (entry.sha256, entry.run) not in found]
        with database.speaking(engine), engine.connect() as connection:
            for entry in database.with_samples(connection, missing):
                found[entry.sha256, entry.run] = entry
    return found


def others(of: Resolved) -> list[Entry]:
    """All measurements of the same artifacts of the same runs on the same devices."""
    from edgekit.bench.database import Wanted

    found: list[Entry] = []
    for run, artifact, device in sorted({(e.run, e.artifact, e.device) for e in of.entries}):
        found += find(of.sources, Wanted(runs=(run,), artifact=artifact, device=device))
    return found


def holding(sources: Sources, entries: Sequence[Entry]) -> list[Resolved]:
    """Those of `entries` that are here, by where they are."""
    from edgekit.bench.database import Wanted

    runs, hashes = tuple(sorted({entry.run for entry in entries})), {entry.sha256 for entry in entries}
    found = [(each, find(each, Wanted(runs=runs))) for each in sources.each()]
    return [Resolved([entry for entry in there if entry.sha256 in hashes], each) for each, there in found]


def _engines(sources: Sources) -> list[Engine]:
    return [*sources.indexes.values(), *([sources.team] if sources.team is not None else [])]


def _local(runs_dir: Path, text: str) -> tuple[Path | None, str, str]:
    """The run here that a name begins with, the artifact behind its slash, and when."""
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
    """What `text` names.

    Raises:
        MissingError: neither a run nor a result. UsageError: no time that is known.
    """
    from edgekit.bench.database import Wanted
    from edgekit.bench.entries import text as as_kept

    path, artifact, when = _local(runs_dir, text)
    folder, name = _place(path) if path is not None else (None, "")
    run = as_kept(name)
    if not run:  # a run of somebody else's
        head, _, when = text.rpartition("@") if "@" in text else (text, "", "latest")
        first, _, artifact = head.partition("/")
        run = first if first and find(sources, Wanted(runs=(first,), limit=1)) else ""
    if run:
        if not _is_time(when):
            raise UsageError(f"{when!r} is no time of a result", "@latest, @previous, @first or @2026-11-26 (UTC)")
        return Named(text.removesuffix(f"@{when}"), run, artifact, when, folder=folder)
    if re.fullmatch("[0-9a-f]{4,64}", text):
        return Named(text, id=text)
    known = sorted({entry.run for entry in find(sources, Wanted(limit=1000))})
    raise MissingError(f"there is no run and no result {text!r}", f"{GRAMMAR}; measured runs: {names(known)}")


def _is_time(when: str) -> bool:
    if not _WHEN.fullmatch(when):
        return False
    try:
        return when in _WORDS or bool(datetime.fromisoformat(f"{when}-01" if len(when) == len("2026-11") else when))
    except ValueError:
        return False


def resolve(text: str, runs_dir: Path, sources: Sources, device: str | None) -> Resolved:
    """The results that a name means: one of each artifact and device.

    Raises:
        MissingError: there is none. UsageError: an id that several results begin with.
    """
    from edgekit.bench.database import Wanted

    named = parse(text, runs_dir, sources)
    if named.id:
        return _by_id(named.id, sources, device)
    here = sources.of(named.folder)
    found = find(here, Wanted(runs=(named.run,), device=device or ""))
    if not found:
        where = f" on {device!r}" if device else ""
        raise MissingError(f"the run {named.run!r} has no measurements{where}", f"edgekit benchmark {named.run}")
    if named.artifact:
        chosen = [e for e in found if named.artifact in (e.artifact, e.artifact.partition("/")[2])]
        if not chosen:
            known = sorted({entry.artifact for entry in found})
            raise MissingError(f"{named.run!r} has no measurement of {named.artifact!r}", f"measured: {names(known)}")
        found = chosen
    picked = [entry for group in grouped(found) if (entry := at(group, named.when)) is not None]
    if not picked:
        raise MissingError(
            f"nothing of {named.run!r} was measured {_WORDS.get(named.when, 'until ' + named.when)}",
            f"edgekit history {named.run} lists what was",
        )
    return Resolved(picked, here)


def _by_id(text: str, sources: Sources, device: str | None) -> Resolved:
    """The one result whose hash begins so, out of the first place that has it."""
    from edgekit.bench.database import Wanted

    places = [Resolved(find(each, Wanted(device=device or "", id=text)), each) for each in sources.each()]
    hashes = {entry.sha256 for place in places for entry in place.entries}
    if len(hashes) > 1:
        raise UsageError(f"{len(hashes)} results begin with {text}", "type more of the id")
    for place in places:
        if place.entries:
            return Resolved(place.entries[:1], place.sources)
    raise MissingError(f"there is no run and no result {text!r}", "edgekit history lists ids")

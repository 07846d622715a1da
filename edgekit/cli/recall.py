"""How kept results are named on the command line, and where they are looked for.

``RUN``, ``RUN/ARTIFACT``, either with ``@previous``, ``@first`` or ``@2026-11-26``; or the id that ``edgekit history``
prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import store
from edgekit.cli import show
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
_MOST_NAMES = 12


@dataclass(frozen=True)
class Sources:
    """Where results are looked for: the indexes of folders of runs, and a team's database, if one is asked."""

    indexes: tuple[Engine, ...]
    team: Engine | None


@dataclass(frozen=True)
class Named:
    """What a name of the user's means: a run's, perhaps an artifact of it, and when; or the beginning of a hash.
    `text` is the name without the time.
    """

    text: str
    run: str = ""
    artifact: str = ""
    when: str = "latest"
    id: str = ""


def open_sources(runs_dir: Path, names: Iterable[str], url: str | None) -> Sources:
    """Bring the indexes up to date that `names` need; what is damaged is said and left out.

    Raises:
        MissingError: the database cannot be reached.
    """
    from edgekit.bench import database, index

    folders = {runs_dir.resolve(): runs_dir}
    for name in names:
        path = _local(runs_dir, name)[0]
        if path is not None:
            folders.setdefault(path.resolve().parent, path.parent)
    opened = []
    with show.working("reading results"):
        for folder in folders.values():
            found = index.refresh(folder)
            opened.append(found.engine)
            for problem in found.problems:
                show.note(f"left out: {problem}")
    return Sources(tuple(opened), None if not url else database.connect(url))


def find(sources: Sources, wanted: Wanted) -> list[Entry]:
    """Entries of all sources, each once, the newest first."""
    from edgekit.bench import database

    found: dict[tuple[str, str], Entry] = {}
    for engine in _engines(sources):
        with database.speaking(engine), engine.connect() as connection:
            for entry in database.find(connection, wanted):
                found.setdefault((entry.sha256, entry.run), entry)
    newest_first = sorted(found.values(), key=lambda e: (e.measured, e.number), reverse=True)
    return newest_first[: wanted.limit]


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


def others(sources: Sources, entries: Sequence[Entry]) -> list[Entry]:
    """All measurements of the same artifacts of the same runs on the same devices."""
    from edgekit.bench.database import Wanted

    found: list[Entry] = []
    for run, artifact, device in sorted({(e.run, e.artifact, e.device) for e in entries}):
        found += find(sources, Wanted(runs=(run,), artifact=artifact, device=device))
    return found


def _engines(sources: Sources) -> list[Engine]:
    return [*sources.indexes, *([sources.team] if sources.team is not None else [])]


def _local(runs_dir: Path, text: str) -> tuple[Path | None, str, str]:
    """The run here that a name begins with, the artifact behind its slash, and when."""
    head, _, when = text.rpartition("@")
    for name, moment in ((text, "latest"), (head, when)):
        parts = name.split("/")
        for k in range(len(parts), 0, -1):
            run, artifact = "/".join(parts[:k]), "/".join(parts[k:])
            for path in (runs_dir / run, Path(run)) if run and "@" not in artifact else ():
                if (path / store.RUN_FILE).is_file():
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
    run = as_kept(path.resolve().name) if path is not None else ""
    if not run:  # a run of somebody else's
        head, _, when = text.rpartition("@") if "@" in text else (text, "", "latest")
        first, _, artifact = head.partition("/")
        run = first if first and find(sources, Wanted(runs=(first,), limit=1)) else ""
    if run:
        if not _WHEN.fullmatch(when):
            raise UsageError(f"{when!r} is no time of a result", "@latest, @previous, @first or @2026-11-26 (UTC)")
        return Named(text.removesuffix(f"@{when}"), run, artifact, when)
    if re.fullmatch("[0-9a-f]{4,64}", text):
        return Named(text, id=text)
    known = sorted({entry.run for entry in find(sources, Wanted(limit=1000))})
    raise MissingError(f"there is no run and no result {text!r}", f"{GRAMMAR}; measured runs: {_names(known)}")


def resolve(text: str, runs_dir: Path, sources: Sources, device: str | None) -> list[Entry]:
    """The results that a name means: one of each artifact and device.

    Raises:
        MissingError: there is none. UsageError: an id that several results begin with.
    """
    from edgekit.bench.database import Wanted

    named = parse(text, runs_dir, sources)
    found = find(sources, Wanted(runs=(named.run,) if named.run else (), device=device or "", id=named.id))
    if named.id:
        if len({entry.sha256 for entry in found}) > 1:
            raise UsageError(f"{len(found)} results begin with {text}", "type more of the id")
        if not found:
            raise MissingError(f"there is no run and no result {text!r}", "edgekit history lists ids")
        return found[:1]
    if not found:
        where = f" on {device!r}" if device else ""
        raise MissingError(f"the run {named.run!r} has no measurements{where}", f"edgekit benchmark {named.run}")
    if named.artifact:
        chosen = [e for e in found if named.artifact in (e.artifact, e.artifact.partition("/")[2])]
        if not chosen:
            known = sorted({entry.artifact for entry in found})
            raise MissingError(f"{named.run!r} has no measurement of {named.artifact!r}", f"measured: {_names(known)}")
        found = chosen
    picked = [entry for group in grouped(found) if (entry := _at(group, named.when)) is not None]
    if not picked:
        raise MissingError(
            f"nothing of {named.run!r} was measured {_WORDS.get(named.when, 'until ' + named.when)}",
            f"edgekit history {named.run} lists what was",
        )
    return picked


_WORDS = {"previous": "twice", "first": "at all", "latest": "at all"}


def grouped(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The measurements of each artifact on each device, of each run, the oldest first.

    Of the same weights the number counts, which no clock can turn around; of others the time.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.run, entry.artifact, entry.device), []).append(entry)
    ordered = []
    for group in groups.values():
        last = {w: max(e.measured for e in group if e.weights_sha256 == w) for w in {e.weights_sha256 for e in group}}
        ordered.append(sorted(group, key=lambda e: (last[e.weights_sha256], e.weights_sha256, e.number, e.measured)))
    return sorted(ordered, key=lambda group: (group[0].run, group[0].artifact, group[0].device))


def _at(group: list[Entry], when: str) -> Entry | None:
    """Of the measurements of one artifact on one device the one that is meant."""
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
    """What is compared with what: the same artifact on the same device; else what is the only one of its target there,
    the only one there, the only one.

    Raises:
        MissingError: nothing of both goes together.
    """
    found: list[tuple[Entry, Entry]] = []
    for key in (_by_name, _by_target, _by_device, lambda entry: ()):
        if not found and (key is _by_name or all(len({key(e) for e in side}) == len(side) for side in (before, after))):
            known = {key(entry): entry for entry in before}
            found = [(known[key(entry)], entry) for entry in after if key(entry) in known]
    if not found:
        said = [_names(sorted({f"{e.artifact} on {e.device}" for e in side})) for side in (before, after)]
        raise MissingError(
            f"nothing of both goes together; the first has {said[0]}; the second {said[1]}",
            "name one artifact of each: RUN/ARTIFACT, and --device where it was measured on several",
        )
    return found


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) + more) or "none yet"

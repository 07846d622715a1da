"""Index of the results below a folder of runs: SQLite in the cache, made from the JSON files of the runs.

It can be deleted at any time: an index that is stale or of another edgekit is made again silently, a damaged one with a
warning. Whether it is damaged tells its hash, in a file beside it: SQLite would read flipped bits as other figures.
Files of the runs with unchanged size and time are not read again. The index lies in the cache and not beside the runs,
because these may be read-only, or shared over a network, where the locks of SQLite do not work.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from edgekit import __version__, files, progress, runs
from edgekit.archive import database, entry
from edgekit.archive.database import RESULTS
from edgekit.archive.entry import Entry
from edgekit.errors import EdgekitError, StorageError

_WAIT_S = 30
_PATTERNS = ("*/bench/*/*.json", "*/bench/*/benchmark_model/*.json")
# Raised when the same files give other figures than before.
_DERIVED = 2
_MADE_BY = f"{__version__} {database.SCHEMA} {_DERIVED}"
# Files per transaction, so that an interrupted first indexing is not lost.
_PART = 200
_files = sa.MetaData()
_FILES = sa.Table(
    "files",
    _files,
    sa.Column("path", sa.Text(), primary_key=True),
    sa.Column("state", sa.Text(), nullable=False),
    sa.Column("sha256", sa.Text(), nullable=False),
    sa.Column("run", sa.Text(), nullable=False),
)
_MADE = sa.Table("made_by", _files, sa.Column("edgekit", sa.Text(), primary_key=True))


@dataclass(frozen=True)
class Index:
    """An index that is up to date. `problems`: messages on unreadable files. `read`: number of files read."""

    engine: sa.Engine
    problems: tuple[str, ...]
    read: int


def place(runs_dir: Path) -> Path:
    """Return the path of the index of a folder of runs."""
    return files.cache_dir("history") / f"{files.sha256_text([str(runs_dir.resolve())])[:16]}.sqlite"


def refresh(runs_dir: Path) -> Index:
    """Bring the index of a folder of runs up to date; in memory if the cache cannot be written.

    Damaged files of the runs raise nothing; they are among the `problems`.
    """
    path = place(runs_dir)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if path.is_file() and not _is_sealed(path):
                progress.warn("the index of results was damaged, or not finished: it is made again")
                remove(path)
            return _again(path, runs_dir)
    except (sa.exc.SQLAlchemyError, OSError):  # no such cache, or another process holds it
        return _refresh(_open(None), runs_dir, None)


def _again(path: Path, runs_dir: Path) -> Index:
    """Open an index and bring it up to date, after making it anew if it is not a database."""
    try:
        return _refresh(_open(path), runs_dir, path)
    except sa.exc.SQLAlchemyError as error:
        if "locked" in str(error):
            raise
    remove(path)
    return _refresh(_open(path), runs_dir, path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of an index, so that its hash belongs to its content.

    Raises:
        OSError: another process holds it for longer than `_WAIT_S`.
    """
    end = time.monotonic() + _WAIT_S
    with open(path.with_name(f"{path.name}.lock"), "w", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)
        yield


def seal(path: Path) -> Path:
    """Return the path of the file that has the hash of an index."""
    return path.with_name(f"{path.name}.sha256")


def _is_sealed(path: Path) -> bool:
    """Return whether an index is as edgekit left it."""
    try:
        return seal(path).read_text(encoding="ascii").strip() == files.sha256_file(path)
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def remove(path: Path) -> None:
    """Delete an index."""
    for name in (path.name, seal(path).name, *(f"{path.name}-{end}" for end in ("journal", "wal", "shm"))):
        path.with_name(name).unlink(missing_ok=True)


def _open(path: Path | None) -> sa.Engine:
    """Open an index, and make tables of another edgekit anew. Its one connection keeps a file that is replaced."""
    url = sa.URL.create("sqlite", database=None if path is None else str(path))
    engine = sa.create_engine(url, connect_args={"timeout": _WAIT_S}, poolclass=sa.pool.StaticPool)
    database.lock_at_begin(engine)
    with engine.begin() as connection:
        _files.create_all(connection)
        if connection.execute(sa.select(_MADE.c.edgekit)).scalars().all() != [_MADE_BY]:
            if path is not None:
                seal(path).unlink(missing_ok=True)
            for metadata in (_files, database.tables):
                metadata.drop_all(connection)
                metadata.create_all(connection)
            connection.execute(_MADE.insert().values(edgekit=_MADE_BY))
        for table in (_FILES, RESULTS):  # fails if the file is not such a database
            connection.execute(sa.select(table).limit(1)).all()
    return engine


def _refresh(engine: sa.Engine, runs_dir: Path, path: Path | None) -> Index:
    """Bring an open index up to date, and seal its file `path` after each transaction."""
    found = {key: (path, state) for key, path, state in _found(runs_dir)}
    with engine.connect() as connection:
        known = {row.path: row.state for row in connection.execute(sa.select(_FILES.c.path, _FILES.c.state))}
    gone = [path for path in known if path not in found]
    changed = sorted(key for key, (_, state) in found.items() if known.get(key) != state)
    problems: list[str] = []
    with engine.begin() as connection:
        _forget(connection, [*gone, *(key for key in changed if key in known)])
    if path is not None and (gone or changed or not seal(path).is_file()):
        _seal(path)
    runs: dict[Path, entry.About] = {}
    for start in range(0, len(changed), _PART):
        part: list[tuple[str, str, Entry]] = []
        for key in changed[start : start + _PART]:
            file, state = found[key]
            run = runs_dir / file.relative_to(runs_dir).parts[0]
            if run not in runs:
                runs[run] = entry.about(run)
            try:
                part.append((key, state, entry.sound(entry.read(file, runs[run]), str(file))))
            except EdgekitError as error:
                problems.append(error.message)
        with engine.begin() as connection:
            _keep(connection, part)
        if path is not None and part:
            _seal(path)
    return Index(engine, tuple(problems), len(changed))


def _seal(path: Path) -> None:
    """Save the hash of an index; without it, for lack of space, it is made again the next time."""
    seal(path).unlink(missing_ok=True)
    with contextlib.suppress(StorageError):
        files.save_bytes(seal(path), files.sha256_file(path).encode())


def _found(runs_dir: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield every result file: its name as text, its path, and its state, which includes that of its run."""
    of_run: dict[Path, str] = {}
    for pattern in _PATTERNS:
        for path in runs_dir.glob(pattern):
            relative = path.relative_to(runs_dir)
            if relative.parts[0].startswith(".") or path.name.startswith("."):
                continue
            run = runs_dir / relative.parts[0]
            if run not in of_run:
                of_run[run] = f"{_state(run / runs.RUN_FILE)} {_state(run / 'data.json')}"
            yield _utf8(relative), path, f"{_state(path)} {of_run[run]}"


def _utf8(path: Path) -> str:
    """Return a path of any bytes as text that a database accepts."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "-"
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _forget(connection: sa.Connection, paths: list[str]) -> None:
    """Delete files, then the rows without a file."""
    if not paths:
        return
    for start in range(0, len(paths), 500):
        connection.execute(_FILES.delete().where(_FILES.c.path.in_(paths[start : start + 500])))
    left = sa.select(_FILES.c.path).where(_FILES.c.sha256 == RESULTS.c.sha256, _FILES.c.run == RESULTS.c.run)
    connection.execute(RESULTS.delete().where(~left.exists()))


def _keep(connection: sa.Connection, found: list[tuple[str, str, Entry]]) -> None:
    """Store rows and their files; another process may have stored them meanwhile."""
    if not found:
        return
    from sqlalchemy.dialects.sqlite import insert

    database.put(connection, [entry for _, _, entry in found])
    statement = insert(_FILES)
    changed = {name: statement.excluded[name] for name in ("state", "sha256", "run")}
    statement = statement.on_conflict_do_update(index_elements=["path"], set_=changed)
    rows = [{"path": path, "state": state, "sha256": e.sha256, "run": e.run} for path, state, e in found]
    connection.execute(statement, rows)

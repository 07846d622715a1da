"""Entries in a database: SQLite for the index of one machine, PostgreSQL for a team. SQLAlchemy Core, no ORM.

The key of a row is the hash of the result and the name of the run, so that sending a result twice stores it once. A row
is an `Entry` with its samples, enough to compare results whose runs lie on other machines. Passwords are never printed.
"""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from edgekit import progress
from edgekit.archive import entry
from edgekit.archive.entry import PACKED, Entry, joined, text
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError, missing_package
from edgekit.labels import visible

SCHEMA = 2
_CONNECT_S, _BATCH, _MOST_TEXT = 10, 100, 300
# Bytes of the values that are read from a row: the environment, any other text, packed samples.
_MOST_ENVIRONMENT, _MOST_NAME, _MOST_PACKED = 1 << 18, 1 << 14, 1 << 23
# Rows that were left out, by database: each is said once.
_left_out: weakref.WeakKeyDictionary[sa.Engine, set[str]] = weakref.WeakKeyDictionary()
# Column types by the annotation of a field; all others are text.
_KINDS: dict[str, Any] = {"Count": sa.BigInteger(), "Positive": sa.BigInteger(), "Milliseconds": sa.Double()}
_COLUMNS = {f.name: str(f.type) for f in dataclasses.fields(Entry) if f.name != "samples"}
tables = sa.MetaData()
RESULTS = sa.Table(
    "edgekit_results",
    tables,
    *(
        sa.Column(
            name,
            _KINDS.get(kind, sa.Text()),
            primary_key=name in ("sha256", "run"),
            nullable=kind == "Milliseconds",
        )
        for name, kind in _COLUMNS.items()
    ),
    *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in PACKED),
)
sa.Index("edgekit_results_measured", RESULTS.c.run, RESULTS.c.measured)
_META = sa.Table("edgekit_meta", tables, sa.Column("schema", sa.Integer(), primary_key=True))
_SHORT = [RESULTS.c[name] for name in _COLUMNS]
_KEY = sa.func.substr(RESULTS.c.sha256, 1, 64).label("key")


@dataclass(frozen=True)
class Wanted:
    """A query of entries; fields that are empty or None do not restrict it.

    Attributes:
        runs, device, artifact, model: names, in full. since: UTC, ISO 8601. id: first characters of the hash.
        limit: number of entries, the newest first.
    """

    runs: tuple[str, ...] = ()
    device: str = ""
    artifact: str = ""
    model: str = ""
    since: str = ""
    id: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(text(run) for run in self.runs))
        for name in ("device", "artifact", "model", "since", "id"):
            object.__setattr__(self, name, text(getattr(self, name)))


def connect(url: str) -> sa.Engine:
    """Open a team's database, ``postgresql://user@host/name`` or ``sqlite:///file``; create its tables if it is new.

    Raises:
        UsageError: not such an address. MissingError: the driver is not installed, or the server is not reached.
        StorageError: a newer edgekit created its tables.
    """
    parsed = _parse(url)
    arguments: dict[str, Any] = {"timeout": _CONNECT_S}
    if parsed.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": _CONNECT_S}
    try:
        # No pool: connections that nobody uses would count towards the limit of the server.
        engine = sa.create_engine(parsed, connect_args=arguments, hide_parameters=True, poolclass=sa.pool.NullPool)
        if engine.dialect.name == "sqlite":
            lock_at_begin(engine)
        with speaking(engine):
            check_schema(engine)
    except ImportError:
        raise missing_package("psycopg", "a PostgreSQL database", "postgresql") from None
    except (ValueError, TypeError):  # the driver's message could repeat a password
        options = visible(", ".join(sorted(map(str, parsed.query))))[:_MOST_TEXT]
        raise UsageError(
            f"the driver does not accept the address of --db; its options: {options or 'none'}",
            "--db postgresql://user@host/name, without options",
        ) from None
    return engine


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        parsed = None
    known = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "postgresql+psycopg": None}
    if parsed is not None and parsed.drivername in known:
        return parsed.set(drivername=known[parsed.drivername] or parsed.drivername)
    if parsed is not None and parsed.drivername == "sqlite" and parsed.database:
        return parsed
    raise UsageError(
        "--db takes the address of a database", "--db postgresql://user@host/name; the password in PGPASSWORD"
    )


def lock_at_begin(engine: sa.Engine) -> None:
    """Make a SQLite engine lock the file when a transaction begins, so that a second process waits and does not fail.

    This is the recipe of SQLAlchemy's page on SQLite; Python's sqlite3 would begin only at the first change.
    """

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def name_of(engine: sa.Engine) -> str:
    """Return the name of a database for messages, without any password."""
    url = engine.url
    where = f"{url.username + '@' if url.username else ''}{url.host or ''}{f':{url.port}' if url.port else ''}"
    return visible(f"{url.get_backend_name()}://{where}/{url.database or ''}")[:_MOST_TEXT]


@contextmanager
def speaking(engine: sa.Engine) -> Iterator[None]:
    """Turn errors of a database into those of edgekit.

    Raises:
        MissingError: the database cannot be reached. StorageError: it refuses the request.
    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        message = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
        secrets = [engine.url.password, *(v for k, v in engine.url.query.items() if "pass" in k)]
        for secret in filter(None, map(str, secrets)):
            message = message.replace(secret, "***")
        message = visible(message)[:_MOST_TEXT]
        kind: type[EdgekitError] = StorageError
        if isinstance(error, sa.exc.OperationalError) and error.statement is None:
            kind = MissingError
        raise kind(f"{name_of(engine)}: {message}", "check the address, and that the server runs") from None


def check_schema(engine: sa.Engine) -> None:
    """Create the tables of a new database, and check the format of existing ones.

    Raises:
        StorageError: they have another format.
    """
    if not sa.inspect(engine).has_table(_META.name):
        _make(engine)
    with engine.connect() as connection:
        found = connection.execute(sa.select(sa.func.max(_META.c.schema))).scalar()
    if found != SCHEMA:
        raise StorageError(
            f"{name_of(engine)} has tables of format {found}; this edgekit knows {SCHEMA}",
            "upgrade edgekit, or choose another database",
        )


def _make(engine: sa.Engine) -> None:
    try:
        with engine.begin() as connection:
            tables.create_all(connection)
            connection.execute(_META.insert().values(schema=SCHEMA))
    except sa.exc.DBAPIError:
        if not sa.inspect(engine).has_table(_META.name):  # else another process was quicker
            raise


def put(connection: sa.Connection, entries: Sequence[Entry]) -> None:
    """Store entries, which must have their samples; existing rows of the same key are overwritten."""
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    statement = insert(RESULTS)
    changed = {c.name: statement.excluded[c.name] for c in RESULTS.c if not c.primary_key}
    statement = statement.on_conflict_do_update(index_elements=["sha256", "run"], set_=changed)
    for start in range(0, len(entries), _BATCH):
        connection.execute(statement, [_row(entry) for entry in entries[start : start + _BATCH]])


def _row(entry: Entry) -> dict[str, Any]:
    assert entry.samples is not None
    row = {name: getattr(entry, name) for name in _COLUMNS}
    return {**row, "kind": entry.kind.value, "environment": json.dumps(entry.environment), **entry.samples.packed()}


def find(connection: sa.Connection, wanted: Wanted) -> list[Entry]:
    """Return entries without samples, the newest first; rows that edgekit did not write are left out, and said."""
    texts = [c for c in _SHORT if isinstance(c.type, sa.Text)]
    most = {c.name: _MOST_ENVIRONMENT if c.name == "environment" else _MOST_NAME for c in texts}
    query = sa.select(*_bounded(connection, _SHORT, most), _KEY)
    query = query.order_by(RESULTS.c.measured.desc(), RESULTS.c.number.desc(), RESULTS.c.sha256)
    if wanted.runs:
        query = query.where(RESULTS.c.run.in_(wanted.runs))
    for name in ("device", "artifact", "model"):
        if value := getattr(wanted, name):
            query = query.where(RESULTS.c[name] == value)
    if wanted.since:
        query = query.where(RESULTS.c.measured >= wanted.since)
    if wanted.id:
        query = query.where(RESULTS.c.sha256.startswith(wanted.id, autoescape=True))
    found: list[Entry] = []
    bad: dict[str, str] = {}
    for row in connection.execute(query.execution_options(yield_per=_BATCH)).mappings():
        if wanted.limit is not None and len(found) == wanted.limit:
            break
        values = {str(name): value for name, value in row.items()}
        key = values.pop("key")
        try:
            found.append(_entry(values, _where(key, connection.engine)))
        except DataError as error:
            bad[text(key)] = error.message
    _warn(connection.engine, bad)
    return found


def _bounded(connection: sa.Connection, columns: Sequence[Any], most: dict[str, int]) -> list[Any]:
    """Return columns that are NULL in rows where one of them is longer than its entry of `most`, in bytes."""
    length = sa.func.octet_length if connection.dialect.name == "postgresql" else sa.func.length
    short = sa.and_(*(length(RESULTS.c[name]) <= number for name, number in most.items()))
    return [sa.case((short, column)).label(column.name) for column in columns]


def _where(key: object, engine: sa.Engine) -> str:
    return f"the row {text(repr(key))[:_MOST_TEXT]} in {name_of(engine)}"


def _warn(engine: sa.Engine, bad: dict[str, str]) -> None:
    """Say how many rows were left out, unless they were before, and why the first was; `bad`: message by key."""
    said = _left_out.setdefault(engine, set())
    new = [message for key, message in bad.items() if key not in said]
    said.update(bad)
    if new:
        progress.warn(f"left out: {f'{len(new)} rows, the first: ' if len(new) > 1 else ''}{new[0]}")


def keys(connection: sa.Connection) -> set[tuple[str, str]]:
    """Return the hash and the run of every row."""
    return {(row.sha256, row.run) for row in connection.execute(sa.select(RESULTS.c.sha256, RESULTS.c.run))}


def with_samples(connection: sa.Connection, entries: Sequence[Entry]) -> list[Entry]:
    """Return those of `entries` that are stored here, with their samples; damaged ones are left out, with a warning."""
    wanted = {(entry.sha256, entry.run): entry for entry in entries}
    keyed = [RESULTS.c.sha256, RESULTS.c.run]
    packed = _bounded(connection, [RESULTS.c[name] for name in PACKED], dict.fromkeys(PACKED, _MOST_PACKED))
    found: list[Entry] = []
    bad: dict[str, str] = {}
    hashes = sorted({entry.sha256 for entry in entries})
    for start in range(0, len(hashes), _BATCH):
        query = sa.select(*keyed, *packed).where(RESULTS.c.sha256.in_(hashes[start : start + _BATCH]))
        for row in connection.execute(query.execution_options(yield_per=1)).mappings():
            if entry := wanted.get((row["sha256"], row["run"])):
                where = _where(entry.sha256, connection.engine)
                try:
                    found.append(joined(entry, {n: row[n] for n in PACKED}, where))
                except DataError as error:
                    bad[entry.sha256] = error.message
    _warn(connection.engine, bad)
    return found


def _entry(row: dict[str, Any], where: str) -> Entry:
    try:
        environment = json.loads(row["environment"])
    except (ValueError, TypeError, RecursionError):
        environment = None
    return entry.checked({**row, "environment": environment}, where)

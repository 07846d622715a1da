"""A team's database: a real PostgreSQL, several people, one row a result, no password anywhere."""

from __future__ import annotations

import builtins
import dataclasses
import json
import logging
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from edgekit.archive import database, index
from edgekit.archive.database import Wanted
from edgekit.archive.entry import Entry
from edgekit.cli.app import run
from edgekit.errors import MissingError, StorageError, UsageError
from tests.archive import postgres
from tests.archive.kept import make_run, measure
from tests.archive.test_index import HOSTILE, changed


@pytest.fixture
def url(team: postgres.Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of its own for each test."""
    name = f"t{abs(hash(request.node.name))}"
    engine = database.connect(team.url()).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield team.url(database=name)
    engine.dispose()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    monkeypatch.delenv("EDGEKIT_DB", raising=False)
    measure(make_run(tmp_path / "runs"))
    return tmp_path / "runs"


def local(runs: Path) -> list[Entry]:
    with index.refresh(runs).engine.connect() as connection:
        return database.with_samples(connection, database.find(connection, Wanted()))


def send(engine: sa.Engine, entries: Sequence[Entry]) -> None:
    with engine.begin() as connection:
        database.put(connection, entries)


def test_what_is_sent_twice_is_there_once_and_comes_back_whole(url: str, runs: Path) -> None:
    measure(runs / "digits", device="pi")
    sent = local(runs)
    for _ in range(2):
        send(database.connect(url), sent)
    with database.connect(url).connect() as connection:
        found = database.find(connection, Wanted())
        whole = {e.sha256: e for e in database.with_samples(connection, found)}
        assert database.keys(connection) == {(e.sha256, "digits") for e in sent}
    assert len(found) == 2
    for entry in sent:
        back = whole[entry.sha256]
        for name in ("latencies_ns", "answers", "right"):
            assert np.array_equal(getattr(entry.samples, name), getattr(back.samples, name))
        assert {**vars(entry), "samples": None} == {**vars(back), "samples": None}


def test_several_people_make_the_tables_and_send_at_once(url: str, runs: Path) -> None:
    for right in range(10):
        measure(runs / "digits", right=right)
    sent = local(runs)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: send(database.connect(url), sent), range(6)))
    with database.connect(url).connect() as connection:
        assert len(database.find(connection, Wanted())) == 11


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_values(url: str, runs: Path, name: str) -> None:
    changed(measure(runs / "digits"), device=name)
    sent = local(runs)
    send(database.connect(url), sent)
    (device,) = {e.device for e in sent} - {"local"}
    with database.connect(url).connect() as connection:
        assert len(database.find(connection, Wanted(device=device))) == 1
        assert database.find(connection, Wanted(runs=(name.replace("\0", "-"),))) == []


def test_a_newer_edgekit_s_tables_are_not_touched(url: str) -> None:
    engine = database.connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE edgekit_meta SET schema = 99"))
    with pytest.raises(StorageError, match="tables of format 99; this edgekit knows 2") as caught:
        database.connect(url)
    assert "upgrade edgekit" in caught.value.hint


def test_the_command_line_shares_results_between_machines(
    url: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["history", "--push", "--db", url]) == 0
    assert "sent 1 results to postgresql://edgekit@/" in capsys.readouterr().err
    assert run(["history", "--push", "--db", url, "digits"]) == 0
    assert "sent 0 results" in capsys.readouterr().err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("EDGEKIT_DB", url)
    measure(make_run(elsewhere / "runs", "mine"), right=40, ms=1.0)
    assert run(["history", "--json"]) == 0
    assert {row["run"] for row in json.loads(capsys.readouterr().out)} == {"digits", "mine"}
    assert run(["diff", "digits", "mine", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["paired"]
    assert found["top1"]["value"] == 25.0
    assert found["p50"]["significant"]
    assert run(["check", "mine", "--against", "digits"]) == 0
    assert run(["check", "mine", "--against", "mine@first"]) == 4


def output(team: postgres.Server, capsys: pytest.CaptureFixture[str], address: str) -> str:
    assert run(["history", "--db", address, "--debug"]) in (2, 4, 6)
    said = capsys.readouterr()
    return said.out + said.err


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://edgekit:{}@/postgres?host={folder}",
        "postgresql://edgekit:{}@localhost:1/x",
        "postgresql://localhost:1/x?user=edgekit&password={}",
        "postgresql://edgekit:{}@[::/x",
        "postgresql://edgekit:{}@localhost:notaport/x",
        "mysql://root:{}@localhost/x",
        "{}",
    ],
)
def test_passwords_are_never_printed(
    team: postgres.Server,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    said = output(team, capsys, address.format("hunter2hunter2", folder=team.folder))
    assert "error: " in said
    assert "hunter2" not in said + caplog.text


def test_the_password_can_come_from_the_environment(
    team: postgres.Server, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"postgresql://edgekit@/postgres?host={team.folder}"
    with pytest.raises(MissingError, match="no password supplied"):
        database.connect(address)
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    assert database.name_of(database.connect(address)) == "postgresql://edgekit@/postgres"


def test_databases_that_are_open_hold_no_connections(team: postgres.Server) -> None:
    assert len([database.connect(team.url()) for _ in range(25)]) == 25  # the server takes 20 connections


def test_passwords_are_in_no_file(team: postgres.Server, runs: Path, tmp_path: Path, cache: Path) -> None:
    assert run(["history", "--push", "--db", team.url()]) == 0
    for folder in (tmp_path, cache):
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert postgres.PASSWORD.encode() not in content
                assert b"s3cr3t%20p%40ss" not in content


# Without a server ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "x", "sqlite://", "mysql://a/b", "postgresql+psycopg2://a/b", "http://a", "//"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--db takes the address of a database") as caught:
        database.connect(address)
    assert "postgresql://user@host/name" in caught.value.hint


def test_without_the_driver_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, scope: Mapping[str, Any] | None = None, *more: Any) -> Any:
        if name.split(".")[0] == "psycopg":
            raise ImportError(name)
        return real(name, scope, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match="needs the package 'psycopg'"):
        database.connect("postgresql://user@host/name")


def test_a_file_can_be_a_team_s_database_too(tmp_path: Path, runs: Path) -> None:
    address = f"sqlite:///{tmp_path / 'team.sqlite'}"
    for _ in range(2):
        send(database.connect(address), local(runs))
    with database.connect(address).connect() as connection:
        assert len(database.find(connection, Wanted())) == 1


def test_who_begins_second_waits_and_does_not_fail_midway(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'team.sqlite'}"
    first = database.connect(address)
    second = sa.create_engine(address, connect_args={"timeout": 0.05})
    database.lock_at_begin(second)
    with first.begin(), pytest.raises(sa.exc.OperationalError, match="locked"), second.begin():
        pass
    with second.begin() as connection:
        assert database.find(connection, Wanted()) == []


@pytest.mark.parametrize("address", ["postgresql://me:hunter2@host/x", "postgresql://me@host/x?password=hunter2"])
def test_a_driver_that_repeats_the_password_is_not_quoted(address: str) -> None:
    engine = sa.create_engine(address.replace("postgresql", "postgresql+psycopg"))
    said = sa.exc.OperationalError(None, None, Exception("wrong: hunter2\x1b[2J"))  # type: ignore[arg-type]
    with pytest.raises(MissingError) as caught, database.speaking(engine):
        raise said
    assert caught.value.message == "postgresql://me@host/x: wrong: ***\\x1b[2J"


def test_push_without_a_database_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["history", "--push"]) == 2
    assert "--db postgresql://user@host/name" in capsys.readouterr().err


def test_texts_of_somebody_else_are_made_printable(tmp_path: Path, runs: Path) -> None:
    engine = database.connect(f"sqlite:///{tmp_path / 'team.sqlite'}")
    send(engine, local(runs))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE edgekit_results SET device = :d, environment = :e"), {
            "d": "\x1b[2J" + "x" * 999, "e": json.dumps({"cpu": "\x9b31m", "a": ["b"]})})  # fmt: skip
    with engine.connect() as connection:
        (entry,) = database.find(connection, Wanted())
    assert entry.device.startswith("\\x1b[2Jxxx")
    assert len(entry.device) == 200
    assert entry.environment == {"cpu": "\\x9b31m", "a": "['b']"}


WRONG: list[tuple[str, object]] = [
    ("correct", 9999), ("correct", -1), ("batch", 0), ("p50_ms", "abc"), ("p50_ms", -1.0), ("p90_ms", float("inf")),
    ("images", -5), ("images", 39), ("queries", 3), ("threads", "x"), ("size_bytes", -1), ("size_bytes", 2**60),
    ("kind", "guessed"), ("source", "heaven"), ("measured", "soon"), ("environment", "["), ("environment", "[1]"),
    ("environment", "[" * 100_000), ("device", b"x"), ("sha256", "\x1b[2J"), ("warmup", -1),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), WRONG)
def test_a_row_of_wrong_values_is_left_out_and_named(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str], column: str, value: object
) -> None:
    address = f"sqlite:///{tmp_path / 'team.sqlite'}"
    engine = database.connect(address)
    send(engine, local(runs))
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE edgekit_results SET {column} = :v, run = 'theirs'"), {"v": value})
    samples = column in ("images", "queries") and int(str(value)) > 0  # they are read where they are compared
    assert run(["history", "--json", "--db", address]) == 0
    said = capsys.readouterr()
    assert [row["run"] for row in json.loads(said.out)] == ["digits", *(["theirs"] if samples else [])]
    assert ("left out: the row " in said.err) != samples
    assert run(["diff", "theirs", "digits", "--db", address]) == (3 if samples else 4)
    said = capsys.readouterr()
    assert said.err.count("team.sqlite") == 1
    assert "\x1b" not in said.err


@pytest.mark.parametrize("options", ["timeout=abc", "cached_statements=x", "check_same_thread=maybe&timeout=hunter2"])
def test_options_that_the_driver_does_not_take_are_refused(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str], options: str
) -> None:
    assert run(["history", "--db", f"sqlite:///{tmp_path / 'team.sqlite'}?{options}"]) == 2
    assert "the driver does not accept the address of --db" in capsys.readouterr().err


def test_damaged_samples_are_left_out_and_named(tmp_path: Path, runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    measure(runs / "digits", right=3)
    engine = database.connect(f"sqlite:///{tmp_path / 'team.sqlite'}")
    sent = local(runs)
    send(engine, sent)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE edgekit_results SET latencies = 'x' WHERE sha256 = :s"), {"s": sent[0].sha256}
        )
    for _ in range(2):
        with engine.connect() as connection:
            found = database.with_samples(connection, database.find(connection, Wanted()))
        assert [e.sha256 for e in found] == [sent[1].sha256]
    (record,) = caplog.records  # said once
    assert "left out: the row " in record.message
    assert "damaged" in record.message


BOMB: dict[str, dict[str, Any]] = {
    "many images": {"images": 2**40, "correct": 0, "right": bytes(9), "answers": bytes(9)},
    "long samples": {"right": zlib.compress(bytes(50_000_000)), "answers": zlib.compress(bytes(50_000_000))},
    "large samples": {"latencies": bytes(9_000_000)},
    "long environment": {"environment": json.dumps({"x": "y" * 300_000})},
    "long name": {"device": "x" * 20_000},
}


@pytest.mark.parametrize("kind", BOMB)
def test_no_row_takes_more_memory_than_a_result_needs(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    address = f"sqlite:///{tmp_path / 'team.sqlite'}"
    engine = database.connect(address)
    send(engine, [dataclasses.replace(e, run="theirs") for e in local(runs)])
    columns = ", ".join(f"{name} = :{name}" for name in BOMB[kind])
    copy = [f"'{n:064x}'" for n in range(5)]
    names = [c.name for c in database.RESULTS.c if c.name != "sha256"]
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE edgekit_results SET {columns}"), BOMB[kind])
        for sha256 in copy:
            chosen = f"SELECT {sha256}, {', '.join(names)} FROM edgekit_results LIMIT 1"
            connection.execute(sa.text(f"INSERT INTO edgekit_results (sha256, {', '.join(names)}) {chosen}"))
    tracemalloc.start()
    assert run(["history", "--json", "--db", address]) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = capsys.readouterr()
    assert "left out: 6 rows, the first: the row " in said.err
    assert "digits" in {row["run"] for row in json.loads(said.out)}
    assert peak < 60e6


def test_rows_that_are_left_out_do_not_push_others_off_the_list(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"sqlite:///{tmp_path / 'team.sqlite'}"
    engine = database.connect(address)
    send(engine, [dataclasses.replace(e, run="theirs") for e in local(runs)])
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE edgekit_results SET measured = '9999-12-31T00:00:00+00:00', kind = 'evil'"))
    assert run(["history", "--json", "--limit", "1", "--db", address]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["digits"]

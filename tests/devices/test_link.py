"""Connections that break, hang or babble: every wait has an end, and each new try is said."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgekit.devices import link
from edgekit.devices.link import ConnectionLost
from edgekit.devices.ssh import Connection
from edgekit.errors import EdgekitError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in place of ssh."""

    def put(script: str) -> None:
        path = tmp_path / "ssh"
        path.write_text(f'#!/bin/sh\ncase "$*" in *-O*) exit 0;; esac\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("EDGEKIT_SSH", str(path))

    return put


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries, which are not made."""
    made: list[float] = []
    monkeypatch.setattr("edgekit.devices.link.time", Clock(made))
    return made


class Clock:
    """A clock that moves while somebody sleeps, and a little each time that it is read."""

    def __init__(self, made: list[float]) -> None:
        self.made, self.now = made, 0.0

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.made.append(seconds)
        self.now += seconds


@contextmanager
def closing_port(seconds: float) -> Iterator[tuple[int, list[float]]]:
    """A port that accepts connections and closes each after a while."""
    came: list[float] = []
    ended = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0.1)

        def close(connection: socket.socket) -> None:
            ended.wait(seconds)
            connection.close()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                came.append(time.monotonic())
                threading.Thread(target=close, args=(connection,)).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            ended.set()
            thread.join()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH is not installed")
def test_a_port_that_closes_each_connection_is_given_up_after_a_few_tries_that_are_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 0.01)
    with closing_port(1.2) as (port, came), Connection(f"ssh://127.0.0.1:{port}") as connection:
        with pytest.raises(ConnectionLost, match=r"the connection to .* broke"):
            connection.insist("true")
        assert len(came) == 4
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == [
        f"connecting again in 0 s (try {n} of 4)" for n in (2, 3, 4)
    ]


def test_a_host_that_answered_before_is_tried_longer(
    program: Callable[[str], None], pauses: list[float], tmp_path: Path
) -> None:
    program(f"[ -f {tmp_path}/broken ] && exit 255; echo fine")
    with Connection("board") as connection:
        assert connection.insist("true") == b"fine\n"
        (tmp_path / "broken").touch()
        with pytest.raises(ConnectionLost):
            connection.insist("true")
    assert pauses == [1, 2, 4, 8, 10, 10, 10]


def test_a_host_is_given_up_when_it_was_away_for_too_long(
    program: Callable[[str], None], pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_LOST_S", 5.0)
    program("exit 255")
    with Connection("board") as connection, pytest.raises(ConnectionLost):
        connection.insist("true")
    assert pauses == [1, 2]


def test_waiting_for_a_job_may_take_many_connections(
    program: Callable[[str], None], pauses: list[float], tmp_path: Path
) -> None:
    program(f"echo x >>{tmp_path}/came; n=$(wc -l <{tmp_path}/came); echo progress $n; [ $n -ge 20 ] || exit 255")
    lines: list[str] = []
    with Connection("board") as connection:
        connection.insist_on_listening("true", line=lines.append)
    assert lines == [f"progress {n}" for n in range(1, 21)]
    assert pauses == [1] * 19


@pytest.mark.parametrize("script", ["exec sleep 9", "sleep 9 & sleep 9", "while :; do echo x >&2; sleep 0.01; done"])
def test_a_device_that_hangs_is_not_waited_for_without_end(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(link, "_SILENT_S", 0.3)
    program(script)
    with Connection("board") as connection, pytest.raises(ConnectionLost, match="has not answered for 0 s"):
        connection.run("true")


def test_a_device_that_answers_now_and_then_is_waited_for(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_SILENT_S", 1.0)
    program("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done")
    lines: list[str] = []
    with Connection("board") as connection:
        connection.listen("true", line=lines.append)
    assert lines == list("12345678")


def test_a_device_that_takes_a_file_slowly_is_waited_for(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(link, "_SILENT_S", 1.0)
    (tmp_path / "model").write_bytes(bytes(800))
    program("for i in 1 2 3 4 5 6 7 8; do dd bs=100 count=1 of=/dev/null 2>/dev/null; sleep 0.2; done; echo done")
    with Connection("board") as connection:
        assert connection.run("true", stdin=tmp_path / "model") == b"done\n"


def test_a_flood_of_errors_is_dropped_and_counted(
    program: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    program("head -c 20000000 /dev/zero >&2; echo the end >&2; exit 3")
    with Connection("board") as connection, pytest.raises(EdgekitError, match=r"the end$") as caught:
        connection.run("true")
    assert len(caught.value.message) < 40_000  # 8192 bytes, each shown as \\x00
    assert [record.message for record in caplog.records] == [
        "board wrote 20 MB of error messages; only their end was kept"
    ]


def test_a_process_that_keeps_the_pipes_open_is_not_waited_for(program: Callable[[str], None]) -> None:
    program("sleep 9 & echo fine")
    with Connection("board") as connection:
        assert connection.run("true") == b"fine\n"


def test_lines_without_end_are_cut(program: Callable[[str], None]) -> None:
    program("head -c 100000 /dev/zero | tr '\\0' x; echo; printf last")
    lines: list[str] = []
    with Connection("board") as connection:
        connection.listen("true", line=lines.append)
    assert [len(line) for line in lines] == [1000, 4]

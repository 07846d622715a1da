"""Connections to a real sshd on the loopback: files by hash, and what is said when it does not work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit import files
from edgekit.devices import ssh
from edgekit.devices.link import ConnectionLost, RemoteError
from edgekit.devices.ssh import Connection
from edgekit.errors import EdgekitError, MissingError, StorageError, UsageError
from tests.devices import sshd


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "", "a b", "a;b", "$(x)", "a\nb", "user@-x y", "`x`"])
def test_what_could_be_an_option_or_a_command_is_no_host(host: str) -> None:
    with pytest.raises(UsageError, match="is not a host"):
        Connection(host)


@pytest.mark.parametrize("host", ["orin", "user@orin.local", "ssh://me@10.0.0.2:2222", "me@[fe80::1%eth0]"])
def test_destinations_of_ssh_are_hosts(host: str) -> None:
    ssh.check_host(host)


def test_without_openssh_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_SSH", "no-such-program -F x")
    with pytest.raises(MissingError, match="no-such-program"):
        Connection("orin")


def test_arguments_reach_a_script_as_they_are(board: sshd.Server) -> None:
    odd = ["a b", "$(touch pwned)", "'\"`;&|", "", "-n", "ü\t"]
    with Connection(board.host) as connection:
        said = connection.run('printf "%s|" "$@"', *odd)
    assert said.decode() == "|".join(odd) + "|"
    assert not (board.folder / "home" / "pwned").exists()


def test_a_file_is_sent_once_and_again_when_a_byte_changed(board: sshd.Server, tmp_path: Path) -> None:
    path = tmp_path / "model"
    with Connection(board.host) as connection:
        for content in (b"one", b"two"):  # of equal size
            path.write_bytes(content)
            digest = files.sha256_file(path)
            connection.push({digest: path})
            there = board.cache / "objects" / digest
            assert there.read_bytes() == content
            first = there.stat().st_mtime_ns
            connection.push({digest: path})
            assert there.stat().st_mtime_ns == first
    assert sorted(p.name[0] for p in (board.cache / "objects").iterdir()) != []
    assert not list((board.cache / "objects").glob(".part*"))
    assert (board.cache.stat().st_mode & 0o777) == 0o700


def test_a_file_that_is_not_what_its_hash_says_never_lands(board: sshd.Server, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"changed meanwhile")
    with Connection(board.host) as connection, pytest.raises(StorageError, match="changed while it was sent"):
        connection.push({"0" * 64: tmp_path / "model"})
    assert list((board.cache / "objects").iterdir()) == []


def test_a_reply_that_is_too_long_is_cut_off(board: sshd.Server) -> None:
    with Connection(board.host) as connection:
        with pytest.raises(EdgekitError, match="more than 1000 bytes"):
            connection.run("yes", most=1000)
        assert connection.run("echo still here") == b"still here\n"


def test_what_fails_there_says_so_in_printable_characters(board: sshd.Server) -> None:
    with Connection(board.host) as connection, pytest.raises(RemoteError) as caught:
        connection.run("printf '\\033[2Jboo\\nsecond' >&2; exit 3")
    assert caught.value.status_there == 3
    assert "\\x1b[2Jboo; second" in caught.value.message


def test_an_unknown_host_key_is_refused_with_the_command_that_takes_it(board: sshd.Server) -> None:
    (board.folder / "known_hosts").write_text("")
    with Connection(board.host) as connection, pytest.raises(MissingError, match="not known here") as caught:
        connection.run("true")
    command = caught.value.hint.replace("ssh ", board.ssh + " ", 1)
    assert subprocess.run(command, shell=True, check=False, capture_output=True).returncode == 0
    with Connection(board.host) as connection:
        assert connection.run("echo hello") == b"hello\n"


def test_another_host_key_than_before_is_called_that(board: sshd.Server) -> None:
    sshd.know(board.folder, board.port, "id")
    with (
        Connection(board.host) as connection,
        pytest.raises(EdgekitError, match="host key of board has changed") as caught,
    ):
        connection.run("true")
    assert "ssh-keygen -R board" in caught.value.hint


def test_a_refused_login_says_how_to_get_in(board: sshd.Server) -> None:
    (board.folder / "authorized_keys").write_text("")
    with Connection(board.host) as connection, pytest.raises(MissingError, match="refuses the login") as caught:
        connection.run("true")
    assert "ssh-copy-id board" in caught.value.hint


def test_a_device_that_is_off_cannot_be_reached(board: sshd.Server) -> None:
    board.stop()
    with Connection(board.host) as connection, pytest.raises(MissingError, match="cannot be reached"):
        connection.run("true")


def test_a_broken_connection_is_made_again(board: sshd.Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    script = f'[ -e {broken} ] || {{ touch {broken}; kill -KILL "$PPID"; sleep 5; }}; echo done'
    with Connection(board.host) as connection:
        assert connection.insist(script) == b"done\n"
        broken.unlink()
        with pytest.raises(ConnectionLost):
            connection.run(script)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a small disk")
def test_a_full_disk_there_is_named_with_what_frees_it(board: sshd.Server, tmp_path: Path) -> None:
    board.cache.parent.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(board.cache.parent)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        large = tmp_path / "large"
        large.write_bytes(os.urandom(2 << 20))
        with Connection(board.host) as connection, pytest.raises(StorageError, match="disk of board is full") as caught:
            connection.push({files.sha256_file(large): large})
        assert "edgekit devices clean board" in caught.value.hint
        assert list((board.cache / "objects").iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(board.cache.parent)], check=True)


def test_two_names_of_one_host_have_one_address(board: sshd.Server) -> None:
    assert ssh.address("board") == f"127.0.0.1:{board.port}"
    assert ssh.address("me@board") == ssh.address("board")
    assert ssh.address("other") != ssh.address("board")

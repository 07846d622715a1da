"""A changed power mode on a real sshd, with planted nvpmodel, jetson_clocks and sudo.

``nvpmodel -q`` and ``/etc/nvpmodel.conf`` as in NVIDIA's Jetson Linux Developer Guide ("nvpmodel"); the questions that
nvpmodel asks where a restart is needed, as in NVIDIA's forum. None was read off hardware here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.devices import jetson_power, jobs, remote
from edgekit.devices.link import ConnectionLost
from edgekit.devices.ssh import Connection
from edgekit.errors import EdgekitError, MissingError, UsageError
from tests.devices import sshd
from tests.doubles import plant

CONF = """# FILE: nvpmodel.conf
< PARAM TYPE=FILE NAME=CPU_ONLINE >
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=MODE_15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MODE_30W >
< PM_CONFIG DEFAULT=2 >
"""
NVPMODEL = """
case $1 in
-q) echo "NV Power Mode: $(sed -n "s/.*ID=$(cat {state}/mode) NAME=\\([^ ]*\\) .*/\\1/p" {state}/conf)"
    cat {state}/mode ;;
-m) echo "set $2" >>{state}/calls
    if [ "$2" = 0 ]; then
        echo "NVPM WARN: Reboot required for changing to this power mode: 0"
        echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
        read -r answer || exit 0
    fi
    echo "$2" >{state}/mode ;;
esac
"""
CLOCKS = """
echo "clocks $*" >>{state}/calls
case $1 in
--store) if [ -e "$2" ]; then read -r answer; exit 1; fi; echo "stored clocks" >"$2" ;;
esac
"""


class Jetson:
    """A board whose power mode is the number in a file."""

    def __init__(self, server: sshd.Server, state: Path) -> None:
        self.server, self.state = server, state

    @property
    def mode(self) -> str:
        return (self.state / "mode").read_text().strip()

    @property
    def calls(self) -> list[str]:
        path = self.state / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def jetson(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jetson]:
    if sshd.SERVER is None:
        pytest.skip("no sshd here: apt install openssh-server")
    folder = tmp_path_factory.mktemp("jetson")
    state, tools = folder / "state", folder / "tools"
    state.mkdir()
    tools.mkdir()
    (state / "mode").write_text("2\n")
    (state / "conf").write_text(CONF)
    plant.script(tools, "nvpmodel", NVPMODEL.format(state=state))
    plant.script(tools, "jetson_clocks", CLOCKS.format(state=state))
    plant.script(tools, "sudo", f'[ "$1" = -n ] || exit 9; shift; [ -e {state}/password ] && exit 1; exec "$@"')
    server = sshd.start(folder / "device", PATH=f"{tools}:{os.environ['PATH']}", NVPMODEL_CONF=str(state / "conf"))
    monkeypatch.setenv("EDGEKIT_SSH", server.ssh)
    yield Jetson(server, state)
    server.stop()


def held(jetson: Jetson, mode: str) -> list[str]:
    """Hold a mode, and return what was said and which mode it was meanwhile."""
    said: list[str] = []
    with Connection(jetson.server.host) as connection, jetson_power.power_mode(connection, mode, said.append):
        said.append(f"meanwhile {jetson.mode}")
    return said


def test_without_a_mode_nothing_is_touched(jetson: Jetson) -> None:
    assert held(jetson, "") == ["meanwhile 2"]
    assert jetson.calls == []


@pytest.mark.parametrize("mode", ["1", "MODE_15W"])
def test_a_mode_is_set_by_number_or_name_and_put_back_with_the_clocks(jetson: Jetson, mode: str) -> None:
    assert held(jetson, mode) == [f"setting the power mode {mode}", "meanwhile 1"]
    assert jetson.mode == "2"
    clocks = jetson.server.cache / "clocks"
    assert jetson.calls == [f"clocks --store {clocks}", "set 1", "clocks ", "set 2", f"clocks --restore {clocks}"]
    assert not {"restore", "clocks", "alive"} & {p.name for p in jetson.server.cache.iterdir()}


def test_an_error_puts_it_back_too(jetson: Jetson) -> None:
    def work() -> None:
        with Connection("board") as connection, jetson_power.power_mode(connection, "1", print):
            assert jetson.mode == "1"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert jetson.mode == "2"


BY_HAND = "ssh -t board 'cd ~/.cache/edgekit && sudo nvpmodel -m $(cat restore) && sudo jetson_clocks --restore clocks'"


def lose(connection: Connection, error: EdgekitError) -> None:
    """Let every further command fail."""

    def fail(*_: object, **__: object) -> bytes:
        raise error

    connection.run = fail  # type: ignore[method-assign]


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_connection_that_breaks_before_it_is_put_back_is_reported_with_the_command(
    jetson: Jetson, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, interrupted: bool
) -> None:
    monkeypatch.setattr("edgekit.devices.link._TRIES", 1)

    def work() -> None:
        with Connection("board") as connection, jetson_power.power_mode(connection, "1", print):
            lose(connection, ConnectionLost("the connection to board broke: unplugged"))
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext():
        work()
    assert jetson.mode == "1"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "board may still have the power mode" in record.getMessage()
    assert "the connection to board broke: unplugged" in record.getMessage()
    assert BY_HAND in record.getMessage()


def test_a_board_that_cannot_be_reached_when_it_is_put_back_is_an_error_that_names_the_mode(jetson: Jetson) -> None:
    def work() -> None:
        with Connection("board") as connection, jetson_power.power_mode(connection, "1", print):
            lose(connection, MissingError("board cannot be reached: Connection refused", "ssh board"))

    with pytest.raises(MissingError, match="board may still have the power mode") as caught:
        work()
    assert BY_HAND in caught.value.message
    assert caught.value.hint == "ssh board"


def test_the_command_that_is_named_puts_it_back(jetson: Jetson) -> None:
    killed_while_held(jetson, alone_s="60")
    tools = {
        "PATH": f"{jetson.state.parent / 'tools'}:{os.environ['PATH']}",
        "HOME": str(jetson.server.folder / "home"),
    }
    there = BY_HAND.partition("'")[2].rstrip("'").replace("sudo ", "sudo -n ")  # the planted one never asks
    subprocess.run(["sh", "-c", there], env=tools, check=True)
    assert jetson.mode == "2"
    assert jetson.calls[-2:] == ["set 2", "clocks --restore clocks"]


def test_an_unknown_mode_lists_the_known_ones(jetson: Jetson) -> None:
    with pytest.raises(UsageError, match="no power mode 'MAXN; reboot'") as caught:
        held(jetson, "MAXN; reboot")
    assert "0 MAXN, 1 MODE_15W, 2 MODE_30W" in caught.value.hint
    assert jetson.calls == []


def test_a_mode_that_needs_a_restart_is_not_taken_and_nothing_changes(jetson: Jetson) -> None:
    with pytest.raises(EdgekitError, match="does not switch to the power mode 'MAXN'"):
        held(jetson, "MAXN")
    assert jetson.mode == "2"
    assert not (jetson.server.cache / "restore").exists()


def test_without_the_right_to_set_it_the_error_says_how_to_give_it(jetson: Jetson) -> None:
    (jetson.state / "password").touch()
    with pytest.raises(UsageError, match="asks for a password") as caught:
        held(jetson, "1")
    assert "sudoers.d" in caught.value.hint
    assert jetson.mode == "2"


def test_a_board_that_is_no_jetson_says_so(board: sshd.Server) -> None:
    with pytest.raises(UsageError, match="has no nvpmodel"), Connection(board.host) as connection:
        jetson_power.power_mode(connection, "1", print).__enter__()


def killed_while_held(jetson: Jetson, holder: str = "", alone_s: str = "1") -> None:
    """What an edgekit that was killed leaves: the mode is set, and nobody puts it back."""
    holder = holder or f"{jobs.user_at_host()} 99999999"
    with Connection("board") as connection:
        connection.insist(jetson_power._SET, "1", alone_s, holder)
    assert jetson.mode == "1"


def test_after_a_crash_the_next_connection_puts_it_back_and_says_so(jetson: Jetson) -> None:
    killed_while_held(jetson)
    assert held(jetson, "") == ["restored the power mode that an earlier run had changed", "meanwhile 2"]


def test_a_mode_that_another_edgekit_holds_is_left_alone(jetson: Jetson) -> None:
    for holder in (f"{jobs.user_at_host()} {os.getppid()}", "somebody@elsewhere 1"):
        killed_while_held(jetson, holder, alone_s="60")
        with pytest.raises(UsageError, match="another edgekit"):
            held(jetson, "")
        assert jetson.mode == "1"
        (jetson.server.cache / "holder").write_text(f"{jobs.user_at_host()} 99999999")
        assert held(jetson, "")[-1] == "meanwhile 2"


def test_a_second_edgekit_of_the_same_user_that_sets_the_held_mode_again_keeps_the_first_one_in_mind(
    jetson: Jetson,
) -> None:
    killed_while_held(jetson)
    killed_while_held(jetson)
    assert held(jetson, "")[-1] == "meanwhile 2"


def test_where_the_clocks_cannot_be_locked_the_mode_is_put_back(jetson: Jetson) -> None:
    plant.script(jetson.state.parent / "tools", "jetson_clocks", '[ "$1" = --store ] || [ "$1" = --restore ]')
    with pytest.raises(UsageError, match="asks for a password"):
        held(jetson, "1")
    assert jetson.mode == "2"


def test_after_a_crash_clean_puts_it_back_before_it_forgets_it(jetson: Jetson) -> None:
    killed_while_held(jetson)
    remote.clean("board")
    assert jetson.mode == "2"
    assert not jetson.server.cache.exists()


def test_where_nobody_comes_the_board_puts_it_back_by_itself(jetson: Jetson) -> None:
    killed_while_held(jetson)
    end = time.monotonic() + 60
    while jetson.mode != "2" and time.monotonic() < end:
        time.sleep(0.2)
    assert jetson.mode == "2"


def test_a_running_job_keeps_the_mode(jetson: Jetson) -> None:
    job = jetson.server.cache / "jobs" / "one" / "started"
    job.mkdir(parents=True)
    (job / "pid").write_text(f"{os.getpid()}\n")
    (job / "boot").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    killed_while_held(jetson)
    time.sleep(4)
    assert jetson.mode == "1"
    (job.parent / "status").write_text("0")
    end = time.monotonic() + 60
    while jetson.mode != "2" and time.monotonic() < end:
        time.sleep(0.2)
    assert jetson.mode == "2"

"""Jobs on a real sshd: results come back whole, whatever happens to the connection or the runner."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.devices import jobs, remote
from edgekit.devices.jobs import Job
from edgekit.devices.link import Stopped
from edgekit.devices.transport import open_transport
from edgekit.errors import EdgekitError, UsageError
from edgekit.records import Device
from tests.devices import sshd
from tests.devices.test_transport import JOB, LIMITS

BOARD = Device("board", "rpi", transport="ssh", runtime="litert", host="board", python=sys.executable)


def run(files: dict[str, Path], results: Path, device: Device = BOARD, **changes: Any) -> Path:
    with open_transport(device) as transport:
        transport.run(Job({**JOB, **changes}, files), results)
    return results


def test_a_job_brings_back_its_files_and_leaves_only_the_cache(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path
) -> None:
    results = run(files, tmp_path / "results")
    assert {p.name for p in results.iterdir()} == {"latencies_ns.npy", "warmup_ns.npy", "logits.npy", "result.json"}
    assert np.load(results / "latencies_ns.npy").shape == (5,)
    assert np.load(results / "logits.npy").tolist() == [[0, 0]] * 4
    assert json.loads((results / "result.json").read_text())["runtime"] == "null"
    assert list((board.cache / "jobs").iterdir()) == []
    assert len(list((board.cache / "objects").iterdir())) == 3
    assert remote.clean(board.host) > 0
    assert not board.cache.exists()


def test_the_same_files_are_not_sent_again(board: sshd.Server, files: dict[str, Path], tmp_path: Path) -> None:
    run(files, tmp_path / "one")
    before = {p.name: p.stat().st_mtime_ns for p in (board.cache / "objects").iterdir()}
    run(files, tmp_path / "two")
    assert {p.name: p.stat().st_mtime_ns for p in (board.cache / "objects").iterdir()} == before


def test_what_the_runner_said_is_the_error(board: sshd.Server, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="unknown runtime 'odd'") as caught:
        run(files, tmp_path / "results", runtime="odd")
    assert "edgekit devices probe board" in caught.value.hint
    assert list((board.cache / "jobs").iterdir()) == []


def test_a_python_that_is_not_there_is_named(board: sshd.Server, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="no-such-python"):
        run(files, tmp_path / "results", replace(BOARD, python="no-such-python"))


def test_a_device_without_a_host_says_how_to_give_one(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no host") as caught:
        run(files, tmp_path / "results", replace(BOARD, host=""))
    assert "--host" in caught.value.hint


def test_what_is_measured_is_pinned_to_the_cores_of_the_file_and_what_is_built_is_not() -> None:
    transport = remote.SshTransport(replace(BOARD, cpu_mask="3"))
    assert transport._command(Job(JOB, {}))[:2] == ("taskset", "3")
    assert transport._command(Job({"do": "build"}, {}))[0] == "env"


def runner_of(board: sshd.Server, seconds: float = 20) -> int:
    """The process that runs the job, once it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [p for p in (board.cache / "jobs").glob("*/started/pid") if p.read_text().strip()]
        if found:
            return int(found[0].read_text())
        time.sleep(0.05)
    raise AssertionError("no job was started")


def slowly(seconds: float) -> dict[str, Any]:
    return {"limits": {**LIMITS, "min_s": seconds, "max_s": 60.0}}


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["with its shell", "alone, as when memory runs out"])
def test_a_runner_that_is_killed_once_is_started_again_and_keeps_what_it_measured(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path, whole: bool
) -> None:
    def kill() -> None:
        shell = runner_of(board)
        end = time.monotonic() + 20
        while time.monotonic() < end and not list((board.cache / "jobs").glob("*/out/latencies.part.npy")):
            time.sleep(0.1)
        command = ["kill", "-KILL", "--", f"-{shell}"] if whole else ["pkill", "-KILL", "-P", str(shell)]
        subprocess.run(command, check=True)

    killer = threading.Thread(target=kill)
    killer.start()
    results = run(files, tmp_path / "results", **slowly(3.0))
    killer.join()
    assert np.load(results / "logits.npy").shape == (4, 2)
    assert json.loads((results / "result.json").read_text())["resumed"] is True


def test_a_runner_that_is_always_killed_leaves_what_it_measured_for_the_next_time(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path
) -> None:
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nmkdir -p out; touch out/latencies.part.npy; kill -KILL $$\n")
    deadly.chmod(0o755)
    with pytest.raises(EdgekitError, match="was killed 2 times") as caught:
        run(files, tmp_path / "results", replace(BOARD, python=str(deadly)))
    assert "the same command resumes" in caught.value.hint
    assert len(list((board.cache / "jobs").glob("*/out/latencies.part.npy"))) == 1


def leave_job(cache: Path, token: str, owner: str) -> subprocess.Popen[bytes]:
    """A job that runs on a device, of somebody."""
    job = cache / "jobs" / token / "started"
    job.mkdir(parents=True)
    (job / "boot").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    process = subprocess.Popen(["sleep", "100"], start_new_session=True)
    (job / "pid").write_text(f"{process.pid}\n")
    (job.parent / "owner").write_text(owner)
    return process


def test_a_job_that_a_killed_edgekit_left_is_ended_before_the_next_is_measured(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path
) -> None:
    left = leave_job(board.cache, "0123456789abcdef", f"{jobs.user_at_host()} 99999999")
    run(files, tmp_path / "results")
    assert left.wait(10) != 0
    assert list((board.cache / "jobs").iterdir()) == []


@pytest.mark.parametrize("owner", ["somebody@elsewhere 7", f"{jobs.user_at_host()} 1"])
def test_nothing_is_measured_beside_the_job_of_another_edgekit(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path, owner: str
) -> None:
    left = leave_job(board.cache, "0123456789abcdef", owner)
    with pytest.raises(EdgekitError, match="another edgekit"):
        run(files, tmp_path / "results")
    with pytest.raises(EdgekitError, match="another edgekit"), open_transport(BOARD, power_mode="15W"):
        pass  # before anything of its power is touched
    assert left.poll() is None
    left.kill()
    left.wait(10)
    run(files, tmp_path / "results")


def test_what_was_stopped_before_it_connected_does_nothing(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path
) -> None:
    transport = open_transport(BOARD)
    transport.stop()
    with pytest.raises(Stopped), transport:
        transport.run(Job(JOB, files), tmp_path / "results")
    assert not board.cache.exists() or list((board.cache / "jobs").iterdir()) == []


@pytest.mark.slow
def test_connections_broken_at_random_moments_lose_nothing(
    board: sshd.Server, files: dict[str, Path], tmp_path: Path
) -> None:
    """10 breaks over as many jobs as it takes; every job must end with all of its results, measured once."""
    random.seed(0)
    breaks, rounds = 0, 0
    while breaks < 10:
        rounds += 1
        ended = threading.Event()

        def drop(ended: threading.Event = ended) -> None:
            nonlocal breaks
            while not ended.wait(random.uniform(0.05, 3.0)):
                if board.sessions():
                    board.drop()
                    breaks += 1

        dropper = threading.Thread(target=drop)
        dropper.start()
        try:
            results = run(files, tmp_path / f"results{rounds}", **slowly(6.0))
        finally:
            ended.set()
            dropper.join()
        assert np.load(results / "logits.npy").shape == (4, 2)
        assert json.loads((results / "result.json").read_text())["runtime"] == "null"
    assert rounds < 10

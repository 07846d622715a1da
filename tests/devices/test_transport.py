"""Jobs in a process of their own, with the runner that does nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import config
from edgekit.devices.jobs import Job
from edgekit.devices.transport import TRANSPORTS, LocalTransport, open_transport
from edgekit.errors import EdgekitError, MissingError, UsageError
from edgekit.records import Device

LIMITS = {"warmup_queries": 2, "warmup_s": 0.0, "min_queries": 5, "min_s": 0.0, "max_s": 60.0}
JOB: dict[str, Any] = {"model": "model", "runtime": "null", "threads": 1, "pixels": "pixels.npy",
                       "mean": [0, 0, 0], "std": [1, 1, 1], "layout": "NCHW", "limits": LIMITS}  # fmt: skip
LOCAL = Device("local", "desktop", transport="local")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A model of no use to anyone, and four images."""
    np.save(tmp_path / "pixels.npy", np.zeros((4, 8, 8, 3), np.uint8))
    (tmp_path / "some.model").write_text("")
    return {"pixels.npy": tmp_path / "pixels.npy", "model": tmp_path / "some.model"}


def run(device: Device, files: dict[str, Path], results: Path, **changes: object) -> Path:
    LocalTransport(device).run(Job({**JOB, **changes}, files), results)
    return results


def test_a_local_job_brings_back_its_files(files: dict[str, Path], tmp_path: Path) -> None:
    results = run(LOCAL, files, tmp_path / "results")
    assert {p.name for p in results.iterdir()} == {"latencies_ns.npy", "warmup_ns.npy", "logits.npy", "result.json"}
    assert np.load(results / "latencies_ns.npy").shape == (5,)
    assert np.load(results / "logits.npy").tolist() == [[0, 0]] * 4
    described = json.loads((results / "result.json").read_text())
    assert (described["runtime"], described["threads"], described["warmup_queries"]) == ("null", 1, 2)


def test_the_job_runs_in_another_process_by_the_named_python(files: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    run(dataclasses.replace(LOCAL, python=str(other)), files, tmp_path / "results")
    assert int((tmp_path / "pid").read_text()) != os.getpid()


def test_a_python_named_relative_to_the_working_directory_is_found(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "venv" / "python").chmod(0o755)
    run(dataclasses.replace(LOCAL, python="venv/python"), files, tmp_path / "results")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runtime": "nope"}, "unknown runtime 'nope'; known: null"),
        ({"pixels": "none.npy"}, "No such file"),
        ({"limits": {}}, "KeyError: 'warmup_queries'"),
    ],
)
def test_a_failing_job_says_what_it_printed(
    files: dict[str, Path], tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(EdgekitError) as caught:
        run(LOCAL, files, tmp_path / "results", **changes)
    assert caught.value.message.startswith("model in ")
    assert says in caught.value.message
    assert not (tmp_path / "results").exists()


def test_only_the_end_of_a_long_failure_is_shown(files: dict[str, Path], tmp_path: Path) -> None:
    talkative = tmp_path / "python"
    talkative.write_text("#!/bin/sh\nseq 1 100 >&2\nexit 1\n")
    talkative.chmod(0o755)
    with pytest.raises(EdgekitError) as caught:
        run(dataclasses.replace(LOCAL, python=str(talkative)), files, tmp_path / "results")
    assert caught.value.message.split()[-5:] == ["96", "97", "98", "99", "100"]
    assert "95" not in caught.value.message


def test_an_interrupted_job_interrupts(files: dict[str, Path], tmp_path: Path) -> None:
    interrupted = tmp_path / "python"
    interrupted.write_text("#!/bin/sh\nkill -INT $$\n")
    interrupted.chmod(0o755)
    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(LOCAL, python=str(interrupted)), files, tmp_path / "results")


@pytest.mark.parametrize("python", ["/no/such/python", "no-such-python-at-all", "."])
def test_a_python_that_does_not_exist_is_named(python: str) -> None:
    with pytest.raises(MissingError) as caught:
        LocalTransport(dataclasses.replace(LOCAL, python=python))
    assert python in caught.value.message
    assert "'local'" in caught.value.message


def test_nothing_is_left_in_the_folder_for_temporary_files(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run(LOCAL, files, tmp_path / "results")
    with pytest.raises(EdgekitError):
        run(LOCAL, files, tmp_path / "results", runtime="nope")
    assert list(temporary.iterdir()) == []


MEASURE = """
import sys
from pathlib import Path
from edgekit.devices.jobs import Job
from tests.devices.test_transport import JOB, LOCAL, LIMITS, LocalTransport
files = {"pixels.npy": Path(sys.argv[1]) / "pixels.npy", "model": Path(sys.argv[1]) / "some.model"}
limits = {**LIMITS, "min_queries": 10**9, "min_s": 60.0}
LocalTransport(LOCAL).run(Job({**JOB, "limits": limits}, files), Path(sys.argv[1]) / "results")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_runner_ends_when_its_parent_is_killed(files: dict[str, Path], tmp_path: Path, how: int) -> None:
    (tmp_path / "tmp").mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", MEASURE, str(tmp_path)], env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    )
    try:
        runner = until(lambda: next(iter(children(parent.pid)), 0))
        until(lambda: list((tmp_path / "tmp").glob("*/out/latencies.part.npy")))
    finally:
        parent.send_signal(how)
        parent.wait()
    until(lambda: not Path(f"/proc/{runner}/cmdline").exists() or not Path(f"/proc/{runner}/cmdline").read_bytes())


def until(found: Callable[[], Any]) -> Any:
    """Return what `found` returns once it is true; at most half a minute."""
    end = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


OUT_OF_REACH = [d for d in config.load_devices() if d.transport not in TRANSPORTS]
WITHOUT_HOST = [d for d in config.load_devices() if d.transport == "ssh"]


@pytest.mark.parametrize("device", OUT_OF_REACH, ids=lambda d: d.name)
def test_a_device_out_of_reach_says_what_can_be_done_instead(device: Device) -> None:
    with pytest.raises(UsageError, match=device.name) as caught:
        open_transport(device)
    assert f"export/{device.family}" in caught.value.hint
    assert isinstance(open_transport(config.load_device("local")), LocalTransport)


@pytest.mark.parametrize("device", WITHOUT_HOST, ids=lambda d: d.name)
def test_a_device_over_ssh_wants_a_host(device: Device) -> None:
    with pytest.raises(UsageError, match=f"{device.name!r} has no host") as caught:
        open_transport(device)
    assert f"--device {device.name} --host" in caught.value.hint

"""Cores that this process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgekit import cores
from edgekit.errors import UsageError

NO = Path("/nonexistent")


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_V2", NO)
    monkeypatch.setattr(cores, "_V1", NO)


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, found: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(cores, "_V2", tmp_path / "cpu.max")
    assert cores.cores() == found


@pytest.mark.parametrize(("quota", "found"), [("-1", 8), ("300000", 3)])
def test_the_older_form_of_the_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, found: int
) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(cores, "_V1", tmp_path / "cpu.cfs_quota_us")
    assert cores.cores() == found


def test_without_a_limit_it_is_the_cores_that_the_process_is_bound_to() -> None:
    assert cores.cores() == 8


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eight cores, each with a thread."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("busy", "used"), [(0.0, 8), (0.2, 8), (0.3, 7), (1.0, 7), (3.1, 5), (7.5, 1), (8.0, 1), (12.0, 1)]
)
def test_cores_that_other_programs_use_are_left_to_them(
    threads: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], busy: float, used: int
) -> None:
    monkeypatch.setattr(cores, "busy_cores", lambda: busy)
    cores.use_threads()
    assert torch.get_num_threads() == used
    said = capsys.readouterr().err
    assert said.count("\n") == (used < 8)
    assert (f"other programs use {busy:.1f} cores" in said) == (used < 8)


def test_a_container_with_two_cores_gets_two_threads_without_a_word(
    threads: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cores, "busy_cores", lambda: 3.0)
    monkeypatch.setattr(cores, "cores", lambda: 2)
    cores.use_threads()
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().err == ""


def test_a_number_that_was_asked_for_is_used(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "busy_cores", lambda: 8.0)
    cores.use_threads(3)
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cores.use_threads()
    assert torch.get_num_threads() == 3
    with pytest.raises(UsageError, match="8 cores"):
        cores.use_threads(9)


def test_other_programs_are_seen_and_this_one_is_not() -> None:
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    alone = cores.busy_cores()
    with subprocess.Popen(spin, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        beside = cores.busy_cores()
        other.kill()
    assert alone >= 0
    assert beside > 0.05


WAITING = """
import os, subprocess, sys
from edgekit import cores
cores.wait_passively()
shown = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"
print(os.environ["OMP_WAIT_POLICY"], flush=True)
subprocess.run([sys.executable, "-c", shown], env=cores.outside_environment(), check=True)
"""


@pytest.mark.parametrize(("chosen", "seen"), [(None, ["PASSIVE", "None"]), ("ACTIVE", ["ACTIVE", "ACTIVE"])])
def test_threads_wait_passively_here_and_as_usual_in_measurements(chosen: str | None, seen: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": chosen} if chosen else {}
    done = subprocess.run([sys.executable, "-c", WAITING], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == seen

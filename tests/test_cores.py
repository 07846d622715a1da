"""Cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit import cores

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

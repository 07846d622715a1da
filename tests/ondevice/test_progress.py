"""How far a job is, in a file that the host reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.ondevice import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets; nothing was said for long."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_last", [0.0])
    return now


def test_what_is_said_is_one_short_line_in_the_current_folder(tmp_path: Path, clock: list[float]) -> None:
    progress.say("a\nb" + "x" * 500)
    assert (tmp_path / "progress").read_text() == "a b" + "x" * 197 + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["progress"]


def test_it_is_said_at_most_once_in_two_seconds(tmp_path: Path, clock: list[float]) -> None:
    for now, text in ((1000.0, "one"), (1001.9, "two"), (1002.0, "three"), (1003.0, "four")):
        clock[0] = now
        progress.say(text)
        assert (tmp_path / "progress").read_text() == ("three\n" if now >= 1002 else "one\n")


def test_what_cannot_be_written_is_not_said(tmp_path: Path, clock: list[float]) -> None:
    (tmp_path / "progress").mkdir()
    progress.say("one")
    assert (tmp_path / "progress").is_dir()

"""What the user sees: results on standard output, notes on standard error, names as text."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit import labels, progress
from edgekit.cli import console, figures
from edgekit.measurements import Gates
from edgekit.quantization import Range
from edgekit.reporting import tables
from tests.bench.results import BASELINE_ROW, row


def test_notes_go_to_standard_error_and_results_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    progress.note("a note")
    console.table(["name"], [["a result"]])
    output = capsys.readouterr()
    assert (output.err, "a result" in output.out, "note" in output.out) == ("a note\n", True, False)


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "a [b] c", ":smile:", "100 %", "x" * 150, "犬"])
def test_markup_in_a_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], text: str) -> None:
    progress.note(text)
    console.table(["name"], [[text]])
    output = capsys.readouterr()
    assert output.err.strip() == text
    assert output.out.splitlines()[-1].strip() == text


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\x9b31mb", "a\rb", "a\x08b", "a\u202eb"])
def test_control_characters_are_made_visible(capsys: pytest.CaptureFixture[str], text: str) -> None:
    progress.note(text)
    console.table(["name"], [[text]])
    output = capsys.readouterr()
    for shown in (output.out.splitlines()[-1], output.err.rstrip("\n")):
        assert shown.strip() == f"a{ascii(text[1])[1:-1]}{text[2:]}"


def test_printable_text_stays_as_it_is() -> None:
    assert labels.printable("crème 犬\n x") == "crème 犬\n x"


def test_columns_line_up_and_rows_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "n"], [["a", "1"], ["long name", "22"]], right=["n"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name        n", "a           1", "long name  22"]


def test_json_takes_records_and_paths_and_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    console.as_json({"range": Range(-1.0, 1.0), "path": Path("a/b"), "text": "犬\x1b"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"range": {"low": -1.0, "high": 1.0}, "path": "a/b", "text": "犬\x1b"}
    assert "犬" in out
    assert "\x1b" not in out


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("reading [x]") as update, progress.working("thinking"):
        update(1, 2, "[/]")
    output = capsys.readouterr()
    assert (output.out.strip(), output.err.strip()) == ("", "")


def test_without_a_terminal_a_line_now_and_then_says_what_is_going_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_SILENCE", 0.05)
    lines, shown = console._Lines(), ""
    with progress.reporting(lines), progress.bar("training [x]") as update:
        update(0, 50)
        update(10, 50, "epoch 1, loss 0.5")
        deadline = time.monotonic() + 20
        while not shown and time.monotonic() < deadline:
            time.sleep(0.02)
            shown += capsys.readouterr().err
        assert re.match(r"training \[x\]: 10 of 50, 0 s so far, about \d s left \(epoch 1, loss 0\.5\)\n", shown)
    lines.close()
    assert not lines._running


@pytest.mark.parametrize(
    ("seconds", "first", "last", "line"),
    [
        (30, (0, None), (0, None), "reading: 30 s so far"),
        (60, (0, 300), (100, 300), "reading: 100 of 300, 60 s so far, about 2 min left"),
        (60, (100, 300), (200, 300), "reading: 200 of 300, 60 s so far, about 60 s left"),
        (7200, (0, 2), (1, 2), "reading: 1 of 2, 2.0 h so far, about 2.0 h left"),
        (20, (0, 5), (0, 5), "reading: 0 of 5, 20 s so far"),
        (20, (0, 5), (5, 5), "reading: 5 of 5, 20 s so far"),
    ],
)
def test_a_line_estimates_the_rest_from_what_was_done_here(
    seconds: float, first: tuple[int, int | None], last: tuple[int, int | None], line: str
) -> None:
    states = [progress.Progress(1, "reading", *state) for state in (first, last)]
    assert console.progress_line(seconds, *states) == line


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_fits_the_terminal_and_lines_above_it_stay(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    from rich.console import Console

    screen = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    monkeypatch.setattr(console, "_notes", lambda: screen)
    bars = console._Bars()
    text = "epoch 3, loss 0.512, 120 images/s, best val top-1 98.0 %"
    bars(progress.Progress(1, "training efficientnet_lite0", 320, 1000, text))
    screen.print("epoch 2/10 is over")
    bars(progress.Progress(1, "training efficientnet_lite0", 321, 1000, text))
    assert bars._display is not None
    bars._display.refresh()
    bars(progress.Progress(1, "training efficientnet_lite0", finished=True))
    assert isinstance(screen.file, io.StringIO)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue()).replace("\r", "\n").splitlines()
    assert "epoch 2/10 is over" in [line.strip() for line in shown]
    assert all(len(line) <= width for line in shown)
    assert re.match(
        r"training efficientnet_lite0 \S+ +321/1000 \S+ epoch 3, l", [li for li in shown if "321" in li][-1]
    )


def test_an_error_passes_through_progress() -> None:
    with pytest.raises(KeyboardInterrupt), progress.bar("x"), progress.working("y"):
        raise KeyboardInterrupt


class Terminal(io.StringIO):
    """What a terminal would show."""

    def isatty(self) -> bool:
        return True


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, *arguments: Any, **options: Any) -> list[str]:
    """The lines of a table on a terminal without colours, so wide."""
    for name, value in (("COLUMNS", str(width)), ("LINES", "50"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    console.table(*arguments, **options)
    return terminal.getvalue().splitlines()


NAMES = ["jetson/model.int8.typed.onnx", "android/model.fp32.tflite"]
SHORT = {"right": tables.RIGHT, "short": tables.NARROW}
HIDDEN = ["ran in", "on", "agree %", "p90 ms", "p99 ms"]


@pytest.mark.parametrize(
    ("width", "verbose", "hidden"), [(80, False, HIDDEN), (200, False, HIDDEN), (80, True, []), (200, True, [])]
)
def test_a_terminal_gets_the_short_columns_unless_all_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, verbose: bool, hidden: list[str]
) -> None:
    rows = [tables.cells(row(artifact=name)) for name in NAMES]
    header, *lines = shown_on_a_terminal(monkeypatch, width, tables.COLUMNS, rows, **SHORT, verbose=verbose)
    assert [line.split()[0] for line in lines] == NAMES
    assert header.split() == " ".join(c for c in tables.COLUMNS if c not in hidden).split()
    assert capsys.readouterr().err == (f"(--verbose also shows: {', '.join(hidden)})\n" if hidden else "")


def test_a_file_gets_what_a_terminal_gets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [tables.cells(row(artifact=name)) for name in NAMES]
    console.table(tables.COLUMNS, rows, **SHORT)
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, shown)) <= console.WIDTH
    assert [line.rstrip() for line in shown_on_a_terminal(monkeypatch, 100, tables.COLUMNS, rows, **SHORT)] == shown


def test_names_are_never_cut_and_prose_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "other", "text"], [["x" * 50, "y" * 50, "word " * 9]], prose=["text"])
    _, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].split() == ["x" * 50, "y" * 50, "word", "word"]
    assert [len(line.split()) for line in lines[1:]] == [2, 2, 2, 1]


def test_the_first_column_is_never_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["x" * 30, "word " * 20], ["y" * 8, "z" * 30]]
    lines = shown_on_a_terminal(monkeypatch, 40, ["name", "text"], rows)
    assert [line.split()[0] for line in lines if "x" in line[:30]] == ["x" * 30]
    assert max(map(len, lines)) == 40
    assert sum(line.count("z") for line in lines) == 30


def test_measurements_have_their_legend_and_all_columns_with_verbose_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [BASELINE_ROW, row(drop=2.0, p_value=0.001)]
    figures.print_rows(rows, False, Gates(), verbose=False)
    short = capsys.readouterr()
    assert max(map(len, short.out.splitlines())) <= console.WIDTH
    assert "agree %" not in short.out
    assert "drop: loss of top-1" not in short.err
    assert "* significant: p < 0.05" in short.err  # a mark in the table
    figures.print_rows(rows, False, Gates(), verbose=True)
    whole = capsys.readouterr()
    assert whole.out.splitlines()[0].split() == " ".join(tables.COLUMNS).split()
    assert "drop: loss of top-1" in whole.err

"""What the user sees: results on standard output, notes on standard error, names as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli import show
from edgekit.records import Range


def test_notes_go_to_standard_error_and_results_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    show.note("a note")
    show.table(["name"], [["a result"]])
    output = capsys.readouterr()
    assert (output.err, "a result" in output.out, "note" in output.out) == ("a note\n", True, False)


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "a [b] c", ":smile:", "100 %", "x" * 150, "犬"])
def test_markup_in_a_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], text: str) -> None:
    show.note(text)
    show.table(["name"], [[text]])
    output = capsys.readouterr()
    assert output.err.strip() == text
    assert output.out.splitlines()[-1].strip() == text


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\x9b31mb", "a\rb", "a\x08b", "a\u202eb"])
def test_control_characters_are_made_visible(capsys: pytest.CaptureFixture[str], text: str) -> None:
    show.note(text)
    show.table(["name"], [[text]])
    output = capsys.readouterr()
    for shown in (output.out.splitlines()[-1], output.err.rstrip("\n")):
        assert shown.strip() == f"a{ascii(text[1])[1:-1]}{text[2:]}"


def test_printable_text_stays_as_it_is() -> None:
    assert show.printable("crème 犬\n x") == "crème 犬\n x"


def test_columns_line_up_and_rows_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(["name", "n"], [["a", "1"], ["long name", "22"]], right=["n"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name        n", "a           1", "long name  22"]


def test_json_takes_records_and_paths_and_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    show.as_json({"range": Range(-1.0, 1.0), "path": Path("a/b"), "text": "犬\x1b"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"range": {"low": -1.0, "high": 1.0}, "path": "a/b", "text": "犬\x1b"}
    assert "犬" in out
    assert "\x1b" not in out


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with show.bar("reading [x]") as update, show.working("thinking"):
        update(1, 2, "[/]")
    output = capsys.readouterr()
    assert (output.out.strip(), output.err.strip()) == ("", "")


def test_an_error_passes_through_progress() -> None:
    with pytest.raises(KeyboardInterrupt), show.bar("x"), show.working("y"):
        raise KeyboardInterrupt

"""The table's cells and footnotes."""

from __future__ import annotations

import pytest

from edgekit.report.tables import COLUMNS, NARROW, RIGHT, cells, footnotes, latency, number
from tests.bench.results import BASELINE_ROW, row


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.01234, "0.0123"), (0.5, "0.500"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"),
     (4321.0, "4321"), (0.0, "0.00")],
)  # fmt: skip
def test_a_latency_has_three_significant_digits(value: float | None, text: str) -> None:
    assert latency(value) == text


def test_a_figure_that_is_not_there_is_a_dash() -> None:
    assert (number(None, 1), number(1.25, 1), number(0.0, 2)) == ("-", "1.2", "0.00")


def named(**changes: object) -> dict[str, str]:
    return dict(zip(COLUMNS, cells(row(**changes)), strict=True))


def test_a_row_has_a_cell_for_every_column() -> None:
    assert named() == {
        "model": "android/model.int8.tflite", "ran in": "ai-edge-litert 2.0", "on": "local x1", "MB": "2.4",
        "top-1 % (95 %)": "97.8 (95.2-99.0)", "drop": "+0.0", "agree %": "98.5",
        "p50 ms": "3.00", "p90 ms": "3.20", "p99 ms": "3.50", "x base": "4.00",
    }  # fmt: skip
    assert set(RIGHT) < set(COLUMNS)
    assert set(NARROW) < set(COLUMNS)


@pytest.mark.parametrize(
    ("drop", "p", "text"), [(1.5, 0.049, "+1.5*"), (1.5, 0.05, "+1.5"), (-0.7, 0.01, "-0.7*"), (-0.7, 0.5, "-0.7")]
)
def test_a_star_marks_a_significant_drop_and_no_other(drop: float, p: float, text: str) -> None:
    assert named(drop=drop, p_value=p)["drop"] == text


def test_the_baseline_is_not_compared_with_itself() -> None:
    shown = dict(zip(COLUMNS, cells(BASELINE_ROW), strict=True))
    assert (shown["drop"], shown["agree %"], shown["x base"]) == ("", "", "")


def test_a_stand_in_is_marked() -> None:
    shown = named(stand_in=True)
    assert (shown["ran in"], shown["x base"]) == ("ai-edge-litert 2.0 (stand-in)", "")


@pytest.mark.parametrize(("busy", "text"), [(True, "3.00!"), (False, "3.00")])
def test_a_latency_of_a_busy_machine_is_marked(busy: bool, text: str) -> None:
    assert named(busy=busy)["p50 ms"] == text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stand_in": True}, "stand-in:"),
        ({"p99_ms": None}, "insufficient samples"),
        ({"p50_ms": None}, "insufficient"),
        ({"busy": True}, "busy with other work"),
    ],
)
def test_a_footnote_stands_where_it_is_needed_and_only_there(change: dict[str, object], word: str) -> None:
    assert any(word in note for note in footnotes([BASELINE_ROW, row(**change)]))
    assert not any(word in note for note in footnotes([BASELINE_ROW, row()]))


@pytest.mark.parametrize(("processor", "says"), [("cpu", "no CUDA GPU here"), ("NVIDIA X", "torch 2.9 on NVIDIA X")])
def test_the_footnotes_say_what_the_baseline_ran_on(processor: str, says: str) -> None:
    import dataclasses

    base = dataclasses.replace(BASELINE_ROW, processor=processor)
    assert says in footnotes([row(), base])[0]


def test_figures_of_this_machine_are_not_passed_off_as_a_device_s() -> None:
    assert any("none says how fast a phone" in note for note in footnotes([BASELINE_ROW, row()]))

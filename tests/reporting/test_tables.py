"""The table's cells and footnotes."""

from __future__ import annotations

import dataclasses

import pytest

from edgekit.cli import console
from edgekit.measurements import Summary
from edgekit.reporting import tables
from edgekit.reporting.tables import COLUMNS, NARROW, RIGHT, SHORT, cells, footnotes, latency, legend, number
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


def test_a_speed_up_that_a_busy_machine_gave_is_marked() -> None:
    assert named(speedup_doubtful=True)["x base"] == "4.00!"
    assert any(
        n.startswith("! this model or the baseline") for n in footnotes([BASELINE_ROW, row(speedup_doubtful=True)])
    )


def test_the_fastest_baseline_is_named_unless_a_busy_machine_measured_it() -> None:
    fast = dataclasses.replace(BASELINE_ROW, artifact="baseline/onnxruntime", p50_ms=6.0)
    busy = [dataclasses.replace(r, busy=True) for r in (BASELINE_ROW, fast)]
    told = "fastest baseline: baseline/onnxruntime (FP32), 2.00 times as fast"
    assert any(note.startswith(told) for note in footnotes([BASELINE_ROW, fast]))
    for rows in ([busy[0], fast], [BASELINE_ROW, busy[1]]):
        assert not any(note.startswith("fastest") for note in footnotes(rows))


def test_a_stand_in_is_marked() -> None:
    shown = named(stand_in=True)
    assert (shown["ran in"], shown["p50 ms"], shown["x base"]) == ("ai-edge-litert 2.0 (stand-in)", "~3.00", "")


@pytest.mark.parametrize(("busy", "text"), [(True, "3.00!"), (False, "3.00")])
def test_a_latency_of_a_busy_machine_is_marked(busy: bool, text: str) -> None:
    assert named(busy=busy)["p50 ms"] == text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stand_in": True}, "~ stand-in:"),
        ({"p99_ms": None}, "insufficient samples"),
        ({"p50_ms": None}, "insufficient"),
        ({"busy": True}, "! measured while other programs"),
        ({"p_value": 0.01}, "* significant"),
        ({"batch": 8}, "of the whole batch"),
        ({"source": "emulated"}, "emulated: the accuracy"),
        ({"ran_in": "LiteRT.js 2.5.3"}, "in a browser"),
    ],
)
def test_a_footnote_stands_where_it_is_needed_and_only_there(change: dict[str, object], word: str) -> None:
    assert any(word in note for note in footnotes([BASELINE_ROW, row(**change)]))
    assert not any(word in note for note in footnotes([BASELINE_ROW, row()]))


@pytest.mark.parametrize(("processor", "says"), [("cpu", "no CUDA GPU here"), ("NVIDIA X", "torch 2.9 on NVIDIA X")])
def test_the_footnotes_say_what_the_baseline_ran_on(processor: str, says: str) -> None:
    base = dataclasses.replace(BASELINE_ROW, processor=processor)
    assert says in footnotes([row(), base])[0]


def test_figures_of_this_machine_are_not_passed_off_as_a_device_s() -> None:
    assert any("a phone or a Jetson has others" in note for note in footnotes([BASELINE_ROW, row()]))


def test_the_legend_explains_the_columns_that_are_shown_and_no_footnote_does() -> None:
    rows = [BASELINE_ROW, row()]
    assert [line.partition(":")[0] for line in legend(rows)] == ["on", "drop", "agree %", "x base", "p90, p99"]
    assert [line.partition(":")[0] for line in legend(rows, SHORT)] == ["on", "drop", "x base", "p90, p99"]
    unmeasured = [dataclasses.replace(r, p90_ms=None, p99_ms=None) for r in rows]
    assert not any(line.startswith("p90") for line in legend(unmeasured))
    assert not set(legend(rows)) & set(footnotes(rows))


# The width of a table -----------------------------------------------------------------------------


def printed_width(rows: list[Summary], columns: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> int:
    """The longest line of the table as the command line prints it."""
    console.table(columns, tables.lines_of(rows, columns), right=tables.RIGHT)
    return max(map(len, capsys.readouterr().out.splitlines()))


@pytest.mark.parametrize(
    ("device", "dropped"), [("local", ()), ("jetson-orin-nano", ("p90 ms",)), ("d" * 24, ("p90 ms", "MB"))]
)
def test_a_table_of_usual_names_is_at_most_100_characters_wide(
    device: str, dropped: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    widest = {"drop": 12.3, "p_value": 0.01, "busy": True, "speedup": 12.34, "p50_ms": 0.1234, "p90_ms": 0.1234,
              "size_mb": 13.5, "device": device}  # fmt: skip
    rows = [BASELINE_ROW, *(row(artifact=f"jetson/model.{kind}.onnx", **widest) for kind in ("fp32", "int8.typed"))]
    columns = tables.short_columns(rows)
    assert columns == tuple(column for column in SHORT if column not in dropped)
    assert printed_width(rows, columns, capsys) <= 100
    assert set(NARROW) <= set(COLUMNS)
    assert set(SHORT) <= set(COLUMNS)


def test_a_name_that_is_too_long_leaves_the_columns_that_matter_most() -> None:
    assert tables.short_columns([BASELINE_ROW, row(artifact="a/" + "x" * 90)])[0] == "model"
    assert tables.short_columns([BASELINE_ROW, row()], width=10_000) == SHORT


# Boards -----------------------------------------------------------------------------------------

BOARD = {
    "device": "orin", "source": "device", "compute_ms": 1.25, "rail": "VDD_IN", "idle_mw": 5012.0, "gross_mj": 21.5,
    "net_mj": 9.0, "state": {"power_mode": "15W", "gpu_mhz": 624.75, "clocks_locked": True, "temperature_gpu_c": 48.3},
}  # fmt: skip


def test_a_board_says_mode_power_clock_and_temperature() -> None:
    cells = dict(zip(tables.BOARD_COLUMNS, tables.board_cells(row(**BOARD))))
    assert cells == {
        "model": "android/model.int8.tflite", "on": "orin", "power mode": "15W", "rail": "VDD_IN", "p50 ms": "3.00",
        "compute ms": "1.25", "GPU MHz": "625 locked", "C": "48", "idle W": "5.01", "mJ": "21.5", "mJ net": "9.00",
    }  # fmt: skip


def test_what_a_board_does_not_say_is_a_dash() -> None:
    cells = tables.board_cells(row(device="orin", state={"gpu_mhz": "fast", "temperature_c": None}))
    assert cells[2:] == ["-", "-", "3.00", "-", "-", "-", "-", "-", "-"]
    assert not tables.is_board(row())
    assert tables.is_board(row(state={"power_mode": "15W"}))


def test_throttling_is_marked_and_explained() -> None:
    slowed = row(**BOARD, throttling=("3 over-current events",))
    assert tables.board_cells(slowed)[1] == "orin!"
    assert any("3 over-current events" in note for note in tables.board_notes([slowed]))
    assert not any(note.startswith("!") for note in tables.board_notes([row(**BOARD)]))


def test_on_a_narrow_terminal_the_column_that_tells_rows_apart_stays() -> None:
    rows = [BASELINE_ROW, row(artifact="jetson/model.int8.onnx"), row(artifact="jetson/model.int8.onnx", device="orin")]
    assert tables.narrow_columns(rows[:2]) == NARROW
    columns = tables.narrow_columns(rows)
    assert columns[:2] == ("model", "on")
    lines = [list(columns), *tables.lines_of(rows, columns)]
    assert sum(max(len(line[n]) for line in lines) + 2 for n in range(len(columns))) - 2 <= 80

"""The picture: SVG that stands in a page and runs nothing."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree

import pytest

from edgekit.measurements import Summary
from edgekit.reporting.charts import accuracy_latency
from edgekit.stats.proportions import wilson
from tests.bench.results import BASELINE_ROW, row


def drawn(rows: list[Summary]) -> ElementTree.Element:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return ElementTree.fromstring(accuracy_latency(rows))


def texts(svg: ElementTree.Element) -> set[str]:
    return {"".join(e.itertext()).strip() for e in svg.iter() if e.tag.endswith("}text")}


def test_each_row_with_a_latency_has_its_number() -> None:
    shown = texts(drawn([BASELINE_ROW, row(), row(p50_ms=7.0)]))
    assert {"1", "2", "3"} <= shown
    assert any("p50 latency" in text for text in shown)


def test_a_number_is_that_of_the_row_in_the_table() -> None:
    shown = texts(drawn([BASELINE_ROW, *[row(p50_ms=None)] * 11, row()]))
    assert "13" in shown
    assert not {"4", "6", "8", "11", "12"} & shown


def test_the_picture_is_named_and_has_no_script_and_no_date() -> None:
    svg = drawn([BASELINE_ROW, row()])
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"]
    tags = {e.tag.rpartition("}")[2] for e in svg.iter()}
    assert not tags & {"script", "metadata", "image", "foreignObject", "a"}


def test_the_same_rows_give_the_same_bytes() -> None:
    assert accuracy_latency([BASELINE_ROW, row()]) == accuracy_latency([BASELINE_ROW, row()])


def test_axes_take_the_colour_of_the_page() -> None:
    svg = accuracy_latency([BASELINE_ROW, row()])
    assert "currentColor" in svg
    assert "#010203" not in svg


@pytest.mark.parametrize("correct", [0, 1])
@pytest.mark.parametrize("samples", [3, 4, 5, 10, 45])
def test_a_perfect_and_a_hopeless_model_can_be_drawn(correct: int, samples: int) -> None:
    low, high = wilson(correct * samples, samples)
    drawn([row(top1=100.0 * correct, top1_low=100 * low, top1_high=100 * high)])


def test_rows_without_latencies_leave_an_empty_picture() -> None:
    assert ElementTree.fromstring(accuracy_latency([row(p50_ms=None)])).tag.endswith("svg")

"""The page: one file that fetches nothing, runs nothing, and shows every name as text."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import Any

import pytest

from edgekit.analysis.summary import summarize
from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult
from edgekit.reporting import changes, pictures
from edgekit.reporting.html import page
from edgekit.reporting.material import Material
from edgekit.scores import Evaluation
from tests.bench.results import artifact, by_program, result
from tests.reporting.evaluations import HOSTILE as HOSTILE_NAMES
from tests.reporting.evaluations import evaluation, split
from tests.reporting.made import meta, run

HOSTILE = "<script>alert(1)<\"'&{{ 7 * 7 }}"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.rows = 0
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(
    results: list[BenchmarkResult],
    name: str = "run",
    judged: Evaluation | None = None,
    draw: bool = False,
    **changed: Any,
) -> str:
    drawn = pictures.draw_all(meta(**changed)["history"], None, judged) if draw else {}
    rows, found = (summarize(results), changes.changes(results)) if results else ([], [])
    return page(Material(run(name, **changed), rows, results, judged, drawn, changes=found))


def int8(name: str = "android/model.int8.tflite", **more: Any) -> BenchmarkResult:
    return result(artifact(name, "int8", "litert", details={"recipe": "default", "observer": "mse"}), ms=0.5, **more)


@pytest.fixture(scope="module")
def ordinary() -> str:
    """The page of a run with a baseline and one INT8 model."""
    return rendered([result(), int8()])


def test_the_page_is_balanced_html_with_figures_verdict_and_lineage(ordinary: str) -> None:
    parsed = Page(ordinary)
    assert ordinary.startswith("<!doctype html>")
    assert {"h1", "table", "svg"} <= set(parsed.tags)
    for text in (
        "android/model.int8.tflite",
        "same top-1 as the baseline",
        "calibration default (mse)",
        "f" * 64,
        "b" * 64,
    ):
        assert text in parsed.text


def test_nothing_is_fetched_and_nothing_runs(ordinary: str) -> None:
    parsed = Page(ordinary)
    self_contained(ordinary)
    assert "img" not in parsed.tags


def self_contained(text: str) -> None:
    """Nothing is fetched, nothing runs: pictures are SVG elements or data: addresses."""
    parsed = Page(text)
    assert not set(parsed.tags) & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for name, value in parsed.attributes:
        assert name not in ("srcset", "action", "data", "background")
        assert not name.startswith("on")
        # An XML namespace is a name, not an address.
        if name == "src" or (name.endswith("href") and not value.startswith("#")):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
        else:
            assert name.startswith(("xmlns", "alt")) or "//" not in value, (name, value)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text


@pytest.mark.parametrize(
    "change",
    [
        {"name": HOSTILE.replace("/", "")},
        {"labels": ["cat", HOSTILE]},
        {"arch": HOSTILE},
        {"data": {"root": HOSTILE, "fingerprint": ""}},
        {"options": {HOSTILE: HOSTILE}},
        {"versions": {"torch": HOSTILE}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_names_are_shown_as_text(change: dict[str, Any]) -> None:
    text = rendered([result(), int8()], **change)
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert "<script>alert(1)<" in parsed.text
    assert "{{ 7 * 7 }}" in parsed.text


def test_names_of_devices_are_shown_as_text() -> None:
    device = HOSTILE
    parsed = Page(rendered([result(device=device), int8(device=device)]))
    assert "script" not in parsed.tags
    assert parsed.text.count("<script>alert(1)<") >= 3


def test_what_a_program_said_has_a_table_of_its_own_and_is_text() -> None:
    said = [by_program(), by_program(artifact("phone/model.fp32.tflite", "fp32", "litert"), device=HOSTILE)]
    results = [result(), int8()]
    text = page(Material(run("digits"), summarize(results), results, programs=said))
    self_contained(text)
    parsed = Page(text)
    for words in ("Measured by a program on the device", "partial (60 of 66 in GpuDelegate)", "2.50",
                  "sha256 dddddddddddd", "only a part of it ran on the GPU", HOSTILE, "so there is no accuracy",
                  "0 > 1"):  # fmt: skip
        assert words in parsed.text


def test_a_run_without_int8_says_what_brings_it() -> None:
    assert "edgekit export run --target jetson" in Page(rendered([result()], history=[])).text


def test_a_thousand_classes_and_fifty_rows_fit() -> None:
    names = [f"class {n:04}" for n in range(1000)]
    results = [result(), *(int8(f"android/model{n}.int8") for n in range(49))]
    text = rendered(results, labels=names)
    parsed = Page(text)
    assert all(name in parsed.text for name in names)
    assert parsed.tags.count("tr") >= 2 * 50
    assert len(text) < 1_000_000


# A run that was trained, and perhaps judged ---------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> str:
    """The page of a run that was trained and judged, but not exported."""
    return rendered([], judged=evaluation(), draw=True)


def test_a_run_that_was_only_trained_has_its_page_and_what_to_type_next() -> None:
    text = rendered([])
    parsed = Page(text)
    assert "edgekit evaluate run" in parsed.text
    assert "edgekit export run --target jetson --target android" in parsed.text
    assert "Accuracy and latency" not in parsed.text
    assert "Where it was measured" not in parsed.text
    assert "edgekit benchmark run" in parsed.text
    self_contained(text)


def test_a_judged_run_shows_how_right_how_calibrated_and_where_it_was_wrong(trained: str) -> None:
    judged = evaluation()
    test, parsed = judged.splits["test"], Page(trained)
    self_contained(trained)
    assert f"Test accuracy: {test.scores.top1:.1f} % of 18 images" in parsed.text
    assert "edgekit evaluate" not in parsed.text
    for heading in ("Training", "Test results", "Confusion", "Calibration", "Most confident mistakes", "Lineage"):
        assert heading in parsed.text
    assert parsed.tags.count("figure") == len(judged.mistakes) == parsed.tags.count("img")
    assert parsed.tags.count("svg") == 3  # curves, confusion, reliability
    for name in judged.labels:
        assert name in parsed.text
    assert f"{test.after.nll:.3f}" in parsed.text
    assert "confidence 0.80, spread 0.60" in parsed.text


def test_the_pairs_that_are_taken_for_each_other_most_often_are_named(trained: str) -> None:
    test = evaluation().splits["test"].scores
    images, row, column = max((n, r, c) for r, c, n in test.confusion if r != c)
    labels = evaluation().labels
    assert f"Most frequent: {labels[row]} as {labels[column]}: {images} of 6" in Page(trained).text


def test_a_judged_and_measured_run_has_everything() -> None:
    parsed = Page(rendered([result(), int8()], judged=evaluation(), draw=True))
    for heading in ("Accuracy and latency", "Figures", "Training", "Test results", "Where it was measured"):
        assert heading in parsed.text
    assert "edgekit evaluate" not in parsed.text


def test_a_class_without_test_images_has_dashes_and_is_mentioned() -> None:
    judged = evaluation(("cat", "dog", "owl", "bat"))
    test = judged.splits["test"]
    kept = judged.raw["test_labels"] < 3
    short = split(judged.raw["test_logits"][kept][:, :], judged.raw["test_labels"][kept])
    judged = dataclasses.replace(judged, splits={"val": test, "test": short})
    text = Page(rendered([], judged=judged)).text
    assert "without 1 of 4 classes that have no test image" in text
    assert "bat30" in "".join(text.split())  # class, number, images


def test_hostile_class_names_are_text_everywhere() -> None:
    judged = evaluation(HOSTILE_NAMES, right=0.3)
    text = rendered([], judged=judged, draw=True, labels=list(HOSTILE_NAMES))
    parsed = Page(text)
    self_contained(text)
    assert parsed.tags.count("figure") == 5
    for name in HOSTILE_NAMES:
        assert parsed.text.count(name) >= 2, name
    assert "49" not in {cell.strip() for cell in parsed.text.split("<")}


def test_hostile_paths_of_mistakes_are_text() -> None:
    judged = evaluation(right=0.2)
    named = dataclasses.replace(judged.mistakes[0], path=HOSTILE)
    parsed = Page(rendered([], judged=dataclasses.replace(judged, mistakes=(named,))))
    assert "script" not in parsed.tags
    assert HOSTILE in parsed.text


def test_two_hundred_judged_classes_fit_and_are_folded() -> None:
    names = [f"class {n:03}" for n in range(200)]
    text = rendered([], judged=evaluation(names), draw=True, labels=names)
    assert all(name in text for name in names)
    assert "<details><summary>200 classes" in text
    assert "<details open><summary>3 classes" in rendered([], judged=evaluation())
    assert len(text) < 600_000


def test_new_and_old_histories_are_shown() -> None:
    old = meta()["history"][0]
    text = Page(rendered([], history=[old, {**old, "epoch": 2, "val_macro_f1": 43.21, "lr": 0.00123}])).text
    assert "43.2" in text
    assert "0.0012" in text


@pytest.mark.parametrize("key", ["epoch", "val_top1", "best"])
def test_a_history_that_lacks_something_is_named(key: str) -> None:
    with pytest.raises(DataError, match=f"history: {key} missing"):
        rendered([], history=[{k: v for k, v in meta()["history"][0].items() if k != key}])

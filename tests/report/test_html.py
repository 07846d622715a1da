"""The page: one file that fetches nothing, runs nothing, and shows every name as text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgekit import store
from edgekit.bench.summary import summarize
from edgekit.records import BenchmarkResult
from edgekit.report.html import page
from tests.bench.results import artifact, result

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


def meta(**changes: Any) -> dict[str, Any]:
    return {
        "arch": "mobilenet_v2",
        "labels": ["cat", "dog", "owl"],
        "preprocess": {"image_size": 224},
        "data": {"root": "/data", "fingerprint": "f" * 64},
        "checkpoint_sha256": "b" * 64,
        "options": {"lr": 0.001},
        "versions": {"torch": "2.9"},
        "history": [
            {"epoch": 1, "train_loss": 1.5, "val_loss": 1.0, "val_top1": 50.0, "images_per_s": 10.0, "best": True}
        ],
        **changes,
    }


def rendered(results: list[BenchmarkResult], name: str = "run", **changes: Any) -> str:
    return page(store.Run(Path("runs") / name, meta(**changes)), summarize(results), results)


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
    for text in ("android/model.int8.tflite", "like the baseline", "calibration default (mse)", "f" * 64, "b" * 64):
        assert text in parsed.text


def test_nothing_is_fetched_and_nothing_runs(ordinary: str) -> None:
    parsed = Page(ordinary)
    assert not set(parsed.tags) & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for name, value in parsed.attributes:
        assert name not in ("src", "srcset", "action", "data", "background")
        assert not name.startswith("on")
        # An XML namespace is a name, not an address.
        assert name.startswith("xmlns") or "//" not in value, (name, value)
        assert not name.endswith("href") or value.startswith("#")
    style = ordinary[ordinary.index("<style>") : ordinary.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style
    assert "default-src 'none'" in ordinary


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

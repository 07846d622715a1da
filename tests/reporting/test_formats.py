"""The report as Markdown, JSON, comma-separated values and a model card: complete, and safe where it is read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from edgekit.measurements import Gates, Latency, Quantile, Roofline
from edgekit.reporting import card, csvfiles, document, markdown
from edgekit.reporting.material import Material
from edgekit.reporting.tables import Rows, Table
from tests.bench.results import BASELINE_ROW, artifact, result, row
from tests.reporting.evaluations import HOSTILE
from tests.reporting.made import big, run

NASTY = "=1+1|<script>\n\x1b[31m`${x}` [a](javascript:1) @team *b* &amp; {{ 7 }}"


@pytest.fixture(scope="module")
def material() -> Material:
    """Everything there can be, small, with harmful names."""
    return big(classes=14, artifacts=15, images=300)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# Comma-separated values ---------------------------------------------------------------------------


def test_csv_has_a_row_per_artifact_and_device_with_units(material: Material) -> None:
    rows = rows_of(csvfiles.figures(material))
    assert len(rows) == len(material.rows)
    first = material.rows[1]
    line = rows[1]
    assert (line["artifact"], line["device"]) == (first.artifact, first.device)
    assert float(line["top1_percent"]) == pytest.approx(first.top1)
    assert float(line["p50_ms"]) == pytest.approx(first.p50_ms)
    assert float(line["p50_low_ms"]) < float(line["p50_ms"]) < float(line["p50_high_ms"])
    assert {r["p50_ms"] for r in rows if r["source"] == "emulated"} == {""}
    assert {r["chosen"] for r in rows} == {"true", "false"}
    assert not any(cell.startswith(("nan", "None", "inf")) for r in rows for cell in r.values())


def test_percentiles_mean_the_same_in_csv_and_json_as_in_the_terminal() -> None:
    quantiles = tuple(Quantile(p, 3.0, 2.9, 3.1, b) for p, b in ((50, None), (90, 3.3), (95, 3.4), (99, None)))
    measured = row(p90_ms=3.3, p99_ms=None, latency=Latency(128, 0, quantiles, "order statistics", 0.0))
    made = dataclasses.replace(measured, artifact="a/model.int8.tflite", ran_in="litert 1.0")
    raw = result(artifact("a/model.int8.tflite", "int8", "litert"))
    found = Material(run(), [BASELINE_ROW, made], [raw])
    line = rows_of(csvfiles.figures(found))[1]
    columns = [f"p{p}{end}" for p in (50, 90, 95, 99) for end in ("_ms", "_low_ms", "_high_ms")]
    assert [line[c] for c in columns] == ["3", "2.9", "3.1", "3.3", "2.9", "3.1", "3.4", "2.9", "3.1", "", "", ""]
    (said,) = document.document(found)["distributions"]
    assert (said["p90_ms"], said["p95_ms"], said["p99_ms"]) == (3.3, 3.4, None)


def test_a_stand_in_has_no_speed_up_in_csv_and_json() -> None:
    other = row(stand_in=True, speedup_low=3.0, speedup_best=2.0, roofline=Roofline(1, 1, 1.0, "memory", 0.4, ""))
    found = Material(run(), [BASELINE_ROW, other, row(speedup_doubtful=True)])
    (_, line, doubtful) = rows_of(csvfiles.figures(found))
    told = {name: value for name, value in line.items() if name.startswith(("speedup", "roofline"))}
    assert set(told.values()) == {""}
    assert (doubtful["speedup_times"], doubtful["speedup_doubtful"]) == ("4", "true")
    said = document.document(found)["figures"][1]
    assert all(said[name] is None for name in ("speedup", "speedup_low", "speedup_best", "roofline"))


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@sum(a)", "\t=1", " =1", "\r=1"])
def test_no_cell_is_a_formula(name: str) -> None:
    found = Material(run(), [BASELINE_ROW, row(device=name, p50_ms=None, drop=-1.5)])
    (_, line) = rows_of(csvfiles.figures(found))
    assert line["device"].startswith(("'", "\\"))
    assert float(line["drop_points"]) == -1.5  # a figure stays one


def test_classes_has_every_class_of_every_model(material: Material) -> None:
    rows = rows_of(csvfiles.classes(material))
    assert len(rows) == len(material.changes) * len(material.labels)
    assert {r["class"] for r in rows} == {f"'{n}" if n.startswith("-") else n for n in material.labels}
    change = material.changes[0]
    mine = [r for r in rows if r["artifact_on_device"].startswith(change.names[0][:20])]
    assert sum(float(r["change_points"]) < 0 for r in mine) >= 1
    judged = dataclasses.replace(material, rows=[], results=[], changes=[])
    assert len(rows_of(csvfiles.classes(judged))) == len(material.labels)


# JSON ---------------------------------------------------------------------------------------------


def test_json_has_a_number_of_its_format_and_everything(material: Material) -> None:
    found = json.loads(document.as_json(material), parse_constant=pytest.fail)
    assert found["schema"] == document.SCHEMA
    assert len(found["figures"]) == len(material.rows)
    assert found["figures"][0]["number"] == 1
    assert any(entry["leads"] for entry in found["figures"])
    assert [d["device"] for d in found["verdict"]] == [d.device for d in material.decisions]
    assert len(found["changes"]) == len(material.changes)
    assert any(a["path"] for c in found["changes"] for a in c["answers"])
    assert found["layers"].keys() == material.layers.keys()
    assert all(d["p50_ms"] <= d["p99_ms"] for d in found["distributions"])
    assert found["reproduce"]["train"].startswith("edgekit train data --name big")
    for key in ("run", "training", "test", "environment", "images_per_class", "programs"):
        assert found[key] is not None


def test_what_is_no_number_is_null() -> None:
    found = Material(run(history=[{**run().info.plain()["history"][0], "val_loss": float("nan")}]))
    assert json.loads(document.as_json(found))["training"][0]["val_loss"] is None


# Markdown -----------------------------------------------------------------------------------------


def shown(text: str) -> tuple[str, list[str]]:
    """Markdown as HTML, by another reader, and the kinds of what it holds."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    kinds = [inner.type for token in parser.parse(text) for inner in (token, *(token.children or ()))]
    return parser.render(text), kinds


def test_markdown_renders_with_its_tables_and_names_stay_text(material: Material) -> None:
    html, kinds = shown(markdown.document(material))
    assert kinds.count("table_open") >= 7
    assert not {"html_block", "html_inline", "link_open", "image"} & set(kinds)
    for heading in (
        "Recommendation",
        "Figures",
        "What quantization changed",
        "Test results",
        "How to reproduce",
        "Lineage",
    ):
        assert f"<h2>{heading}</h2>" in html
    assert "pixel-8, measured on the device" in html
    assert "&lt;script&gt;alert(1)&lt;" in html


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    table = Table(NASTY, ("a", "b|c"), (Rows(NASTY, ((NASTY, "1"), ("\\", "|"))),), notes=(NASTY,))
    html, kinds = shown(markdown.table(table))
    assert kinds.count("tr_open") == 3
    assert kinds.count("td_open") == 6
    assert not {"html_inline", "html_block", "link_open", "em_open", "code_inline"} & set(kinds)
    assert "<script>" not in html


@pytest.mark.parametrize("name", [*HOSTILE, NASTY, "- a", "1. a", "# a", "http://a.b", "a\\"])
def test_a_name_is_read_as_it_is(name: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    (paragraph, inline, _) = parser.parse(markdown.escape(name, 500))
    assert paragraph.type == "paragraph_open"
    assert {t.type for t in inline.children or ()} <= {"text", "text_special"}
    assert "".join(t.content for t in inline.children or ()).startswith(name[:3].rstrip("\n"))


def test_a_command_cannot_end_its_block() -> None:
    (only,) = MarkdownIt().parse(markdown.block("a\n```\n<b>"))
    assert (only.type, only.content) == ("fence", "a\n```\n<b>\n")


def test_a_run_without_measurements_says_what_brings_them() -> None:
    assert "edgekit benchmark run" in markdown.document(Material(run()))


# Model card ---------------------------------------------------------------------------------------


def read(text: str) -> tuple[Mapping[str, Any], str]:
    found = re.match(r"---\n([\S\s]*?\n)---\n", text)  # as huggingface_hub finds it
    assert found
    return yaml.safe_load(found[1]), text[found.end() :]


def test_the_front_matter_has_the_metrics_and_nothing_invented(material: Material) -> None:
    head, body = read(card.card(material))
    assert head["pipeline_tag"] == "image-classification"
    assert "license" not in head
    (result,) = head["model-index"][0]["results"]
    assert (result["task"]["type"], result["dataset"]["split"]) == ("image-classification", "test")
    assert material.evaluation is not None
    top1 = material.evaluation.splits["test"].scores.top1 / 100
    assert result["metrics"][0] == {"type": "accuracy", "value": pytest.approx(top1, abs=1e-6),
                                    "name": "Top-1 accuracy as trained"}  # fmt: skip
    assert len(result["metrics"]) == 2 + len(material.rows) - 1
    assert "edgekit train DATA --name big" in body
    html, kinds = shown(body)
    assert not {"html_block", "html_inline", "link_open"} & set(kinds)
    for heading in ("How to use", "Intended use", "Training data", "Training", "Evaluation", "Quantization",
                    "Limitations", "How to reproduce"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in html
    assert html.count("unknown") >= 4


@pytest.mark.parametrize(
    ("license_", "head"),
    [("apache-2.0", {"license": "apache-2.0"}), ("My: own", {"license": "other", "license_name": "My: own"})],
)
def test_a_licence_is_named_as_the_hub_wants_it(license_: str, head: dict[str, str]) -> None:
    found, body = read(card.card(Material(run()), card.About(title='a "b": c', author="A. Uthor", license=license_)))
    assert {k: v for k, v in found.items() if k.startswith("license")} == head
    assert "A. Uthor" in body


def test_limitations_come_from_the_figures() -> None:
    worse = row(drop=2.5, p_value=0.001)
    counts = {"train": [100, 3, 100], "val": [1, 1, 1], "test": [40, 40, 5]}
    lines = card.limitations(Material(run(), [BASELINE_ROW, worse], counts=counts))
    assert any("1 of 3 classes have fewer than 30 train images (learned from few examples): dog" in x for x in lines)
    assert any("test images (recall is known only roughly): owl" in line for line in lines)
    assert any("loses 2.5 points of top-1 (p = 0.001" in line for line in lines)
    assert any("no latency was measured on a phone" in line for line in lines)
    fine = Material(run(), [BASELINE_ROW, row(source="device")], counts={"train": [99] * 3, "test": [99] * 3})
    assert card.limitations(fine) == ["other data than the test split, bias and robustness were not examined"]


@pytest.mark.parametrize(
    "text",
    [NASTY, *HOSTILE, "yes", "No", "on", "null", "~", "1e3", "0x1f", "1_000", "12:30:45", "2025-01-01", ".inf", "<<",
     "", " ", " a ", "'", '"', "a: b", "a #b", "# c", "- d", "? e", "!!python/object:os.system", "&a *a", "%YAML 1.1",
     "@f", "`g`", "{{ 7 }}", "[h]", "---", "...", "a\n---\nb", "---\n", "a\r\nb", "\t", "\x00", "\x7f\x85\ufeff",
     "\ud800", "\u2028", "a\\", "😀 שלום", "東京 " * 100],
)  # fmt: skip
def test_front_matter_is_read_back_as_it_was(text: str) -> None:
    head = {"a": text, text or "b": 1, "c-d": [text, {"e": text, "f": [1, 2.5, True, None]}]}
    written = card.dump(head)
    written.encode()
    found, rest = read(written)
    assert rest == ""
    assert found == head
    assert list(found) == list(head)


def test_a_card_with_hostile_words_of_its_author_is_read_back() -> None:
    said = card.About(title=NASTY, description=NASTY, version="1e3", author="yes: [no]", license="null: 'x'")
    found, body = read(card.card(Material(run(), [BASELINE_ROW, row()]), said))
    assert found["license_name"] == "null: 'x'"
    assert found["model-index"][0]["name"] == NASTY
    assert not {"html_block", "html_inline", "link_open"} & set(shown(body)[1])


def test_gates_are_part_of_what_is_decided(material: Material) -> None:
    strict = dataclasses.replace(material, gates=Gates(max_p90_ms=1e-6))
    assert all(d.chosen is None for d in strict.decisions)
    assert any(d.chosen for d in material.decisions)

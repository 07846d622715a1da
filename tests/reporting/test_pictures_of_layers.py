"""The picture of quant debug: what it shows, for any number of layers and any name."""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from edgekit.reporting import pictures
from tests.reporting.evaluations import HOSTILE
from tests.reporting.test_pictures import tags, texts


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No picture may warn, log or print."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def pair(sqnr_db: float) -> dict[str, float]:
    return {"sqnr_db": sqnr_db, "cosine": 0.999}


def effect(sqnr_db: float, changed: float = 0.0) -> dict[str, Any]:
    return {"logits": pair(sqnr_db), "changed": changed}


def layer(name: str, position: int, logits: float = 30.0, **more: Any) -> dict[str, Any]:
    figures = {"weight": pair(45.0), "alone": pair(35.0), "accumulated": pair(20.0), "effect": effect(logits)}
    return {"name": name, "position": position, "int8": True, **figures, **more}


def tensor(name: str, clipped: float = 0.0, counts: tuple[int, ...] = (1, 0, 300, 20)) -> dict[str, Any]:
    bins = {"start": -1.0, "width": 0.5, "counts": counts}
    return {"name": name, "low": -0.5, "high": 0.7, "clipped": clipped, "effect": effect(40.0), "bins": bins}


def inspection(layers: list[dict[str, Any]], tensors: list[dict[str, Any]]) -> str:
    """The picture of layers and tensors, the worst first."""
    found = {"run": "fruit", "target": "android", "images": 32, "effect": effect(17.44, 0.125)}
    return pictures.inspection({**found, "layers": layers, "tensors": tensors})


def size(drawn: str) -> tuple[float, float]:
    root = ElementTree.fromstring(drawn)
    return float(root.attrib["width"][:-2]), float(root.attrib["height"][:-2])


def places(drawn: str, named: str) -> list[float]:
    """The heights at which the texts that match `named` stand, in the order of the picture."""
    elements = [e for e in ElementTree.fromstring(drawn).iter() if e.tag.endswith("}text")]
    return [float(e.attrib["y"]) for e in elements if re.fullmatch(named, "".join(e.itertext()).strip())]


@pytest.mark.parametrize("count", [1, 2, 60, 200])
def test_names_stand_below_each_other_in_the_order_of_the_network(count: int) -> None:
    drawn = inspection([layer(f"features.{n}.conv", n) for n in reversed(range(count))], [tensor("add")])
    assert [text for text in texts(drawn) if text.startswith("features")] == [
        f"features.{n}.conv" for n in range(count)
    ]
    heights = places(drawn, r"features\.\d+\.conv")
    assert all(below - above > 8 for above, below in itertools.pairwise(heights))  # the letters are 7 high
    assert size(drawn)[0] <= 720


def test_the_title_says_what_it_is_of() -> None:
    shown = texts(inspection([layer("conv", 0)], []))
    title = "fruit for android: INT8 against float on 32 images. Logits: 17.4 dB, 12 % changed top-1"
    assert title in shown
    assert {"weights", "outputs, only this layer quantized", "outputs, all layers up to it quantized"} <= set(shown)


def test_the_worst_have_their_rank_and_what_they_change_beside_them() -> None:
    ranked = [layer(f"l{n}", (3 * n) % 8, 10.0 + n) for n in range(8)]
    ranked[1]["effect"], ranked[7]["effect"] = effect(11.0, 0.25), effect(17.0, 0.5)
    drawn = inspection(ranked, [])
    shown = texts(drawn)
    assert [text for text in shown if text.startswith("#")] == ["#1", "#4", "#2, 25 % changed top-1", "#5", "#3"]
    assert "50 % changed top-1" in shown
    for position, rank in ((0, "#1"), (3, "#2, .*"), (6, "#3")):
        (name,), (remark,) = places(drawn, f"l{[x['position'] for x in ranked].index(position)}"), places(drawn, rank)
        assert name == pytest.approx(remark, abs=2)


def test_a_float_layer_is_marked_and_no_error_has_no_dot() -> None:
    exact = {key: pair(150.0) for key in ("weight", "alone", "accumulated")}
    drawn = inspection([layer("conv", 0), layer("stem", 1, 150.0, int8=False, **exact)], [])
    assert "stem (float)" in texts(drawn)
    assert any("weights are rounded if marked green" in text for text in texts(drawn))
    assert not any("(float)" in text for text in texts(inspection([layer("conv", 0)], [])))
    assert "150" not in texts(drawn)
    assert drawn.count("<use") < inspection([layer("conv", 0), layer("stem", 1)], []).count("<use")


def test_a_network_without_any_error_can_be_drawn() -> None:
    exact = {key: pair(150.0) for key in ("weight", "alone", "accumulated")}
    ElementTree.fromstring(inspection([layer("stem", 0, 150.0, **exact)], []))


@pytest.mark.parametrize(("sqnr_db", "percent"), [(0.0, 100.0), (20.0, 10.0), (40.0, 1.0), (150.0, 0.0), (-20, 1000.0)])
def test_decibels_in_percent(sqnr_db: float, percent: float) -> None:
    assert pictures.error_percent(sqnr_db) == pytest.approx(percent)


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 1), (3, 1), (4, 2), (12, 4), (40, 4)])
def test_the_most_sensitive_tensors_have_a_histogram_each(count: int, rows: int) -> None:
    drawn = inspection([layer("conv", 0)], [tensor(f"tensor.{n}") for n in range(count)])
    shown = [text for text in texts(drawn) if text.startswith("tensor.")]
    assert shown == [f"tensor.{n}" for n in range(min(count, pictures.MOST_HISTOGRAMS))]
    assert len({round(height) for height in places(drawn, r"tensor\.\d+")}) == rows


def test_what_is_clipped_and_what_it_does_stand_above() -> None:
    shown = texts(inspection([layer("conv", 0)], [tensor("a", 0.00123), tensor("b")]))
    assert "0.12 % clipped, 40 dB" in shown
    assert "none clipped, 40 dB" in shown


def test_a_range_that_is_wider_than_the_values_is_in_the_picture() -> None:
    wide = {**tensor("a"), "low": -900.0, "high": 900.0}
    shown = texts(inspection([layer("conv", 0)], [wide]))
    assert any(float(text) >= 500 for text in shown if re.fullmatch(r"\d+", text))


def test_of_a_long_name_the_end_is_kept() -> None:
    long = "features.denseblock3." + "x" * 40 + ".denselayer12.conv1"
    shown = texts(inspection([layer(long, 0)], [tensor(long)]))
    assert long not in shown
    kept = [text for text in shown if text.startswith("…")]
    assert [len(text) for text in kept] == [42, 28]
    assert all(long.endswith(text[1:]) for text in kept)


def test_hostile_names_are_text_and_nothing_else() -> None:
    drawn = inspection([layer(name, n) for n, name in enumerate(HOSTILE)], [tensor(name) for name in HOSTILE])
    assert not tags(drawn) & {"script", "metadata", "foreignObject", "a"}
    assert "<script" not in drawn
    assert "<!--" not in drawn
    assert "$x^2$" in " ".join(texts(drawn))

"""Pictures: what they show, for which names, and that a name is never more than text."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edgekit.labels import check_labels
from edgekit.records import DatasetIndex, Sample
from edgekit.reporting import pictures, svg
from tests.reporting.evaluations import HOSTILE, evaluation

EPOCH = {"epoch": 1, "train_loss": 1.5, "val_loss": 1.0, "val_top1": 50.0, "images_per_s": 10.0, "best": True}


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No picture may warn, log or print."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def texts(drawn: str) -> list[str]:
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    return ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")]


def tags(drawn: str) -> set[str]:
    return {e.tag.rpartition("}")[2] for e in ElementTree.fromstring(drawn).iter()}


def history(epochs: int, **more: Any) -> list[dict[str, Any]]:
    return [{**EPOCH, "epoch": n, "val_top1": 40.0 + n, "best": n == 1, **more} for n in range(1, epochs + 1)]


def test_the_hostile_names_are_names_that_a_class_may_have() -> None:
    check_labels(HOSTILE)


# Learning curves -----------------------------------------------------------------------------


def test_curves_of_an_old_run_have_loss_and_accuracy() -> None:
    shown = texts(pictures.learning_curves(history(3)))
    assert {"loss", "val, %", "train", "val", "top-1", "kept", "epoch"} <= set(shown)
    assert "learning rate" not in shown
    assert "macro F1" not in shown


def test_curves_of_a_new_run_have_macro_f1_and_the_learning_rate_too() -> None:
    shown = texts(pictures.learning_curves(history(3, val_macro_f1=33.0, lr=1e-3)))
    assert {"macro F1", "learning rate"} <= set(shown)


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_any_number_of_epochs_can_be_drawn(epochs: int) -> None:
    drawn = pictures.learning_curves(history(epochs, lr=0.0))
    ElementTree.fromstring(drawn)
    assert len(drawn) < 200_000


def test_a_value_that_is_missing_in_between_is_left_out() -> None:
    entries = [{**EPOCH, "epoch": 1}, {**EPOCH, "epoch": 2, "val_macro_f1": None}, {**EPOCH, "epoch": 3, "lr": 0.1}]
    ElementTree.fromstring(pictures.learning_curves(entries))


# Classes, confusion, reliability -------------------------------------------------------------


def counts(classes: int) -> dict[str, list[int]]:
    return {"train": list(range(classes)), "val": [2] * classes, "test": [0] * classes}


def cells(classes: int) -> list[tuple[int, int, int]]:
    return [(n, (n + n % 2) % classes, 11 + n) for n in range(classes)]


@pytest.mark.parametrize("classes", [2, 20, 21, 61, 1000])
def test_classes_and_confusion_can_be_read_with_few_and_with_many_classes(classes: int) -> None:
    names = [f"name {n}" for n in range(classes)]
    bars, matrix = pictures.class_counts(names, counts(classes)), pictures.confusion(cells(classes), names)
    assert ("name 1" in texts(bars)) == ("name 1" in texts(matrix)) == (classes <= pictures.MOST_NAMED)
    assert ("12" in texts(matrix)) == (classes <= pictures.MOST_COUNTED)
    assert max(len(bars), len(matrix)) < 600_000
    for drawn in (bars, matrix):
        width, height = (float(ElementTree.fromstring(drawn).attrib[side][:-2]) for side in ("width", "height"))
        assert width <= 800
        assert height <= 1200


def test_an_empty_cell_has_no_count() -> None:
    shown = texts(pictures.confusion([(0, 0, 7), (1, 0, 3)], ["a", "b"]))
    assert [text for text in shown if text in ("0", "7", "3")] == ["7", "3"]


def test_hostile_names_are_text_and_nothing_else() -> None:
    for drawn in (
        pictures.class_counts(HOSTILE, counts(len(HOSTILE))),
        pictures.confusion(cells(len(HOSTILE)), HOSTILE),
    ):
        assert not tags(drawn) & {"script", "metadata", "foreignObject", "a", "style"} - {"style"}
        assert "<script" not in drawn
        assert "<!--" not in drawn
        shown = " ".join(texts(drawn))
        for name in ("$x^2$", "<script>", "-->", "{{ 7 * 7 }}", "שלום", "العربية", "東京", "😀", "[bold]"):
            assert name in shown, name
        assert "x" * 40 not in shown  # shortened


def test_reliability_has_a_line_for_each_kind_of_probability() -> None:
    test = evaluation().splits["test"]
    drawn = pictures.reliability({"as trained": test.before, "temperature": test.after, "dropout": test.dropout})
    shown = " ".join(texts(drawn))
    assert f"as trained: ECE {test.before.ece:.1f} %" in shown
    assert "dropout: ECE" in shown


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_perfect_and_a_hopeless_network_can_be_drawn(right: float) -> None:
    drawn = pictures.draw_all(history(2), None, evaluation(right=right))
    assert ("mistakes.png" in drawn) == (right == 0)


# What all charts share -----------------------------------------------------------------------


@cache
def charts() -> dict[str, str | bytes]:
    samples = tuple(Sample(f"{n}.png", n % 3, ("train", "val", "test")[n % 3], "") for n in range(9))
    data = DatasetIndex(Path(), ("cat", "dog", "owl"), samples, "f")
    return pictures.draw_all(history(4, lr=0.1), data, evaluation())


def test_all_pictures_are_drawn_that_can_be() -> None:
    names = {"learning_curves.svg", "classes.svg", "confusion.svg", "reliability.svg", "mistakes.png"}
    assert charts().keys() == names
    assert pictures.draw_all([], None, None) == {}
    assert pictures.draw_all(history(1), None, None).keys() == {"learning_curves.svg"}


def test_charts_take_the_page_s_colours_have_a_name_and_no_ids_that_could_meet() -> None:
    for name, drawn in charts().items():
        if isinstance(drawn, str):
            root = ElementTree.fromstring(drawn)
            assert root.attrib["role"] == "img", name
            assert root.attrib["aria-label"]
            assert "currentColor" in drawn
            assert svg.INK not in drawn
            assert 'id="axes_1"' not in drawn
            assert "DejaVu" not in drawn


def test_no_two_pictures_share_an_id_and_every_reference_is_kept() -> None:
    drawn = [text for text in charts().values() if isinstance(text, str)]
    found = [set(re.findall(r'\bid="([^"]+)"', text)) for text in drawn]
    assert sum(map(len, found)) == len(set().union(*found)) > 0
    for text, ids in zip(drawn, found):
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= ids


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert charts.__wrapped__() == charts()


def test_files_of_their_own_are_dark_on_white(tmp_path: Path) -> None:
    pictures.save(tmp_path / "pictures", charts())
    for path in (tmp_path / "pictures").glob("*.svg"):
        assert "background: #fff" in ElementTree.parse(path).getroot().attrib["style"]
    with Image.open(tmp_path / "pictures" / "mistakes.png") as image:
        assert image.format == "PNG"


# Grids ---------------------------------------------------------------------------------------


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 24])
def test_every_image_is_in_the_grid_in_order(count: int) -> None:
    greys = [30 + 8 * n for n in range(count)]
    pixels = np.stack([np.full((50, 50, 3), grey, np.uint8) for grey in greys])
    shown = opened(pictures.samples(pixels, ["name"] * count))
    found = []
    for number in range(count):
        row, column = divmod(number, 8)
        found.append(int(shown[8 + row * 116 + 48, 8 + column * 104 + 48, 0]))
    assert found == greys
    assert shown.shape[1] == 8 + 104 * min(count, 8)


def test_each_image_has_its_caption_below_it() -> None:
    pixels = np.full((2, 96, 96, 3), 255, np.uint8)
    shown = opened(pictures.samples(pixels, ["name", ""]))
    assert (shown[104:, :104] < 128).any()
    assert not (shown[104:, 112:] < 128).any()
    assert (shown[:104] == 255).all()


def test_hostile_names_are_drawn_in_grids() -> None:
    pixels = np.zeros((len(HOSTILE), 20, 20, 3), np.uint8)
    assert opened(pictures.samples(pixels, HOSTILE)).shape[0] > 200
    judged = evaluation(HOSTILE, right=0.2)
    opened(pictures.mistakes(judged.raw["mistake_pixels"], judged.mistakes, HOSTILE))


def test_an_empty_grid_is_a_picture_too() -> None:
    opened(pictures.samples(np.zeros((0, 8, 8, 3), np.uint8), []))


@pytest.mark.parametrize(
    ("text", "width", "want"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long…"),
        ("東京タワー", 10, "東京タワー"),
        ("東京タワー", 9, "東京タワ…"),
        ("東京タワー", 5, "東京…"),
        ("a b c", 3, "a…"),
        ("", 3, ""),
        ("x" * 100, 10, "x" * 9 + "…"),
    ],
)
def test_names_are_shortened_by_the_columns_they_take(text: str, width: int, want: str) -> None:
    assert svg.shortened(text, width) == want

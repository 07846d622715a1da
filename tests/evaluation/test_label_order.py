"""Another order of the labels is suggested where it fits far better, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.evaluation import label_order


def answered(
    classes: int, per_class: int, accuracy: float, order: list[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network of that accuracy, whose output for label n is order[n], and the labels."""
    rng = np.random.default_rng(0)
    expected = np.repeat(np.arange(classes), per_class)
    said = np.where(rng.random(len(expected)) < accuracy, expected, rng.integers(0, classes, len(expected)))
    return np.eye(classes, dtype=np.float32)[np.asarray(order or range(classes))[said]], expected


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0], [1, 2, 3, 0]])
def test_another_order_is_found(order: list[int]) -> None:
    logits, expected = answered(4, 25, 0.9, order)
    found = label_order.better_order(logits, expected)
    assert found is not None
    assert found.outputs == tuple(order)
    assert found.reordered > 85
    assert found.as_is == pytest.approx(100 * float((logits.argmax(1) == expected).mean()))
    text = label_order.sentence(found, ["ant", "bee", "cat", "dog"])
    assert f"ant is output {order[0]}, not 0" in text


@pytest.mark.parametrize(
    ("classes", "per_class", "accuracy"),
    [(4, 25, 0.9), (4, 25, 0.0), (200, 2, 0.0), (200, 1, 0.0), (3, 4, 0.3), (1000, 1, 0.0), (10, 40, 0.2)],
)
def test_a_weak_network_with_its_own_order_is_left_alone(classes: int, per_class: int, accuracy: float) -> None:
    assert label_order.better_order(*answered(classes, per_class, accuracy)) is None


def test_many_classes_with_few_images_each() -> None:
    order = list(np.random.default_rng(1).permutation(200))
    logits, expected = answered(200, 4, 0.8, order)
    found = label_order.better_order(logits, expected)
    assert found is not None
    assert sum(a == b for a, b in zip(found.outputs, order)) > 190


def test_labels_without_images_keep_their_output() -> None:
    logits, expected = answered(6, 30, 0.9, [1, 0, 2, 3, 4, 5])
    kept = expected < 3
    found = label_order.better_order(logits[kept], expected[kept])
    assert found is not None
    assert found.outputs == (1, 0, 2, 3, 4, 5)


def test_answers_that_are_no_numbers_are_wrong_in_any_order() -> None:
    logits, expected = answered(4, 25, 0.9, [1, 0, 2, 3])
    logits[::5] = np.nan
    found = label_order.better_order(logits, expected)
    assert found is not None
    assert found.reordered < 80
    assert label_order.better_order(np.full_like(logits, np.nan), expected) is None

"""The budget search: which trials are made, in which order, and what a drop on few images can show."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import UsageError
from edgekit.quant.search import Drop, Trial, check_budget, paired_drop, search

LAYERS = ["worst", "second", "third"]


def trials(at_most: dict[tuple[str, int], float], budget: float, most_layers: int = 3) -> list[tuple[str, int]]:
    """The (recipe, float layers) that are tried where each has the bound that is given, else 9 points."""

    def measure(recipe: str, layers: tuple[str, ...]) -> Trial:
        assert list(layers) == LAYERS[: len(layers)]
        return Trial(recipe, layers, Drop(0.0, at_most.get((recipe, len(layers)), 9.0), 100.0), 1.0)

    found = search(("cheap", "dear"), budget, measure, lambda recipe: LAYERS, most_layers)
    return [(trial.recipe, len(trial.float_layers)) for trial in found]


def test_the_cheapest_recipe_that_keeps_the_budget_ends_the_search() -> None:
    assert trials({("cheap", 0): 0.5}, 0.5) == [("cheap", 0)]
    assert trials({("dear", 0): 0.4}, 0.5) == [("cheap", 0), ("dear", 0)]


def test_then_the_best_recipe_keeps_layers_in_floating_point_one_by_one() -> None:
    bounds = {("cheap", 0): 2.0, ("dear", 0): 1.0, ("dear", 2): 0.1}
    assert trials(bounds, 0.5) == [("cheap", 0), ("dear", 0), ("dear", 1), ("dear", 2)]
    assert trials({("cheap", 0): 1.0, ("dear", 0): 2.0, ("cheap", 1): 0.0}, 0.5)[-1] == ("cheap", 1)


@pytest.mark.parametrize("most", [1, 2, 3, 50])
def test_a_budget_that_nothing_keeps_ends_the_search_all_the_same(most: int) -> None:
    assert len(trials({}, 0.5, most)) == 2 + min(most, len(LAYERS))


def test_the_drop_is_paired() -> None:
    expected = np.zeros(100, int)
    before, after = np.zeros(100, int), np.zeros(100, int)
    before[:10], after[5:15] = 1, 1
    drop = paired_drop(before, after, expected)
    assert (drop.points, drop.agreement) == (0.0, 90.0)
    after[:] = 0
    after[10:20] = 1
    before[:] = 0
    assert paired_drop(before, after, expected).points == pytest.approx(10.0)


@pytest.mark.parametrize("total", [100, 1000])
def test_the_bound_covers_the_true_drop_in_about_95_of_100_experiments(total: int) -> None:
    rng = np.random.default_rng(0)
    lost, won = 0.04, 0.02
    covered = 0
    for _ in range(2000):
        draw = rng.random(total)
        before = np.where(draw < lost, 0, np.where(draw < lost + won, 1, 0))
        after = np.where(draw < lost, 1, 0)
        covered += paired_drop(before, after, np.zeros(total, int)).at_most >= 100 * (lost - won)
    assert 0.93 <= covered / 2000 <= 0.985


def test_more_images_show_less() -> None:
    same = {n: paired_drop(np.zeros(n, int), np.zeros(n, int), np.zeros(n, int)).at_most for n in (50, 500, 5000)}
    assert same[50] > same[500] > same[5000] > 0


@pytest.mark.parametrize("images", [0, 10, 152, 326])
def test_a_budget_that_the_images_cannot_show_is_refused_before_any_work(images: int) -> None:
    with pytest.raises(UsageError, match=f"{images} val images cannot show") as caught:
        check_budget(0.5, images)
    assert "a val split of 327 images" in caught.value.hint


def test_the_number_of_images_that_is_named_suffices() -> None:
    check_budget(0.5, 327)
    check_budget(1.1, 152)


@pytest.mark.parametrize("budget", [0.0, -1.0, 101.0, float("nan")])
def test_a_budget_is_points_above_zero(budget: float) -> None:
    with pytest.raises(UsageError, match="points of top-1"):
        check_budget(budget, 1000)


def test_answers_that_are_no_numbers_keep_no_budget() -> None:
    expected = np.zeros(1000, int)
    after = expected.copy()
    after[:3] = -1
    assert paired_drop(expected, after, expected) == Drop(0.3, 100.0, 99.7, no_answer=3)


def test_without_labels_every_other_answer_is_a_loss() -> None:
    before = np.arange(100) % 5
    after = np.where(np.arange(100) < 3, (before + 1) % 5, before)
    found = paired_drop(before, after, None)
    assert (found.points, found.agreement, found.labelled) == (3.0, 97.0, False)
    assert found.at_most == paired_drop(before, after, before).at_most


def test_the_number_of_images_that_a_message_names_is_enough() -> None:
    for tenths in range(1, 300):
        with pytest.raises(UsageError) as caught:
            check_budget(tenths / 10, 1)
        check_budget(tenths / 10, int(str(caught.value.hint).split()[-2]))

"""SQNR and cosine, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from edgekit.quant.debug import EXACT_DB, Agreement, EffectSums, PairSums


def agreement(got: list[float], wanted: list[float]) -> Agreement:
    sums = PairSums()
    sums.add(torch.tensor(got), torch.tensor(wanted))
    return sums.result()


def test_an_error_of_a_tenth_is_20_db_and_keeps_the_direction() -> None:
    found = agreement([1.1, -2.2, 3.3], [1.0, -2.0, 3.0])
    assert found.sqnr_db == pytest.approx(20, abs=1e-4)
    assert found.cosine == pytest.approx(1)


def test_the_float_values_are_the_signal() -> None:
    assert agreement([0.0, 2.0], [0.0, 1.0]).sqnr_db == pytest.approx(0)
    assert agreement([0.0, 1.0], [0.0, 2.0]).sqnr_db == pytest.approx(6.0206, abs=1e-3)


def test_cosine_is_that_of_the_angle() -> None:
    assert agreement([1.0, 1.0], [1.0, 0.0]).cosine == pytest.approx(2**-0.5)
    assert agreement([-1.0, 0.0], [1.0, 0.0]).cosine == pytest.approx(-1)


@pytest.mark.parametrize(
    ("got", "wanted", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], Agreement(EXACT_DB, 1.0)),
        ([0.0], [0.0], Agreement(EXACT_DB, 1.0)),
        ([1.0], [0.0], Agreement(-EXACT_DB, 0.0)),
        ([0.0], [1.0], Agreement(0.0, 0.0)),
    ],
)
def test_no_error_no_signal_and_nothing_left_are_finite(
    got: list[float], wanted: list[float], expected: Agreement
) -> None:
    assert agreement(got, wanted) == expected


def test_parts_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(40, 3, 5, generator=generator)
    got = wanted + torch.randn(40, 3, 5, generator=generator) / 20
    whole, parts = PairSums(), PairSums()
    whole.add(got, wanted)
    for a, b in zip(got.split(7), wanted.split(7)):
        parts.add(a, b)
    assert parts.result().sqnr_db == pytest.approx(whole.result().sqnr_db)
    assert parts.result().cosine == pytest.approx(whole.result().cosine)


def test_an_answer_has_changed_where_another_class_is_first() -> None:
    sums = EffectSums()
    sums.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    sums.add(torch.tensor([[1.0, 0.0], [3.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    assert sums.result().changed == 0.25

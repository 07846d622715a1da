"""Repeated measurements are looked at once, however many are compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekit.analysis import difference
from edgekit.analysis.difference import Repeats
from edgekit.archive.entry import Entry, Kind
from edgekit.stats.change import Spread, Steps, spread


def entries(count: int, seed: int = 0, settings: int = 1) -> list[Entry]:
    """Measurements of one artifact in their order, of which some have no p90."""
    rng = np.random.default_rng(seed)
    return [
        Entry(
            sha256=f"{n:064x}", run="r", number=n, measured="", kind=Kind.MEASURED, device="local", artifact="a/b",
            model="m", precision="int8", source="host", runtime="litert", version="1", edgekit="0.1", threads=1,
            batch=1, cpu="", artifact_sha256="c" * 64, weights_sha256="", images_sha256="", size_bytes=1, queries=1,
            p50_ms=float(np.exp(0.1 * rng.normal())), p90_ms=None if n % 3 == 0 else float(rng.uniform(1, 2)),
            images=0, correct=0, environment={"suite": f"s{n % settings}"},
        )
        for n in range(count)
    ]  # fmt: skip


def expected(all_of: list[Entry], before: Entry, after: Entry, name: str) -> Spread | None:
    """The spread by its definition: a walk over all measurements for each pair."""
    alike = before.environment == after.environment
    kept = [e for e in all_of if not (alike and e is after)]
    settings = {before.environment["suite"], after.environment["suite"]}
    groups = [[v for e in kept if e.environment["suite"] == s and (v := getattr(e, name))] for s in settings]
    return spread(groups)


@pytest.mark.parametrize("settings", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 31])
def test_the_spread_is_that_of_a_walk_over_all(count: int, settings: int) -> None:
    made = entries(count, seed=count, settings=settings)
    repeats = Repeats(made)
    for before, after in itertools.permutations(made, 2):
        for name in ("p50_ms", "p90_ms"):
            assert repeats.spread(before, after, name) == expected(made, before, after, name)


def test_measurements_from_elsewhere_join_those_that_are_like_them() -> None:
    made = entries(6)
    before, after = made[0], made[5]
    assert Repeats(made[1:5]).spread(before, after, "p50_ms") == Repeats(made).spread(before, after, "p50_ms")
    assert Repeats(()).spread(before, after, "p50_ms") is None


def test_work_grows_with_the_measurements_and_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    original = difference._setting
    monkeypatch.setattr(difference, "_setting", lambda entry: looked_at.append(entry.number) or original(entry))
    made = entries(300)
    repeats = Repeats(made)
    for before, after in itertools.pairwise(made):
        repeats.spread(before, after, "p50_ms")
    assert len(looked_at) == len(made)


def test_one_measurement_is_left_out_without_sorting_again() -> None:
    values = np.exp(np.random.default_rng(1).normal(size=40)).round(1).tolist()  # with ties
    steps = Steps([values])
    for n in range(len(values)):
        assert steps.spread(without=n) == spread([values[:n] + values[n + 1 :]])

"""The environment of a measurement: the same JSON as ever, and types for what is computed with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import environment
from edgekit.environment import BoardState, Environment
from edgekit.errors import DataError

TABLE = {
    "runtime": "onnxruntime", "version": "1.23", "processor": "cpu", "threads": 4, "batch": 1, "busy_before": 0.25,
    "cpu": "a CPU", "memory_gb": 8, "governor": "", "load_before": -1.0, "resumed": False,
    "power_mode_before": "25W", "clocks_locked_before": True, "gpu_mhz_after": 1020.0, "throttle_events_after": 3,
    "future": [1, 2], "kernel": None,
}  # fmt: skip


def test_the_flat_table_comes_back() -> None:
    found = environment.parse(TABLE)
    assert found.table() == {**TABLE, "future": "[1, 2]"}
    assert environment.parse(found.table()) == found
    assert (found.threads, found.memory_gb, found.governor, found.turbo) == (4, 8, "", None)
    assert found.before == BoardState(power_mode="25W", clocks_locked=True)
    assert found.after == BoardState(gpu_mhz=1020.0, throttle_events=3)
    assert found.extra == {"future": "[1, 2]", "kernel": None}
    assert found.busy


def test_what_is_only_shown_may_be_anything_and_is_kept_as_text() -> None:
    found = environment.parse({"cpu": ["x"], "xnnpack": "yes", "gpu_mhz_after": True, "power_queries": "9"})
    assert (found.cpu, found.xnnpack, found.after.gpu_mhz, found.power_queries) == (None,) * 4
    assert found.table() == {"cpu": "['x']", "xnnpack": "yes", "gpu_mhz_after": True, "power_queries": "9"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", True), ("threads", 0), ("threads", 1.0), ("batch", 10**30), ("busy_before", None), ("cores", -1),
     ("busy_before", float("nan")), ("timed_together", 0), ("peak_tops", float("inf")), ("runtime", ["r"])],
)  # fmt: skip
def test_what_is_computed_with_is_checked(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"a\.json: environment\.{name} must"):
        environment.parse({name: value}, "a.json")


def test_what_is_required_is_named() -> None:
    with pytest.raises(DataError, match=r"environment\.version is missing"):
        environment.parse({"runtime": "x"}, required=environment.REQUIRED)


def test_values_are_replaced_by_the_names_of_the_table() -> None:
    found = environment.parse(TABLE).with_values(threads=2, power_mode_before="15W", other=1)
    assert (found.threads, found.before.power_mode, found.extra["other"]) == (2, "15W", 1)
    with pytest.raises(DataError, match="threads"):
        found.with_values(threads=0)


def test_a_measurement_without_records_of_batch_and_clock_is_of_single_queries() -> None:
    assert (Environment().images_per_query, Environment().is_each_timed, Environment().busy) == (1, True, False)
    assert (Environment(batch=4).images_per_query, Environment(timed_together=3).is_each_timed) == (4, False)


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
names = st.sampled_from([*TABLE, "power_mode_after", "busy_before", "no_layers", "macs"]) | st.text()


@given(st.dictionaries(names, anything))
def test_anything_is_an_environment_that_json_can_hold_or_an_error(table: dict[str, Any]) -> None:
    try:
        found = environment.parse(table)
    except DataError:
        return
    assert environment.parse(json.loads(json.dumps(found.table(), allow_nan=False))).table() == found.table()

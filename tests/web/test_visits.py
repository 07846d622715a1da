"""What browsers say is checked, whatever it is."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.web import visits
from tests.web.webstand import CHROME, ENVIRONMENT

SAID = {"latencies_ns": [1, 2_000_000], "environment": ENVIRONMENT}


def said(**changes: Any) -> dict[str, Any]:
    return {"latencies_ns": [1, 2], "environment": {**ENVIRONMENT, **changes}}


def test_a_measurement_of_the_page_is_taken_as_it_is() -> None:
    found = visits.measurement(SAID)
    assert found.latencies_ns.tolist() == [1, 2_000_000]
    assert found.environment.table() == ENVIRONMENT


def test_what_a_browser_need_not_tell_may_be_missing_and_what_is_unknown_is_left_out() -> None:
    found = visits.measurement(said(memory_gb=None, secret="x", source="device"))
    assert not {"memory_gb", "secret", "source"} & set(found.environment.table())


@pytest.mark.parametrize("latencies", [[], None, {}, [0], [-1], [1.5], [True], ["1"], [10**13], [None], [[1]]])
def test_latencies_are_whole_nanoseconds_above_zero(latencies: Any) -> None:
    with pytest.raises(DataError, match="latencies_ns"):
        visits.measurement({**SAID, "latencies_ns": latencies})


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 0), ("threads", True), ("threads", "1"), ("threads", 1.0), ("clock_step_ns", 0), ("cores", 10**9),
     ("isolated", 1), ("was_hidden", None), ("load_ms", -1), ("load_ms", []), ("timed_together", 10**6)],
)  # fmt: skip
def test_circumstances_outside_their_limits_are_refused(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=name):
        visits.measurement(said(**{name: value}))


@pytest.mark.parametrize("name", ["threads", "clock_step_ns", "timed_together", "isolated", "secure", "was_hidden"])
def test_circumstances_that_decide_what_a_latency_means_must_be_told(name: str) -> None:
    told = {key: value for key, value in ENVIRONMENT.items() if key != name}
    with pytest.raises(DataError, match=name):
        visits.measurement({**SAID, "environment": told})
    with pytest.raises(DataError, match=name):
        visits.measurement({**SAID, "environment": {**told, name: None}})


def test_texts_are_short_and_printable() -> None:
    gpu = visits.measurement(said(gpu="\x1b[2J" + "x" * 5000)).environment.gpu
    assert gpu.startswith("\\x1b[2J")
    assert len(gpu) == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b"\xff", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 100_000, b'{"a":' * 50_000,
             b'{"a": ' + b"9" * 10_000 + b"}"],
)  # fmt: skip
def test_only_objects_of_plain_json_are_read(body: bytes) -> None:
    with pytest.raises(DataError):
        visits.parse(body)


def test_logits_have_exactly_their_size_and_are_numbers() -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    assert (visits.logits(values.tobytes(), 2, 3) == values).all()
    for body in (values.tobytes()[:-1], values.tobytes() + b"0", b""):
        with pytest.raises(DataError, match="bytes"):
            visits.logits(body, 2, 3)
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="finite"):
            visits.logits(np.array([[1, bad, 3]], "<f4").tobytes(), 1, 3)


@pytest.mark.parametrize(
    ("agent", "model", "name"),
    [
        (CHROME, "", "web:Android, Chrome 140"),
        (CHROME, "Pixel 8", "web:Pixel 8, Chrome 140"),
        (CHROME, "../\x1b[31mPixel<b>", "web:..31mPixelb, Chrome 140"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1", "",
         "web:iPhone, Safari 18"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0) CriOS/140.0 Mobile/15E148 Safari/604.1", "",
         "web:iPhone, Chrome 140"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:143.0) Gecko/143.0 Firefox/143.0", "", "web:Android, Firefox 143"),
        (CHROME + " EdgA/140.0", "", "web:Android, Edge 140"),
        ("", "", "web:unknown system, browser"),
    ],
)  # fmt: skip
def test_browsers_are_named_by_phone_and_version(agent: str, model: str, name: str) -> None:
    assert visits.device_name(agent, model) == name


def test_the_modes_of_one_browser_have_names_of_their_own() -> None:
    names = {visits.in_mode("web:x", mode) for mode in visits.MODES}
    assert len(names) == len(visits.MODES)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
environments = st.fixed_dictionaries({name: anything | st.just(value) for name, value in ENVIRONMENT.items()})


@given(st.fixed_dictionaries({"latencies_ns": anything | st.lists(st.integers()), "environment": environments}))
def test_what_is_kept_of_anything_is_sound(told: dict[str, Any]) -> None:
    try:
        found = visits.measurement(told)
    except DataError:
        return
    assert all(0 < ns <= 3_600_000_000_000 for ns in found.latencies_ns)
    assert set(found.environment.table()) <= set(ENVIRONMENT)
    for value in found.environment.table().values():
        assert type(value) in (bool, int, float, str)
        assert not isinstance(value, str) or (len(value) <= 200 and value.isprintable())
    json.dumps(found.environment.table(), allow_nan=False)


@given(st.text(), st.text())
def test_any_user_agent_gives_a_plain_name(agent: str, model: str) -> None:
    name = visits.device_name(agent, model)
    assert name.startswith("web:")
    assert len(name) < 80
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name


@given(st.binary(max_size=300))
def test_any_bytes_are_an_object_or_an_error(body: bytes) -> None:
    with contextlib.suppress(DataError):
        assert isinstance(visits.parse(body), dict)

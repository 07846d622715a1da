"""Plain values become typed records, and every message says where, what was wanted, and what was there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from edgekit import validation
from edgekit.errors import DataError

Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Inner:
    """A record within a record."""

    share: Share


@dataclass(frozen=True)
class Outer:
    """A record with one field of each kind."""

    count: Annotated[int, Meta(ge=1, le=10)]
    shares: tuple[Share, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)
    mode: Literal["a", "b"] = "a"
    path: Path = Path()
    maybe: float | None = None


def test_values_become_what_the_annotations_say() -> None:
    table = {"count": 3, "shares": [0, 1], "by_name": {"x": {"share": 0.5}}, "path": "a/b", "maybe": 2}
    found = validation.convert(table, Outer)
    assert found == Outer(3, (0.0, 1.0), {"x": Inner(0.5)}, "a", Path("a/b"), 2.0)
    assert isinstance(found.maybe, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": True}, "count must be int, got True"),
        ({"count": 3.0}, "count must be int, got 3.0"),
        ({"count": 0}, "count must be int >= 1, got 0"),
        ({"count": 10**30}, "count must be int <= 10, got 1000000000000000000000000000000"),
        ({"shares": [0.5, "x"]}, "shares[1] must be float, got 'x'"),
        ({"shares": [float("nan")]}, "shares[0] must be float >= 0.0, got nan"),
        ({"shares": {"a": 1}}, "shares must be array, got {'a': 1}"),
        ({"by_name": {"a": {"share": 0}, "b": {"share": 2}}}, "by_name.b.share must be float <= 1.0, got 2"),
        ({"by_name": {"a": {}}}, "by_name.a: the key 'share' is missing"),
        ({"by_name": {3: {"share": 0}}}, "the keys of by_name must be text"),
        ({"mode": "c"}, "mode cannot be 'c'"),
        ({"path": 5}, "path must be Path, got 5"),
        ({"maybe": "2"}, "maybe must be float, got '2'"),
        ({"maybe": "\x1b[2J"}, "maybe must be float, got '\\x1b[2J'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        validation.convert({"count": 3, **changes}, Outer, "a.json", "restore it")
    assert (caught.value.message, caught.value.hint) == (f"a.json: {message}", "restore it")
    assert not validation.fits({"count": 3, **changes}, Outer)


@dataclass(frozen=True)
class Demanding:
    """A record that needs an entry in a mapping."""

    by_name: dict[str, Inner]

    def __post_init__(self) -> None:
        if not {"a", "b"} <= set(self.by_name):
            raise DataError("a and b are needed")


def test_the_wrong_entry_is_named_also_where_the_record_needs_the_others() -> None:
    with pytest.raises(DataError, match=r"^by_name\.b\.share must be float, got 'x'$"):
        validation.convert({"by_name": {"a": {"share": 1}, "b": {"share": "x"}}}, Demanding)


def test_long_values_are_shortened() -> None:
    with pytest.raises(DataError) as caught:
        validation.convert({"count": "x" * 10_000}, Outer)
    assert len(caught.value.message) < 100


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"[1e999]"])
def test_what_is_not_json_is_an_error(content: bytes) -> None:
    with pytest.raises(DataError, match="x: not JSON"):
        validation.from_json(content, dict[str, Any], "x")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["count", "shares", "by_name", "mode", "path", "maybe", "other"]), anything))
def test_anything_is_a_sound_record_or_an_error(table: dict[str, Any]) -> None:
    try:
        found = validation.convert(table, Outer, "f")
    except DataError as error:
        said = error.message
    else:
        said = "f: "
        assert type(found.count) is int
        assert 1 <= found.count <= 10
        assert all(0 <= share <= 1 for share in found.shares)
    assert said.startswith("f: ")
    assert said.isprintable()

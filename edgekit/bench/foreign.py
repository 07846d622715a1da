"""Entries that came from elsewhere, out of a database or a reference file: checked, and believed in nothing."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from edgekit.bench.entries import MOST_KEPT, Entry, moment, text, unpack
from edgekit.bench.replies import plain
from edgekit.errors import DataError
from edgekit.measurements import SOURCES

_MOST_KEYS, _MOST_NUMBER, _MOST_MS = 300, 2**53, 1e12
_KINDS = ("measured", "program")
_HASH = re.compile("[0-9a-f]{64}")
_FIELDS = {f.name: str(f.type) for f in dataclasses.fields(Entry) if f.name != "samples"}


def checked(row: dict[str, Any], where: str) -> Entry:
    """The entry that a row says, its texts made short and printable.

    Raises:
        DataError: edgekit did not write it; `where` names it.
    """
    try:
        if missing := [name for name in _FIELDS if name not in row]:
            raise ValueError(f"{', '.join(missing)} missing")
        if more := [name for name in row if name not in _FIELDS]:
            raise ValueError(f"{text(more[0])} is not known")
        entry = Entry(**{name: _value(name, row[name], kind) for name, kind in _FIELDS.items()})
        _check(entry)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{where} is none that edgekit wrote: {text(error)}", "remove it, or make it again") from None
    return entry


def _value(name: str, value: Any, kind: str) -> Any:
    if kind == "str" and isinstance(value, str):
        return text(value)
    if kind == "int" and type(value) is int and 0 <= value < _MOST_NUMBER:
        return value
    if kind == "float | None" and value is None:
        return None
    if kind == "float | None" and type(value) in (int, float) and math.isfinite(value) and 0 < value < _MOST_MS:
        return float(value)
    if kind == "dict[str, Any]" and isinstance(value, dict) and len(value) <= _MOST_KEYS:
        return {text(key): plain(one) for key, one in value.items()}
    raise ValueError(f"{name} cannot be {text(repr(value))}")


def _check(entry: Entry) -> None:
    for name, fits in (
        ("sha256", _HASH.fullmatch(entry.sha256)),
        ("measured", not entry.measured or moment(entry.measured) == entry.measured),
        ("kind", entry.kind in _KINDS),
        ("source", entry.source in SOURCES),
        ("batch", entry.batch >= 1),
        ("correct", entry.correct <= entry.images),
    ):
        if not fits:
            raise ValueError(f"{name} cannot be {text(repr(getattr(entry, name)))}")


def joined(entry: Entry, packed: dict[str, bytes], where: str) -> Entry:
    """An entry with its samples.

    Raises:
        DataError: they are damaged, or another's.
    """
    try:
        samples = unpack(packed)
    except DataError as error:
        raise DataError(f"{where}: {error.message}", error.hint) from None
    return _fitting(dataclasses.replace(entry, samples=samples), where)


def sound(entry: Entry, where: str) -> Entry:
    """An entry with its samples as it is, if it would be believed when it comes back.

    Raises:
        DataError: it would not.
    """
    checked({name: getattr(entry, name) for name in _FIELDS}, where)
    return _fitting(entry, where)


def _fitting(entry: Entry, where: str) -> Entry:
    assert entry.samples is not None
    kept, right = entry.samples.latencies_ns, entry.samples.right
    if (len(right), int(right.sum())) != (entry.images, entry.correct) or len(kept) > min(MOST_KEPT, entry.queries):
        raise DataError(f"{where} has samples that do not belong to it", "remove it, or make it again")
    return entry

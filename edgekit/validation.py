"""Conversion of plain values (parsed JSON or TOML) into typed records, by msgspec.

Every reader of untrusted input uses these functions, so that a wrong value gives the same kind of message everywhere:
where it is, what it must be, and what it is. Limits stand in the annotations of the records, as ``msgspec.Meta``.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, EdgekitError
from edgekit.labels import visible

# How msgspec ends a message: "... - at `$.ranges[...].low`", or "- at `key` in `$.ranges`".
_PLACE = re.compile(r"(?P<text>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_EXPECTED = re.compile(r"Expected `(?P<kind>[^`]*)`(?P<limit>.*?)(?:, got .*)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
# More entries of a mapping than this are not searched for the one that is wrong.
_MOST_SEARCHED = 1000
_MOST_TEXT = 200


def convert(value: Any, kind: Any, where: str = "", hint: str = "", name: str = "") -> Any:
    """Convert plain values to `kind`: a dataclass, or any annotation that msgspec supports.

    Integers become floats where a float is wanted; nothing else changes its type. Keys of a table that its dataclass
    does not have are ignored; `config.from_table` refuses them.

    Args:
        where: beginning of the error's message, such as the path of a file. hint: of the error.
        name: of the value itself, as the first part of the place that the message gives.

    Raises:
        DataError: a value is missing, of another type or outside its limits. EdgekitError: raised by the record itself.
    """
    import msgspec

    try:
        return msgspec.convert(value, kind, dec_hook=_other)
    except msgspec.ValidationError as error:
        raise DataError(_joined(where, _problem(error, value, kind, name)), hint) from None
    except RecursionError:
        raise DataError(_joined(where, "nested too deeply"), hint) from None


def fits(value: Any, kind: Any) -> bool:
    """Return whether `convert` takes a value."""
    import msgspec

    try:
        msgspec.convert(value, kind, dec_hook=_other)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def from_json(content: bytes, kind: Any, where: str = "", hint: str = "") -> Any:
    """Decode strict JSON (no NaN, no infinity) and convert it to `kind`.

    Raises:
        DataError: not JSON, or as for `convert`.
    """
    import msgspec

    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(_joined(where, f"not JSON: {visible(str(error))[:_MOST_TEXT]}"), hint) from None
    return convert(value, kind, where, hint)


def _other(kind: Any, value: Any) -> Any:
    """Types that msgspec does not know: paths, and values that are of the type already."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise ValueError(f"Expected `{getattr(kind, '__name__', kind)}`")  # msgspec makes it a ValidationError


def _joined(where: str, problem: str) -> str:
    return f"{where}: {problem}" if where else problem


def _problem(error: Exception, value: Any, kind: Any, name: str) -> str:
    """Return the message of msgspec in the words of edgekit, with the wrong value."""
    found = _PLACE.fullmatch(str(error))
    assert found is not None
    steps = [name or index for name, index in _STEP.findall(found["path"] or "")]
    steps = _resolved(steps, value, kind)
    place = _written([name, *steps] if name else steps)
    if missing := _MISSING.fullmatch(found["text"]):
        return f"{place + ': ' if place else ''}the key {missing['name']!r} is missing"
    if found["key"]:
        return f"the keys of {place} must be text"
    shown = visible(reprlib.repr(_at(value, steps)))
    if expected := _EXPECTED.fullmatch(found["text"]):
        wanted = expected["kind"].removesuffix(" | null").replace(" | null", "")
        return f"{place or 'it'} must be {wanted}{expected['limit']}, got {shown}"
    if found["text"].startswith("Invalid enum value"):
        return f"{place or 'it'} cannot be {shown}"
    return f"{place + ': ' if place else ''}{found['text']}, got {shown}"


def _written(steps: list[str]) -> str:
    written = (f"[{step}]" if step.isdecimal() else f".{step}" for step in steps)
    return visible("".join(written).removeprefix("."))[:_MOST_TEXT]


def _at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, (list, tuple)) else value[step]
    return value


def _resolved(steps: list[str], value: Any, kind: Any) -> list[str]:
    """Steps with the keys of mappings, which msgspec writes as "...": the first entry that alone is wrong, too."""
    while "..." in steps:
        at = steps.index("...")
        mapping = _at(value, steps[:at])
        key = next(
            (k for k in list(mapping)[:_MOST_SEARCHED] if _fails(value, steps[:at], {k: mapping[k]}, kind)), None
        )
        if key is None:
            return steps[:at]
        steps = [*steps[:at], key, *steps[at + 1 :]]
    return steps


def _fails(value: Any, steps: list[str], instead: Any, kind: Any) -> bool:
    """Return whether the conversion fails with another value at one place."""
    try:
        return not fits(_replaced(value, steps, instead), kind)
    except EdgekitError:  # the record lacks the others; every value is of its type
        return False


def _replaced(value: Any, steps: list[str], instead: Any) -> Any:
    if not steps:
        return instead
    if isinstance(value, (list, tuple)):
        at = int(steps[0])
        return [*value[:at], _replaced(value[at], steps[1:], instead), *value[at + 1 :]]
    return {**value, steps[0]: _replaced(value[steps[0]], steps[1:], instead)}

"""Data files: TOML tables read into frozen records, and where edgekit keeps them.

A key that the record does not have is an error that names the file and the known keys.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from pathlib import Path
from typing import Any, TypeVar

from edgekit.errors import DataError, MissingError, UsageError, unknown
from edgekit.measurements import Suite
from edgekit.quantization import CalibrationRecipe
from edgekit.records import Device

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


T = TypeVar("T")
_PACKAGED = Path(__file__).parent / "_data"
_CHECKOUT = Path(__file__).parent.parent


def data_dir(name: str) -> Path:
    """The folder of packaged data files: inside the wheel, or at the top of a checkout."""
    packaged = _PACKAGED / name
    return packaged if packaged.is_dir() else _CHECKOUT / name


def load_toml(path: Path, record: type[T]) -> T:
    """Read a TOML file into the dataclass `record`; its ``name`` is the file's stem.

    Raises:
        DataError: not TOML, an unknown key, a `name`, or a value of the wrong type.
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    if "name" in table:
        raise DataError(f"{path}: the name is the file's own, {path.stem!r}", "remove the key 'name'")
    return from_table({"name": path.stem, **table}, record, str(path))


def from_table(table: dict[str, Any], record: type[T], where: str) -> T:
    """Build the dataclass `record` from a table of plain values; `where` names it in errors."""
    hints = typing.get_type_hints(record)
    known = [f.name for f in dataclasses.fields(record)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            error = unknown("key", key, known)
            raise DataError(f"{where}: {error.message}", error.hint)
    try:
        return record(**{key: _coerce(value, hints[key], f"{where}: {key}") for key, value in table.items()})
    except TypeError as error:
        raise DataError(f"{where}: {error}", f"known keys: {', '.join(known)}") from error


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Check one value against an annotation; TOML and JSON arrays become tuples."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if type(None) in arguments:
        plain = next(a for a in arguments if a is not type(None))
        return None if value is None else _coerce(value, plain, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(item, arguments[0], where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _coerce(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_table(value, hint, where)  # type: ignore[arg-type]
    expected = origin or hint
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise DataError(f"{where} must be {expected.__name__}, got {value!r}")
    return value


def names(kind: str) -> list[str]:
    """The names of the packaged data files of one kind, sorted."""
    return sorted(path.stem for path in data_dir(kind).glob("*.toml"))


def _load_named(kind: str, noun: str, name: str, record: type[T]) -> T:
    """A packaged data file by its name, or the user's own by a path that ends in .toml."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise MissingError(f"{noun} file {name!r} does not exist", f"known: {', '.join(names(kind))}")
        return load_toml(path, record)
    if name not in names(kind):
        raise unknown(noun, name, names(kind))
    return load_toml(data_dir(kind) / f"{name}.toml", record)


def is_device(name: str) -> bool:
    """Whether `name` is a packaged device, or one of the user's own in ``devices/`` of the current folder."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
    return name in names("devices") or (plain and _own(name).is_file())


def _own(name: str) -> Path:
    return Path("devices") / f"{name}.toml"


def load_device(name: str) -> Device:
    """The device `name`: packaged, or ``devices/<name>.toml`` of the current folder; or a path that ends in .toml."""
    if name not in names("devices") and is_device(name):
        return load_toml(_own(name), Device)
    if name.endswith(".toml") and Path(name).stem in names("devices"):
        raise UsageError(f"edgekit ships a device called {Path(name).stem!r}", f"rename {name}")
    return _load_named("devices", "device", name, Device)


def load_devices() -> list[Device]:
    """Every packaged device, sorted by name."""
    return [load_device(name) for name in names("devices")]


def load_recipe(name: str) -> CalibrationRecipe:
    """The calibration recipe `name` (``calibration/<name>.toml``), or the user's own file."""
    return _load_named("calibration", "calibration recipe", name, CalibrationRecipe)


def load_suite(name: str) -> Suite:
    """The benchmark suite `name` (``benchmarks/suites/<name>.toml``), or the user's own file."""
    return _load_named("benchmarks/suites", "suite", name, Suite)

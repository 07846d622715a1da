"""Data files of edgekit and of the user: TOML tables, read into frozen records."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgekit import validation
from edgekit.errors import DataError, MissingError, UsageError, from_os_error, unknown
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
    """Return a folder (or file) of packaged data: inside the wheel, or at the top of a checkout."""
    packaged = _PACKAGED / name
    return packaged if packaged.exists() else _CHECKOUT / name


def load_toml(path: Path, record: type[T]) -> T:
    """Read a TOML file into the dataclass `record`; its ``name`` is the file's stem.

    Raises:
        DataError: not TOML, an unknown or missing key, a key `name`, or a value of the wrong type.
    """
    table = read_toml(path)
    if "name" in table:
        raise DataError(f"{path}: the name is that of the file, {path.stem!r}", "remove the key 'name'")
    return from_table({"name": path.stem, **table}, record, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DataError: it is not TOML, or nested too deeply. StorageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise DataError(f"{path} is not a file of settings: its values are nested too deeply") from None
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


def from_table(table: Mapping[str, Any], record: type[T], where: str) -> T:
    """Build the dataclass `record` from a table of plain values. A key that the record does not have is an error.

    Args:
        where: beginning of the error's message, such as the path of the file.

    Raises:
        DataError: an unknown key, or as for `convert`.
    """
    _check_keys(table, record, where)
    return typing.cast(T, validation.convert(table, record, where, f"known keys: {', '.join(_names(record))}"))


def _names(record: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(record)]


def _check_keys(value: Any, hint: Any, where: str) -> None:
    """Refuse keys that a dataclass does not have, also in the records within it."""
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        known = _names(typing.cast(type, hint))
        for key in value:
            if key not in known:
                error = unknown("key", str(key), known)
                raise DataError(f"{where}: {error.message}", error.hint)
        hints = typing.get_type_hints(hint)
        for key, inner in value.items():
            if isinstance(inner, (Mapping, list, tuple)):
                _check_keys(inner, hints[key], f"{where}: {key}")
    elif typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        for inner, kind in zip(value, arguments if arguments[-1] is not ... else arguments[:1] * len(value)):
            _check_keys(inner, kind, where)
    elif typing.get_origin(hint) is dict and isinstance(value, Mapping):
        for key, inner in value.items():
            _check_keys(inner, arguments[1], f"{where}.{key}")
    elif len(arguments) == 1 and typing.get_origin(hint) is not type:  # X | None
        _check_keys(value, arguments[0], where)


def names(kind: str) -> list[str]:
    """Return the names of the packaged data files of one kind, sorted."""
    return sorted(path.stem for path in data_dir(kind).glob("*.toml"))


def _load_named(kind: str, noun: str, name: str, record: type[T]) -> T:
    """Load a packaged data file by its name, or the user's own by a path that ends in .toml."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise MissingError(f"{noun} file {name!r} does not exist", f"known: {', '.join(names(kind))}")
        return load_toml(path, record)
    if name not in names(kind):
        raise unknown(noun, name, names(kind))
    return load_toml(data_dir(kind) / f"{name}.toml", record)


def is_device(name: str) -> bool:
    """Return whether `name` is a packaged device, or the user's own in ``devices/`` of the current folder."""
    is_plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
    return name in names("devices") or (is_plain and _device_file(name).is_file())


def _device_file(name: str) -> Path:
    return Path("devices") / f"{name}.toml"


def load_device(name: str) -> Device:
    """Load a device: packaged, from ``devices/<name>.toml`` in the current folder, or by a path that ends in .toml."""
    if name not in names("devices") and is_device(name):
        return load_toml(_device_file(name), Device)
    if name.endswith(".toml") and Path(name).stem in names("devices"):
        raise UsageError(f"edgekit ships a device called {Path(name).stem!r}", f"rename {name}")
    return _load_named("devices", "device", name, Device)


def load_devices() -> list[Device]:
    """Load every device that has a name, sorted: the packaged ones, and those in ``devices/`` of the current folder."""
    own = {path.stem for path in _device_file("x").parent.glob("*.toml")} - {*names("devices")}
    return [load_device(name) for name in sorted({*names("devices"), *filter(is_device, own)})]


def load_recipe(name: str) -> CalibrationRecipe:
    """Load a calibration recipe: ``calibration/<name>.toml``, or the user's own file."""
    return _load_named("calibration", "calibration recipe", name, CalibrationRecipe)


def load_suite(name: str) -> Suite:
    """Load a benchmark suite: ``benchmarks/suites/<name>.toml``, or the user's own file."""
    return _load_named("benchmarks/suites", "suite", name, Suite)

"""Removal of absolute paths and addresses from what a report is made of.

A report is mailed and published. The folder names that lead to the data, the weights and the run, and the serial
numbers and addresses of devices, stay on the machine; of a path only the last component is kept.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

from edgekit import environment, runs
from edgekit.data.builtin import name_of
from edgekit.measurements import BenchmarkResult, ProgramResult
from edgekit.reporting.material import Material

# Keys of an environment that hold the address of a device: the serial of adb may be one of the network.
_ADDRESSES = ("serial",)
# An absolute path of two components or more. The kernel's own folders are the same on every machine.
_PATH = re.compile(
    r"(?<![\w/.:<~)\]}%])(?:file://|~)?/(?!(?:proc|sys)/)[\w.@+-][^\s/'\"`<>|;,()\[\]]*(?:/[^\s/'\"`<>|;,()\[\]]+)+/?"
)
# user@host, and an IPv4 address with its port. An address alone cannot be told from a version of four numbers.
_ADDRESS = re.compile(r"[\w.-]+@[\w.-]*\w(?::\d+)?|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}:\d+")
_Measured = TypeVar("_Measured", BenchmarkResult, ProgramResult)


def public(material: Material) -> Material:
    """Return the material without absolute paths and addresses; every format begins with this."""
    clean = _cleaner(material.run)
    return dataclasses.replace(
        material,
        run=_run(material.run, clean),
        rows=[_mapped(row, clean) for row in material.rows],
        results=[_result(result, clean) for result in material.results],
        programs=[_result(result, clean) for result in material.programs],
        layer_notes=_mapped(dict(material.layer_notes), clean),
        layers_left=_mapped(tuple(material.layers_left), clean),
        no_images=clean(material.no_images),
    )


def _run(run: runs.Run, clean: Callable[[str], str]) -> runs.Run:
    """Return the run with a relative path and the name of the data set's folder for its root."""
    path = run.path if not run.path.is_absolute() and ".." not in run.path.parts else Path("runs") / run.path.name
    data = run.info.data or (runs.DataInfo() if run.info.source is None else None)
    if data is not None:
        data = dataclasses.replace(data, root=name_of(data.root) or PurePath(data.root).name or "?")
    info = dataclasses.replace(_mapped(run.info, clean), checkpoint_sha256=run.weights_sha256, data=data)
    return runs.Run(path, info)


def _result(result: _Measured, clean: Callable[[str], str]) -> _Measured:
    table = {
        key: _mapped(value, lambda text: _ADDRESS.sub("(address)", clean(text)))
        for key, value in result.environment.table().items()
        if key not in _ADDRESSES
    }
    artifact = dataclasses.replace(result.artifact, details=_mapped(result.artifact.details, clean))
    return dataclasses.replace(result, environment=environment.parse(table), artifact=artifact)


def _cleaner(run: runs.Run) -> Callable[[str], str]:
    """Return the function that removes absolute paths from one text.

    The folders that are known are replaced as a whole, because their names may hold spaces.
    """
    known = [run.info.data.root if run.info.data else "", str(run.path), str(run.path.resolve())]
    known += [text for text in _texts(run.info.options) if text.startswith("/")]
    folders = sorted({path for path in known if PurePath(path).is_absolute()}, key=len, reverse=True)

    def clean(text: str) -> str:
        for folder in folders:
            text = text.replace(folder, PurePath(folder).name)
        if text.startswith("/") and PurePath(text).parts[1:2] not in (("proc",), ("sys",)):
            return PurePath(text).name
        return _PATH.sub(lambda found: PurePath(found[0]).name, text)

    return clean


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _mapped(value: Any, clean: Callable[[str], str]) -> Any:
    """Return a copy of plain values and records with every text replaced, keys of mappings too."""
    if isinstance(value, str):
        return value if type(value) is not str else clean(value)
    if isinstance(value, dict):
        return {_mapped(key, clean): _mapped(inner, clean) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(inner, clean) for inner in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _mapped(getattr(value, f.name), clean) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value

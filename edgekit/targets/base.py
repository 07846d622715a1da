"""The table of targets. Rows name their implementation by string; it is resolved when used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit import config
from edgekit.errors import UsageError, unknown
from edgekit.records import PRECISIONS, Artifact, Device


@dataclass(frozen=True)
class Target:
    """What a family of devices runs.

    Attributes:
        runtime: what executes the artifacts. suffix: of the model files.
        precisions: that are built unless others are asked for. asked: that are built only where they are asked for.
        package: ``module:function``, called as ``function(folder, artifacts, device)`` once the
            model files lie in `folder`; writes what belongs beside them.
    """

    runtime: str
    families: tuple[str, ...]
    suffix: str
    layout: str
    precisions: tuple[str, ...]
    package: str
    asked: tuple[str, ...] = ()


_USUAL = ("fp32", "fp16", "int8")
TARGETS: dict[str, Target] = {
    "tensorrt": Target("tensorrt", ("jetson",), ".onnx", "NCHW", _USUAL, "edgekit.targets.kits:write_tensorrt"),
    "litert": Target(
        *("litert", ("android", "ios", "rpi"), ".tflite", "NHWC", _USUAL, "edgekit.targets.kits:write_litert"),
        asked=("w8", "16x8"),
    ),
    "onnxruntime": Target(
        "onnxruntime", ("desktop",), ".onnx", "NCHW", ("fp32", "int8"), "edgekit.targets.kits:write_onnxruntime"
    ),
}
FAMILIES: dict[str, Target] = {family: target for target in TARGETS.values() for family in target.families}


@dataclass(frozen=True)
class Resolved:
    """A target as the user named it: a family, or one device of it."""

    name: str
    family: str
    target: Target
    device: Device | None


def resolve(name: str) -> Resolved:
    """A family name, a device of ``devices/``, or a device file of the user's.

    Raises:
        UsageError: none of these; lists what is known.
    """
    if name in FAMILIES:
        return Resolved(name, name, FAMILIES[name], None)
    if not name.endswith(".toml") and not config.is_device(name):
        raise unknown("target", name, [*FAMILIES, *config.names("devices")])
    device = config.load_device(name)
    if device.name in (*FAMILIES, "common") or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", device.name):
        raise UsageError(f"a device cannot be called {device.name!r}", "rename the .toml file: its name is a folder's")
    if device.family not in FAMILIES:
        raise unknown(f"family of device {device.name!r}:", device.family, FAMILIES)
    return Resolved(device.name, device.family, FAMILIES[device.family], device)


def precisions(resolved: Resolved, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The precisions to build: those asked for, else all that the target and the device take.

    Raises:
        UsageError: one that was asked for does not exist there.
    """
    usual, able = resolved.target.precisions, (*resolved.target.precisions, *resolved.target.asked)
    if resolved.device is not None and resolved.device.precisions:
        usual = able = tuple(p for p in able if p in resolved.device.precisions)
    for precision in wanted:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if precision not in able:
            note = f" ({resolved.device.note})" if resolved.device and resolved.device.note else ""
            raise UsageError(f"{resolved.name} does not run {precision}{note}", f"it runs: {', '.join(able)}")
    return tuple(p for p in PRECISIONS if p in (wanted or usual))


def package(resolved: Resolved) -> Callable[[Path, list[Artifact], Device | None], None]:
    """The function that finishes a target's folder."""
    module, _, name = resolved.target.package.partition(":")
    function: Callable[[Path, list[Artifact], Device | None], None] = getattr(importlib.import_module(module), name)
    return function

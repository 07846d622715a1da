"""Table of targets. Rows name their implementation as ``module:function``, which is imported when it is used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit import config
from edgekit.errors import UsageError, unknown
from edgekit.records import PRECISIONS, Device

if TYPE_CHECKING:
    from edgekit.targets.kits import Kit


@dataclass(frozen=True)
class Target:
    """Model files for families of devices.

    Attributes:
        runtime: runtime that executes the files. suffix: file name suffix of the models. layout: of the input tensor.
        precisions: built by default. optional: built on request only.
        package: ``module:function``, called with a `kits.Kit` whose model files are in place, to add the other files.
    """

    runtime: str
    families: tuple[str, ...]
    suffix: str
    layout: str
    precisions: tuple[str, ...]
    package: str
    optional: tuple[str, ...] = ()


_DEFAULT = ("fp32", "fp16", "int8")
TARGETS: dict[str, Target] = {
    "tensorrt": Target("tensorrt", ("jetson",), ".onnx", "NCHW", _DEFAULT, "edgekit.targets.kits:write_tensorrt"),
    "litert": Target(
        "litert",
        ("android", "ios", "rpi"),
        ".tflite",
        "NHWC",
        _DEFAULT,
        "edgekit.targets.kits:write_litert",
        optional=("w8", "16x8"),
    ),
    "onnxruntime": Target(
        "onnxruntime", ("desktop",), ".onnx", "NCHW", ("fp32", "int8"), "edgekit.targets.kits:write_onnxruntime"
    ),
}
FAMILIES: dict[str, Target] = {family: target for target in TARGETS.values() for family in target.families}


@dataclass(frozen=True)
class Resolved:
    """Target that the user named: a family, or one device of it."""

    name: str
    family: str
    target: Target
    device: Device | None


def resolve(name: str) -> Resolved:
    """Return the target for the name of a family, the name of a device in ``devices/``, or a device file.

    Raises:
        UsageError: there is no such family or device, or the device's name cannot be used.
    """
    if name in FAMILIES:
        return Resolved(name, name, FAMILIES[name], None)
    if not name.endswith(".toml") and not config.is_device(name):
        raise unknown("target", name, [*FAMILIES, *config.names("devices")])
    device = config.load_device(name)
    if device.name in (*FAMILIES, "common") or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", device.name):
        raise UsageError(
            f"a device cannot be called {device.name!r}",
            "rename its .toml file: the name is used for a folder",
        )
    if device.family not in FAMILIES:
        raise unknown(f"family of device {device.name!r}:", device.family, FAMILIES)
    return Resolved(device.name, device.family, FAMILIES[device.family], device)


def precisions(resolved: Resolved, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the precisions to build: `wanted`, else the defaults of the target that the device supports.

    Raises:
        UsageError: the target or the device does not support one of `wanted`.
    """
    default, supported = resolved.target.precisions, (*resolved.target.precisions, *resolved.target.optional)
    if resolved.device is not None and resolved.device.precisions:
        default = supported = tuple(p for p in supported if p in resolved.device.precisions)
    for precision in wanted:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if precision not in supported:
            note = f" ({resolved.device.note})" if resolved.device and resolved.device.note else ""
            raise UsageError(
                f"{resolved.name} does not run {precision}{note}", f"supported precisions: {', '.join(supported)}"
            )
    return tuple(p for p in PRECISIONS if p in (wanted or default))


def package(resolved: Resolved) -> Callable[[Kit], None]:
    """Return the function that adds the files of a target's kit."""
    module, _, name = resolved.target.package.partition(":")
    function: Callable[[Kit], None] = getattr(importlib.import_module(module), name)
    return function

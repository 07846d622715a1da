"""``edgekit export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import config, progress, runs
from edgekit.devices.transport import at
from edgekit.errors import GateError, MissingError, UsageError, unknown
from edgekit.models import zoo
from edgekit.quantization import Border
from edgekit.records import PRECISIONS, Device
from edgekit.targets import base, metadata

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates


def check_gate(run: runs.Run, max_drop: float | None, over: str) -> None:
    """
    Raises:
        GateError: `over` says which targets miss the budget.
    """
    if over:
        raise GateError(
            f"no INT8 model was shown to keep {max_drop:g} points; the nearest was written: {over}",
            f"edgekit quant debug {run.handle}, or a higher --max-drop, or --precision fp16",
        )


def border_of(taken: str | None, given: str, parity: str) -> Border:
    """What LiteRT files take and give.

    Raises:
        UsageError: integers of pixels are not those of normalized values: strict parity cannot be kept.
    """
    if parity == "strict" and taken not in (None, "float"):
        raise UsageError(
            f"--parity strict gives all targets the same integers, which --input {taken} would change",
            "--parity strict --input float",
        )
    plain = {"float": "float32"}
    known = ["uint8", "int8", "float"]
    taken = taken or ("float" if parity == "strict" else "uint8")
    for what, value in (("input", taken), ("output", given)):
        if value not in known:
            raise unknown(what, value, known)
    return Border(plain.get(taken, taken), plain.get(given, given))


def load_about(path: Path) -> metadata.About:
    """What the author says of a model, from a .toml file.

    Raises:
        MissingError: there is none. DataError: it holds something else.
    """
    if not path.is_file():
        raise MissingError(f"there is no file {str(path)!r}", "--about takes a .toml file")
    return config.load_toml(path, metadata.About)


def check_effect(wanted: list[tuple[base.Resolved, tuple[str, ...]]], given: list[str], output: str) -> None:
    """Refuse options of LiteRT files where none, or none in INT8, is written."""
    litert = [precisions for resolved, precisions in wanted if resolved.target.runtime == "litert"]
    if given and not litert:
        raise UsageError(f"{given[0]} is for LiteRT files", "--target android")
    if output != "float" and not any("int8" in precisions for precisions in litert):
        raise UsageError(f"--output {output} is for INT8 LiteRT files", "--target android --precision int8")


def builders_of(targets: list[base.Resolved], host: str | None) -> list[tuple[Device, str]]:
    """The devices whose engines are built, and the target that each gets them from."""
    if host is not None:
        if len(targets) != 1 or targets[0].target.runtime != "tensorrt":
            raise UsageError(
                "--host goes with one --target of family jetson", "edgekit export --target jetson --host X"
            )
        own = targets[0].device or Device(
            re.sub(r"[^A-Za-z0-9._-]", "_", host), targets[0].family, transport="ssh", runtime="tensorrt"
        )
        return [(at([own], host), targets[0].name)]
    known = [(r.device, r.name) for r in targets if r.device and r.device.runtime == "tensorrt"]
    return [(device, name) for device, name in known if device.host or device.transport == "local"]


def build_engines(run: runs.Run, device: Device, target: str) -> None:
    """Build the engines of one exported target."""
    from edgekit.api import artifacts, benchmark

    folder = run.path / "export" / target
    benchmark.build_all(device, [(a, folder / a.file) for a in artifacts.load_artifacts(folder)])


def export_one(
    bench: Intermediates,
    resolved: base.Resolved,
    precisions: tuple[str, ...],
    max_drop: float | None,
    recipes: tuple[str, ...],
    about: metadata.About | None,
) -> tuple[dict[str, Any], str]:
    """Write one target; returns its manifest, and what misses the budget, if there is one and it does."""
    from edgekit.api import artifacts, search

    if max_drop is None or "int8" not in precisions:
        return artifacts.export_target(bench, resolved, precisions, about), ""
    found, trial, kept = search.Search(bench, resolved, recipes or search.RECIPES).run(max_drop)
    missed = "" if kept else f"{resolved.name}: {search.described(trial)}"
    return artifacts.export_target(found, resolved, precisions, about), missed


def beside(resolved: base.Resolved, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """FP16 too, where INT8 engines are built: only against it does INT8 show what it is worth."""
    able = resolved.device.precisions if resolved.device and resolved.device.precisions else PRECISIONS
    if "int8" not in chosen or "fp16" in chosen or "fp16" not in able:
        return chosen
    progress.note(f"{resolved.name}: fp16 too, which INT8 is judged against")
    return tuple(p for p in PRECISIONS if p in (*chosen, "fp16"))


def writable(run: runs.Run, resolved: base.Resolved, able: tuple[str, ...], asked: list[str] | None) -> tuple[str, ...]:
    """`able` without what edgekit cannot write of this run's network, and a note that says so."""
    arch = run.info.arch
    chosen = zoo.precisions(arch, able, tuple(asked or ()))
    if left := [p for p in able if p not in chosen]:
        progress.note(f"{resolved.name}: without {', '.join(left)}, which edgekit cannot make of {arch} yet")
    return chosen

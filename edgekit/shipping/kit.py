"""Kits: folders that an app developer takes over, with a model, its preprocessing as code, and a golden set."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__, files
from edgekit.errors import DataError, MissingError, unknown
from edgekit.records import Artifact
from edgekit.shipping import golden
from edgekit.targets.contract import Contract

SCHEMA = 1
MANIFEST = "manifest.json"
TEMPLATES = Path(__file__).parent / "templates"
VERIFIED, WRONG, NOT_VERIFIED = "verified", "wrong", "not verified"
_SECONDS = 600  # for a kit's own tests


@dataclass(frozen=True)
class Figure:
    """A measurement of the shipped file, as text for its README."""

    device: str
    runtime: str
    top1: str
    p50: str


@dataclass(frozen=True)
class Level:
    """Result of one level of a kit's tests on this machine.

    Attributes:
        state: `VERIFIED`, `WRONG` or `NOT_VERIFIED`. details: problems, or why it was not verified; the first may be
            the cause of all.
    """

    level: str
    state: str
    details: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The state, and what is wrong, or why it was not verified."""
        return "; ".join([self.state, *self.details[:3]])


@dataclass(frozen=True)
class Source:
    """Parts that a kit is made of.

    Attributes:
        scores: runs the model on squares of pixels, uint8 (N, size, size, 3): float32 (N, classes).
        other_scores: the same with other kernels, for the tolerance; None: there are none.
        card: the model card, Markdown.
    """

    run: str
    path: Path
    artifact: Artifact
    contract: Contract
    scores: Callable[[Sequence[np.ndarray]], np.ndarray]
    other_scores: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None
    card: str = ""
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Target:
    """A language or platform that kits are for.

    Attributes:
        runtimes: of the artifacts that it takes, the preferred first. check: runs the kit's own tests where it lies.
    """

    name: str
    runtimes: tuple[str, ...]
    check: Callable[[Path], list[Level]]
    packages: dict[str, str] = field(default_factory=dict)


def write(target: Target, source: Source, out: Path) -> list[Level]:
    """Write a kit, run its own tests here, and return what they found. The folder appears whole or not at all.

    Raises:
        DataError: the folder has files in it, or the kit fails its own tests.
    """
    check_empty(out)
    with files.writing_folder(out) as staging:
        shutil.copyfile(source.path, staging / source.artifact.file)
        labels = "".join(f"{label}\n" for label in source.contract.labels)
        (staging / "labels.txt").write_bytes(labels.encode())
        files.save_json(staging / "preprocess.json", contract_of(source))
        (staging / "MODEL_CARD.md").write_text(source.card or "This model was not measured.\n", encoding="utf-8")
        write_golden(source, staging / "golden")
        for path in sorted((TEMPLATES / target.name).iterdir()):
            if path.suffix != ".j2" and path.is_file():
                shutil.copyfile(path, staging / path.name)
        write_manifest(target, source, staging, [])
        found = target.check(staging)
        if wrong := [level for level in found if level.state == WRONG]:
            details = "; ".join([f"{wrong[0].level}: {wrong[0].details[0]}", *wrong[0].details[1:3]])
            raise DataError(f"the kit fails its own test: {details}", "export the model again; if it stays, report it")
        write_readme(target, source, staging, found)
        write_manifest(target, source, staging, found)
    return found


def check_empty(folder: Path) -> None:
    """Check that a kit can be written to a folder: there is none yet, or nothing in it.

    Raises:
        DataError: there is something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty", "name a new folder")


def contract_of(source: Source) -> dict[str, Any]:
    """Return the contract of the shipped file."""
    return source.contract.of_file(source.artifact.input, source.artifact.layout)


def write_golden(source: Source, folder: Path) -> None:
    """Write the golden set of a model: pictures, ``golden.json`` and ``scores.f32`` (`golden`)."""
    from edgekit.evaluation.metrics import softmax

    folder.mkdir()
    preprocess, contract = source.contract.preprocess, contract_of(source)
    every = list(golden.cases(preprocess))
    scored = [case for case in every if case.is_scored]
    squares = [case.pixels for case in scored]
    scores = source.scores(squares)
    if not np.isfinite(scores).all():
        raise DataError(f"{source.artifact.name} gives scores that are NaN or infinite", "edgekit inspect")
    other = source.other_scores(squares) if source.other_scores else scores
    documents = []
    for case in every:
        document = case.document()
        if case in scored:
            row = scored.index(case)
            shares = softmax(scores[row], source.contract.temperature or 1.0)
            best = int(scores[row].argmax())
            document |= {"scores": row, "label": best, "probability": round(float(shares[best]), 9)}
        documents.append(document)
        if case.noise is None:
            shutil.copyfile(golden.PICTURES / case.name, folder / case.name)
    (folder / "scores.f32").write_bytes(np.ascontiguousarray(scores, "<f4").tobytes())
    fields = {name: contract[name] for name in ("image_size", "resize_size", "resample", "geometry")}
    document = {
        "schema": golden.SCHEMA,
        "size": fields.pop("image_size"),
        **fields,
        "probe": golden.PROBE,
        "values": golden.values(contract["tensor"]),
        "tolerance": golden.tolerance(scores, other, source.artifact.precision),
        "drifts": {name: text for name, (text, _) in golden.DRIFTS.items()},
        "cases": documents,
    }
    files.save_json(folder / "golden.json", document)


def write_readme(target: Target, source: Source, folder: Path, found: Sequence[Level]) -> None:
    """Write README.md from the target's template."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES / target.name)
    # Markdown; nothing in it is of a user: run names and file names are checked, class names stay in labels.txt.
    options: dict[str, Any] = {"autoescape": False, "trim_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=loader, **options)  # noqa: S701
    runtime = source.artifact.runtime
    text = environment.get_template("README.md.j2").render(
        title=source.contract.arch,
        run=source.run,
        classes=len(source.contract.labels),
        model=source.artifact.file,
        precision=source.artifact.precision.upper(),
        megabytes=f"{source.path.stat().st_size / 1e6:.1f}",
        package=target.packages[runtime],
        runtime={"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}[runtime],
        figures=source.figures,
        checked=found,
    )
    (folder / "README.md").write_text(text.rstrip() + "\n", encoding="utf-8")


def write_manifest(target: Target, source: Source, folder: Path, found: Sequence[Level]) -> None:
    """Write manifest.json: where the model is from, what was checked, and the SHA-256 of every other file."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    document = {
        "schema": SCHEMA,
        "kit": target.name,
        "edgekit": __version__,
        "run": source.run,
        "arch": source.contract.arch,
        "checkpoint_sha256": source.contract.weights,
        "artifact": source.artifact.name,
        "runtime": source.artifact.runtime,
        "model": source.artifact.file,
        "as_written": "host_runtime" in source.artifact.details,
        "figures": [asdict(figure) for figure in source.figures],
        "checked": [asdict(level) for level in found],
        "files": {path.relative_to(folder).as_posix(): files.sha256_file(path) for path in inside},
    }
    files.save_json(folder / MANIFEST, document)


def check(folder: Path) -> list[Level]:
    """Return what can be verified of a kit on this machine: its files, then its own tests.

    Raises:
        MissingError: there is no kit. DataError, StorageError: its manifest is damaged, or of a newer edgekit.
    """
    if not (folder / MANIFEST).is_file():
        raise MissingError(f"{folder} is no kit: it has no {MANIFEST}", "edgekit ship RUN --to python --out DIR")
    manifest = files.load_document(folder / MANIFEST, SCHEMA, "kit", "files", "model")
    if manifest["kit"] not in TARGETS:
        raise unknown("kind of kit", str(manifest["kit"]), TARGETS)
    if not isinstance(manifest["files"], dict):
        raise DataError(f"{folder / MANIFEST} is damaged: its files are no object", "make the kit again")
    changed = [name for name, wanted in manifest["files"].items() if _sha256(folder, name) != wanted]
    level = Level("files", WRONG if changed else VERIFIED, tuple(f"{name}: changed or missing" for name in changed))
    return [level, *TARGETS[manifest["kit"]].check(folder)]


def _sha256(folder: Path, name: str) -> str:
    """Return the hash of a file of a kit; "" where there is none, or its name leads out of the kit."""
    path = folder / name
    inside = path.resolve().is_relative_to(folder.resolve())
    return files.sha256_file(path) if inside and path.is_file() else ""


def _check_python(folder: Path) -> list[Level]:
    """Run ``classifier.py --check`` of a kit with this Python."""
    command = [sys.executable, str(folder.resolve() / "classifier.py"), "--check", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [Level("golden set", NOT_VERIFIED, (f"it took more than {_SECONDS} s",))]
    try:
        found = json.loads(done.stdout)
        return [_level(each) for each in found]
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        if "ModuleNotFoundError" in last[0] or "ImportError" in last[0]:
            return [Level("golden set", NOT_VERIFIED, (f"the runtime is not installed here: {last[0]}",))]
        return [Level("golden set", WRONG, (last[0],))]


def _level(found: dict[str, Any]) -> Level:
    """Return a result that ``classifier.py --check --json`` printed."""
    if found["skipped"]:
        return Level(found["level"], NOT_VERIFIED, (found["skipped"],))
    problems = tuple(filter(None, (found["cause"], *found["problems"])))
    return Level(found["level"], WRONG if found["problems"] else VERIFIED, problems)


TARGETS = {
    "python": Target(
        "python",
        ("litert", "onnxruntime"),
        _check_python,
        {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime"},
    )
}

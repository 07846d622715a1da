"""Kits: folders that an app developer takes over, with a model, its preprocessing as code, and a golden set."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__, config, files
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.records import Artifact
from edgekit.shipping import golden
from edgekit.targets.contract import Contract

SCHEMA = 1
MANIFEST = "manifest.json"
TEMPLATES = Path(__file__).parent / "templates"
VERIFIED, WRONG, NOT_VERIFIED = "verified", "wrong", "not verified"
LEVELS = (
    "pixels to tensor",
    "picture file to tensor",
    "values of the tensor",
    "tensor to scores",
    "label and probability",
)
_SECONDS = 600  # for a kit's own tests
_RUNTIMES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}
_TERMS = {"litert": "Apache-2.0", "onnxruntime": "MIT", "tensorrt": "NVIDIA's licence for TensorRT"}


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
class Updates:
    """Website that the apps take new releases from.

    Attributes:
        url: of the release folder. root: its metadata of the role root, which the apps trust first, as bytes.
    """

    url: str
    channel: str
    root: bytes

    @property
    def origin(self) -> str:
        """Scheme, host and port of the website."""
        return "/".join(self.url.split("/")[:3])


@dataclass(frozen=True)
class Source:
    """Parts that a kit is made of.

    Attributes:
        scores: runs the model on squares of pixels, uint8 (N, size, size, 3): float32 (N, classes).
        other_scores: the same with other kernels, for the tolerance; None: there are none.
        card: the model card, Markdown. terms: licence of the weights that training began with; "" where it is
            unknown. package: what the code is called in its language, checked by `Target.named`. updates: None: the app
            keeps the model that it has.
    """

    run: str
    path: Path
    artifact: Artifact
    contract: Contract
    scores: Callable[[Sequence[np.ndarray]], np.ndarray]
    other_scores: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None
    card: str = ""
    terms: str = ""
    figures: tuple[Figure, ...] = ()
    package: str = ""
    updates: Updates | None = None


@dataclass(frozen=True)
class Target:
    """A language or platform that kits are for.

    Attributes:
        name: of the folder of its templates, too, and of that with ``-updates``, which is for kits that take updates.
            In them, files that end in ``.j2`` are filled in, the others copied; a folder named ``__package__`` becomes
            the folders of the package.
        runtimes: of the artifacts that it takes, the preferred first. check: runs the kit's own tests where it lies.
        assets, golden: where the model, its labels and its contract go, and the golden set; ``__package__`` stands
            for the name of the package.
        package: what the code is called unless the user says; "" where it has no name. package_form: a pattern of
            names, and the same in words.
        refuses: returns why a file cannot be shipped; "" if it can.
        more: returns other files that a kit has, by name: for files whose program needs more than the templates.
        values: returns what its templates need besides what `filled` gives.
    """

    name: str
    runtimes: tuple[str, ...]
    check: Callable[[Path], list[Level]]
    assets: str = "."
    golden: str = "golden"
    package: str = ""
    package_form: tuple[str, str] = ("", "")
    refuses: Callable[[Artifact], str] = lambda artifact: ""
    more: Callable[[Source], dict[str, Path]] = lambda source: {}
    values: Callable[[Source], dict[str, Any]] = lambda source: {}
    filters: Mapping[str, Callable[..., str]] = field(default_factory=dict)

    def named(self, package: str | None) -> str:
        """Return the name of the code: the given one, or by default this target's.

        Raises:
            UsageError: it is none in this language, or the language has none.
        """
        if package is None:
            return self.package
        pattern, words = self.package_form
        if not pattern:
            raise UsageError(f"a kit for {self.name} has no package name", "leave out --package")
        if not re.fullmatch(pattern, package, re.ASCII):
            raise UsageError(
                f"{package!r} is no package name for {self.name}: it must be {words}", f"--package {self.package}"
            )
        return package


def write(target: Target, source: Source, out: Path) -> list[Level]:
    """Write a kit, run its own tests here, and return what they found. The folder appears whole or not at all.

    Raises:
        DataError: the folder has files in it, or the kit fails its own tests.
    """
    check_empty(out)
    with files.writing_folder(out) as staging:
        assets = staging / target.assets.replace("__package__", source.package)
        assets.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path, assets / source.artifact.file)
        labels = "".join(f"{label}\n" for label in source.contract.labels)
        (assets / "labels.txt").write_bytes(labels.encode())
        files.save_json(assets / "preprocess.json", contract_of(source))
        (staging / "MODEL_CARD.md").write_text(source.card or "This model was not measured.\n", encoding="utf-8")
        write_licences(source, staging)
        write_golden(source, staging / target.golden.replace("__package__", source.package))
        if source.updates:
            write_updates(target, source, assets)
        fill(target, source, staging)
        write_manifest(target, source, staging, [])
        found = target.check(staging)
        if wrong := [level for level in found if level.state == WRONG]:
            details = "; ".join([f"{wrong[0].level}: {wrong[0].details[0]}", *wrong[0].details[1:3]])
            raise DataError(f"the kit fails its own test: {details}", "export the model again; if it stays, report it")
        fill(target, source, staging, found)
        write_manifest(target, source, staging, found)
        check_empty(out)  # something may have come in meanwhile
    return found


def check_empty(folder: Path) -> None:
    """Check that a kit can be written to a folder: there is none yet, or nothing in it.

    Raises:
        DataError: there is something, or it is a link or the current folder, which cannot be replaced.
    """
    if folder.is_symlink():
        raise DataError(f"{folder} is a link", "name a new folder")
    if folder.resolve() == Path.cwd():
        raise DataError(f"{folder} is the current folder", "name a new folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty", "name a new folder")


def contract_of(source: Source) -> dict[str, Any]:
    """Return the contract of the shipped file."""
    return source.contract.of_file(source.artifact.input, source.artifact.layout)


def write_licences(source: Source, folder: Path) -> None:
    """Write LICENSE, of the kit's code and pictures, and NOTICE, which says what else applies."""
    shutil.copyfile(config.data_dir("LICENSE"), folder / "LICENSE")
    runtime = source.artifact.runtime
    terms = source.terms or "licence not known to edgekit; find it out before you publish"
    lines = (
        "Code, documents, pictures and golden set of this kit: made by edgekit, Apache License 2.0 (LICENSE).",
        f"Model: {source.contract.arch}; pretrained weights: {terms}; for its images see MODEL_CARD.md.",
        f"Runtime, not in this kit: {_RUNTIMES[runtime]}, {_TERMS[runtime]}.",
    )
    (folder / "NOTICE").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_updates(target: Target, source: Source, assets: Path) -> None:
    """Write what the client for updates reads: updates.json, and root.json, the metadata that it trusts first."""
    assert source.updates is not None
    inside = [files.sha256_file(assets / name) for name in (source.artifact.file, "labels.txt", "preprocess.json")]
    settings = {
        "schema": SCHEMA,
        "url": source.updates.url,
        "channel": source.updates.channel,
        "kit": f"{target.name}-{source.artifact.runtime}",
        "contract": contract_of(source)["schema"],
        "built": files.sha256_text(inside),
    }
    files.save_json(assets / "updates.json", settings)
    files.save_bytes(assets / "root.json", source.updates.root)


def write_golden(source: Source, folder: Path) -> None:
    """Write the golden set of a model (`golden.write`)."""
    contract = contract_of(source)
    every = list(golden.cases(source.contract.preprocess))
    squares = [case.pixels for case in every if case.is_scored]
    scores = source.scores(squares)
    if not np.isfinite(scores).all():
        raise DataError(f"{source.artifact.name} gives scores that are NaN or infinite", "edgekit inspect")
    other = source.other_scores(squares) if source.other_scores else scores
    golden.write(folder, contract, every, scores, golden.tolerance(scores, other, source.artifact.precision))


def fill(target: Target, source: Source, folder: Path, found: Sequence[Level] = ()) -> None:
    """Write the files of the target's templates.

    Args:
        found: what was checked, for README.md.
    """
    _fill(target, source, folder, found, TEMPLATES / target.name)
    if source.updates:
        _fill(target, source, folder, found, TEMPLATES / f"{target.name}-updates")
    for name, path in target.more(source).items():
        shutil.copyfile(path, folder / name)


def _fill(target: Target, source: Source, folder: Path, found: Sequence[Level], templates: Path) -> None:
    """Write the files of a folder of templates."""
    import jinja2

    # Program text and Markdown; nothing in it is of a user: run, file and package names are checked, class names stay
    # in labels.txt.
    options: dict[str, Any] = {"autoescape": False, "trim_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader([templates, TEMPLATES]), **options)  # noqa: S701
    environment.filters |= target.filters
    values = {**_filled(source), **target.values(source), "checked": found}
    for path in sorted(templates.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        name = path.relative_to(templates).as_posix().replace("__package__", source.package.replace(".", "/"))
        made = folder / name.removesuffix(".j2")
        made.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".j2":
            text = environment.get_template(path.relative_to(templates).as_posix()).render(values)
            made.write_text(text.rstrip() + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, made)


def _filled(source: Source) -> dict[str, Any]:
    """Return what every template may use."""
    return {
        "title": source.contract.arch,
        "run": source.run,
        "classes": len(source.contract.labels),
        "model": source.artifact.file,
        "precision": source.artifact.precision.upper(),
        "megabytes": f"{source.path.stat().st_size / 1e6:.1f}",
        "runtime": _RUNTIMES[source.artifact.runtime],
        "package": source.package,
        "contract": contract_of(source),
        "figures": source.figures,
        "updates": source.updates,
    }


def typed(source: Source) -> dict[str, Path]:
    """Return the typed twin of an ONNX file for TensorRT, if there is one: from 10.12 on, its types decide."""
    path = source.path.with_suffix(".typed.onnx")
    return {path.name: path} if path.is_file() else {}


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
        "precision": source.artifact.precision,
        "as_written": "host_runtime" in source.artifact.details,
        "figures": [asdict(figure) for figure in source.figures],
        "checked": [asdict(level) for level in found],
        "files": {path.relative_to(folder).as_posix(): files.sha256_file(path) for path in inside},
    }
    files.save_json(folder / MANIFEST, document)


def opened(folder: Path) -> dict[str, Any]:
    """Return the manifest of a kit.

    Raises:
        MissingError: there is no kit. DataError, StorageError: its manifest is damaged, or of a newer edgekit.
    """
    if not (folder / MANIFEST).is_file():
        raise MissingError(f"{folder} is no kit: it has no {MANIFEST}", "edgekit ship RUN --to KIND --out DIR")
    manifest = files.load_document(folder / MANIFEST, SCHEMA, "kit", "files", "model", "runtime")
    if not isinstance(manifest["files"], dict):
        raise DataError(f"{folder / MANIFEST} is damaged: its files are no object", "make the kit again")
    return manifest


def check(target: Target, folder: Path) -> list[Level]:
    """Return what can be verified of a kit on this machine: its files, then its own tests."""
    wanted = opened(folder)["files"]
    changed = [name for name, sha256 in wanted.items() if sha256_inside(folder, name) != sha256]
    problems = [f"{name}: changed or missing" for name in changed] or ["manifest.json lists no files"] * (not wanted)
    level = Level("files", WRONG if problems else VERIFIED, tuple(problems))
    return [level, *target.check(folder)]


def sha256_inside(folder: Path, name: str) -> str:
    """Return the hash of a file of a kit; "" where there is none, or its name leads out of the kit."""
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        return files.sha256_file(path) if inside and path.is_file() else ""
    except (OSError, ValueError):  # a name that is too long, or has a zero byte in it
        return ""


def copied(folder: Path, copy: Path) -> Path:
    """Copy the files of a kit into a new folder, but no links, pipes or what they lead to. Returns the new folder."""
    copy.mkdir(parents=True)
    for place, folders, names in os.walk(folder):  # which does not follow links to folders
        for name in folders:
            (copy / Path(place).relative_to(folder) / name).mkdir()
        for path in (Path(place) / name for name in names):
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, copy / path.relative_to(folder))
    return copy


def results(command: Sequence[str], folder: Path) -> list[Level]:
    """Run a kit's own test and return what it found.

    Args:
        command: prints a JSON list of objects with `level`, `checked` (a number), `problems` (a list of lines), `cause`
            and `skipped` ("" where there is none).
    """
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [Level("golden set", NOT_VERIFIED, (f"it took more than {_SECONDS} s",))]
    try:
        return levels(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        return [Level("golden set", WRONG, (_reason(done.stderr),))]


def _reason(said: str) -> str:
    """Return the line that tells why a program failed: the last that begins with an exception, else the last one."""
    lines = [line.strip() for line in said.strip().splitlines()] or ["it printed nothing"]
    told = [line for line in lines if re.match(r"Exception in thread|[\w.]*(Error|Exception)\b", line)]
    return (told or lines)[-1]


def levels(found: Sequence[dict[str, Any]]) -> list[Level]:
    """Return the results that a kit's own test gave as JSON (`results`)."""
    return [_level(each) for each in found]


def _level(found: dict[str, Any]) -> Level:
    """Return a result that a kit's own test printed."""
    if found["skipped"]:
        return Level(found["level"], NOT_VERIFIED, (found["skipped"],))
    if not found["checked"] and not found["problems"]:
        return Level(found["level"], WRONG, ("the golden set has nothing to check: it is damaged",))
    problems = tuple(filter(None, (found["cause"], *found["problems"])))
    return Level(found["level"], WRONG if found["problems"] else VERIFIED, problems)

"""Export: which files a target gets, and how its folder is written."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from edgekit import __version__, files, progress, runs
from edgekit.api import intermediates
from edgekit.api.emitters import EMITTERS, Emitted
from edgekit.api.intermediates import Intermediates
from edgekit.config import from_table, load_toml
from edgekit.errors import DataError, MissingError, StorageError
from edgekit.records import PRECISIONS, Artifact
from edgekit.targets import base, metadata
from edgekit.targets.metadata import About, Facts

SCHEMA = 1
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-quantizer", "numpy")


def export_target(
    bench: Intermediates, resolved: base.Resolved, precisions: tuple[str, ...], about: About | None = None
) -> dict[str, Any]:
    """Write ``export/<target>/`` whole; precisions exported before from this checkpoint stay.

    Args:
        about: what LiteRT files say of themselves.
    """
    folder = bench.run.path / "export" / resolved.name
    describe = _describer(bench, about) if resolved.target.runtime == "litert" else None
    with files.locked(bench.run.path / ".export.lock", f"another export of {bench.run.name} is running"):
        files.recover(folder)
        assert bench.onnx  # every export has the FP32 ONNX files, in export/common
        kept = _kept_artifacts(bench, folder, precisions)
        with files.writing_folder(folder) as staging:
            for artifact in kept:
                shutil.copy2(folder / artifact.file, staging)
            artifacts = list(kept)
            for precision in precisions:
                for emitted in EMITTERS[resolved.target.suffix, precision](bench, staging, resolved):
                    if describe is not None:
                        describe(staging / emitted.file, emitted)
                    artifacts.append(_artifact(bench, resolved, precision, staging, emitted))
            artifacts.sort(key=lambda a: (PRECISIONS.index(a.precision), a.name))
            manifest = _manifest(bench, resolved, artifacts)
            files.save_json(staging / "preprocess.json", bench.checkpoint.preprocess)
            (staging / "labels.txt").write_text("\n".join(bench.checkpoint.labels) + "\n", encoding="utf-8")
            _keep_engines(folder, staging, artifacts)
            base.package(resolved)(staging, artifacts, resolved.device)
            files.save_json(staging / "manifest.json", manifest)
    for artifact in artifacts:
        progress.note(f"  {folder / artifact.file}  {(folder / artifact.file).stat().st_size / 1e6:.1f} MB")
    return manifest


def _describer(bench: Intermediates, about: About | None) -> Callable[[Path, Emitted], None]:
    """What puts the metadata into LiteRT files."""
    checkpoint, about = bench.checkpoint, about or About()
    known = dataclasses.replace(
        about,
        title=about.title or f"{checkpoint.arch}, {len(checkpoint.labels)} classes",
        version=about.version or f"weights {checkpoint.sha256[:12]}",
    )
    calibrated = intermediates.score_calibration(bench)

    def describe(path: Path, emitted: Emitted) -> None:
        facts = Facts(checkpoint.labels, checkpoint.preprocess, emitted.input, calibrated)
        path.write_bytes(metadata.attach(path.read_bytes(), known, facts))

    return describe


def _artifact(
    bench: Intermediates, resolved: base.Resolved, precision: str, folder: Path, emitted: Emitted
) -> Artifact:
    path, details = folder / emitted.file, emitted.details
    if precision not in ("fp32", "fp16"):
        table, quantized = bench.table, bench.quantized if precision == "int8" else bench.weights_only
        lineage = {"recipe": table.recipe, "observer": table.observer, "samples": table.samples}
        made = {"steps": quantized.steps, "float_layers": quantized.float_layers}
        details = {**lineage, **made, "calibration_sha256": files.sha256_file(bench.table_path), **details}
    return Artifact(
        name=f"{resolved.name}/{path.name}",
        target=resolved.name,
        precision=precision,
        runtime=resolved.target.runtime,
        layout=resolved.target.layout,
        sha256=files.sha256_file(path),
        parent=bench.checkpoint.sha256,
        details=details,
        input=emitted.input,
    )


def _manifest(bench: Intermediates, resolved: base.Resolved, artifacts: list[Artifact]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "created": files.now(),
        "run": bench.run.name,
        "arch": bench.checkpoint.arch,
        "checkpoint_sha256": bench.checkpoint.sha256,
        "target": resolved.name,
        "family": resolved.family,
        "versions": {p: packages.version(p) for p in _PACKAGES if _is_there(p)},
        "labels": bench.checkpoint.labels,
        "preprocess": bench.checkpoint.preprocess,
        "artifacts": artifacts,
    }


def _is_there(package: str) -> bool:
    try:
        return bool(packages.version(package))
    except packages.PackageNotFoundError:
        return False


def _kept_artifacts(bench: Intermediates, folder: Path, replaced: tuple[str, ...]) -> list[Artifact]:
    """The artifacts of an earlier export that this one does not make again and that are unharmed."""
    if not (folder / "manifest.json").is_file():
        return []
    return [
        artifact
        for artifact in load_artifacts(folder)
        if artifact.precision not in replaced
        and artifact.parent == bench.checkpoint.sha256
        and (path := folder / artifact.file).is_file()
        and files.sha256_file(path) == artifact.sha256
    ]


def _keep_engines(folder: Path, staging: Path, artifacts: list[Artifact]) -> None:
    """Engines that were built from files that stay the same stay too."""
    for record in (folder / "engines").glob("*/*.engine.json"):
        try:
            content = files.load_json(record)
        except DataError:
            continue
        if isinstance(content, dict) and content.get("exported_sha256") in {a.sha256 for a in artifacts}:
            place = staging / "engines" / record.parent.name
            place.mkdir(parents=True, exist_ok=True)
            for path in (record, record.with_suffix(""), record.with_suffix(".log")):
                if path.is_file():
                    shutil.copy2(path, place)


def load_artifacts(folder: Path) -> list[Artifact]:
    """The artifacts that ``folder/manifest.json`` lists."""
    path = folder / "manifest.json"
    listed = files.load_document(path, SCHEMA, "artifacts")["artifacts"]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DataError(f"{path} is damaged: its artifacts are no list", "export again")
    return [from_table(entry, Artifact, str(path)) for entry in listed]


def current_artifacts(run: runs.Run, checkpoint_sha256: str) -> list[Artifact]:
    """Every exported artifact of a run, by target.

    Raises:
        StorageError: one was exported from other weights than the run's.
    """
    found = []
    for manifest in sorted((run.path / "export").glob("[!.]*/manifest.json")):
        for artifact in load_artifacts(manifest.parent):
            if artifact.parent != checkpoint_sha256:
                raise StorageError(
                    f"{artifact.name} was exported from other weights than this run's",
                    f"edgekit export {run.handle} --target {artifact.target}",
                )
            found.append(artifact)
    return found


def load_about(path: Path) -> About:
    """Read the author's description of a model from a .toml file.

    Raises:
        MissingError: there is no such file. DataError: it holds something else.
    """
    if not path.is_file():
        raise MissingError(f"there is no file {str(path)!r}", "--about takes a .toml file")
    return load_toml(path, About)

"""Exported artifacts: write a target's folder, and read what was exported."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from importlib import metadata as packages
from pathlib import Path
from shlex import quote
from typing import Any

from edgekit import __version__, files, progress, runs
from edgekit.api.emitters import EMITTERS, Emitted
from edgekit.api.intermediates import Intermediates
from edgekit.config import from_table, load_toml
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError
from edgekit.quantization import QuantizedModel
from edgekit.records import PRECISIONS, Artifact
from edgekit.targets import base, kits, metadata
from edgekit.targets.contract import Contract, describe_onnx
from edgekit.targets.metadata import About, Facts

SCHEMA = 1
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-quantizer", "numpy")


def export_target(
    intermediates: Intermediates,
    resolved: base.Resolved,
    precisions: tuple[str, ...],
    about: About | None = None,
    quantized: QuantizedModel | None = None,
) -> dict[str, Any]:
    """Write ``export/<target>/`` and return its manifest; other precisions of this checkpoint are kept.

    Args:
        about: author's description for the metadata of LiteRT files. None: that of an earlier export of these weights.
        quantized: the model of INT8 files, in place of the one that the recipe gives.
    Raises:
        UsageError: another export of this run is running.
    """
    folder = intermediates.run.path / "export" / resolved.name
    about = about or _earlier_about(intermediates, folder)
    contract = contract_of(intermediates)
    describe = _describer(intermediates, about, contract)
    with files.locked(
        intermediates.run.path / ".export.lock", f"another export of {intermediates.run.name} is running"
    ):
        files.recover_all(folder.parent)
        assert intermediates.onnx  # every export writes the FP32 ONNX files to export/common
        kept = _kept_artifacts(intermediates, folder, precisions)
        with files.writing_folder(folder) as staging:
            for artifact in kept:
                shutil.copy2(folder / artifact.file, staging)
            artifacts = list(kept)
            for precision in precisions:
                for emitted in EMITTERS[resolved.target.suffix, precision](intermediates, staging, resolved, quantized):
                    describe(staging / emitted.file, emitted)
                    model = _model_of(intermediates, precision, quantized)
                    artifacts.append(
                        _artifact(intermediates, resolved, precision, staging / emitted.file, emitted, model)
                    )
            artifacts.sort(key=lambda a: (PRECISIONS.index(a.precision), a.name))
            manifest = _manifest(contract, intermediates.run, resolved, artifacts, about)
            files.save_json(staging / "preprocess.json", manifest["preprocess"])
            (staging / "labels.txt").write_text("\n".join(intermediates.checkpoint.labels) + "\n", encoding="utf-8")
            _keep_engines(folder, staging, artifacts)
            base.package(resolved)(kits.Kit(staging, artifacts, contract, resolved.device))
            files.save_json(staging / "manifest.json", manifest)
    for artifact in artifacts:
        size = (folder / artifact.file).stat().st_size / 1e6
        progress.note(f"  {folder / artifact.file}  {size:.{1 if size >= 0.1 else 3}f} MB")
    if why := kits.why_unbuildable(resolved.device):
        progress.warn(why)
    return manifest


def contract_of(intermediates: Intermediates) -> Contract:
    """Return what an app must know of the run's model."""
    checkpoint, evaluated = intermediates.checkpoint, intermediates.evaluation
    temperature = evaluated.temperature if evaluated else None
    return Contract(checkpoint.arch, checkpoint.sha256, checkpoint.labels, checkpoint.preprocess, temperature)


def _earlier_about(intermediates: Intermediates, folder: Path) -> About | None:
    """Return the author's description that an earlier export of these weights was given, to this target or another."""
    others = sorted((intermediates.run.path / "export").glob("[!.]*/manifest.json"))
    for path in sorted(others, key=lambda path: path.parent != folder):
        try:
            found = files.load_document(path, SCHEMA, "checkpoint_sha256")
        except EdgekitError:
            continue
        if found["checkpoint_sha256"] == intermediates.checkpoint.sha256 and found.get("about"):
            progress.note(f"about: as given for {path.parent.name}; --about replaces it")
            return from_table(found["about"], About, str(path))
    return None


def _describer(
    intermediates: Intermediates, about: About | None, contract: Contract
) -> Callable[[Path, Emitted], None]:
    """Return a function that writes metadata into a LiteRT or ONNX file."""
    checkpoint, about = intermediates.checkpoint, about or About()
    known = dataclasses.replace(
        about,
        title=about.title or f"{checkpoint.arch}, {len(checkpoint.labels)} classes",
        version=about.version or f"weights {checkpoint.sha256[:12]}",
    )

    def describe(path: Path, emitted: Emitted) -> None:
        if path.suffix == ".onnx":
            describe_onnx(path, contract, kits.purpose_of(emitted.details))
            return
        calibrated = intermediates.score_calibration
        facts = Facts(contract, emitted.input, calibrated)
        path.write_bytes(metadata.attach(path.read_bytes(), known, facts))

    return describe


def _model_of(intermediates: Intermediates, precision: str, quantized: QuantizedModel | None) -> QuantizedModel | None:
    """Return the quantized model that the files of a precision hold."""
    if precision in ("fp32", "fp16"):
        return None
    return (quantized or intermediates.quantized) if precision == "int8" else intermediates.weights_only


def _artifact(
    intermediates: Intermediates,
    resolved: base.Resolved,
    precision: str,
    path: Path,
    emitted: Emitted,
    model: QuantizedModel | None,
) -> Artifact:
    details = emitted.details
    if model is not None:
        lineage = {"recipe": model.table.recipe, "observer": model.table.observer, "samples": model.table.samples}
        made = {"steps": model.steps, "float_layers": model.float_layers}
        details = {**lineage, **made, "calibration_sha256": files.sha256_file(intermediates.table_path), **details}
    return Artifact(
        name=f"{resolved.name}/{path.name}",
        target=resolved.name,
        precision=precision,
        runtime=resolved.target.runtime,
        layout=resolved.target.layout,
        sha256=files.sha256_file(path),
        parent=intermediates.checkpoint.sha256,
        details=details,
        input=emitted.input,
    )


def _manifest(
    contract: Contract, run: runs.Run, resolved: base.Resolved, artifacts: list[Artifact], about: About | None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "created": files.now(),
        "run": run.name,
        "arch": contract.arch,
        "checkpoint_sha256": contract.weights,
        "target": resolved.name,
        "family": resolved.family,
        "versions": {p: packages.version(p) for p in _PACKAGES if _is_there(p)},
        "labels": contract.labels,
        "preprocess": {
            **contract.document(),
            "tensors": {a.file: contract.tensor(a.input, a.layout) for a in artifacts},
        },
        "temperature": contract.temperature,
        **({"about": about} if about else {}),
        "artifacts": artifacts,
    }


def _is_there(package: str) -> bool:
    try:
        return bool(packages.version(package))
    except packages.PackageNotFoundError:
        return False


def _kept_artifacts(intermediates: Intermediates, folder: Path, replaced: tuple[str, ...]) -> list[Artifact]:
    """Return the intact artifacts of an earlier export of this checkpoint that this one does not replace."""
    if not (folder / "manifest.json").is_file():
        return []
    return [
        artifact
        for artifact in load_artifacts(folder)
        if artifact.precision not in replaced
        and artifact.parent == intermediates.checkpoint.sha256
        and (path := folder / artifact.file).is_file()
        and files.sha256_file(path) == artifact.sha256
    ]


def _keep_engines(folder: Path, staging: Path, artifacts: list[Artifact]) -> None:
    """Copy the engines that were built from files that do not change."""
    for record in (folder / "engines").glob("*/*.engine.json"):
        try:
            content = files.load_json(record)
        except DataError:
            continue
        if isinstance(content, dict) and content.get("exported_sha256") in {a.sha256 for a in artifacts}:
            kept = staging / "engines" / record.parent.name
            kept.mkdir(parents=True, exist_ok=True)
            for path in (record, record.with_suffix(""), record.with_suffix(".log")):
                if path.is_file():
                    shutil.copy2(path, kept)


def load_artifacts(folder: Path) -> list[Artifact]:
    """Return the artifacts that ``folder/manifest.json`` lists.

    Raises:
        StorageError, DataError: the manifest cannot be read, or is damaged.
    """
    path = folder / "manifest.json"
    listed = files.load_document(path, SCHEMA, "artifacts")["artifacts"]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DataError(f"{path} is damaged: its artifacts are not a list", "export again")
    return [from_table(entry, Artifact, str(path)) for entry in listed]


def current_artifacts(run: runs.Run, checkpoint_sha256: str) -> list[Artifact]:
    """Return every exported artifact of a run, in the order of targets.

    Raises:
        StorageError: an artifact was exported from weights other than the run's.
    """
    found = []
    for manifest in sorted((run.path / "export").glob("[!.]*/manifest.json")):
        for artifact in load_artifacts(manifest.parent):
            if artifact.parent != checkpoint_sha256:
                raise StorageError(
                    f"{artifact.name} was exported from weights other than this run's",
                    f"edgekit export {run.handle} --target {quote(artifact.target)}",
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

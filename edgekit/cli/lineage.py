"""Where a model file comes from: what the export's manifest, and the records beside engines, say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit import files
from edgekit.cli.artifacts import SCHEMA, load_artifacts
from edgekit.errors import EdgekitError, MissingError
from edgekit.labels import visible
from edgekit.records import Artifact

_MOST_TEXT = 300


def lineage(path: Path, sha256: str) -> dict[str, Any]:
    """Run, weights, calibration and whether the file is as it was exported; empty where nothing is known.

    Args:
        sha256: of the file, or for an engine that of the file it was built from.
    """
    for folder in _folders(path):
        manifest = folder / "manifest.json"
        if manifest.is_file():
            try:
                return _from_manifest(manifest, path, sha256)
            except EdgekitError as error:
                return {"manifest": f"cannot be used: {error.message}"}
    return _from_sidecar(path, sha256)


def engine_record(path: Path) -> dict[str, Any]:
    """What built an engine: scalars of the ``.json`` beside it, and its placement in counts.

    Raises:
        MissingError: there is none. DataError: it is damaged.
    """
    beside = path.with_name(path.name + ".json")
    if not beside.is_file():
        raise MissingError(
            f"{path} has no record beside it ({beside.name}): an engine alone does not say what it is",
            "edgekit export --target DEVICE builds it with one",
        )
    content = files.load_json(beside)
    said: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        name = visible(str(key))[:_MOST_TEXT]
        if isinstance(value, bool | int | float | None):
            said[name] = value
        elif isinstance(value, str):
            said[name] = visible(value)[:_MOST_TEXT]
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            said[name] = visible(", ".join(value[:100]))[:_MOST_TEXT]
        elif key == "placement" and isinstance(value, dict):
            said.update({f"layers: {k}": len(v) for k, v in value.items() if isinstance(v, list)})
    return said


def _folders(path: Path) -> list[Path]:
    """Where its manifest may lie: beside the file, or for ``engines/<device>/`` in the export it was built from."""
    parents = list(path.resolve().parents)
    return [parents[0], *(parents[2:3] if len(parents) > 2 and parents[1].name == "engines" else [])]


def _from_manifest(manifest: Path, path: Path, sha256: str) -> dict[str, Any]:
    document = files.load_document(manifest, SCHEMA, "artifacts", "run", "checkpoint_sha256")
    artifacts = load_artifacts(manifest.parent)
    same = next((a for a in artifacts if a.sha256 == sha256), None)
    named = next((a for a in artifacts if a.file == path.name), None)
    artifact = same or named
    if artifact is None:
        return {"file": f"not one of those that {manifest} lists"}
    state = "as exported" if same is not None else f"changed since export: there it was {artifact.sha256}"
    found: dict[str, Any] = {"file": state, "artifact": artifact.name}
    found.update({name: document.get(key) for name, key in _OF_MANIFEST.items()})
    told = {**found, **_of(artifact), **found}  # what the file says of itself replaces nothing
    return {key: _plain(value) for key, value in told.items() if value not in (None, "", (), [])}


_OF_MANIFEST = {
    "run": "run",
    "network": "arch",
    "checkpoint sha256": "checkpoint_sha256",
    "exported": "created",
    "edgekit": "edgekit",
}


def _of(artifact: Artifact) -> dict[str, Any]:
    details = {key.replace("_", " "): value for key, value in artifact.details.items()}
    return {"precision": artifact.precision, "input": artifact.input, "layout": artifact.layout, **details}


def _from_sidecar(path: Path, sha256: str) -> dict[str, Any]:
    """Files that several targets share, in ``export/common``, have a record of their own each."""
    beside = path.with_name(path.name + ".json")
    try:
        content = files.load_json(beside)
    except EdgekitError:
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("sha256"), str):
        return {}
    state = "as exported" if content["sha256"] == sha256 else f"changed since export: there it was {content['sha256']}"
    return {"file": _plain(state), "checkpoint sha256": _plain(content.get("parent"))}


def _plain(value: Any) -> Any:
    """A number as it is, anything else as short printable text."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value[:100]))
    return value if isinstance(value, bool | int | float) else visible(str(value))[:_MOST_TEXT]

"""Inspect: read the contents and the origin of a model file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from edgekit import files
from edgekit.errors import EdgekitError, MissingError, UsageError, unknown
from edgekit.labels import visible
from edgekit.progress import note
from edgekit.records import Artifact
from edgekit.runs import choose_run

if TYPE_CHECKING:
    from edgekit.targets.contents import Contents, TensorInfo
    from edgekit.targets.delegates import Verdict


LARGEST = 5  # weights in the list of the largest ones
_MOST_TEXT = 300  # characters of a text from a file
_SUFFIXES = (".tflite", ".onnx", ".engine")
# Name of a fact -> key of manifest.json.
_MANIFEST_KEYS = {
    "run": "run",
    "network": "arch",
    "checkpoint sha256": "checkpoint_sha256",
    "exported": "created",
    "edgekit": "edgekit",
}


@dataclass(frozen=True)
class Inspected:
    """Contents of a model file.

    Attributes:
        facts: path, size, hash and lineage; for an engine also the record of its build.
        contents: None for an engine. verdicts: operators that each delegate does not run.
    """

    facts: dict[str, Any]
    contents: Contents | None = None
    verdicts: list[Verdict] = field(default_factory=list)


def in_order(run: str, model: str | None) -> tuple[str, str | None]:
    """Return the model and the run of a command line: RUN MODEL, MODEL alone, or the former order MODEL RUN."""
    if model is None:
        return run, None
    if Path(run).suffix in _SUFFIXES and Path(model).suffix not in _SUFFIXES:
        note(f"the order of the other commands works here too: edgekit inspect {quote(model)} {quote(run)}")
        return run, model
    return model, run


def inspect(model: str, run: str | None, runs_dir: Path) -> Inspected:
    """Read a .tflite, .onnx or .engine file, or an artifact of a run, without running it.

    Raises:
        MissingError: there is no such file. DataError: it is damaged. UsageError: it is not a model file.
    """
    path = find_file(model, run, runs_dir)
    facts: dict[str, Any] = {"file": str(path), "size_bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    if path.suffix == ".engine":
        record = engine_record(path)
        intact = "as built" if record.get("engine_sha256") == facts["sha256"] else "changed since it was built"
        origin = lineage(path, str(record.get("exported_sha256", "")))
        facts.update(form="TensorRT engine", engine={"file": intact, **record}, lineage=origin)
        return Inspected(facts)
    contents, verdicts = read_file(path)
    return Inspected({**facts, "lineage": lineage(path, facts["sha256"])}, contents, verdicts)


def lineage(path: Path, sha256: str) -> dict[str, Any]:
    """Return run, weights, calibration and integrity of a file; empty if nothing is known.

    Args:
        sha256: of the file, or for an engine of the file that it was built from.
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
    """Return the record of an engine's build: scalars of the ``.json`` beside it, and numbers of layers by device.

    Raises:
        MissingError: there is no record. DataError: it is damaged.
    """
    beside = path.with_name(path.name + ".json")
    if not beside.is_file():
        raise MissingError(
            f"{path} has no record beside it ({beside.name}), which is needed to describe an engine",
            "edgekit export --target DEVICE builds engines with a record",
        )
    content = files.load_json(beside)
    record: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        name = visible(str(key))[:_MOST_TEXT]
        if isinstance(value, bool | int | float | None):
            record[name] = value
        elif isinstance(value, str):
            record[name] = visible(value)[:_MOST_TEXT]
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            record[name] = visible(", ".join(value[:100]))[:_MOST_TEXT]
        elif key == "placement" and isinstance(value, dict):
            record.update({f"layers: {k}": len(v) for k, v in value.items() if isinstance(v, list)})
    return record


def _folders(path: Path) -> list[Path]:
    """Return folders that may hold the manifest: the file's, and for ``engines/<device>/`` that of the export."""
    parents = list(path.resolve().parents)
    return [parents[0], *(parents[2:3] if len(parents) > 2 and parents[1].name == "engines" else [])]


def _from_manifest(manifest: Path, path: Path, sha256: str) -> dict[str, Any]:
    from edgekit.api.artifacts import SCHEMA, load_artifacts

    document = files.load_document(manifest, SCHEMA, "artifacts", "run", "checkpoint_sha256")
    artifacts = load_artifacts(manifest.parent)
    same = next((a for a in artifacts if a.sha256 == sha256), None)
    named = next((a for a in artifacts if a.file == path.name), None)
    artifact = same or named
    if artifact is None:
        return {"file": f"not listed in {manifest}"}
    state = "as exported" if same is not None else f"changed since export, when its hash was {artifact.sha256}"
    found: dict[str, Any] = {"file": state, "artifact": artifact.name}
    found.update({name: document.get(key) for name, key in _MANIFEST_KEYS.items()})
    facts = {**found, **_artifact_facts(artifact), **found}  # the artifact's details replace nothing
    return {key: _plain(value) for key, value in facts.items() if value not in (None, "", (), [])}


def _artifact_facts(artifact: Artifact) -> dict[str, Any]:
    details = {key.replace("_", " "): value for key, value in artifact.details.items()}
    return {"precision": artifact.precision, "input": artifact.input, "layout": artifact.layout, **details}


def _from_sidecar(path: Path, sha256: str) -> dict[str, Any]:
    """Return the facts of a file in ``export/common``, which has a record beside it."""
    beside = path.with_name(path.name + ".json")
    try:
        content = files.load_json(beside)
    except EdgekitError:
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("sha256"), str):
        return {}
    state = (
        "as exported" if content["sha256"] == sha256 else f"changed since export, when its hash was {content['sha256']}"
    )
    return {"file": _plain(state), "checkpoint sha256": _plain(content.get("parent"))}


def _plain(value: Any) -> Any:
    """Return numbers unchanged, and anything else as short printable text."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value[:100]))
    return value if isinstance(value, bool | int | float) else visible(str(value))[:_MOST_TEXT]


def find_file(model: str, run: str | None, runs_dir: Path) -> Path:
    """Return the path of a model file or of an artifact."""
    if run is None and Path(model).is_file():
        if Path(model).suffix not in _SUFFIXES:
            raise UsageError(f"{model} is not a model file", f"edgekit inspect reads {', '.join(_SUFFIXES)}")
        return Path(model)
    from edgekit.api.artifacts import load_artifacts

    try:
        opened = choose_run(runs_dir, run)
    except MissingError as error:
        raise (
            error if run is not None else MissingError(f"there is no file {model!r}, and no run", error.hint)
        ) from None
    known = {}
    for manifest in sorted((opened.path / "export").glob("[!.]*/manifest.json")):
        known.update({a.name: manifest.parent / a.file for a in load_artifacts(manifest.parent)})
    if not known:
        raise MissingError(f"{opened.name} is not exported yet", f"edgekit export {opened.handle} --target android")
    if model not in known:
        raise unknown("file or artifact", model, sorted(known))
    if not known[model].is_file():
        raise MissingError(
            f"{known[model]} does not exist any more",
            f"edgekit export {opened.handle} --target {quote(model.split('/')[0])}",
        )
    return known[model]


def read_file(path: Path) -> tuple[Contents, list[Verdict]]:
    """Return the contents of a model file, and the operators that each delegate does not run."""
    from edgekit.targets import delegates, read_onnx, read_tflite

    if path.suffix == ".onnx":
        return read_onnx.read(path), []
    contents = read_tflite.read(path)
    return contents, delegates.verdicts(contents)


def plain_contents(contents: Contents, verdicts: list[Verdict], ops: bool) -> dict[str, Any]:
    """Return the contents as plain values, for JSON."""
    from edgekit.targets import contents as figures
    from edgekit.targets.delegates import DELEGATES

    kinds = [
        {"op": kind, "types": types, "count": n, "macs": macs} for kind, types, n, macs in figures.kinds(contents.ops)
    ]
    plain: dict[str, Any] = {
        "form": contents.form,
        "about": contents.about,
        "metadata": contents.metadata,
        "inputs": [_tensor(t) for t in contents.inputs],
        "outputs": [_tensor(t) for t in contents.outputs],
        "signatures": contents.signatures,
        "kinds": kinds,
        "macs": figures.macs(contents),
        "weight_bytes": figures.weight_bytes(contents),
        "largest": [{"name": t.name, "type": t.kind, "bytes": t.nbytes} for t in figures.largest(contents, LARGEST)],
        "delegates": [{**asdict(v), "source": DELEGATES[v.delegate].source, "verified": False} for v in verdicts],
    }
    if ops:
        plain["ops"] = [
            {
                "index": op.index,
                "op": op.kind,
                "types": op.signature,
                "macs": op.macs,
                "inputs": [t.name if t else None for t in op.inputs],
                "outputs": [t.name for t in op.outputs],
                "leaves": {name: why for name, row in DELEGATES.items() if verdicts and (why := row.rejects(op))},
            }
            for op in contents.ops
        ]
    return plain


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "type": tensor.dtype,
        "scale": tensor.scales[0] if len(tensor.scales) == 1 else None,
        "zero_point": tensor.zero_points[0] if len(tensor.zero_points) == 1 else None,
        "range": tensor.real_range,
    }

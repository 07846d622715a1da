"""TensorRT engines, built on the device that runs them and kept beside the ONNX files.

The files are ``export/<target>/engines/<device>/model.<precision>.engine`` and, written last, ``.engine.json``, which
records what the engine was built from, and by what.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgekit import environment, files, validation
from edgekit.bench.session import Model
from edgekit.devices.jobs import Job
from edgekit.devices.transport import Transport
from edgekit.errors import DataError, MissingError
from edgekit.files import save_bytes, save_json, scratch, writing
from edgekit.labels import visible
from edgekit.records import Artifact, Device

_TYPED, _CACHE = ".typed.onnx", "model.int8.dla.cache"
_MOST_TEXT, _MOST_LAYERS = 200, 2000
# Builder of an engine -> runtime that runs it.
RUNTIMES = {"api": "tensorrt", "trtexec": "trtexec"}
# Fields of a record that are compared on the device when the engine is loaded.
_FIT = ("tensorrt", "compute_capability", "machine", "dla_core")


@dataclass(frozen=True)
class _Record:
    """Required fields of the record of an engine."""

    tensorrt: str
    builder: Literal["api", "trtexec"]
    precision: str
    flags: str
    onnx: str
    onnx_sha256: str
    engine_sha256: str


@dataclass(frozen=True)
class Kit:
    """ONNX files of one precision and target; the TensorRT of the device decides which of them is built.

    Attributes:
        files: name in the job -> artifact, and the file to build: that of the artifact, or one made of it.
        folder: of the export.
    """

    precision: str
    folder: Path
    files: dict[str, tuple[Artifact, Path]]


@dataclass(frozen=True)
class Engine:
    """A built engine: its file, its record, and the artifact that it was built from."""

    path: Path
    record: dict[str, Any]
    source: Artifact

    @property
    def fits(self) -> dict[str, Any]:
        """The fields of the record that must be the same where the engine is loaded."""
        return {name: self.record[name] for name in _FIT if self.record.get(name) is not None}


def kits(work: list[tuple[Artifact, Path]]) -> list[Kit]:
    """Group the artifacts for TensorRT by target and precision."""
    found: dict[tuple[str, str], Kit] = {}
    plain = {a.target: (a, path) for a, path in work if a.runtime == "tensorrt" and a.precision == "fp32"}
    for artifact, path in work:
        if artifact.runtime != "tensorrt":
            continue
        kit = found.setdefault((artifact.target, artifact.precision), Kit(artifact.precision, path.parent, {}))
        kit.files["typed_onnx" if artifact.name.endswith(_TYPED) else "onnx"] = artifact, path
        if artifact.precision == "int8" and artifact.target in plain and (path.parent / _CACHE).is_file():
            kit.files["plain_onnx"] = plain[artifact.target]
    return [kit for kit in found.values() if "onnx" in kit.files]


def find(kit: Kit, device: Device) -> Engine | None:
    """Return the engine that was built for `device` from these files and is unchanged, or None."""
    path = _engine_path(kit, device)
    try:
        record = files.load_json(path.with_name(path.name + ".json"))
    except (MissingError, DataError):
        return None
    if not validation.fits(record, _Record):
        return None
    source = _source(kit, record["onnx_sha256"])
    is_whole = path.is_file() and files.sha256_file(path) == record["engine_sha256"]
    is_alike = (record.get("dla_core"), record.get("workspace_mb")) == (device.dla_core, device.workspace_mb)
    is_alike = is_alike and (not device.trtexec or record["builder"] == "trtexec")
    return Engine(path, record, source) if source is not None and is_whole and is_alike else None


def in_batches(kit: Kit, device: Device, rewrite: Callable[[Path, int], bytes]) -> Kit:
    """Return the kit for the batch size of the device: the same artifacts, their files rewritten beside its engines.

    Args:
        rewrite: takes a file of batch 1 and a batch size, returns the file for that batch size.
    """
    if device.batch == 1:
        return kit
    files = {}
    for name, (artifact, path) in kit.files.items():
        batched = _engine_path(kit, device).with_name(f"{path.stem}.batch{device.batch}{path.suffix}")
        content = rewrite(path, device.batch)
        if not batched.is_file() or batched.read_bytes() != content:
            save_bytes(batched, content)
        files[name] = artifact, batched
    return replace(kit, files=files)


def build(kit: Kit, device: Device, transport: Transport) -> Engine:
    """Build an engine on the device, and keep it with its record in the export.

    Raises:
        EdgekitError: it cannot be built there. DataError: the reply of the device is not an engine of this kit.
    """
    settings: dict[str, Any] = {
        "do": "build",
        "precision": kit.precision,
        "trtexec": device.trtexec,
        "dla_core": device.dla_core,
        "workspace_mb": device.workspace_mb,
    }
    files = {}
    for name, (_, path) in kit.files.items():
        settings[name] = f"model.{name}"
        files[f"model.{name}"] = path
    if device.dla_core is not None and (kit.folder / _CACHE).is_file():
        settings["calibration"] = "model.cache"
        files["model.cache"] = kit.folder / _CACHE
    with scratch() as work:
        transport.run(Job(settings, files), work)
        record, source = _read_record(work, kit, device)
        path = _engine_path(kit, device)
        with writing(path) as temporary:
            temporary.write_bytes((work / "model.engine").read_bytes())
        with writing(path.with_name(path.name + ".log")) as temporary:
            log = (work / "build.log").read_text(encoding="utf-8", errors="replace")
            temporary.write_text("\n".join(visible(line) for line in log.splitlines()) + "\n", encoding="utf-8")
    save_json(path.with_name(path.name + ".json"), record)
    return Engine(path, record, source)


def as_model(engine: Engine, device: Device) -> Model:
    """Return an engine as a model, to be run by its builder."""
    options = {
        "built": engine.fits,
        "dla_core": device.dla_core,
        "cuda_graph": device.cuda_graph and device.dla_core is None,  # NVIDIA/TensorRT issue 3524
        "trtexec": device.trtexec,
    }
    return Model(engine.source, engine.path, RUNTIMES[engine.record["builder"]], options)


def _engine_path(kit: Kit, device: Device) -> Path:
    return kit.folder / "engines" / device.name / f"model.{kit.precision}.engine"


def _source(kit: Kit, digest: str) -> Artifact | None:
    """Return the artifact whose built file has this hash; INT8 of a DLA is built from the FP32 file."""
    name = next((name for name, (_, path) in kit.files.items() if files.sha256_file(path) == digest), None)
    return None if name is None else kit.files["onnx" if name == "plain_onnx" else name][0]


def _read_record(work: Path, kit: Kit, device: Device) -> tuple[dict[str, Any], Artifact]:
    """Return the checked record of a build job, and the artifact that was built."""
    where, hint = f"{device.name} sent a record of its engine that cannot be read", "the same command again"
    try:
        reply = json.loads((work / "result.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(where, hint) from None
    required: _Record = validation.convert(reply, _Record, where, hint)
    source = _source(kit, required.onnx_sha256)
    if source is None or files.sha256_file(work / "model.engine") != required.engine_sha256:
        raise DataError(f"{device.name} sent an engine of another model", "the same command again")
    record: dict[str, Any] = {
        visible(str(k))[:_MOST_TEXT]: environment.plain(v) for k, v in reply.items() if k != "placement"
    }
    file = next(path.name for _, path in kit.files.values() if files.sha256_file(path) == required.onnx_sha256)
    record.update(onnx=file, exported_sha256=source.sha256, workspace_mb=device.workspace_mb, made=files.now())
    if isinstance(reply.get("placement"), dict):
        record["placement"] = {k: _names(reply["placement"].get(k)) for k in ("dla", "gpu", "refused")}
    return record, source


def _names(value: Any) -> list[str]:
    """Return a list of names, short and printable."""
    return [visible(str(name))[:_MOST_TEXT] for name in value[:_MOST_LAYERS]] if isinstance(value, list) else []

"""Export: which files a target gets, and how its folder is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit import __version__, atomic, store
from edgekit.cli import show
from edgekit.cli.workbench import Workbench
from edgekit.config import from_table
from edgekit.errors import DataError, StorageError
from edgekit.records import PRECISIONS, Artifact
from edgekit.targets import base

SCHEMA = 1
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-quantizer", "numpy")


def export_target(bench: Workbench, resolved: base.Resolved, precisions: tuple[str, ...]) -> dict[str, Any]:
    """Write ``export/<target>/`` whole; precisions exported before from this checkpoint stay."""
    folder = bench.run.path / "export" / resolved.name
    atomic.recover(folder)
    assert bench.onnx  # every export has the FP32 ONNX files, in export/common
    kept = _kept_artifacts(bench, folder, precisions)
    with atomic.writing_folder(folder) as staging:
        for artifact in kept:
            shutil.copy2(folder / artifact.file, staging)
        artifacts = list(kept)
        for precision in precisions:
            for name, details in EMITTERS[resolved.target.suffix, precision](bench, staging, resolved):
                artifacts.append(_artifact(bench, resolved, precision, staging / name, details))
        artifacts.sort(key=lambda a: (PRECISIONS.index(a.precision), a.name))
        manifest = _manifest(bench, resolved, artifacts)
        store.save_json(staging / "preprocess.json", bench.checkpoint.preprocess)
        (staging / "labels.txt").write_text("\n".join(bench.checkpoint.labels) + "\n", encoding="utf-8")
        _keep_engines(folder, staging, artifacts)
        base.package(resolved)(staging, artifacts, resolved.device)
        store.save_json(staging / "manifest.json", manifest)
    for artifact in artifacts:
        show.note(f"  {folder / artifact.file}  {(folder / artifact.file).stat().st_size / 1e6:.1f} MB")
    return manifest


def _artifact(
    bench: Workbench, resolved: base.Resolved, precision: str, path: Path, details: dict[str, Any]
) -> Artifact:
    if precision == "int8":
        table = bench.table
        lineage = {"recipe": table.recipe, "observer": table.observer, "samples": table.samples}
        made = {"steps": bench.quantized.steps, "float_layers": bench.quantized.float_layers}
        details = {**lineage, **made, "calibration_sha256": store.sha256_file(bench.table_path), **details}
    return Artifact(
        name=f"{resolved.name}/{path.name}",
        target=resolved.name,
        precision=precision,
        runtime=resolved.target.runtime,
        layout=resolved.target.layout,
        sha256=store.sha256_file(path),
        parent=bench.checkpoint.sha256,
        details=details,
    )


def _manifest(bench: Workbench, resolved: base.Resolved, artifacts: list[Artifact]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "created": store.now(),
        "run": bench.run.name,
        "arch": bench.checkpoint.arch,
        "checkpoint_sha256": bench.checkpoint.sha256,
        "target": resolved.name,
        "family": resolved.family,
        "versions": {p: metadata.version(p) for p in _PACKAGES if _is_there(p)},
        "labels": bench.checkpoint.labels,
        "preprocess": bench.checkpoint.preprocess,
        "artifacts": artifacts,
    }


def _is_there(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def _kept_artifacts(bench: Workbench, folder: Path, replaced: tuple[str, ...]) -> list[Artifact]:
    """The artifacts of an earlier export that this one does not make again and that are unharmed."""
    if not (folder / "manifest.json").is_file():
        return []
    return [
        artifact
        for artifact in load_artifacts(folder)
        if artifact.precision not in replaced
        and artifact.parent == bench.checkpoint.sha256
        and (path := folder / artifact.file).is_file()
        and store.sha256_file(path) == artifact.sha256
    ]


def _keep_engines(folder: Path, staging: Path, artifacts: list[Artifact]) -> None:
    """Engines that were built from files that stay the same stay too."""
    for record in (folder / "engines").glob("*/*.engine.json"):
        try:
            content = store.load_json(record)
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
    return [
        from_table(entry, Artifact, str(path)) for entry in store.load_document(path, SCHEMA, "artifacts")["artifacts"]
    ]


def current_artifacts(run: store.Run, checkpoint_sha256: str) -> list[Artifact]:
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


# An emitter writes the files of one precision into a folder: (file name, details) for each.
Emitted = list[tuple[str, dict[str, Any]]]


def _copy(source: Path, folder: Path, name: str) -> Emitted:
    shutil.copyfile(source, folder / name)
    return [(name, {})]


def _onnx_fp16(bench: Workbench, folder: Path, resolved: base.Resolved) -> Emitted:
    import onnx_ir

    from edgekit.export import onnx
    from edgekit.quant import fp16

    model = onnx_ir.load(bench.onnx)
    kept = fp16.to_fp16(model, *bench.observed_onnx)
    onnx.save(model, folder / "model.fp16.onnx")
    return [("model.fp16.onnx", {"float32_nodes": kept} if kept else {})]


def _onnx_int8(bench: Workbench, folder: Path, resolved: base.Resolved) -> Emitted:
    """For TensorRT twice: float32 between the INT8 parts (8.5 to 10.11), and float16 (10.12 on)."""
    import onnx_ir

    from edgekit.export import onnx
    from edgekit.quant import exchange, fp16, qdq

    model = onnx_ir.load(bench.onnx)
    for_tensorrt = resolved.target.runtime == "tensorrt"
    everywhere = bench.symmetric and for_tensorrt
    nodes = qdq.quantize(model, bench.quantized, bench.onnx_naming, everywhere)
    onnx.save(model, folder / "model.int8.onnx")
    unoptimized = {"host_runtime": "onnxruntime-unoptimized"}  # its optimizer computes such files wrongly
    emitted: Emitted = [("model.int8.onnx", {"int8_nodes": len(nodes), **(unoptimized if everywhere else {})})]
    if for_tensorrt:
        # For DLAs, which know no Q/DQ before TensorRT 11.
        cache = exchange.tensorrt_cache(bench.table, bench.onnx_naming.tensors)
        (folder / "model.int8.dla.cache").write_text(cache, encoding="utf-8")
        fp16.to_fp16(model, *bench.observed_onnx)
        onnx.save(model, folder / "model.int8.typed.onnx")
        emitted.append(("model.int8.typed.onnx", {"for": "TensorRT 10.12 and newer", **unoptimized}))
    return emitted


def _tflite_fp16(bench: Workbench, folder: Path, resolved: base.Resolved) -> Emitted:
    from edgekit.export.tflite import quiet
    from edgekit.quant import litert

    with quiet():
        litert.to_fp16(bench.tflite, folder / "model.fp16.tflite")
    return [("model.fp16.tflite", {})]


def _tflite_int8(bench: Workbench, folder: Path, resolved: base.Resolved) -> Emitted:
    from edgekit.export.tflite import quiet
    from edgekit.quant import litert

    source, quantized, naming = bench.tflite, bench.quantized, bench.tflite_naming
    with quiet():
        litert.quantize(source, quantized, naming, folder / "model.int8.tflite")
    return [("model.int8.tflite", {})]


EMITTERS: dict[tuple[str, str], Callable[[Workbench, Path, base.Resolved], Emitted]] = {
    (".onnx", "fp32"): lambda bench, folder, _: _copy(bench.onnx, folder, "model.fp32.onnx"),
    (".onnx", "fp16"): _onnx_fp16,
    (".onnx", "int8"): _onnx_int8,
    (".tflite", "fp32"): lambda bench, folder, _: _copy(bench.tflite, folder, "model.fp32.tflite"),
    (".tflite", "fp16"): _tflite_fp16,
    (".tflite", "int8"): _tflite_int8,
}

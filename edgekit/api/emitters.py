"""Export: how each file is made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.api.intermediates import Intermediates
from edgekit.errors import ParityError
from edgekit.records import Preprocess
from edgekit.targets import base


@dataclass(frozen=True)
class Emitted:
    """A file that an emitter wrote: its name, what is to be known of it, and what its input takes."""

    file: str
    details: dict[str, Any] = field(default_factory=dict)
    input: str = "float32"


# Writes the files of one precision into a folder.
Emitter = Callable[[Intermediates, Path, base.Resolved], list[Emitted]]


def _onnx_fp32(bench: Intermediates, folder: Path, resolved: base.Resolved) -> list[Emitted]:
    shutil.copyfile(bench.onnx, folder / "model.fp32.onnx")
    return [Emitted("model.fp32.onnx")]


def _onnx_fp16(bench: Intermediates, folder: Path, resolved: base.Resolved) -> list[Emitted]:
    import onnx_ir

    from edgekit.convert import onnx
    from edgekit.quant import fp16

    model = onnx_ir.load(bench.onnx)
    kept = fp16.to_fp16(model, *bench.observed_onnx)
    onnx.save(model, folder / "model.fp16.onnx")
    return [Emitted("model.fp16.onnx", {"float32_nodes": kept} if kept else {})]


def _onnx_int8(bench: Intermediates, folder: Path, resolved: base.Resolved) -> list[Emitted]:
    """For TensorRT twice: float32 between the INT8 parts (8.5 to 10.11), and float16 (10.12 on)."""
    import onnx_ir

    from edgekit.convert import onnx
    from edgekit.quant import formats, fp16, qdq

    model = onnx_ir.load(bench.onnx)
    for_tensorrt = resolved.target.runtime == "tensorrt"
    everywhere = bench.symmetric and for_tensorrt
    nodes = qdq.quantize(model, bench.quantized, bench.onnx_naming, everywhere)
    onnx.save(model, folder / "model.int8.onnx")
    unoptimized = {"host_runtime": "onnxruntime-unoptimized"}  # its optimizer computes such files wrongly
    emitted = [Emitted("model.int8.onnx", {"int8_nodes": len(nodes), **(unoptimized if everywhere else {})})]
    if for_tensorrt:
        # For DLAs, which know no Q/DQ before TensorRT 11.
        cache = formats.tensorrt_cache(bench.table, bench.onnx_naming.tensors)
        (folder / "model.int8.dla.cache").write_text(cache, encoding="utf-8")
        fp16.to_fp16(model, *bench.observed_onnx)
        onnx.save(model, folder / "model.int8.typed.onnx")
        emitted.append(Emitted("model.int8.typed.onnx", {"for": "TensorRT 10.12 and newer", **unoptimized}))
    return emitted


def _tflite(precision: str, bench: Intermediates, folder: Path, resolved: base.Resolved) -> list[Emitted]:
    """The file as its precision has it, then what goes in and out, then the metadata."""
    from edgekit.convert.tflite import quiet
    from edgekit.quant import litert, litert_io
    from edgekit.quantization import Border

    path = folder / f"model.{precision}.tflite"
    source = bench.tflite
    if precision == "fp32":
        shutil.copyfile(source, path)
    elif precision == "fp16":
        with quiet():
            litert.to_fp16(source, path)
    else:
        quantized = bench.quantized if precision == "int8" else bench.weights_only
        naming = bench.tflite_naming
        with quiet():
            litert.quantize(source, quantized, naming, path, precision)
    border = bench.border if precision == "int8" else Border(bench.border.input)
    rounded = precision not in ("fp32", "fp16") and not (precision == "int8" and _begins_in_float(bench))
    rewritten = bench.quantized.rewritten if precision == "int8" else {}
    first = bench.first_layer(rounded, rewritten) if border.input != "float32" else None
    preprocess, before = bench.checkpoint.preprocess, path.read_bytes()
    path.write_bytes(litert_io.rewrite(before, border, preprocess, first, bench.tflite_naming))
    _check(before, path, border.input, preprocess, precision)
    details = {"output": border.output}
    if first is not None:
        details["first_layer"] = "on pixels"
    return [Emitted(path.name, details, border.input)]


def _begins_in_float(bench: Intermediates) -> bool:
    """Whether the first layer of the INT8 file stays in floating point."""
    return next(iter(bench.quantized.layers.values())).scales is None


# How far the answers of a file may move, relative to the largest, when its input becomes bytes: in quantized files the
# first layer is another one.
_MAY_MOVE = {"fp32": 1e-3, "fp16": 1e-2}
_MAY_MOVE_ROUNDED = 0.5


def _check(before: bytes, path: Path, taken: str, preprocess: Preprocess, precision: str) -> None:
    """Compare a file with what it was before, on one seeded random image.

    Raises:
        ParityError: they do not agree.
    """
    import numpy as np

    from edgekit.convert.tflite import quiet
    from edgekit.ondevice.preprocess import prepare
    from edgekit.ondevice.runner import open_runner

    size = preprocess.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    feed = {"mean": preprocess.mean, "std": preprocess.std, "layout": "NHWC"}
    answers = []
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch, quiet():
        plain = Path(scratch) / "before.tflite"
        plain.write_bytes(before)
        for file, kind in ((plain, "float32"), (path, taken)):
            runner = open_runner("litert", str(file), 1)
            answers.append(runner.infer(prepare(pixels, {**feed, "input": kind})))
            runner.close()
    moved = float(np.abs(answers[1] - answers[0]).max() / (np.abs(answers[0]).max() + 1e-12))
    allowed = _MAY_MOVE.get(precision, _MAY_MOVE_ROUNDED)
    if not moved <= allowed:
        raise ParityError(
            f"{path.name} with {taken} input answers otherwise than before, by {moved:.2g} (relative), "
            f"allowed {allowed:g}",
            "--input float",
        )


EMITTERS: dict[tuple[str, str], Emitter] = {
    (".onnx", "fp32"): _onnx_fp32,
    (".onnx", "fp16"): _onnx_fp16,
    (".onnx", "int8"): _onnx_int8,
    **{(".tflite", p): partial(_tflite, p) for p in ("fp32", "fp16", "int8", "w8", "16x8")},
}

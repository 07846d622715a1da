"""Emitters: write the files of one precision for a target."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgekit import files, progress
from edgekit.api.intermediates import Intermediates
from edgekit.errors import ParityError
from edgekit.quantization import (
    LITERT_SCHEME,
    STRICT_TENSORRT_SCHEME,
    TENSORRT_SCHEME,
    QuantizedModel,
    QuantScheme,
)
from edgekit.records import Preprocess
from edgekit.targets import base


@dataclass(frozen=True)
class Emitted:
    """A file that an emitter wrote.

    Attributes:
        file: its name. details: for the manifest. input: the type of its input, a key of `INPUTS`.
    """

    file: str
    details: dict[str, Any] = field(default_factory=dict)
    input: str = "float32"


# Writes the files of one precision into a folder. INT8 files hold the quantized model that is given, if one is, instead
# of the run's own.
Emitter = Callable[[Intermediates, Path, base.Resolved, QuantizedModel | None], list[Emitted]]


def _onnx_fp32(
    intermediates: Intermediates, folder: Path, resolved: base.Resolved, quantized: QuantizedModel | None
) -> list[Emitted]:
    shutil.copyfile(intermediates.onnx, folder / "model.fp32.onnx")
    return [Emitted("model.fp32.onnx")]


def _onnx_fp16(
    intermediates: Intermediates, folder: Path, resolved: base.Resolved, quantized: QuantizedModel | None
) -> list[Emitted]:
    import onnx_ir

    from edgekit.convert import onnx
    from edgekit.quant import fp16

    model = onnx_ir.load(intermediates.onnx)
    kept = fp16.to_fp16(model, *intermediates.observed_onnx)
    onnx.save(model, folder / "model.fp16.onnx")
    return [Emitted("model.fp16.onnx", {"float32_nodes": kept} if kept else {})]


def _onnx_int8(
    intermediates: Intermediates, folder: Path, resolved: base.Resolved, quantized: QuantizedModel | None
) -> list[Emitted]:
    """Write two files for TensorRT: float32 between the INT8 parts (8.5 to 10.11), and float16 (10.12 on)."""
    import onnx_ir

    from edgekit.convert import onnx
    from edgekit.quant import formats, fp16, qdq

    model = onnx_ir.load(intermediates.onnx)
    for_tensorrt = resolved.target.runtime == "tensorrt"
    everywhere = intermediates.symmetric and for_tensorrt
    chosen = quantized or intermediates.quantized
    nodes = qdq.quantize(model, chosen, intermediates.onnx_naming, everywhere)
    onnx.save(model, folder / "model.int8.onnx")
    # Its optimizer rounds the float weights of such a file, per tensor.
    unoptimized = {"host_runtime": "onnxruntime-unoptimized"} if everywhere else {}
    staying = _left_float(intermediates, chosen, STRICT_TENSORRT_SCHEME if everywhere else TENSORRT_SCHEME, resolved)
    emitted = [Emitted("model.int8.onnx", {"int8_nodes": len(nodes), **staying, **unoptimized})]
    if for_tensorrt:
        # For DLAs, which know no Q/DQ before TensorRT 11.
        cache = formats.tensorrt_cache(intermediates.table, intermediates.onnx_naming.tensors)
        (folder / "model.int8.dla.cache").write_text(cache, encoding="utf-8")
        fp16.to_fp16(model, chosen.table, intermediates.onnx_naming.tensors)
        onnx.save(model, folder / "model.int8.typed.onnx")
        emitted.append(Emitted("model.int8.typed.onnx", {"for": "TensorRT 10.12 and newer", **staying}))
    return emitted


def _left_float(
    intermediates: Intermediates,
    model: QuantizedModel,
    native: QuantScheme,
    resolved: base.Resolved,
    lost: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what INT8 files leave in floating point, for the manifest; note it where operators are the reason."""
    left = intermediates.left_float(model, native, lost)
    if left.others:
        progress.note(f"{resolved.name}: INT8 leaves {left}")
    return {"float_macs": round(left.macs, 4), "float_multiplying": left.multiplying, "float_others": left.others}


def _tflite(
    precision: str,
    intermediates: Intermediates,
    folder: Path,
    resolved: base.Resolved,
    quantized: QuantizedModel | None,
) -> list[Emitted]:
    """Write the file in its precision, then change the types of its input and output."""
    from edgekit.convert.tflite import quiet, takes_batches
    from edgekit.quant import litert, litert_io
    from edgekit.quantization import Border

    path, source = folder / f"model.{precision}.tflite", intermediates.tflite
    is_rounded, rewritten = precision not in ("fp32", "fp16"), {}
    details: dict[str, Any] = {}
    if precision == "fp32":
        shutil.copyfile(source, path)
    elif precision == "fp16":
        with quiet():
            litert.to_fp16(source, path)
    else:
        model = (quantized or intermediates.quantized) if precision == "int8" else intermediates.weights_only
        naming = intermediates.tflite_naming
        with quiet():
            lost = litert.quantize(source, model, naming, path, precision)
        if lost:
            progress.note(f"{path.name}: in floating point, because not found in the LiteRT file: {', '.join(lost)}")
        if precision == "int8":
            is_rounded, rewritten = next(iter(model.layers.values())).scales is not None, model.rewritten
            details = _left_float(intermediates, model, LITERT_SCHEME, resolved, lost)
    border = intermediates.border if precision == "int8" else Border(intermediates.border.input)
    first = intermediates.first_layer(is_rounded, rewritten) if border.input != "float32" else None
    preprocess, before = intermediates.checkpoint.preprocess, path.read_bytes()
    path.write_bytes(litert_io.rewrite(before, border, preprocess, first, intermediates.tflite_naming))
    _check_answers(before, path, border.input, preprocess, precision)
    details["output"] = border.output
    if not takes_batches(path):
        details["batch"] = 1
    if first is not None:
        details["first_layer"] = "on pixels"
    return [Emitted(path.name, details, border.input)]


# The largest change of a file's answers, relative to the largest of them, when its input becomes bytes. In quantized
# files the first layer is rounded anew.
_MAY_MOVE = {"fp32": 1e-3, "fp16": 1e-2}
_MAY_MOVE_ROUNDED = 0.5


def _check_answers(before: bytes, path: Path, input_type: str, preprocess: Preprocess, precision: str) -> None:
    """Compare a file with its content before the change of its input, on one seeded random image.

    Raises:
        ParityError: the answers differ by more than allowed.
    """
    import numpy as np

    from edgekit.convert.tflite import quiet
    from edgekit.ondevice.preprocess import prepare
    from edgekit.ondevice.runner import open_runner

    size = preprocess.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    feed = {"mean": preprocess.mean, "std": preprocess.std, "layout": "NHWC"}
    answers = []
    with files.scratch() as scratch, quiet():
        plain = scratch / "before.tflite"
        plain.write_bytes(before)
        for file, kind in ((plain, "float32"), (path, input_type)):
            runner = open_runner("litert", str(file), 1)
            answers.append(runner.infer(prepare(pixels, {**feed, "input": kind})))
            runner.close()
    moved = float(np.abs(answers[1] - answers[0]).max() / (np.abs(answers[0]).max() + 1e-12))
    allowed = _MAY_MOVE.get(precision, _MAY_MOVE_ROUNDED)
    if not moved <= allowed:
        raise ParityError(
            f"{path.name} with {input_type} input differs from the file with float input by {moved:.2g} (relative), "
            f"allowed {allowed:g}",
            "--input float",
        )


EMITTERS: dict[tuple[str, str], Emitter] = {
    (".onnx", "fp32"): _onnx_fp32,
    (".onnx", "fp16"): _onnx_fp16,
    (".onnx", "int8"): _onnx_int8,
    **{(".tflite", p): partial(_tflite, p) for p in ("fp32", "fp16", "int8", "w8", "16x8")},
}

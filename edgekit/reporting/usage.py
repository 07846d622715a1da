"""Short programs that classify one picture with a shipped file: what a model card shows under "How to use"."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Gates, Summary
from edgekit.records import Artifact, Preprocess
from edgekit.reporting.decide import BUDGET, Decision

_ONNX = """options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.x64quantprecision", "1")  # or INT8 is wrong on x86 CPUs without VNNI
session = onnxruntime.InferenceSession({file!r}, options, providers=["CPUExecutionProvider"])
scores = session.run(["scores"], {{"image": values}})[0][0]"""
# The optimizer of ONNX Runtime does not keep every such file as it was written.
_ONNX_AS_WRITTEN = """options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession({file!r}, options, providers=["CPUExecutionProvider"])
scores = session.run(["scores"], {{"image": values}})[0][0]"""
_LITERT = """model = Interpreter({file!r})
model.allocate_tensors()
given, output = model.get_input_details()[0], model.get_output_details()[0]
model.set_tensor(given["index"], values)
model.invoke()
scores = model.get_tensor(output["index"])[0].astype(np.float64)
scale, zero = output["quantization"]
if scale:  # integers
    scores = scale * (scores - zero)"""


def shipped(decisions: Sequence[Decision], rows: Sequence[Summary], gates: Gates) -> list[str]:
    """Return the names of the files to ship; of a target without a decision, the smallest that is accurate enough."""
    budget = BUDGET if gates.max_drop is None else gates.max_drop
    found = [d.chosen.artifact for d in decisions if d.chosen]
    targets = {name.partition("/")[0] for name in found}
    for row in sorted(rows, key=lambda row: row.size_mb):
        target = row.artifact.partition("/")[0]
        if not row.baseline and row.loss <= budget and target not in targets:
            found.append(row.artifact)
            targets.add(target)
    return list(dict.fromkeys(found))


def program(artifact: Artifact, preprocess: Preprocess) -> str | None:
    """Return a Python program that prints the best class of photo.jpg; None for a file that it cannot open.

    It needs numpy, Pillow and the runtime, and is run in the file's folder, where labels.txt lies.
    """
    if artifact.file.endswith(".onnx"):
        imported, opened = "import onnxruntime", _ONNX_AS_WRITTEN if "host_runtime" in artifact.details else _ONNX
    elif artifact.file.endswith(".tflite"):
        imported, opened = "from ai_edge_litert.interpreter import Interpreter", _LITERT
    else:
        return None
    numpy, pillow = "import numpy as np", "from PIL import Image, ImageOps"
    imports = [imported, numpy, pillow] if imported.startswith("from ai") else [numpy, imported, pillow]
    lines = [
        *imports,
        "",
        'picture = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")',
        f'below = Image.new("RGBA", picture.size, {(*preprocess.colour, 255)})',
        'picture = Image.alpha_composite(below, picture).convert("RGB")',
        *_fitted(preprocess),
        *_values(artifact, preprocess),
        "",
        opened.format(file=artifact.file),
        'labels = open("labels.txt", encoding="utf-8").read().rstrip("\\n").split("\\n")',
        "print(labels[int(scores.argmax())])",
    ]
    return "\n".join(lines)


def _fitted(preprocess: Preprocess) -> list[str]:
    """Return the lines from `picture` to a square; in one call, versions of Pillow order the passes differently."""
    size, kernel = preprocess.image_size, f"Image.Resampling.{preprocess.resample.upper()}"
    across_first = "# across first, then down: one call would leave the order to the version of Pillow"
    if preprocess.resize == "squash":
        return [
            across_first,
            f"picture = picture.resize(({size}, picture.height), {kernel}).resize(({size}, {size}), {kernel})",
        ]
    if preprocess.resize == "letterbox":
        return [
            "longest = max(picture.size)",
            f"sides = [max(1, (2 * side * {size} + longest) // (2 * longest)) for side in picture.size]",
            across_first,
            f"picture = picture.resize((sides[0], picture.height), {kernel}).resize(sides, {kernel})",
            f'square = Image.new("RGB", ({size}, {size}), {preprocess.colour})',
            f"square.paste(picture, [({size} - side) // 2 for side in sides])",
            "picture = square",
        ]
    return [
        f"halves = [min(min(picture.size) * {size} / {preprocess.resize_size}, side) / 2 for side in picture.size]",
        "left, top = (side / 2 - half for side, half in zip(picture.size, halves))",
        "right, bottom = (side / 2 + half for side, half in zip(picture.size, halves))",
        across_first,
        f"picture = picture.resize(({size}, picture.height), {kernel}, box=(left, 0, right, picture.height))",
        f"picture = picture.resize(({size}, {size}), {kernel}, box=(0, top, {size}, bottom))",
    ]


def _values(artifact: Artifact, preprocess: Preprocess) -> list[str]:
    """Return the lines from `picture` to the input tensor `values`."""
    order = ".transpose(2, 0, 1)" if artifact.layout == "NCHW" else ""
    if artifact.input == "uint8":
        return [f"values = np.asarray(picture){order}[None]  # RGB bytes"]
    if artifact.input == "int8":
        return [f"values = (np.asarray(picture).astype(np.int16) - 128).astype(np.int8){order}[None]"]
    mean, std = ([round(value, 9) for value in values] for values in (preprocess.mean, preprocess.std))
    return [
        f"values = (np.asarray(picture) / 255 - {mean}) / {std}",
        f"values = np.ascontiguousarray(values{order}[None], np.float32)",
    ]

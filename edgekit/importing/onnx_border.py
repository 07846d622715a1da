"""Both ends of an ONNX classifier: which input and output it has, and what it does to pixels and logits itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.errors import DataError, UsageError
from edgekit.importing.onnx_graph import ONNX_DOMAINS
from edgekit.labels import visible

_MOST_NAMED = 8
_DETECTORS = ("NonMaxSuppression", "RoiAlign", "EfficientNMS_TRT", "BatchedNMS_TRT")
_FLOATS = ("float32", "float16", "float64")
_SAME = ("Identity", "Dropout")


@dataclass(frozen=True)
class Input:
    """The input of a classifier.

    Attributes:
        dtype: numpy's name. layout: "NCHW" or "NHWC". size: height and width; None if the file takes any.
        batch: the only batch size that the file takes; None for any.
    """

    name: str
    dtype: str
    layout: str
    size: int | None
    batch: int | None

    @property
    def is_float(self) -> bool:
        return self.dtype in _FLOATS

    def shape(self, batch: int, size: int) -> tuple[int, ...]:
        """Return the shape of a batch."""
        return (batch, 3, size, size) if self.layout == "NCHW" else (batch, size, size, 3)


@dataclass(frozen=True)
class Front:
    """Arithmetic that a file applies to its input before the network proper.

    Attributes:
        tensor: behind it. layout: of that tensor. scale, shift: of each channel; the tensor is input * scale + shift.
        operators: that were recognized.
    """

    tensor: str
    layout: str
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    operators: tuple[str, ...] = field(default=())

    @property
    def normalizes(self) -> bool:
        return self.scale != (1.0, 1.0, 1.0) or self.shift != (0.0, 0.0, 0.0)


def find_input(model: onnx.ModelProto, path: Path) -> Input:
    """Return the input that takes images.

    Raises:
        DataError: there is none, more than one, or it takes no square RGB images.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    listed = "; ".join(_described(value) for value in inputs[:_MOST_NAMED])
    if len(inputs) != 1:
        raise DataError(
            f"{path} has {len(inputs)} inputs ({listed}); an image classifier has one, for the images",
            "export the network with the image as its only input",
        )
    (value,) = inputs
    dtype, sizes = _dtype(value), _sizes(value)
    if sizes is None:
        sizes = [None] * 4
    if len(sizes) != 4:
        words = " (token ids of a text model?)" if "int" in dtype and len(sizes) < 3 else ""
        raise DataError(
            f"{path} takes {listed}{words}, not images: (N, 3, height, width) or (N, height, width, 3)",
            "edgekit takes image classifiers",
        )
    if dtype not in (*_FLOATS, "uint8", "int8", "int32", "int64"):
        raise DataError(f"{path} takes images of type {dtype}: {listed}", "export it for float32 or uint8 images")
    layout = "NHWC" if sizes[3] == 3 and sizes[1] != 3 else "NCHW"
    batch, *sides = sizes
    channels = sides.pop(0 if layout == "NCHW" else 2)
    if channels not in (3, None):
        what = "grey images" if 1 in (sizes[1], sizes[3]) else "images of other than three channels"
        raise DataError(f"{path} takes {what}: {listed}; edgekit feeds RGB", "export it for RGB images (3 channels)")
    if None not in sides and sides[0] != sides[1]:
        raise DataError(f"{path} takes images of {sides[1]} x {sides[0]} pixels; edgekit feeds squares",
                        "export it for square images")  # fmt: skip
    size = sides[0] if sides[0] is not None else sides[1]
    return Input(value.name, dtype, layout, size, batch)


def _described(value: onnx.ValueInfoProto) -> str:
    sizes = _sizes(value)
    shape = "of unknown shape" if sizes is None else f"({', '.join('?' if s is None else str(s) for s in sizes)})"
    return visible(f"{value.name} {_dtype(value)} {shape}")[:120]


def _dtype(value: onnx.ValueInfoProto) -> str:
    number = value.type.tensor_type.elem_type
    if not number:
        return "of no tensor"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number))
    except KeyError:
        return f"type {number}"


def _sizes(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the dimensions, None where they are open."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]


def choose_output(
    model: onnx.ModelProto, path: Path, shapes: dict[str, tuple[int, ...]], classes: int | None, wanted: str | None
) -> str:
    """Return the name of the output that holds the scores.

    Args:
        shapes: of the floating-point outputs, for one image. classes: the number of labels, if it is known.
        wanted: the name that the user gave.

    Raises:
        UsageError: there is no such output, or several could be meant. DataError: none gives scores of classes.
    """
    names = [value.name for value in model.graph.output]
    listed = "; ".join(
        visible(f"{name} {shapes[name]}") if name in shapes else visible(f"{name} (no floats)")
        for name in names[:_MOST_NAMED]
    ) + ("; ..." if len(names) > _MOST_NAMED else "")  # fmt: skip
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"{path} has no output {wanted!r}", f"its outputs: {listed}")
        if not _is_scores(shapes.get(wanted, ())):
            raise DataError(f"the output {wanted!r} of {path} does not hold one row of scores for each image: {listed}",
                            "name another with --output")  # fmt: skip
        return wanted
    found = [name for name in names if _is_scores(shapes.get(name, ()))]
    if len(found) > 1 and classes is not None:
        found = [name for name in found if math.prod(shapes[name]) == classes] or found
    if len(found) > 1:
        found = _before_softmax(model, found)
    if len(found) > 1:
        raise UsageError(f"{path} has several outputs that may be the scores of the classes",
                         f"choose one with --output NAME: {listed}")  # fmt: skip
    if found:
        return found[0]
    if any(node.op_type in _DETECTORS for node in model.graph.node) or any(len(s) > 2 for s in shapes.values()):
        raise DataError(
            f"{path} looks like a detector or a segmentation network, not a classifier: its outputs are {listed}",
            "edgekit takes networks that give one row of scores for each image, (N, classes)",
        )
    raise DataError(f"{path} has no output (N, classes): its outputs are {listed}",
                    "edgekit takes networks that give one row of scores for each image")  # fmt: skip


def _is_scores(shape: tuple[int, ...]) -> bool:
    """Return True for (1, classes), also with further dimensions of one."""
    return len(shape) >= 2 and shape[0] == 1 and all(side == 1 for side in shape[2:])


def _before_softmax(model: onnx.ModelProto, names: list[str]) -> list[str]:
    """Return the outputs without those that are the softmax of another one."""
    makers = {name: node for node in model.graph.node for name in node.output}
    return [
        name
        for name in names
        if not (
            (maker := makers.get(name)) is not None
            and maker.op_type in ("Softmax", "LogSoftmax")
            and _source(maker.input[0], makers) in {_source(other, makers) for other in names if other != name}
        )
    ]


def _source(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    while (maker := makers.get(name)) is not None and maker.op_type in _SAME:
        name = maker.input[0]
    return name


def find_logits(model: onnx.ModelProto, output: str, path: Path) -> tuple[str, str]:
    """Return the tensor of the logits, and the operator between it and the output ("" if there is none).

    Raises:
        DataError: the scores are independent probabilities, of a sigmoid.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    name, found = output, ""
    while (maker := makers.get(name)) is not None and maker.domain in ONNX_DOMAINS:
        if maker.op_type in ("Softmax", "LogSoftmax") and not found:
            found = maker.op_type
        elif maker.op_type == "Sigmoid" and not found:
            raise DataError(
                f"{path} ends with a sigmoid: each class is a question of its own (several labels for one image, or a "
                "yes-or-no answer)",
                "edgekit takes classifiers that choose one class of several, with a softmax or none at the end",
            )
        elif maker.op_type not in (*_SAME, "Cast") or (maker.op_type == "Cast" and not _makes_float(maker)):
            break
        name = maker.input[0]
    return (name, found) if found else (output, "")


def _makes_float(node: onnx.NodeProto) -> bool:
    return any(a.name == "to" and a.i in (1, 10, 11) for a in node.attribute)


def find_front(model: onnx.ModelProto, given: Input) -> Front:
    """Return what stands between the input and the network proper: casts, transposes and arithmetic by channel."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is not None:
            constants[node.output[0]] = value
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    name, layout, used = given.name, given.layout, list[str]()
    scale, shift = np.ones(3), np.zeros(3)
    while len(after := readers.get(name, [])) == 1 and name not in outputs:
        node = after[0]
        step = _step(node, name, layout, constants)
        if step is None:
            break
        factor, offset, layout = step
        if not (factor > 0).all():
            break
        scale, shift = scale * factor, shift * factor + offset
        used.append(node.op_type)
        name = node.output[0]
    floats = [tuple(float(v) for v in values) for values in (scale, shift)]
    return Front(name, layout, floats[0], floats[1], tuple(used))  # type: ignore[arg-type]


def _step(
    node: onnx.NodeProto, name: str, layout: str, constants: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Return factor, offset and layout of a node that only scales channels; None for any other."""
    one, zero, kind = np.ones(3), np.zeros(3), node.op_type
    if node.domain not in ONNX_DOMAINS:
        return None
    if kind in _SAME or (kind == "Cast" and _makes_float(node)):
        return one, zero, layout
    if kind == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        if (layout, order) == ("NHWC", [0, 3, 1, 2]):
            return one, zero, "NCHW"
        return (one, zero, "NHWC") if (layout, order) == ("NCHW", [0, 2, 3, 1]) else None
    if kind in ("Add", "Sub", "Mul", "Div"):
        other = next((n for n in node.input if n != name), None)
        values = _by_channel(constants.get(other or ""), layout)
        if values is None:
            return None
        first = node.input[0] == name
        if kind == "Add":
            return one, values, layout
        if kind == "Sub":
            return (one, -values, layout) if first else (-one, values, layout)
        if kind == "Mul":
            return values, zero, layout
        return (1 / values, zero, layout) if first and values.all() else None
    if kind == "BatchNormalization" and layout == "NCHW" and all(n in constants for n in node.input[1:]):
        gain, offset, mean, variance = (numpy_helper.to_array(constants[n]).astype(float) for n in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = gain / np.sqrt(variance + epsilon)
        return (factor, offset - mean * factor, layout) if len(factor) == 3 else None
    return None


def _by_channel(tensor: Any, layout: str) -> np.ndarray | None:
    """Return the values of a constant for the three channels; None if it is not one number or one each."""
    if tensor is None:
        return None
    values = numpy_helper.to_array(tensor).astype(np.float64)
    if values.size == 1:
        return np.full(3, float(values.reshape(-1)[0]))
    shape = (1,) * (4 - values.ndim) + values.shape
    wanted = (1, 3, 1, 1) if layout == "NCHW" else (1, 1, 1, 3)
    return values.reshape(-1) if shape == wanted else None


def normalization(front: Front, given: Input) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """Return mean and std for pixels of 0 to 1 that give what `front` computes, and if the input is 0 to 255.

    None if the arithmetic fits no normalization of pixels.
    """
    scale, shift = np.array(front.scale), np.array(front.shift)
    if not given.is_float:
        low = 128.0 if given.dtype == "int8" else 0.0  # int8 pixels are less 128
        return (low * scale - shift) / (255 * scale), 1 / (255 * scale), True
    if not front.normalizes:
        return None
    for factor, in_bytes in ((1.0, False), (255.0, True)):
        mean, std = -shift / (factor * scale), 1 / (factor * scale)
        least = 0.05 if not in_bytes else 1 / 256
        if (std >= least).all() and (std <= 1.01).all() and (mean >= -0.01).all() and (mean <= 1.01).all():
            return mean, std, in_bytes
    return None


def names_of(values: Iterable[str]) -> str:
    """Return a short printable list."""
    listed = [visible(value) for value in values]
    return ", ".join(listed[:_MOST_NAMED]) + (", ..." if len(listed) > _MOST_NAMED else "")

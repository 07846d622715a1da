"""Import of an ONNX classifier: read, turned into torch, and compared with ONNX Runtime."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import fx

from edgekit import files
from edgekit.errors import DataError, EdgekitError, ParityError, UsageError, is_out_of_memory, out_of_memory
from edgekit.importing import onnx_as_is, onnx_border, onnx_file, onnx_graph
from edgekit.importing.network import Network
from edgekit.importing.onnx_border import Front, Input
from edgekit.importing.onnx_graph import UnsupportedError
from edgekit.importing.onnx_operators import OPERATORS
from edgekit.labels import visible
from edgekit.models.onnx_module import OnnxModule
from edgekit.models.weights_file import first_line
from edgekit.records import Preprocess
from edgekit.runs import Source

PARITY = 1e-4  # largest difference from ONNX Runtime, relative to the largest logit
_PARITY_HALF = 2e-2  # of files that compute in float16
_BATCH = 3


@dataclass(frozen=True)
class OnnxNetwork:
    """A classifier read from an ONNX file.

    Attributes:
        model: takes normalized float32 (N, 3, size, size), any N, and returns logits (N, classes); an `OnnxModule`
            if the file cannot be turned into torch.
        problem: why it cannot; "" if it can.
        mean, std: of the normalization inside the file, which `model` is without; None if the file has none that is
            recognized: then `model` takes what the file takes, and only its trainer knows the normalization.
        notes: sentences about what was taken for what. difference: largest difference from ONNX Runtime, relative.
    """

    model: fx.GraphModule | OnnxModule
    size: int
    classes: int
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    notes: tuple[str, ...]
    difference: float
    problem: str = ""


def load(path: Path, size: int | None, labels: tuple[str, ...] | None, output: str | None, arch: str | None) -> Network:
    """Read an ONNX classifier for a run.

    Args:
        size, output: as in `read`. labels: names of the classes, if they are known. arch: name for the network.
    """
    found = read(path, size, None if labels is None else len(labels), output)
    preprocess, inside = Preprocess(found.size, found.size), found.mean is not None and found.std is not None
    if found.mean is not None and found.std is not None:
        preprocess = dataclasses.replace(preprocess, mean=found.mean, std=found.std)
    source = Source("ONNX network", path.name, files.sha256_file(path), found.notes, as_is=found.problem)
    return Network(
        found.model,
        arch or path.stem,
        source,
        program=True,
        classes=found.classes,
        preprocess=preprocess,
        normalized=inside,
    )


def read(path: Path, size: int | None = None, classes: int | None = None, output: str | None = None) -> OnnxNetwork:
    """Read an ONNX classifier and turn it into torch.

    Args:
        size: height and width of the images, for files that take any. classes: number of labels, if it is known.
        output: name of the output that holds the scores; None: the only one that can be meant.

    Raises:
        DataError: the file cannot be read, or is no image classifier. MissingError: a file is missing.
        UsageError: the size or the output must be chosen. ParityError: the network disagrees with ONNX Runtime.
    """
    proto = onnx_file.read(path)
    given = onnx_border.find_input(proto, path)
    size = _size(given, size, path)
    runtime = _Runtime(proto, given, size, path)
    notes = list(runtime.notes)
    name = onnx_border.choose_output(proto, path, runtime.shapes, classes, output)
    if len(proto.graph.output) > 1:
        others = onnx_border.names_of(value.name for value in proto.graph.output if value.name != name)
        notes.append(f"the output {visible(name)!r} is taken; not taken: {others}")
    logits, end = onnx_border.find_logits(proto, name, path)
    if end:
        notes.append(f"its {end} at the end is left out: edgekit's networks return logits")
    found = math.prod(runtime.shapes[name][1:])
    if found < 2:
        raise DataError(f"{path} gives one number for each image: it is no classifier of several classes",
                        "edgekit takes networks with a score for each class")  # fmt: skip
    front, normal = _front(proto, given)
    notes += _describe_front(given, front, normal)
    mean, std = (None, None) if normal is None else (_three(normal.mean), _three(normal.std))
    made = OnnxNetwork(OnnxModule(b"-", "", False), size, found, mean, std, tuple(notes), 0.0)
    try:
        model, nodes = _convert(proto, front, logits, size, runtime.batch)
    except UnsupportedError as error:
        problem = visible(error.message)
        kept = _as_is(proto, given, front, logits, made, problem, runtime.batch, path)
        notes.append(f"it cannot be turned into torch: {problem}")
        notes.append("it is kept as it is: ONNX in fp32 and fp16; no INT8, no LiteRT")
        difference = _check_as_is(kept, proto, given, normal, logits, runtime, size, path)
        return dataclasses.replace(made, model=kept, problem=problem, notes=tuple(notes), difference=difference)
    difference = _check(model, nodes, proto, given, normal, logits, runtime, size, path)
    if given.dtype == "float16":
        notes.append("its float16 weights are widened to float32")
    notes.append(f"agrees with ONNX Runtime within {difference:.1g} (relative to the largest logit)")
    return dataclasses.replace(made, model=model, difference=difference, notes=tuple(notes))


def _as_is(
    proto: onnx.ModelProto,
    given: Input,
    front: Front,
    logits: str,
    found: OnnxNetwork,
    problem: str,
    batch: int | None,
    path: Path,
) -> OnnxModule:
    """Return the file as a module that ONNX Runtime runs."""
    if batch is not None and batch > 1:
        raise DataError(
            f"{path} cannot be turned into torch ({problem}), and takes {batch} images at a time; edgekit's devices "
            "feed one",
            "export it for a batch of 1, or for any batch size",
        )
    content = onnx_as_is.bordered(proto, given, front, logits, found.size, found.classes, batch)
    return OnnxModule(content, problem, batch == 1).eval()


def _check_as_is(
    kept: OnnxModule,
    proto: onnx.ModelProto,
    given: Input,
    normal: _Normal | None,
    logits: str,
    runtime: _Runtime,
    size: int,
    path: Path,
) -> float:
    """Compare a file whose ends were changed with the original; return the largest relative difference.

    Raises:
        ParityError: the difference is above `PARITY`, or 1 % of the largest logit in networks that round themselves.
    """
    raw, images = _feeds(given, normal, 1, size, 0)
    (expected,) = run(_session(_with_outputs(proto, [logits]), path), {given.name: raw}, path)
    try:
        with torch.inference_mode():
            got = kept(images).numpy()
    except Exception as error:  # onnxruntime raises several kinds
        raise _refused(error, path) from None
    difference = _difference(got, expected.reshape(1, -1).astype(np.float32))
    allowed = PARITY if not onnx_file.is_quantized(proto) else _PARITY_HALF
    if not difference <= allowed:
        raise ParityError(
            f"{path} with the input 'image' and the output 'scores' disagrees with the file by {difference:.2g} "
            f"(relative), allowed {allowed:g}",
            "please report it with the file",
        )
    return difference


def _three(values: np.ndarray) -> tuple[float, float, float]:
    """Return three floats; differences of rounding in float32 between them are kept."""
    red, green, blue = (float(f"{value:.7g}") for value in values)
    return red, green, blue


def _size(given: Input, wanted: int | None, path: Path) -> int:
    if given.size is None and wanted is None:
        raise UsageError(f"{path} takes images of any size, so the size must be chosen", "--image-size 224")
    if given.size is not None and wanted not in (None, given.size):
        raise UsageError(
            f"{path} takes images of {given.size} x {given.size} pixels, not {wanted} x {wanted}",
            "leave out --image-size",
        )
    return int(given.size or wanted or 0)


@dataclass(frozen=True)
class _Normal:
    """The normalization inside a file; `in_bytes`: its input is 0 to 255."""

    mean: np.ndarray
    std: np.ndarray
    in_bytes: bool


def _front(proto: onnx.ModelProto, given: Input) -> tuple[Front, _Normal | None]:
    """Return what is left out at the beginning, and the normalization that takes its place."""
    front = onnx_border.find_front(proto, given)
    found = onnx_border.normalization(front, given)
    if found is None:
        return Front(given.name, given.layout), None
    return front, _Normal(*found)


def _describe_front(given: Input, front: Front, normal: _Normal | None) -> list[str]:
    notes = []
    if given.layout == "NHWC":
        notes.append("its images are NHWC; edgekit feeds NCHW")
    if normal is None:
        notes.append(
            "no normalization is inside the file: it is fed (pixel / 255 - mean) / std, with the mean and std below"
        )
        return notes
    if front.normalizes:
        mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (normal.mean, normal.std))
        range_ = "0 to 255" if normal.in_bytes else "0 to 1"
        notes.append(
            f"the normalization inside the file (input {given.dtype}, {range_}; {', '.join(front.operators)}) moves "
            f"into the preprocessing: mean {mean}, std {std}"
        )
    else:
        notes.append(f"it takes pixels of 0 to 255 ({given.dtype}), which the preprocessing now feeds as float32")
    return notes


def _convert(
    proto: onnx.ModelProto, front: Front, logits: str, size: int, batch: int | None
) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """Turn the network between two tensors into torch."""
    if onnx_file.is_quantized(proto):
        raise UnsupportedError("it is quantized already (QuantizeLinear and DequantizeLinear, or integer layers)")
    if foreign := onnx_file.custom_operators(proto):
        listed = ", ".join(f"{name} ({count})" for name, count in foreign.items())
        raise UnsupportedError(f"it has operators that are not ONNX's own: {listed}", foreign)
    return onnx_graph.convert(
        proto, front.tensor, logits, (3, size, size), OPERATORS, batch, permuted=front.layout == "NHWC"
    )


class _Runtime:
    """The file in ONNX Runtime.

    Attributes:
        batch: the only batch size that it takes; None for any. shapes: of the floating-point outputs for one image.
    """

    def __init__(self, proto: onnx.ModelProto, given: Input, size: int, path: Path) -> None:
        self.given, self.size, self.path, self.notes = given, size, path, list[str]()
        self.session = _session(proto, path)
        self.batch = given.batch
        outputs = self._run(given.batch or 1)
        if given.batch is None and not self._takes_any(outputs):
            self.batch = 1
            self.notes.append("it says that it takes any batch size, but computes one image alone")
        names = [value.name for value in self.session.get_outputs()]
        self.shapes = {
            name: self._for_one(np.shape(value))
            for name, value in zip(names, outputs)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        }

    def _for_one(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *shape[1:]) if shape and shape[0] == (self.batch or 1) else tuple(shape)

    def _takes_any(self, one: list[Any]) -> bool:
        """Return False if a batch fails, or gives as many rows as one image."""
        try:
            several = self._run(_BATCH)
        except EdgekitError:
            return False
        return any(
            isinstance(a, np.ndarray) and a.ndim and len(a) == 1 and b.shape == (_BATCH, *a.shape[1:])
            for a, b in zip(one, several)
        )

    def _run(self, batch: int) -> list[Any]:
        shape = self.given.shape(batch, self.size)
        pixels = np.random.default_rng(0).integers(0, 256, shape)
        feed = pixels / 255 if self.given.is_float else pixels % 128 if self.given.dtype == "int8" else pixels
        return run(self.session, {self.given.name: feed.astype(self.given.dtype)}, self.path)


def _session(proto: onnx.ModelProto, path: Path, optimize: bool = True) -> onnxruntime.InferenceSession:
    from edgekit.convert import onnx as exporter

    try:
        return exporter.session(proto.SerializeToString(), optimize)
    except Exception as error:  # onnxruntime raises several kinds
        raise _refused(error, path, onnx_file.custom_operators(proto)) from None


def _refused(error: Exception, path: Path, foreign: dict[str, int] | None = None) -> EdgekitError:
    if is_out_of_memory(error):
        return out_of_memory(f"running {path}")
    if foreign:
        listed = ", ".join(f"{name} ({count})" for name, count in foreign.items())
        return DataError(
            f"{path} has custom operators, which ONNX Runtime does not have: {listed}",
            "export the network from ONNX's own operators",
        )
    return DataError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run {path}: {visible(first_line(error))[:300]}",
        "export it again, and try it with onnxruntime.InferenceSession",
    )


def run(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray], path: Path) -> list[Any]:
    """Run a model.

    Raises:
        DataError: ONNX Runtime refuses.
    """
    try:
        return list(session.run(None, feed))
    except Exception as error:  # onnxruntime raises several kinds
        raise _refused(error, path) from None


def _with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return a model that returns these tensors."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    kinds = {value.name: value for value in proto.graph.output}
    del changed.graph.output[:]
    changed.graph.output.extend(kinds.get(name) or onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return changed


def _feeds(given: Input, normal: _Normal | None, batch: int, size: int, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Return random images as the file takes them, and as the torch network does."""
    generator = np.random.default_rng(seed)
    if normal is None:
        images = generator.standard_normal((batch, 3, size, size), np.float32)
        raw = images if given.layout == "NCHW" else images.transpose(0, 2, 3, 1)
        # A network that takes NHWC is fed NCHW by edgekit, too.
        return np.ascontiguousarray(raw).astype(given.dtype), torch.from_numpy(images)
    pixels = generator.integers(0, 256, (batch, 3, size, size))
    side = (1, 3, 1, 1)
    images = (pixels / 255 - normal.mean.reshape(side)) / normal.std.reshape(side)
    raw = pixels if given.layout == "NCHW" else pixels.transpose(0, 2, 3, 1)
    if given.dtype == "int8":
        raw = raw - 128
    elif not normal.in_bytes:
        raw = raw / 255
    return np.ascontiguousarray(raw).astype(given.dtype), torch.from_numpy(images.astype(np.float32))


def _check(
    model: fx.GraphModule,
    nodes: dict[str, fx.Node],
    proto: onnx.ModelProto,
    given: Input,
    normal: _Normal | None,
    logits: str,
    runtime: _Runtime,
    size: int,
    path: Path,
) -> float:
    """Compare torch with ONNX Runtime on random images; return the largest relative difference.

    Files for any batch size are compared with batches of 1 and 3; in those for one, each image of a batch with itself
    alone.

    Raises:
        ParityError: the difference is above `PARITY`; names the first node where they part.
    """
    session = _session(_with_outputs(proto, [logits]), path)
    allowed = _PARITY_HALF if given.dtype == "float16" else PARITY
    largest = 0.0
    for seed, batch in enumerate((runtime.batch,) if runtime.batch else (1, _BATCH)):
        raw, images = _feeds(given, normal, batch, size, seed)
        (expected,) = run(session, {given.name: raw}, path)
        with torch.inference_mode():
            together = model(images)
            got = torch.cat([model(image[None]) for image in images]) if runtime.batch and batch > 1 else together
        expected = expected.reshape(batch, -1).astype(np.float32)
        difference = max(_difference(each.reshape(batch, -1).numpy(), expected) for each in (together, got))
        if not difference <= allowed:
            where = _first_difference(model, nodes, proto, given, raw, images, path)
            raise ParityError(
                f"{path} turned into torch disagrees with ONNX Runtime by {difference:.2g} (relative), allowed "
                f"{allowed:g}{where}",
                "please report it with the file",
            )
        largest = max(largest, difference)
    if runtime.batch == 1:
        raw, images = _feeds(given, normal, _BATCH, size, 1)
        rows = [run(session, {given.name: raw[k : k + 1]}, path)[0].reshape(1, -1) for k in range(_BATCH)]
        with torch.inference_mode():
            difference = _difference(model(images).reshape(_BATCH, -1).numpy(), np.concatenate(rows).astype(np.float32))
        if not difference <= allowed:
            raise ParityError(
                f"{path} is written for one image at a time, and its network for batches disagrees with ONNX Runtime "
                f"by {difference:.2g} (relative), allowed {allowed:g}",
                "export it with a dynamic batch: dynamic_shapes=({0: 'batch'},)",
            )
        largest = max(largest, difference)
    return largest


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape or not np.isfinite(expected).all():
        return math.inf
    return float(np.abs(got - expected).max() / (np.abs(expected).max() + 1e-12))


def _first_difference(
    model: fx.GraphModule,
    nodes: dict[str, fx.Node],
    proto: onnx.ModelProto,
    given: Input,
    raw: np.ndarray,
    images: torch.Tensor,
    path: Path,
) -> str:
    """Return words about the first node whose output differs; "" if none does."""
    last = {node: name for name, node in nodes.items()}  # of several names the last: layers take over a bias
    made = {name for node in proto.graph.node for name in node.output}
    names = [name for name in last.values() if name in made]
    try:
        values = run(_session(_with_outputs(proto, names), path, optimize=False), {given.name: raw}, path)
    except EdgekitError:
        return ""
    kept: dict[fx.Node, torch.Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            kept[n] = super().run_node(n)
            return kept[n]

    with torch.inference_mode():
        Recorder(model).run(images)
    makers = {name: node for node in proto.graph.node for name in node.output}
    by_name = dict(zip(names, values))
    for node, name in last.items():
        if name in by_name and node in kept and _difference(kept[node].numpy(), by_name[name]) > PARITY:
            return f"; the first node that differs is {visible(onnx_graph.label_of(makers[name]))}"
    return ""

"""Records that are passed between the stages: frozen, and validated on construction.

Everything made from the weights has their SHA-256 as ``parent``, so that every figure can be traced to them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, UsageError, unknown
from edgekit.labels import check_labels

# "w8": INT8 weights, float32 activations. "16x8": INT8 weights, INT16 activations.
PRECISIONS = ("fp32", "fp16", "int8", "w8", "16x8")
FLOAT = ("fp32", "fp16")
SPLITS = ("train", "val", "test")
RESAMPLES = ("bilinear", "bicubic")
# Colours with a smaller difference of levels count as one.
LEAST_CONTRAST = 6
# Version of the preprocessing contract: what `Preprocess.contract` says. 0: older, the order of passes was Pillow's.
CONTRACT = 1
RESIZES = ("crop", "squash", "letterbox")
_GEOMETRIES = {"crop": "centre-box", "squash": "whole", "letterbox": "bars"}
_COLOURS = {"white": "#ffffff", "black": "#000000"}
RUNTIMES = ("torch", "tensorrt", "onnxruntime", "openvino", "litert")
_ARTIFACT_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*"
# Prefix of the names of baselines.
BASELINES = "baseline/"
LAYOUTS = ("NCHW", "NHWC")
# Values of the tensor `image`: normalized float32, RGB bytes, or RGB bytes minus 128.
INPUTS = ("float32", "uint8", "int8")
ACCELERATORS = ("cpu", "gpu", "npu")
# Interfaces of LiteRT: `Interpreter`, `CompiledModel`, or the program benchmark_model.
MOST_THREADS = 1024  # of a CPU; runtimes crash on far more
LITERT_APIS = ("interpreter", "compiled-model", "benchmark-model")


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing from an image file to the input tensor; part of a model's identity. `steps` describes it.

    Attributes:
        image_size: side of the input, pixels.
        resize_size: length of the shorter side before the crop; `image_size` unless `resize` is "crop".
        resample: one of `RESAMPLES`, antialiased. mean, std: of each RGB channel, for pixels of 0 to 1.
        resize: one of `RESIZES`: crop the centre, squash to a square, or fit in with bars in the `background` colour.
        background: what transparent parts lie over, "#rrggbb"; "white" and "black" are other names.
        pixel_range: values that become 0 and 255 in files of more than 8 bits a channel. None: 0 to 65535 for
            integers, 0 to 1 for floats, and MinIsWhite is not inverted.
        schema: of the contract that the run was made under. Those before 1 were resized in the order of passes that
            Pillow's version chose; they are read, and count as equal.
    """

    image_size: int
    resize_size: int
    resample: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: str = "crop"
    background: str = "#ffffff"
    pixel_range: tuple[float, float] | None = None
    schema: int = field(default=CONTRACT, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.schema <= CONTRACT:
            raise DataError(
                f"this edgekit knows preprocessing contracts up to {CONTRACT}, not {self.schema}", "upgrade"
            )
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        object.__setattr__(self, "background", _colour(self.background))
        if not 32 <= self.image_size <= 1024:
            raise UsageError(f"image size {self.image_size} is outside 32-1024", "try --image-size 224")
        if self.resize_size < self.image_size:
            raise UsageError(f"resize size {self.resize_size} is below the crop {self.image_size}")
        if self.resample not in RESAMPLES:
            raise unknown("resample kernel", self.resample, RESAMPLES)
        if self.resize not in RESIZES:
            raise unknown("kind of resizing", self.resize, RESIZES)
        if self.resize != "crop" and self.resize_size != self.image_size:
            raise DataError(f"{self.resize} has no crop: resize_size must be {self.image_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise DataError("mean and std need three values each, and std above zero")
        if self.pixel_range is not None:
            low, high = (float(v) for v in self.pixel_range)
            if not (math.isfinite(high - low) and low < high):
                raise UsageError(f"pixel range {low:g}:{high:g} must go from a low to a higher number")
            object.__setattr__(self, "pixel_range", (low, high))

    @property
    def background_name(self) -> str:
        """The background in words: white, black or "#rrggbb"."""
        return {v: k for k, v in _COLOURS.items()}.get(self.background, self.background)

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background as RGB, 0 to 255."""
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue

    def document(self) -> dict[str, Any]:
        """Return the fields as a document holds them; later ones only where they differ from their default."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "schema"}
        later = ("resize", "background", "pixel_range")
        own = {k: v for k, v in values.items() if k not in later or v != getattr(Preprocess, k)}
        return {"schema": self.schema, **own} if self.schema else own

    @staticmethod
    def with_schema(document: Any) -> Any:
        """Return the document of a run with its schema; those from before contract 1 have none."""
        return {"schema": 0, **document} if isinstance(document, Mapping) else document

    def contract(self) -> dict[str, Any]:
        """Return what a program must do from a file to the square of RGB pixels that the network takes.

        Beside the fields of `document`:

        orientation: "exif", applied before everything else. alpha: transparent parts lie over the colour `background`.
        geometry: "centre-box" resizes the box around the centre that the crop of `image_size` out of an image with a
            shorter side of `resize_size` would show, in one step: half its sides are
            ``min(image_size * shorter / resize_size, side) / 2``; its edges are rounded to float32. "whole" resizes
            everything, "bars" does so within the square and fills it up with `background`.
        passes: the horizontal pass comes first, and each rounds to 8 bits. weight_bits: binary digits after the point
            of the kernel's weights, which are float64 before, and sum to 1. The kernel is as wide as the scale, so
            that nothing is aliased (Pillow's `Resample.c`).
        channels: "RGB".
        """
        fixed = {
            "orientation": "exif",
            "alpha": "over-background",
            "background": self.background,
            "geometry": _GEOMETRIES[self.resize],
            "passes": "horizontal-first",
            "weight_bits": 22,
            "channels": "RGB",
        }
        return {**self.document(), "schema": CONTRACT, **fixed}

    @property
    def geometry(self) -> str:
        """The step from an RGB picture to a square of `image_size`, in words."""
        size = self.image_size
        if self.resize == "squash":
            return f"resized to {size} x {size} whatever its shape ({self.resample})"
        if self.resize == "letterbox":
            return f"the longer side resized to {size} ({self.resample}), centred on a square of {self.background}"
        return f"the shorter side resized to {self.resize_size} ({self.resample}), the centre cut out"

    def steps(self) -> tuple[str, ...]:
        """Return the steps from a file to the values of a float32 input, one sentence each."""
        size, mean, std = self.image_size, *(", ".join(f"{v:.6g}" for v in w) for w in (self.mean, self.std))
        resized = {
            "crop": f"Resize a box in the centre to {size} x {size} pixels, in one step, {self.resample} with "
            f"antialiasing, across first. Half its sides are min({size} * shorter / {self.resize_size}, side) / 2, "
            "not rounded to whole pixels.",
            "squash": f"Resize to {size} x {size} pixels whatever the shape, {self.resample} with antialiasing.",
            "letterbox": f"Resize so that the longer side has {size} pixels, {self.resample} with antialiasing. Centre "
            f"the picture on a {size} x {size} square of the colour {self.background}.",
        }
        found = [
            "Decode to RGB with 8 bits a channel. Apply the EXIF orientation. Convert grey, palette and CMYK to RGB. "
            f"Put transparent parts over {self.background}."
        ]
        if self.pixel_range is not None:
            low, high = (f"{v:g}" if abs(v) < 1e6 else f"{v:.17g}" for v in self.pixel_range)
            found.append(
                f"Files of more than 8 bits a channel: {low} becomes 0 and {high} becomes 255, values outside are "
                f"clipped: min(255, floor(256 (v - {low}) / ({high} - {low}))) for integers, "
                f"round(255 (v - {low}) / ({high} - {low})) for floats. Invert what is stored as MinIsWhite."
            )
        return (
            *found,
            resized[self.resize],
            f"(pixel / 255 - mean) / std, with mean {mean} and std {std} for R, G, B.",
        )


def _colour(text: str) -> str:
    """Return a colour as "#rrggbb".

    Raises:
        UsageError: it is neither that, nor white, nor black.
    """
    found = _COLOURS.get(text.lower(), text.lower())
    if not re.fullmatch("#[0-9a-f]{6}", found):
        raise UsageError(f"{text!r} is no background colour", "use white, black or '#rrggbb', such as '#808080'")
    return found


@dataclass(frozen=True)
class Content:
    """Properties of one image file that `train` and ``data check`` judge a data set by.

    Attributes:
        kind: "integer" or "float" for values of more than 8 bits a channel, from `low` to `high`; "" for others.
        transparent: parts can be seen through. colour: of an image with a single visible colour; None: several, or
            more than 8 bits.
        scaled: decoded at a fraction of its size. strange: some values are no finite numbers.
    """

    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    transparent: bool = False
    colour: tuple[int, int, int] | None = None
    scaled: bool = False
    strange: bool = False

    def is_blank(self, background: tuple[int, int, int]) -> bool:
        """Return True if nothing can be seen over a background."""
        if self.kind:
            return self.low == self.high
        if self.colour is None:
            return False
        return not self.transparent or max(abs(a - b) for a, b in zip(self.colour, background)) < LEAST_CONTRAST


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file: `path` relative to the data set's root, `label` as an index into its labels."""

    path: str
    label: int
    split: str
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """Files below a data set that are not used, for one of the reasons of `edgekit.data.listing`.

    `of`: ending or folder -> number of files.
    """

    reason: str
    files: int
    of: dict[str, int]


@dataclass(frozen=True)
class DatasetIndex:
    """Images of a data set with their class and split, without pixels.

    Attributes:
        fingerprint: SHA-256 of labels and images. skipped: files that cannot be decoded.
        carved: splits that have no folder and were taken from another split.
        notes: sentences about how its folders were read. left_out: files that are not used, by reason.
        container: file or folder that the images were unpacked from; None: they lie where they were given.
        columns: that the user chose in a table, as ``--columns``.
        contents: of each file by its path, right after it was read; not part of a saved index.
    """

    root: Path
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()
    carved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    container: Path | None = None
    columns: str = ""
    contents: dict[str, Content] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_labels(self.labels)

    def document(self) -> dict[str, Any]:
        """Return the fields that are saved."""
        later = ("container", "columns")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "contents"}
        return {name: value for name, value in values.items() if value or name not in later}

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of one split, in index order."""
        return tuple(s for s in self.samples if s.split == name)


@dataclass(frozen=True)
class Checkpoint:
    """Trained weights, with everything needed to rebuild the network and prepare its input."""

    path: Path
    arch: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    sha256: str
    hidden: int = 0

    def __post_init__(self) -> None:
        check_labels(self.labels)


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file with the input `image`, float32 NCHW, and the output `scores`, (N, classes)."""

    path: Path
    opset: int
    sha256: str
    parent: str


@dataclass(frozen=True)
class Artifact:
    """A model file for one target.

    Attributes:
        name: ``<target>/<file>``, unique in its run. input: one of `INPUTS`.
    """

    name: str
    target: str
    precision: str
    runtime: str
    layout: str
    sha256: str
    parent: str
    details: dict[str, Any] = field(default_factory=dict)
    input: str = "float32"

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise unknown("input", self.input, INPUTS)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.layout not in LAYOUTS:
            raise unknown("layout", self.layout, LAYOUTS)
        if self.runtime not in RUNTIMES:
            raise unknown("runtime", self.runtime, RUNTIMES)
        if not re.fullmatch(_ARTIFACT_NAME, self.name):
            raise DataError(f"{self.name!r} is no artifact name: the form is <target>/<file>")

    @property
    def file(self) -> str:
        """File name without its folder."""
        return self.name.partition("/")[2]

    @property
    def is_baseline(self) -> bool:
        """True for the network as trained, which the other artifacts are compared with."""
        return self.name.startswith(BASELINES)


@dataclass(frozen=True)
class Device:
    """A device, as a ``devices/*.toml`` describes it: how to reach it, and its runtime and capabilities.

    Attributes:
        host: destination of ssh, or serial of adb.
        emulated: an emulator; its times are no latencies.
        precisions: that the device supports; empty: every precision of the target.
        trtexec, dla_core, workspace_mb, cuda_graph, batch: options of TensorRT. With a `dla_core`, engines run on that
            DLA, and on the GPU what the DLA does not support.
        api, accelerator, xnnpack, benchmark_model: options of LiteRT; the last is the file of the program.
        cpu_mask: hexadecimal, for taskset.
        cool_down_s: longest pause of a phone between two models.
        peak_fp16_tflops, peak_int8_tops: of dense arithmetic on the GPU.
        newest_tensorrt: version of TensorRT that the last system for the device brings, such as "8.2"; "": not known.
        sources: of these figures.
    """

    name: str
    family: str
    description: str = ""
    transport: str = "none"
    runtime: str = ""
    python: str = ""
    host: str = ""
    emulated: bool = False
    threads: int = 1
    precisions: tuple[str, ...] = ()
    trtexec: str = ""
    dla_core: int | None = None
    workspace_mb: int | None = None
    cuda_graph: bool = True
    batch: int = 1
    api: str = "interpreter"
    accelerator: str = "cpu"
    xnnpack: bool = True
    benchmark_model: str = ""
    cpu_mask: str = ""
    cool_down_s: float = 120.0
    compute_capability: str = ""
    dla_cores: int | None = None
    memory_gb: float | None = None
    memory_bandwidth_gb_s: float | None = None
    peak_fp16_tflops: float | None = None
    peak_int8_tops: float | None = None
    power_modes: tuple[str, ...] = ()
    newest_tensorrt: str = ""
    sources: tuple[str, ...] = ()
    verified: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.transport == "adb":
            object.__setattr__(self, "host", self.host.removeprefix("adb:"))
        if not 1 <= self.threads <= MOST_THREADS:
            raise DataError(f"device {self.name!r}: threads must be 1 to {MOST_THREADS}")
        if self.dla_core is not None and not 0 <= self.dla_core < 8:
            raise DataError(f"device {self.name!r}: dla_core must be 0 to 7")
        if not 1 <= self.batch <= 1024 or (self.batch > 1 and self.runtime != "tensorrt"):
            raise DataError(f"device {self.name!r}: batch must be 1, or up to 1024 with the runtime tensorrt")
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise DataError(f"device {self.name!r}: workspace_mb must be at least 1")
        if self.cpu_mask and not re.fullmatch(r"0*[1-9a-f][0-9a-f]{0,31}", self.cpu_mask):
            raise DataError(f'device {self.name!r}: cpu_mask must be hexadecimal, such as "f0" for cores 4 to 7')
        if not re.fullmatch(r"([0-9]{1,4}\.[0-9]{1,4}(\.[0-9]{1,4})*)?", self.newest_tensorrt):
            raise DataError(f'device {self.name!r}: newest_tensorrt must be a version, such as "8.2"')
        if not 0 <= self.cool_down_s <= 3600:
            raise DataError(f"device {self.name!r}: cool_down_s must be 0 to 3600")
        for what, value, known in (
            ("accelerator", self.accelerator, ACCELERATORS),
            ("api", self.api, LITERT_APIS),
            *(("precision", precision, PRECISIONS) for precision in self.precisions),
        ):
            if value not in known:
                raise unknown(what, value, known)
        if problem := _litert_problem(self) or _idle_key(self):
            raise DataError(f"device {self.name!r}: {problem[0]}", problem[1])


def _litert_problem(device: Device) -> tuple[str, str] | None:
    """Return the first conflict between the LiteRT keys of a device, and its remedy; None if there is none."""
    chosen = (device.api, device.accelerator, device.xnnpack) != ("interpreter", "cpu", True)
    if chosen and device.runtime != "litert":
        return "api, accelerator and xnnpack are keys for LiteRT", 'add runtime = "litert", or remove them'
    if device.accelerator != "cpu" and device.api == "interpreter":
        return f"the interpreter does not support the {device.accelerator}", 'add api = "compiled-model"'
    if device.accelerator != "cpu" and not device.xnnpack:
        return f"XNNPACK runs on the CPU, not on the {device.accelerator}", "remove xnnpack, or the accelerator"
    return None


def _idle_key(device: Device) -> tuple[str, str] | None:
    """Return the first key of a device that has no effect, and its remedy; None if there is none."""
    by_program = device.api == "benchmark-model"
    if device.cpu_mask and device.transport == "local":
        return (
            "cpu_mask is for devices reached over ssh or adb",
            "remove it; on this machine: taskset MASK edgekit benchmark ...",
        )
    if device.cool_down_s != Device.cool_down_s and device.transport != "adb":
        return "cool_down_s is for phones reached over adb", "remove it"
    if device.benchmark_model and not by_program:
        return "benchmark_model needs another api", 'add api = "benchmark-model", or remove it'
    if device.python and by_program:
        return 'api = "benchmark-model" does not use Python', "remove python, or the api"
    return None

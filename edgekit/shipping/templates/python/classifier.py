#!/usr/bin/env python3
"""Classify pictures with the model of this folder, exactly as it was trained and measured.

    python3 classifier.py photo.jpg       print the three most probable classes
    python3 classifier.py --check         compare this machine with the golden set, level by level

In your program:

    from classifier import Classifier
    model = Classifier()                                # the model beside this file
    for answer in model.classify("photo.jpg")[:3]:      # or an array of RGB pixels, uint8 (height, width, 3)
        print(answer.label, answer.probability)

Needs numpy and the model's runtime: for .tflite files ai-edge-litert (or tflite-runtime), for .onnx files onnxruntime,
or TensorRT where the kit is for it.
Files are decoded with Pillow; whoever has pixels does not need it. Python 3.8 or newer. Made by edgekit; it imports
nothing of it. `fit` gives the bytes that preprocess.json describes, whatever the version of Pillow.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
_BITS = 22  # binary digits after the point of a weight
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_ROWS = 256  # of a picture at a time

Pixels = np.ndarray


class Answer(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float
    number: int
    score: float


class Classifier:
    """A model, its labels and its preprocessing.

    Args:
        model: the model file, or a folder whose manifest.json names it; default: the folder of this program. Its folder
            holds labels.txt and preprocess.json. threads: of the CPU.
    """

    def __init__(self, model: str | Path | None = None, threads: int = 1) -> None:
        path = Path(model) if model is not None else HERE
        if path.is_dir():
            path = path / read_json(path / "manifest.json")["model"]
        folder = path.resolve().parent
        self.contract = read_json(folder / "preprocess.json")
        labels = (folder / "labels.txt").read_bytes()
        if hashlib.sha256(labels).hexdigest() != self.contract["labels_sha256"]:
            raise ValueError("labels.txt is not the one that the model was trained with (preprocess.json has its hash)")
        self.labels = labels.decode("utf-8").rstrip("\n").split("\n")
        self.temperature = self.contract["scores"]["temperature"] or 1.0
        self.tensor = self.contract["tensor"]
        self.path, self.threads = path, threads
        self.manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
        self.processor = "gpu" if self.manifest.get("runtime") == "tensorrt" else "cpu"

    @functools.cached_property
    def run(self) -> Callable[[np.ndarray], np.ndarray]:
        """The model, opened when it is first used: a function from the input to the scores of one picture."""
        if self.path.suffix != ".onnx":
            return open_litert(self.path, self.threads)
        if self.processor == "gpu":
            return open_tensorrt(self.path, self.manifest["precision"])
        return open_onnx(self.path, self.threads, bool(self.manifest.get("as_written")))

    def classify(self, picture: str | Path | Pixels) -> list[Answer]:
        """Return every class, the most probable first.

        Args:
            picture: a file, or upright RGB pixels, uint8 (height, width, 3).
        """
        scores = self.scores(self.pixels(picture))
        shares = probabilities(scores, self.temperature)
        order = np.argsort(-shares, kind="stable")
        return [Answer(self.labels[n], float(shares[n]), int(n), float(scores[n])) for n in order]

    def pixels(self, picture: str | Path | Pixels) -> Pixels:
        """Return what the network sees of a picture: RGB, uint8 (size, size, 3)."""
        return fit(picture if isinstance(picture, np.ndarray) else load(Path(picture), self.contract), self.contract)

    def scores(self, square: Pixels) -> np.ndarray:
        """Return the scores of one square of pixels, float32 (classes,)."""
        return self.run(to_tensor(square, self.tensor))


# From a file to the square of pixels.


def load(path: Path, contract: dict[str, Any]) -> Pixels:
    """Decode a file with Pillow: upright, RGB with 8 bits, over the background."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        if opened.mode == "F" or opened.mode.startswith("I"):
            raise ValueError(f"{path}: values of more than 8 bits: convert them, and pass the pixels")
        upright = ImageOps.exif_transpose(opened) or opened
        if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
            below = Image.new("RGBA", upright.size, (*background(contract), 255))
            upright = Image.alpha_composite(below, upright.convert("RGBA"))
        return np.array(upright.convert("RGB"), np.uint8)


def background(contract: dict[str, Any]) -> tuple[int, int, int]:
    """Return the colour below transparent parts, and of the bars of a letterbox."""
    red, green, blue = bytes.fromhex(contract["background"][1:])
    return red, green, blue


def fit(pixels: Pixels, contract: dict[str, Any]) -> Pixels:
    """Resize RGB pixels, uint8 (height, width, 3), to the square that the network takes, uint8 (size, size, 3)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels must be uint8 (height, width, 3), not {pixels.dtype} {pixels.shape}")
    size, kernel = contract["image_size"], contract["resample"]
    height, width = pixels.shape[:2]
    if contract["geometry"] == "whole":
        return resized(pixels, (size, size), kernel, (0, 0, width, height))
    if contract["geometry"] == "bars":
        longest = max(width, height)
        inside_w, inside_h = (max(1, (2 * side * size + longest) // (2 * longest)) for side in (width, height))
        square = np.empty((size, size, 3), np.uint8)
        square[:] = background(contract)
        left, top = (size - inside_w) // 2, (size - inside_h) // 2
        inside = resized(pixels, (inside_w, inside_h), kernel, (0, 0, width, height))
        square[top : top + inside_h, left : left + inside_w] = inside
        return square
    scale = contract["resize_size"] / min(width, height)
    half_w, half_h = min(size / scale, width) / 2, min(size / scale, height) / 2
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)
    return resized(pixels, (size, size), kernel, box)


def resized(pixels: Pixels, size: tuple[int, int], kernel: str, box: tuple[float, float, float, float]) -> Pixels:
    """Resize the part `box` of pixels to `size` (width, height): across first, then down; each rounds to 8 bits.

    Args:
        box: left, top, right and bottom edge.
    """
    height, width = pixels.shape[:2]
    across, down = taps(width, box[0], box[2], size[0], kernel), taps(height, box[1], box[3], size[1], kernel)
    first, last = int(down[0].min()), int(down[0].max()) + 1  # rows that are needed
    rows = np.empty((last - first, size[0], 3), np.uint8)
    for start in range(0, len(rows), _ROWS):
        band = pixels[first + start : min(first + start + _ROWS, last)]
        rows[start : start + len(band)] = summed(band.transpose(1, 0, 2), across).transpose(1, 0, 2)
    return np.ascontiguousarray(summed(rows, (down[0] - first, down[1])))


def taps(length: int, start: float, stop: float, count: int, kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels each output sums, and their weights as whole numbers; both (outputs, most of one).

    Args:
        length: number of pixels. start, stop: edges of the part that is resized. count: number of outputs.
    """
    start, stop = (float(np.float32(edge)) for edge in (start, stop))
    scale = float(np.float32(np.float32(stop) - np.float32(start))) / count
    wide = max(scale, 1.0)
    support = _SUPPORT[kernel] * wide
    most = math.ceil(support) * 2 + 1
    places, weights = np.zeros((count, most), np.int64), np.zeros((count, most), np.int32)
    for number in range(count):
        center = start + (number + 0.5) * scale
        low, high = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), length)
        shares = [weight(kernel, (place - center + 0.5) * (1.0 / wide)) for place in range(low, high)]
        total = 0.0
        for share in shares:
            total += share
        for place, share in enumerate(shares):
            scaled = (share / total if total else share) * (1 << _BITS)
            weights[number, place] = int(scaled - 0.5 if share < 0 else scaled + 0.5)
        places[number] = np.minimum(low + np.arange(most), high - 1)
    return places, weights


def weight(kernel: str, x: float) -> float:
    """Return the kernel's weight at a distance."""
    x = abs(x)
    if kernel == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


def summed(pixels: Pixels, found: tuple[np.ndarray, np.ndarray]) -> Pixels:
    """Return weighted sums along the first axis, uint8."""
    places, weights = found
    total = np.full((len(places), *pixels.shape[1:]), 1 << (_BITS - 1), np.int32)
    for number in range(places.shape[1]):
        share = weights[:, number]
        if share.any():
            total += pixels[places[:, number]].astype(np.int32) * share.reshape(-1, *[1] * (pixels.ndim - 1))
    return (total >> _BITS).clip(0, 255).astype(np.uint8)


# From pixels to scores.


def to_tensor(square: Pixels, tensor: dict[str, Any]) -> np.ndarray:
    """Return the model's input of one square, with a batch of 1."""
    if tensor["type"] == "uint8":
        values = square
    elif tensor["type"] == "int8":
        values = (square.astype(np.int16) - 128).astype(np.int8)
    else:
        center, width = (np.asarray(tensor[name], np.float32) * 255 for name in ("mean", "std"))
        values = ((square.astype(np.float32) - center) / width).astype(np.float32)
    return np.ascontiguousarray((values.transpose(2, 0, 1) if tensor["layout"] == "NCHW" else values)[None])


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return the softmax of scores over a temperature, float64 (classes,)."""
    shifted = np.exp((scores.astype(np.float64) - float(scores.max())) / temperature)
    return shifted / shifted.sum()


def open_tensorrt(path: Path, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Build the engine of an ONNX file, unless it is there, and load it."""
    from engine import Engine, built  # type: ignore[import-not-found]

    run = Engine(built(path, precision))
    return lambda values: np.asarray(run(values)[0], np.float32)


def open_litert(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Open a .tflite file: a function from the input to the scores of one picture."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        scores = interpreter.get_tensor(target["index"])[0]
        scale, zero = target["quantization"]
        return ((scores.astype(np.float32) - zero) * scale if scale else scores).astype(np.float32)

    return run


def open_onnx(path: Path, threads: int, as_written: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Open an ONNX file. as_written: without ONNX Runtime's optimizer, which makes answers of some files wrong."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # On x86 CPUs without VNNI, INT8 answers become wrong without this: sums of 8-bit products saturate.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda values: np.asarray(session.run(["scores"], {"image": values})[0][0], np.float32)


# The golden set.


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def noise(width: int, height: int, seed: int) -> Pixels:
    """Return the pixels of a case without a file, uint8 (height, width, 3)."""
    state, found = seed, bytearray()
    for _ in range(width * height * 3):
        state = (1664525 * state + 1013904223) & 0xFFFFFFFF
        found.append(state >> 24)
    return np.frombuffer(bytes(found), np.uint8).reshape(height, width, 3)


class Result(NamedTuple):
    """Result of a level. problems: one line each; cause: of the pixels that differ; "" where none is known.

    skipped: why nothing was checked; "" where it was.
    """

    level: str
    checked: int
    problems: list[str]
    cause: str = ""
    skipped: str = ""


class Case:
    """A picture of the golden set.

    Attributes:
        picture: a file, or pixels. crc32: of the square. most: levels that it may differ by. probe: of the square.
        row: of its scores; None for a case without. best, probability: of the most probable class.
        drifts: name -> probe of what a wrong program gives.
    """

    def __init__(self, folder: Path, fields: list[str], probes: np.ndarray) -> None:
        kind, source, self.crc32, most, probe, row, best, share = fields
        self.name = source if kind == "file" else "noise " + source.rpartition("x")[0]
        self.is_file = kind == "file"
        self.picture = folder / source if self.is_file else noise(*map(int, source.split("x")))
        self.most, self.probe = int(most), probes[int(probe)]
        self.row = None if row == "-" else int(row)
        self.best, self.probability = (0, 0.0) if row == "-" else (int(best), float(share))
        self.drifts: dict[str, np.ndarray] = {}


class Golden:
    """The golden set in a folder, in the form of golden.tsv."""

    def __init__(self, folder: Path, classes: int) -> None:
        lines = (folder / "golden.tsv").read_text(encoding="utf-8").splitlines()
        fields = [line.split("\t") for line in lines]
        single = {line[0]: line[1] for line in fields if len(line) == 2}
        if single["schema"] != "1":
            raise ValueError("golden.tsv is of another schema than 1: use the classifier.py that came with it")
        self.size, self.probe = int(single["size"]), int(single["probe"])
        self.values = [[float(each) for each in line[1:]] for line in fields if line[0] == "value"]
        self.tolerance = {line[1]: float(line[2]) for line in fields if line[0] == "tolerance"}
        self.drifts = {line[1]: line[2] for line in fields if line[0] == "drift"}
        self.scores = np.fromfile(str(folder / "scores.f32"), "<f4").reshape(-1, classes)
        probes = np.fromfile(str(folder / "probes.rgb"), np.uint8).reshape(-1, self.probe, self.probe, 3).astype(int)
        self.cases: list[Case] = []
        for line in fields:
            if line[0] == "case":
                self.cases.append(Case(folder, line[1:], probes))
            elif line[0] == "wrong":
                self.cases[-1].drifts[line[1]] = probes[int(line[2])]
        if not self.cases or not self.values:
            raise ValueError("golden.tsv is damaged: it has no cases")


def check(model: Classifier, folder: Path) -> Iterator[Result]:
    """Compare this program and its runtime with the golden set in a folder, level by level."""
    golden = Golden(folder, len(model.labels))
    scored: list[tuple[Case, Pixels]] = []
    for level, is_file in (("pixels to tensor", False), ("picture file to tensor", True)):
        own = [case for case in golden.cases if case.is_file == is_file]
        if is_file and not has_pillow():
            yield Result(level, 0, [], skipped="Pillow, which decodes the files, is not installed")
            continue
        found = [model.pixels(case.picture) for case in own]
        scored += [(case, square) for case, square in zip(own, found) if case.row is not None]
        problems = [text for case, square in zip(own, found) if (text := wrong(case, square, golden.probe))]
        yield Result(level, len(own), problems, cause(own, found, golden) if problems else "")
    yield values(model, golden)
    try:
        answers = [(case, model.scores(square)) for case, square in scored]
    except ImportError as error:
        for level in ("tensor to scores", "label and probability"):
            yield Result(level, 0, [], skipped=f"the runtime is not installed here: {error}")
        return
    most = golden.tolerance[model.processor]
    gaps = [(case.name, float(np.abs(scores - golden.scores[case.row]).max())) for case, scores in answers]
    off = [f"{name}: scores differ by {gap:.3g}, more than {most:.3g}" for name, gap in gaps if not gap <= most]
    yield Result("tensor to scores", len(gaps), off)
    labels = [text for case, scores in answers if (text := wrong_label(case, scores, model, most))]
    yield Result("label and probability", len(answers), labels)


def has_pillow() -> bool:
    """Return whether pictures can be decoded here."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return False
    return True


def wrong(case: Case, square: Pixels, count: int) -> str:
    """Return how the pixels of a case differ from what they must be; "" if they do not."""
    most = int(np.abs(probe(square, count).astype(int) - case.probe).max())
    if case.most:
        return f"{case.name}: {most} levels off, more than {case.most}" if most > case.most else ""
    same = f"{zlib.crc32(np.ascontiguousarray(square).tobytes()):08x}" == case.crc32
    return "" if same else f"{case.name}: other pixels, up to {most} levels off where it was looked"


def probe(square: Pixels, count: int) -> np.ndarray:
    """Return the pixels at the places of a probe."""
    at = (2 * np.arange(count) + 1) * len(square) // (2 * count)
    return square[at][:, at]


def cause(cases: list[Case], squares: list[Pixels], golden: Golden) -> str:
    """Return what a program that gives these pixels does wrong; "" if it is none of the known mistakes."""
    told = [(case, probe(square, golden.probe).astype(int)) for case, square in zip(cases, squares) if case.drifts]
    totals = {
        name: sum(float(np.abs(found - case.drifts.get(name, case.probe)).mean()) for case, found in told)
        for name in ("", *golden.drifts)
    }
    best = min(totals, key=lambda name: totals[name])
    return f"{best}: {golden.drifts[best]}" if totals[best] < totals[""] / 2 else ""


def values(model: Classifier, golden: Golden) -> Result:
    """Compare the tensor's values of black, grey and white pixels."""
    square, problems = (golden.size, golden.size, 3), []
    for level, *expected in golden.values:
        tensor = to_tensor(np.full(square, level, np.uint8), model.tensor)[0].astype(np.float64)
        channels = tensor.reshape(3, -1)[:, 0] if model.tensor["layout"] == "NCHW" else tensor[0, 0]
        for channel, (got, wanted) in enumerate(zip(channels, expected)):
            if not abs(got - wanted) <= 1e-5:
                problems.append(f"{'RGB'[channel]} of {level:g}: {got:.6g} instead of {wanted:.6g} (mean, std, scale)")
    return Result("values of the tensor", 3 * len(golden.values), problems)


def wrong_label(case: Case, scores: np.ndarray, model: Classifier, most: float) -> str:
    """Return how the answer of a case differs; classes within the tolerance of the best count as equal."""
    shares, wanted = probabilities(scores, model.temperature), case.best
    best = int(scores.argmax())
    if best != wanted and scores[best] - scores[wanted] > 2 * most:
        return f"{case.name}: {model.labels[best]!r} instead of {model.labels[wanted]!r}"
    room = 2 * most / model.temperature
    if not abs(shares[wanted] - case.probability) <= min(1.0, math.expm1(room)) + 1e-6:
        return f"{case.name}: probability {shares[wanted]:.4f} instead of {case.probability:.4f}"
    return ""


def main() -> int:
    """Classify pictures, or check this machine."""
    parser = argparse.ArgumentParser(description="Classify pictures with the model of this folder.")
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="compare this machine with the golden set")
    parser.add_argument("--json", action="store_true", help="with --check: results as JSON")
    parser.add_argument("--kit", type=Path, default=HERE, help="folder of the model; default: that of this program")
    given = parser.parse_args()
    if not given.pictures and not given.check:
        parser.error("no pictures")
    model = Classifier(given.kit)
    if given.check:
        found = list(check(model, given.kit / "golden"))
        if given.json:
            print(json.dumps([result._asdict() for result in found]))
        for result in found if not given.json else []:
            state = (
                f"not checked: {result.skipped}"
                if result.skipped
                else "ok"
                if not result.problems
                else f"{len(result.problems)} of {result.checked} WRONG"
            )
            print(f"{result.level}: {state} ({result.checked} checked)")
            for line in [*([f"cause: {result.cause}"] if result.cause else []), *result.problems[:5]]:
                print(f"    {line}")
        return 1 if any(result.problems for result in found) else 0
    failed = 0
    for picture in given.pictures:
        try:
            best = ", ".join(f"{a.label} {100 * a.probability:.1f} %" for a in model.classify(picture)[:3])
        except (OSError, ValueError) as error:
            failed = 1
            print(f"{picture}: {error}", file=sys.stderr)
        else:
            print(f"{picture}: {best}")
    return failed


if __name__ == "__main__":
    sys.exit(main())

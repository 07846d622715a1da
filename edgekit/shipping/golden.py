"""The golden set of a kit: small pictures, the exact pixels that the network takes of each, and the model's scores.

``golden/golden.tsv`` has lines of fields with tabs between them, which every language reads without a library. The
first field says what a line is:

    schema     1
    size, resize_size, resample, geometry, background
               of the contract, which ``preprocess.json`` has as a whole
    probe      number of places across and down of a probe: place i is pixel ``(2 i + 1) * size // (2 probe)``
    value      a level (0, 128, 255), and the tensor's values of R, G and B for pixels of that level
    tolerance  a delegate (cpu, gpu, npu), and the largest difference of scores that still is the same model
    drift      a name, and what that program does wrong, in words
    case       source, CRC-32, levels, probe, scores, class, probability:
                   source: two fields, ``noise`` and ``WIDTHxHEIGHTxSEED``, or ``file`` and a picture in the same folder
                   CRC-32 of the square of uint8 RGB pixels, row by row, as 8 digits
                   levels that a probe may differ by: 0, or more for JPEG, which decoders round differently
                   probe: row in probes.rgb of the pixels at the places
                   scores: row in scores.f32; class, probability: of the best one, counted from 0. A case without says
                   nothing of the model, and has - for the three
    wrong      of the case before: name of a drift, and the row in probes.rgb of what it gives. A drift that changes
               nothing there is left out; a case without such lines tells nothing of drifts

``golden/probes.rgb`` has the probes, uint8 (rows, probe, probe, 3). ``golden/scores.f32`` has the model's scores,
little-endian float32 (cases, classes), computed with LiteRT or ONNX Runtime on the CPU of the machine that made the
kit. Noise needs no file: pixel bytes are the highest byte of ``x = 1664525 x + 1013904223`` (modulo 2**32), which
starts at the seed.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.data import images
from edgekit.records import FLOAT, Preprocess

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEMA = 1
PICTURES = Path(__file__).parent / "pictures"
PROBE = 12
LEVELS = (0, 128, 255)  # whose values in the tensor are written
JPEG_LEVELS = 4  # decoders differ by 0 to 3
LEAST_DRIFT = 0.05  # mean levels; what differs by less is no drift worth a name
_PLAIN = ("exif-1", "exif-2", "exif-4", "exif-5", "exif-7", "exif-8")  # neither drifts nor scores: others tell the same
_GPU_SHARE = 0.05  # of the scores' spread, that float16 and NPUs may change

Drift = Callable[["Image", Preprocess], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One picture of the golden set.

    Attributes:
        name: of the file, or of the noise. noise: width, height and seed; None for a file.
        pixels: what the network takes, uint8 (size, size, 3). drifts: name -> what a wrong program gives of it.
    """

    name: str
    noise: tuple[int, int, int] | None
    pixels: np.ndarray
    drifts: dict[str, np.ndarray]

    @property
    def most(self) -> int:
        """Levels that a program's pixels may differ by."""
        return JPEG_LEVELS if self.name.endswith(".jpg") else 0

    @property
    def is_scored(self) -> bool:
        """True for cases whose scores are kept: noise, and PNG files, which every decoder reads alike."""
        return self.most == 0

    @property
    def tells(self) -> dict[str, np.ndarray]:
        """The drifts that are written: other cases tell the same as the plain ones."""
        return {} if self.name.partition(".")[0] in _PLAIN else self.drifts


def write(
    folder: Path,
    contract: Mapping[str, Any],
    every: Sequence[Case],
    scores: np.ndarray,
    tolerances: Mapping[str, float],
) -> None:
    """Write the golden set into a new folder.

    Args:
        contract: of the file, `Contract.of_file`. scores: of the scored cases, float32 (cases, classes).
    """
    from edgekit.evaluation.metrics import softmax

    folder.mkdir(parents=True)
    probes: list[np.ndarray] = []

    def row(square: np.ndarray) -> int:
        probes.append(probe(square))
        return len(probes) - 1

    lines: list[tuple[Any, ...]] = [("schema", SCHEMA), ("size", contract["image_size"])]
    lines += [(name, contract[name]) for name in ("resize_size", "resample", "geometry", "background")]
    lines += [("probe", PROBE)]
    lines += [("value", level, *found) for level, found in zip(LEVELS, values(contract["tensor"]))]
    lines += [("tolerance", *each) for each in tolerances.items()]
    lines += [("drift", name, text) for name, (text, _) in DRIFTS.items()]
    shares = softmax(scores, contract["scores"]["temperature"] or 1.0)
    scored = 0
    for case in every:
        source = ("file", case.name) if case.noise is None else ("noise", "x".join(map(str, case.noise)))
        answer: tuple[Any, ...] = ("-", "-", "-")
        if case.is_scored:
            best = int(scores[scored].argmax())
            answer = (scored, best, f"{float(shares[scored][best]):.9f}")
            scored += 1
        lines.append(("case", *source, crc32(case.pixels), case.most, row(case.pixels), *answer))
        lines += [("wrong", name, row(square)) for name, square in case.tells.items()]
        if case.noise is None:
            shutil.copyfile(PICTURES / case.name, folder / case.name)
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
    (folder / "golden.tsv").write_bytes(text.encode())
    (folder / "probes.rgb").write_bytes(np.stack(probes).tobytes())
    (folder / "scores.f32").write_bytes(np.ascontiguousarray(scores, "<f4").tobytes())


def noise(width: int, height: int, seed: int) -> np.ndarray:
    """Return pixels of the linear congruential generator, uint8 (height, width, 3)."""
    count = width * height * 3
    powers = np.multiply.accumulate(np.full(count, 1664525, np.uint32), dtype=np.uint32)
    sums = np.cumsum(np.concatenate([np.ones(1, np.uint32), powers[:-1]]), dtype=np.uint32)
    states = powers * np.uint32(seed) + np.uint32(1013904223) * sums
    return (states >> 24).astype(np.uint8).reshape(height, width, 3)


def crc32(square: np.ndarray) -> str:
    """Return the CRC-32 of pixels, 8 hexadecimal digits."""
    return f"{zlib.crc32(np.ascontiguousarray(square).tobytes()):08x}"


def probe(square: np.ndarray) -> np.ndarray:
    """Return the pixels at the places of a probe, uint8 (PROBE, PROBE, 3)."""
    places = (2 * np.arange(PROBE) + 1) * len(square) // (2 * PROBE)
    return square[places][:, places]


def values(tensor: Mapping[str, Any]) -> list[list[float]]:
    """Return what a tensor (`Contract.tensor`) holds for R, G and B of black, grey and white pixels."""
    levels = np.array(LEVELS, float)[:, None]
    if tensor["type"] == "float32":
        found = (levels / 255 - np.array(tensor["mean"])) / np.array(tensor["std"])
    else:
        found = np.repeat(levels - (128.0 if tensor["type"] == "int8" else 0.0), 3, 1)
    return [[float(f"{value:.9g}") for value in row] for row in found]


def tolerance(scores: np.ndarray, other: np.ndarray, precision: str) -> dict[str, float]:
    """Return how far scores of the same model may be from each other, by delegate.

    Four times what two kinds of kernels differ by here, and at least a thousandth of the scores' spread, or a
    hundredth for integers, which other processors round differently.

    Args:
        scores, other: of the two kinds of kernels (N, classes).
    """
    spread = float(np.ptp(scores, 1).max())
    least = spread * (0.001 if precision in FLOAT else 0.01)
    cpu = max(4 * float(np.abs(scores - other).max()), least, 1e-4)
    far = max(cpu, _GPU_SHARE * spread)
    return {name: float(f"{value:.4g}") for name, value in (("cpu", cpu), ("gpu", far), ("npu", far))}


def cases(preprocess: Preprocess) -> Iterator[Case]:
    """Yield the noise, then the pictures, with their pixels and drifts."""
    from PIL import Image

    size = preprocess.image_size
    shapes = [(2 * size + 37, 2 * size - 11), (size - 9, 2 * size + 3), (7, 5), (size, size), (3, 4 * size)]
    for seed, (width, height) in enumerate(shapes, 1):
        image = Image.fromarray(noise(width, height, seed))
        yield _case(f"noise {width}x{height}", (width, height, seed), image, preprocess)
    for path in sorted(PICTURES.iterdir()):
        with Image.open(path) as image:
            image.load()
            yield _case(path.name, None, image, preprocess, images.load_fitted(path, preprocess))


def _case(
    name: str,
    seeded: tuple[int, int, int] | None,
    image: Image,
    preprocess: Preprocess,
    pixels: np.ndarray | None = None,
) -> Case:
    """Return a case of an image as it was decoded, neither turned nor composed."""
    pixels = images.fit(image, preprocess) if pixels is None else pixels
    drifts = {drift: function(image, preprocess) for drift, (_, function) in DRIFTS.items()}
    told = {drift: square for drift, square in drifts.items() if _differs(square, pixels)}
    return Case(name, seeded, pixels, told)


def _differs(square: np.ndarray, pixels: np.ndarray) -> bool:
    """Return whether a probe shows that pixels are others."""
    return float(np.abs(probe(square).astype(float) - probe(pixels)).mean()) > LEAST_DRIFT


def _rgb(image: Image, preprocess: Preprocess) -> Image:
    """Return an image upright in RGB over the background."""
    from PIL import Image, ImageOps

    upright = (ImageOps.exif_transpose(image) or image).convert("RGBA")
    below = Image.new("RGBA", upright.size, (*preprocess.colour, 255))
    return Image.alpha_composite(below, upright).convert("RGB")


def _stretched(image: Image, preprocess: Preprocess) -> np.ndarray:
    squashed = replace(preprocess, resize="squash", resize_size=preprocess.image_size)
    return images.fit(_rgb(image, preprocess), squashed)


def _uncropped(image: Image, preprocess: Preprocess) -> np.ndarray:
    whole = replace(preprocess, resize="crop", resize_size=preprocess.image_size)
    return images.fit(_rgb(image, preprocess), whole)


def _other_kernel(image: Image, preprocess: Preprocess) -> np.ndarray:
    other = "bicubic" if preprocess.resample == "bilinear" else "bilinear"
    return images.fit(_rgb(image, preprocess), replace(preprocess, resample=other))


def _sampled(image: Image, preprocess: Preprocess, linear: bool) -> np.ndarray:
    """Return the square from the four (or the one) nearest pixels of each place, whatever the scale."""
    pixels = np.asarray(_rgb(image, preprocess))
    for axis, (start, stop) in enumerate(edges(pixels.shape[1], pixels.shape[0], preprocess)):
        size, length = preprocess.image_size, pixels.shape[axis]
        places = start + (np.arange(size) + 0.5) * (stop - start) / size - (0.5 if linear else 0.0)
        first = np.floor(places).astype(int)
        share = (places - first).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)) if linear else 0.0
        one, other = (np.take(pixels, (first + n).clip(0, length - 1), axis).astype(float) for n in (0, 1))
        pixels = (one * (1 - share) + other * share).round().astype(np.uint8)
    return pixels


def edges(width: int, height: int, preprocess: Preprocess) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the top and the bottom, and the left and the right edge of what is resized to the whole square."""
    if preprocess.resize != "crop":
        return (0.0, height), (0.0, width)
    left, top, right, bottom = images.centre_box(width, height, preprocess)
    return (top, bottom), (left, right)


def _point_sampled(image: Image, preprocess: Preprocess) -> np.ndarray:
    return _sampled(image, preprocess, linear=True)


def _nearest(image: Image, preprocess: Preprocess) -> np.ndarray:
    return _sampled(image, preprocess, linear=False)


def _bgr(image: Image, preprocess: Preprocess) -> np.ndarray:
    return images.fit(_rgb(image, preprocess), preprocess)[..., ::-1]


def _not_turned(image: Image, preprocess: Preprocess) -> np.ndarray:
    stored = image.copy()
    stored.getexif().clear()
    stored.info.pop("exif", None)
    return images.fit(_rgb(stored, preprocess), preprocess)


def _over_black(image: Image, preprocess: Preprocess) -> np.ndarray:
    other = "#000000" if preprocess.background != "#000000" else "#ffffff"
    return images.fit(_rgb(image, replace(preprocess, background=other)), preprocess)


def _shifted(image: Image, preprocess: Preprocess) -> np.ndarray:
    """Return the square one pixel further right and down."""
    square = images.fit(_rgb(image, preprocess), preprocess)
    return np.roll(square, (-1, -1), (0, 1))


DRIFTS: dict[str, tuple[str, Drift]] = {
    "stretched": ("the picture is stretched to a square, whatever its shape", _stretched),
    "not cropped": ("the whole centre square is resized, nothing of it is cut off", _uncropped),
    "no antialias": ("bilinear from the four nearest pixels: when a picture shrinks, most of it is never read",
                     _point_sampled),
    "nearest": ("each pixel is a copy of the nearest one", _nearest),
    "other kernel": ("bilinear and bicubic are mixed up", _other_kernel),
    "bgr": ("red and blue are swapped", _bgr),
    "not turned": ("the EXIF orientation is ignored", _not_turned),
    "background": ("transparent parts lie over another colour, or the alpha channel is dropped", _over_black),
    "off by one": ("the crop is one pixel too far right and down", _shifted),
}  # fmt: skip

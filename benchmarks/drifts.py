"""How the answers of an app change that prepares pictures in its own way: whole photographs, one network.

    python -m benchmarks.drifts PHOTOGRAPHS RUN [ARTIFACT]

PHOTOGRAPHS is the folder of the fresh set (see `photographs`), RUN a run with the 1,000 classes of ImageNet:

    edgekit import lite0.pth --arch efficientnet_lite0 --labels imagenet --calibration-data WALLS --name lite0
    edgekit export lite0 --target android

Each drift is one that the golden sets of kits name (`edgekit.shipping.golden`), or one of those below, which need a
camera, the orientation of a phone, or a model with float input. The table has, against the contract:
mean and largest difference of the pixels in levels, changed answers of all and of sure photographs (p >= 0.5), and the
largest change of a probability. Written to results/drifts.json.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edgekit
from benchmarks import photographs
from edgekit import files
from edgekit.bench import session
from edgekit.data import images
from edgekit.evaluation.metrics import softmax
from edgekit.records import Artifact, Preprocess
from edgekit.shipping import golden

RESULT = Path(__file__).parent / "results" / "drifts.json"
SURE = 0.5
Prepared = Callable[[Image.Image, Preprocess], np.ndarray]
# Shares of R, G and B in luma, of the two standards that cameras name.
BT601, BT709 = (0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)


def to_yuv(pixels: np.ndarray, shares: tuple[float, float, float], full: bool) -> np.ndarray:
    """Return luma and colour differences, float (H, W, 3) from 0 to 255, colour at half the resolution (4:2:0).

    Args:
        full: the whole range of 8 bits; otherwise 16 to 235 and 16 to 240.
    """
    red, _, blue = shares
    rgb = pixels.astype(np.float32)
    luma = rgb @ np.array(shares, np.float32)
    u, v = (rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)
    found = np.stack([luma, halved(u) + 128, halved(v) + 128], -1)
    if not full:
        found = (found - (0, 128, 128)) * (219 / 255, 224 / 255, 224 / 255) + (16, 128, 128)
    return found.round().clip(0, 255)


def halved(values: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 2x2, each repeated over its block."""
    height, width = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2)), "edge")
    means = padded.reshape(len(padded) // 2, 2, -1, 2).mean((1, 3))
    return means.repeat(2, 0).repeat(2, 1)[:height, :width]


def from_yuv(yuv: np.ndarray, shares: tuple[float, float, float], full: bool) -> np.ndarray:
    """Return RGB, uint8 (H, W, 3)."""
    red, green, blue = shares
    luma, u, v = np.moveaxis(yuv if full else (yuv - (16, 128, 128)) * (255 / 219, 255 / 224, 255 / 224), -1, 0)
    u, v = (u - 128, v - 128) if full else (u, v)
    r, b = luma + (2 - 2 * red) * v, luma + (2 - 2 * blue) * u
    g = (luma - red * r - blue * b) / green
    return np.stack([r, g, b], -1).round().clip(0, 255).astype(np.uint8)


def camera(
    given: tuple[tuple[float, float, float], bool],
    read: tuple[tuple[float, float, float], bool],
    swapped: bool = False,
) -> Prepared:
    """Return what an app makes of a camera's picture that it reads by another matrix or range."""

    def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
        yuv = to_yuv(np.asarray(image), *given)
        return images.fit(Image.fromarray(from_yuv(yuv[..., [0, 2, 1]] if swapped else yuv, *read)), preprocess)

    return prepare


def turned(method: Image.Transpose) -> Prepared:
    """Return what an app makes of a picture whose EXIF orientation it ignores."""
    return lambda image, preprocess: images.fit(image.transpose(method), preprocess)


def stretched_point_sampled(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """Return the square of the usual sample code: stretched, from the four nearest pixels."""
    from dataclasses import replace

    squashed = replace(preprocess, resize="squash", resize_size=preprocess.image_size)
    return golden.DRIFTS["no antialias"][1](image, squashed)


DRIFTS: dict[str, tuple[str, Prepared]] = {
    **{name: drift for name, drift in golden.DRIFTS.items() if name not in ("not turned", "background")},
    "stretched, no antialias": ("both, as in much sample code", stretched_point_sampled),
    "not turned, EXIF 6": ("the phone was held upright", turned(Image.Transpose.ROTATE_90)),
    "not turned, EXIF 3": ("the phone was upside down", turned(Image.Transpose.ROTATE_180)),
    "camera, as it should be": ("YUV 4:2:0, read by its own matrix", camera((BT601, True), (BT601, True))),
    "full range read as limited": ("camera: BT.601", camera((BT601, True), (BT601, False))),
    "limited range read as full": ("camera: BT.601", camera((BT601, False), (BT601, True))),
    "BT.709 read as BT.601": ("camera: limited range", camera((BT709, False), (BT601, False))),
    "U and V swapped": ("camera: NV12 and NV21 are mixed up", camera((BT601, True), (BT601, True), swapped=True)),
}


@dataclass(frozen=True)
class Network:
    """A file, and what its scores are divided by."""

    artifact: Artifact
    path: Path
    preprocess: Preprocess
    temperature: float

    def shares(self, squares: np.ndarray, preprocess: Preprocess | None = None) -> np.ndarray:
        """Return probabilities of squares of pixels, (N, classes)."""
        scores = session.infer_here(self.artifact, self.path, squares, preprocess or self.preprocess)
        return softmax(scores, self.temperature)


def network(run: edgekit.Run, name: str) -> Network:
    """Return a file of a run."""
    from edgekit.api.artifacts import contract_of, current_artifacts
    from edgekit.api.intermediates import Intermediates

    known = {artifact.name: artifact for artifact in current_artifacts(run, run.weights_sha256)}
    contract = contract_of(Intermediates(run))
    return Network(known[name], run.path / "export" / name, contract.preprocess, contract.temperature or 1.0)


def compared(right: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Return how probabilities differ: changed answers of all, of the sure ones, and the largest change of one."""
    changed = right.argmax(1) != other.argmax(1)
    sure = right.max(1) >= SURE
    return {
        "changed": int(changed.sum()),
        "changed_sure": int(changed[sure].sum()),
        "largest": round(float(np.abs(right - other).max()), 3),
    }


def measured(net: Network, pictures: list[Path]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name, the words and the figures of each drift."""
    opened = [images.load_image(path, net.preprocess) for path in pictures]
    squares = np.stack([images.fit(image, net.preprocess) for image in opened])
    right = net.shares(squares)
    yield "", "", {"photographs": len(right), "sure": int((right.max(1) >= SURE).sum())}
    for name, (text, prepare) in DRIFTS.items():
        other = np.stack([prepare(image, net.preprocess) for image in opened])
        levels = np.abs(other.astype(np.int16) - squares)
        found = compared(right, net.shares(other))
        yield name, text, {"mean_levels": round(float(levels.mean()), 2), "most_levels": int(levels.max()), **found}
    if net.artifact.input == "float32":
        for name, preprocess in wrong_values(net.preprocess):
            yield name, "float input", compared(right, net.shares(squares, preprocess))


def wrong_values(preprocess: Preprocess) -> Iterator[tuple[str, Preprocess]]:
    """Yield preprocessing with the mean and std of other networks."""
    from dataclasses import replace

    usual = {
        "mean and std of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "values of 0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "values of -1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }
    for name, (mean, std) in usual.items():
        if not np.allclose([*mean, *std], [*preprocess.mean, *preprocess.std], atol=0.01):
            yield name, replace(preprocess, mean=mean, std=std)


def main() -> None:
    """Measure, print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("artifact", nargs="?", default="android/model.int8.tflite")
    options = parser.parse_args()
    net = network(edgekit.open_run(options.run), options.artifact)
    rows, about = [], {}
    for name, text, found in measured(net, photographs.find_fresh(options.photographs)):
        print(name or "all", found, flush=True)
        about, rows = ({**about, **found}, rows) if not name else (about, [*rows, {"drift": name, "is": text, **found}])
    known = files.load_json(RESULT) if RESULT.is_file() else {}
    known[options.artifact] = {
        "source": photographs.FRESH, "machine": platform.machine(), **about, "drifts": rows,
    }  # fmt: skip
    files.save_json(RESULT, known)


if __name__ == "__main__":
    main()

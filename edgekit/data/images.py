"""Decoding, resizing and cropping of images on the host, as `Preprocess` describes.

Devices receive uint8 RGB at the input size of the model; `edgekit.ondevice.preprocess` normalizes it there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data.threads import in_order
from edgekit.errors import DataError, MissingError, raise_if_not_damage
from edgekit.records import Preprocess

if TYPE_CHECKING:
    from PIL.Image import Image


EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
# Not every format that Pillow opens: its EPS reader runs Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
MAX_PIXELS = 80_000_000


def load_image(path: Path) -> Image:
    """Decode a file to upright 8-bit RGB.

    Applies the EXIF orientation, converts grey, palette, CMYK and 16-bit images, and blends transparent
    pixels with white. Of an animation the first frame is used.

    Raises:
        MissingError: the file does not exist. StorageError: the file cannot be read, for example for lack of
            permission. DataError: the file is not an image, is truncated, or is larger than `MAX_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {width}x{height} is {width * height / 1e6:.0f} megapixels, "
                        f"the limit is {MAX_PIXELS // 1_000_000}",
                        "scale the image down; a classifier uses a few hundred pixels per side",
                    )
                image.load()
                return _to_rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: far more than {MAX_PIXELS // 1_000_000} megapixels, the limit", "scale the image down"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, FileNotFoundError):
            raise MissingError(f"{path}: no such file", "check the path") from error
        raise_if_not_damage(error, path)
        # Pillow's own message would repeat the path.
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        why = "not a known image format" if isinstance(error, UnidentifiedImageError) else why
        raise DataError(f"{path}: cannot be decoded ({why})", "replace or delete the file") from error


def _upright(image: Image) -> Image:
    """Return the image rotated according to its EXIF orientation.

    Pillow's `exif_transpose` also rewrites the EXIF data, which fails if these are damaged.
    """
    from PIL.Image import Transpose

    turns = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    turn = dict(enumerate(turns, 2)).get(image.getexif().get(0x0112, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image) -> Image:
    """Convert any Pillow mode to RGB; integer modes are scaled from 16 to 8 bits."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray((np.asarray(image).clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def fit(image: Image, preprocess: Preprocess) -> np.ndarray:
    """Resize the shorter side and crop the centre. Returns RGB, uint8 (image_size, image_size, 3)."""
    from PIL.Image import Resampling

    kernel = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}[preprocess.resample]
    width, height = image.size
    size, crop = preprocess.resize_size, preprocess.image_size
    scale = size / min(width, height)
    # Resizes only the part inside the crop, so that a strip of 1 x 10,000 pixels needs little memory.
    half_w, half_h = min(crop / scale, width) / 2, min(crop / scale, height) / 2
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)
    return np.array(image.resize((crop, crop), kernel, box=box), np.uint8)


def load_pixels(paths: Sequence[Path], preprocess: Preprocess) -> np.ndarray:
    """Decode and fit files. Returns RGB, uint8 (N, image_size, image_size, 3)."""
    pixels = np.empty((len(paths), preprocess.image_size, preprocess.image_size, 3), np.uint8)
    for number, path in enumerate(paths):
        pixels[number] = fit(load_image(path), preprocess)
    return pixels


def load_batches(paths: Sequence[Path], preprocess: Preprocess, size: int) -> Iterator[np.ndarray]:
    """Decode and fit files on all cores, and yield them in order, `size` at a time.

    Each batch is uint8 (n, image_size, image_size, 3). Memory does not grow with the number of files.
    """
    with closing(in_order(lambda path: fit(load_image(path), preprocess), paths)) as decoded:
        for start in range(0, len(paths), size):
            yield np.stack(list(islice(decoded, min(size, len(paths) - start))))


def save_pixels(paths: Sequence[Path], preprocess: Preprocess, target: Path) -> None:
    """Decode and fit files into one .npy file, uint8 (N, image_size, image_size, 3), with one image in memory."""
    shape = (len(paths), preprocess.image_size, preprocess.image_size, 3)
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    for number, path in enumerate(paths):
        pixels[number] = fit(load_image(path), preprocess)
    pixels.flush()

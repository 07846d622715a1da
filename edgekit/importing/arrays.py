"""Images that a program has in memory: arrays or batches of a loader, kept in a run as PNG files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import files
from edgekit.data.images import FITTED
from edgekit.errors import DataError, UsageError
from edgekit.records import Preprocess, Sample

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

FOLDER = "images"  # of a run
# Images that a calibration needs at most, so that an endless loader ends.
MOST_CALIBRATION = 1024
_KEYS = (("pixel_values", "image", "images", "img"), ("labels", "label", "targets", "target"))
_TOLERANCE = 2.0  # levels by which denormalized values may lie outside 0 to 255, from interpolation
_KINDS = "pass a folder, uint8 images (N, H, W, 3), (images, labels), or an iterable of batches such as a DataLoader"


def save(
    given: Any, run: Path, split: str, preprocess: Preprocess, classes: int, normalized: bool | None = None
) -> list[Sample]:
    """Write images as PNG files into ``<run>/images/<split>``, and return them as samples.

    Args:
        given: images; ``(images, labels)``; or an iterable of batches, each of them images, ``(images, labels)``, or a
            mapping with ``pixel_values`` or ``image``, and ``labels`` or ``label``.

            uint8 images are RGB, (N, H, W, 3) or (N, 3, H, W). They are preprocessed like files, except those of
            ``image_size`` x ``image_size``, which are taken as the network's input. Floating-point images are the
            network's input, (N, 3, image_size, image_size).
        split: of the samples; "calibration" takes no labels.
        classes: labels are integers from 0 to `classes` - 1.
        normalized: what floating-point images are: True: (pixel / 255 - mean) / std; False: pixel / 255.

    Raises:
        UsageError: floating-point images without `normalized`. DataError: other shapes or values, or labels that are
            missing or out of range.
    """
    labelled = split != "calibration"
    folder = run / FOLDER / split
    folder.mkdir(parents=True)
    samples: list[Sample] = []
    for images, labels in _batches(given):
        pixels, fitted = as_pixels(images, preprocess, normalized)
        numbers = _labels(labels, len(pixels), classes) if labelled else [-1] * len(pixels)
        for image, number in zip(pixels, numbers):
            path = folder / f"{len(samples):06d}.png"
            _write(path, image, fitted)
            samples.append(Sample(f"{split}/{path.name}", number, split, files.sha256_file(path)))
            if not labelled and len(samples) == MOST_CALIBRATION:
                return samples
    if not samples:
        raise DataError(f"no images for {split}: what was passed is empty", _KINDS)
    return samples


def is_folder(given: Any) -> bool:
    """Return True for a path, as opposed to images in memory."""
    return isinstance(given, str | Path)


def _batches(given: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (images, labels) for every batch; labels are None where there are none."""
    if _is_array(given) or isinstance(given, Mapping) or _is_pair(given):
        yield _parts(given)
    elif isinstance(given, Sequence) and not isinstance(given, str) and given and _is_picture(given[0]):
        for image in given:
            yield _array(image)[None], None
    elif isinstance(given, Iterable) and not isinstance(given, str):
        for batch in given:
            yield _parts(batch)
    else:
        raise UsageError(f"images cannot be read from {type(given).__name__}", _KINDS)


def _parts(batch: Any) -> tuple[Any, Any]:
    """Return the images and the labels of one batch."""
    if isinstance(batch, Mapping):
        images, labels = (next((batch[key] for key in keys if key in batch), None) for keys in _KEYS)
        if images is None:
            raise DataError(
                f"a batch has the entries {', '.join(map(str, batch))}, and none of {', '.join(_KEYS[0])}", _KINDS
            )
        return images, labels
    if _is_array(batch):
        return batch, None
    if isinstance(batch, tuple | list) and len(batch) >= 1 and _is_array(batch[0]):
        return batch[0], batch[1] if len(batch) > 1 else None
    raise DataError(f"a batch is {type(batch).__name__}, not images or (images, labels)", _KINDS)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_picture(value: Any) -> bool:
    """Return True for one image of (H, W, 3)."""
    return _is_array(value) and len(value.shape) == 3


def _is_pair(value: Any) -> bool:
    """Return True for (images, labels), as opposed to a sequence of batches."""
    if not (isinstance(value, tuple | list) and len(value) == 2 and _is_array(value[0]) and len(value[0].shape) == 4):
        return False
    try:
        return np.ndim(_array(value[1])) == 1 and len(value[1]) == len(value[0])
    except (TypeError, ValueError):
        return False


def _array(value: Any) -> np.ndarray:
    """Return an array or a tensor of any device as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) in ("torch.bfloat16", "torch.float16") else value
    return np.asarray(value)


def as_pixels(images: Any, preprocess: Preprocess, normalized: bool | None) -> tuple[np.ndarray, bool]:
    """Return images as uint8 (N, H, W, 3), and True if they are the network's input.

    Raises:
        As `save`.
    """
    values, size = _array(images), preprocess.image_size
    if values.ndim != 4:
        raise DataError(f"images have the shape {values.shape}; batches of 4 dimensions are needed", _KINDS)
    if values.dtype == np.uint8:
        last = values.shape[3] == 3
        if last == (values.shape[1] == 3):
            why = "channels may be the second or the last dimension" if last else "edgekit's networks take RGB"
            raise DataError(f"uint8 images have the shape {values.shape}: {why}", "pass (N, H, W, 3)")
        pixels = values if last else values.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(pixels), pixels.shape[1:3] == (size, size)
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"images are {values.dtype}; uint8 or floating point is needed", "images.astype('uint8')")
    if normalized is None:
        raise UsageError(
            f"images are {values.dtype}, and nothing says what their values mean",
            "normalized=True if they are (pixel / 255 - mean) / std, normalized=False if they are pixel / 255; or pass "
            "uint8 images",
        )
    if values.shape[1:] != (3, size, size):
        raise DataError(
            f"floating-point images have the shape {values.shape}; the network takes (N, 3, {size}, {size})",
            "pass them as the network takes them, or uint8 images of any size",
        )
    return _levels(values.astype(np.float64), preprocess, normalized), True


def _levels(values: np.ndarray, preprocess: Preprocess, normalized: bool) -> np.ndarray:
    """Return the levels, uint8 (N, H, W, 3), of floating-point images (N, 3, H, W)."""
    if not np.isfinite(values).all():
        raise DataError("images have values that are NaN or infinite", _KINDS)
    scaled = values
    if normalized:
        mean, std = (np.asarray(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
        scaled = values * std + mean
    levels = scaled.transpose(0, 2, 3, 1) * 255
    low, high = float(levels.min()), float(levels.max())
    if low < -_TOLERANCE or high > 255 + _TOLERANCE:
        span = f"{values.min():.3g} to {values.max():.3g}"
        meaning = "(pixel / 255 - mean) / std with this mean and std" if normalized else "pixel / 255"
        raise DataError(
            f"images have values of {span}, which are not {meaning}: pixels would be {low:.4g} to {high:.4g}",
            "say the mean and std that they were normalized with" if normalized else "normalized=True, or uint8 images",
        )
    if normalized and min(preprocess.mean) > 0.2 and values.min() >= 0 and values.max() <= 1 and np.ptp(values) > 0.2:
        raise DataError(
            f"images have values of {values.min():.3g} to {values.max():.3g}: they look like pixel / 255",
            "normalized=False",
        )
    return np.ascontiguousarray(levels.round().clip(0, 255).astype(np.uint8))


def _labels(labels: Any, count: int, classes: int) -> list[int]:
    """Return the labels of one batch.

    Raises:
        DataError: there are none, or they are no class numbers, or not one for each image.
    """
    if labels is None:
        raise DataError(
            "evaluation images come without labels", "pass (images, labels), or give them as calibration images"
        )
    values = _array(labels)
    if values.ndim != 1 or len(values) != count:
        raise DataError(f"labels have the shape {values.shape} for {count} images", "one class number for each image")
    if not np.issubdtype(values.dtype, np.integer) or (len(values) and not 0 <= values.min() <= values.max() < classes):
        raise DataError(
            f"labels must be integers of 0 to {classes - 1}, not {values.dtype} of {values.min()} to {values.max()}",
            "one class number for each image, in the order of the labels",
        )
    return [int(value) for value in values]


def _write(path: Path, pixels: np.ndarray, fitted: bool) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, pnginfo=_mark() if fitted else None, compress_level=1)


def _mark() -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(FITTED, "1")
    return mark

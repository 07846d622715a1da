"""Arrays of images: IDX files as MNIST has them, NPZ files, and the binary files of CIFAR; each image becomes a PNG."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgekit.data import rows
from edgekit.data.layout import split_of
from edgekit.data.unpacked import Readable, Writer
from edgekit.errors import DataError, from_os_error
from edgekit.labels import visible
from edgekit.records import SPLITS

IDX = re.compile(r"(.*?)(images?|labels?)[-.]idx([134])[-.]ubyte(\.gz)?$", re.I)
NPZ = re.compile(r"\.npz$", re.I)
CIFAR_NAMES = ("batches.meta.txt", "fine_label_names.txt")
CIFAR = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin$")
_CIFAR_PICKLES = re.compile(r"data_batch_\d+|test_batch|batches\.meta")
_IMAGES = {"x", "image", "images", "img", "imgs", "data", "input", "inputs", "pixels", "pictures"}
_LABELS = {"y", "label", "labels", "target", "targets", "class", "gt"}
_NAMES = {"class_names", "label_names", "classes", "names", "categories", "target_names"}
_LARGEST_SIDE, _MOST_LABELS = 32768, 1 << 28
_SHAPES = "images are (N, height, width) or (N, height, width, 1, 3 or 4), of uint8 or of floats from 0 to 1"
_AGAIN = "copy or download it again"
_MATCH = "use the two files, or arrays, that belong together: a label for each image"
_USUAL = (
    "save the arrays under usual names: np.savez(FILE, images=..., labels=...), or x_train, y_train, x_test and y_test"
)


def png(pixels: np.ndarray) -> bytes:
    """Return an image, uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or uint16 (H, W), as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


# IDX ----------------------------------------------------------------------------------------------


def _partner(file: Path, lacking: str) -> str:
    """Return the usual name of the file of labels, or of images, that belongs to an IDX file."""
    word, axes = ("labels", "idx1") if lacking == "labels" else ("images", "idx3")
    return re.sub(r"idx\d", axes, re.sub(r"images|labels", word, file.name))


def idx_parts(files: Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """Return (split, images, labels) of IDX files; where a file lies there packed and unpacked, the latter is taken.

    Raises:
        DataError: images without labels, or several of one split.
    """
    pairs: dict[tuple[Path, str], dict[str, Path]] = {}
    for file in sorted(files, key=lambda file: file.suffix != ".gz"):
        if found := IDX.search(file.name):
            pairs.setdefault((file.parent, found[1]), {})[found[2].lower().rstrip("s")] = file
    parts = []
    for (folder, stem), pair in pairs.items():
        if len(pair) < 2:
            (have, file), = pair.items()  # fmt: skip
            lacking = "labels" if have == "image" else "images"
            raise DataError(
                f"{folder} has {file.name}, but no {lacking} for it", f"put {_partner(file, lacking)} there"
            )
        split = "test" if re.search(r"t\d+k", stem) else split_of(stem)[0]
        parts.append((split, pair["image"], pair["label"]))
    splits = [split for split, _, _ in parts]
    if len({*splits}) < len(splits) or (len(splits) > 1 and "" in splits):
        names = ", ".join(images.name for _, images, _ in parts)
        raise DataError(f"several data sets of IDX files: {names}", "keep those of one data set in the folder")
    return sorted(parts, key=lambda part: SPLITS.index(part[0] or "train"))


@contextmanager
def _opened(file: Path) -> Iterator[Readable]:
    """Open a file, which gzip may have packed."""
    try:
        with open(file, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is cut off or damaged: {error}", _AGAIN) from None
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error


def _idx_header(file: Path, stream: Readable, ranks: Sequence[int]) -> list[int]:
    """Return the shape of an IDX file of bytes, by its header."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != 8 or magic[3] not in ranks:
        raise DataError(f"{file} is no IDX file of bytes with {' or '.join(map(str, ranks))} axes", _AGAIN)
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{file} is cut off in its header", _AGAIN)
    return list(struct.unpack(f">{magic[3]}I", sizes))


def write_idx(parts: Sequence[tuple[str, Path, Path]], base: Path, writer: Writer) -> None:
    """Write the images of IDX files."""
    for split, images, labels in parts:
        with _opened(labels) as stream:
            (count,) = _idx_header(labels, stream, (1,))
            if count > _MOST_LABELS:
                raise DataError(f"{labels} says that it has {count} labels", _AGAIN)
            numbers = stream.read(count + 1)
        if len(numbers) != count:
            raise DataError(f"{labels} has {len(numbers)} labels, and its header says {count}: it is damaged", _AGAIN)
        with _opened(images) as stream:
            shape = _idx_header(images, stream, (3, 4))
            if shape[0] != count:
                raise DataError(f"{images} has {shape[0]} images, and {labels.name} {count} labels", _MATCH)
            size = _checked(images, shape[1:])
            for number in range(count):
                content = stream.read(size)
                if len(content) < size:
                    raise DataError(f"{images} is cut off: {number} of {count} images were read", _AGAIN)
                pixels = np.frombuffer(content, np.uint8).reshape(shape[1:])
                writer.image(split, str(numbers[number]), f"{number:06d}.png", png(pixels))
                if number % 1000 == 0:
                    writer.progress(number, count)
            if stream.read(1):
                raise DataError(f"{images} is longer than its header says: it is damaged", _AGAIN)
    names, said = rows.names_for({label for _, label, _ in writer.labelled}, base)
    writer.rename(names)
    writer.read_as.append(f"IDX, {writer.number} images{_splits(split for split, _, _ in parts)}")
    writer.said += said
    if any("emnist" in images.name.lower() for _, images, _ in parts):
        writer.said.append("the images of EMNIST files lie on their side, and are left so")


def _checked(file: Path, shape: Sequence[int]) -> int:
    """Return the bytes of an image of uint8."""
    if not all(1 <= side <= _LARGEST_SIDE for side in shape[:2]) or (len(shape) > 2 and shape[2] not in (1, 3, 4)):
        raise DataError(f"{file}: images of shape {tuple(shape)}", _SHAPES)
    return int(np.prod(shape))


def _splits(splits: Iterator[str]) -> str:
    named = [split for split in splits if split]
    return f" in {', '.join(named)}" if named else ""


# NPZ ----------------------------------------------------------------------------------------------


@dataclass
class _Array:
    """An array in an NPZ file, by its header."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def __str__(self) -> str:
        return f"{visible(self.key)} {self.dtype} {self.shape}"


@dataclass
class _Pair:
    images: list[_Array] = field(default_factory=list)
    labels: list[_Array] = field(default_factory=list)


def write_npz(files: Sequence[Path], writer: Writer, labelled: bool = True) -> None:
    """Write the images of NPZ files: pairs of arrays such as x_train and y_train, without any pickle.

    Raises:
        DataError: arrays of images and labels cannot be told, or do not match.
    """
    arrays = [array for file in files for array in _headers(file)]
    pairs: dict[str, _Pair] = {}
    names: list[str] = []
    for array in arrays:
        stem = array.file.name if array.key.startswith("arr_") else ""
        words = set(re.findall(r"[a-z]+", f"{stem} {array.key}".lower()))
        split = split_of(f"{stem} {array.key}".replace("_", " "))[0]
        if array.key.lower() in _NAMES and len(array.shape) == 1 and array.dtype.kind in "US":
            names = [str(name) for name in _read(array)]
        elif words & _LABELS:
            pairs.setdefault(split, _Pair()).labels.append(array)
        elif words & _IMAGES and len(array.shape) > 1:
            pairs.setdefault(split, _Pair()).images.append(array)
    shown = ", ".join(map(str, arrays[:8]))
    used = {s: p for s, p in pairs.items() if p.images}
    if not used:
        raise DataError(f"{files[0]} has no images by a usual name: {shown}", _USUAL)
    if len(used) > 1 and "" in used:
        raise DataError(f"{files[0]}: arrays with a split and without: {shown}", "name all of them after their split")
    for pair in used.values():
        if len(pair.images) > 1 or len(pair.labels) > 1 or (labelled and not pair.labels):
            raise DataError(f"{files[0]}: not one array of images with one of labels: {shown}", _USUAL)
    scale, said = _scale([pair.images[0] for pair in used.values()])
    for split, pair in used.items():
        _write_pair(split, pair, scale, names, labelled, writer)
    what = ", ".join(f"{p.images[0].key}{f' with {p.labels[0].key}' if labelled else ''}" for p in used.values())
    writer.read_as.append(f"NPZ, {visible(what)}, {writer.number} images")
    writer.said += said
    if labelled and not names:
        found, more = rows.names_for({label for _, label, _ in writer.labelled}, files[0].parent)
        writer.rename(found)
        writer.said += more


def _write_pair(
    split: str, pair: _Pair, scale: tuple[float, float] | None, names: list[str], labelled: bool, writer: Writer
) -> None:
    images = pair.images[0]
    labels = _labels(pair.labels[0], names) if labelled else [""] * images.shape[0]
    if len(labels) != images.shape[0]:
        raise DataError(
            f"{images.file}: {images.key} has {images.shape[0]} images, and {pair.labels[0].key} {len(labels)} labels",
            _MATCH,
        )
    for number, (label, pixels) in enumerate(zip(labels, _items(images))):
        if scale is not None:
            low, high = scale
            pixels = np.clip((pixels.astype(np.float64) - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        writer.image(split, label, f"{number:06d}.png", png(_upright(images, pixels)))
        if number % 1000 == 0:
            writer.progress(number, len(labels))


@contextmanager
def _npz(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as opened:
            yield opened
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{file} is no NPZ file, is cut off or damaged: {visible(str(error))}", _AGAIN) from None
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error


def _header(file: Path, key: str, stream: IO[bytes]) -> _Array:
    """Read the header of an array, up to its first value.

    Raises:
        DataError: it is none, or holds Python objects.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream)
    except (ValueError, KeyError, EOFError, RecursionError, SyntaxError) as error:
        raise DataError(f"{file}: {visible(key)} is no array: {visible(str(error))}", _AGAIN) from None
    if dtype.hasobject:
        raise DataError(
            f"{file}: {visible(key)} holds Python objects, which only pickle reads: edgekit does not",
            "save plain arrays: np.savez(FILE, images=images.astype('uint8'), labels=labels.astype('int64'))",
        )
    return _Array(file, key, shape, dtype, fortran)


def _headers(file: Path) -> list[_Array]:
    found = []
    with _npz(file) as opened:
        for name in opened.namelist():
            if name.endswith(".npy"):
                with opened.open(name) as stream:
                    found.append(_header(file, name.removesuffix(".npy"), stream))
    return found


def _read(array: _Array) -> np.ndarray:
    """Read a small array whole: labels or names."""
    if int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize > _MOST_LABELS * 8:
        raise DataError(f"{array.file}: {array} is too large for labels", "one number for each image")
    with _npz(array.file) as opened, opened.open(f"{array.key}.npy") as stream:
        _header(array.file, array.key, stream)
        count = int(np.prod(array.shape, dtype=object))
        content = stream.read(count * array.dtype.itemsize)
        if len(content) < count * array.dtype.itemsize:
            raise DataError(f"{array.file}: {visible(array.key)} is cut off", _AGAIN)
        flat = np.frombuffer(content, array.dtype)
        return flat.reshape(array.shape, order="F" if array.fortran else "C")


def _items(array: _Array) -> Iterator[np.ndarray]:
    """Yield the images of an array one by one, as they are stored."""
    item = int(np.prod(array.shape[1:], dtype=object))
    if array.fortran and len(array.shape) > 1:
        yield from _read(array)
        return
    with _npz(array.file) as opened, opened.open(f"{array.key}.npy") as stream:
        _header(array.file, array.key, stream)
        for number in range(array.shape[0]):
            content = stream.read(item * array.dtype.itemsize)
            if len(content) < item * array.dtype.itemsize:
                raise DataError(f"{array.file}: {visible(array.key)} is cut off after {number} images", _AGAIN)
            yield np.frombuffer(content, array.dtype).reshape(array.shape[1:])


def _upright(array: _Array, pixels: np.ndarray) -> np.ndarray:
    """Return an image as (H, W), or (H, W, channels)."""
    shape = pixels.shape
    if len(shape) == 1 and (side := round(shape[0] ** 0.5)) ** 2 == shape[0] and side > 1:
        return pixels.reshape(side, side)
    if len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3, 4):
        shape = (*shape[1:], shape[0])
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    if not 2 <= len(shape) <= 3:
        raise DataError(f"{array.file}: {array} are no images", _SHAPES)
    _checked(array.file, shape)
    if pixels.dtype == np.uint16 and len(shape) == 3 and shape[2] > 1:
        raise DataError(f"{array.file}: {array}: colours of 16 bits are not read", _SHAPES)
    return pixels if pixels.dtype == np.uint16 else np.ascontiguousarray(pixels, np.uint8)


def _scale(arrays: Sequence[_Array]) -> tuple[tuple[float, float] | None, list[str]]:
    """Return the values that become 0 and 255, None for those that stay, and what to say.

    Raises:
        DataError: the values are no pixels.
    """
    kinds = {array.dtype.newbyteorder("=") for array in arrays}
    if kinds <= {np.dtype(np.uint8)}:
        return None, []
    if kinds <= {np.dtype(np.uint16)} and all(array.dtype.isnative for array in arrays):
        return None, ["images of 16 bits stay so"]
    if any(array.dtype.kind not in "buif" for array in arrays):
        raise DataError(f"{arrays[0].file}: {', '.join(map(str, arrays))} are no pixels", _SHAPES)
    low, high = np.inf, -np.inf
    for array in arrays:
        for pixels in _items(array):
            if not np.isfinite(pixels).all():
                raise DataError(f"{array.file}: {visible(array.key)} has values that are no finite numbers", _SHAPES)
            if pixels.size:
                low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    if -1 <= low < 0 and high <= 1:
        chosen = (-1.0, 1.0)
    elif low < 0 or high > 255:
        raise DataError(
            f"{arrays[0].file}: values from {low:g} to {high:g} are no pixels, and cannot be turned back to them",
            _SHAPES,
        )
    else:
        chosen = (0.0, 255.0) if high > 127 else (0.0, 1.0) if high <= 1 else (0.0, float(high))
    return chosen, [f"values from {low:g} to {high:g}: {chosen[0]:g} becomes black and {chosen[1]:g} white"]


def _labels(array: _Array, names: Sequence[str]) -> list[str]:
    """Return the labels of an array: numbers, names, or a row of 0 and 1 for each image."""
    values = _read(array)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "buif":
        ones = (values != 0).sum(1)
        if not ((ones == 1).all() and np.isin(values, (0, 1)).all()):
            raise DataError(
                f"{array.file}: {array}: images of no class, or of several", "edgekit needs one class for each image"
            )
        values = values.argmax(1)
    if values.ndim != 1 or values.dtype.kind not in "buifUS":
        raise DataError(f"{array.file}: {array} are no labels", "one number or name for each image")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == values.round()).all()):
        raise DataError(f"{array.file}: {array} are no numbers of classes", "one number or name for each image")
    if values.dtype.kind in "US":
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
    numbers = [int(value) for value in values.tolist()]
    if names and not all(0 <= number < len(names) for number in numbers):
        raise DataError(f"{array.file}: labels up to {max(numbers)}, and {len(names)} names", "a name for each number")
    return [names[number] if names else str(number) for number in numbers]


# CIFAR --------------------------------------------------------------------------------------------


def refuse_pickles(folder: Path) -> None:
    """Refuse the pickles of CIFAR by name, and say what to do instead.

    Raises:
        DataError: they lie in the folder, or in the one inside it.
    """
    for place in (folder, *sorted(p for p in folder.glob("cifar-*") if p.is_dir())):
        names = {path.name for path in place.iterdir() if path.is_file()}
        old = any(_CIFAR_PICKLES.fullmatch(name) for name in names)
        if old or ({"train", "test", "meta"} <= names and (place / "meta").read_bytes()[:1] == b"\x80"):
            kind, number = ("CIFAR-10", "10") if old else ("CIFAR-100", "100")
            raise DataError(
                f"{place} holds {kind} as Python pickles, which can run any program when they are read",
                f"download the same images as cifar-{number}-binary.tar.gz, and give that file or its folder",
            )


def write_cifar(files: Sequence[Path], writer: Writer) -> None:
    """Write the images of CIFAR's binary files: records of one or two labels and 3 x 32 x 32 bytes."""
    hundred = any(file.name in ("train.bin", "test.bin") for file in files)
    labels = 2 if hundred else 1
    size = labels + 3072
    for file in sorted(files):
        content = file.read_bytes() if file.stat().st_size < 1 << 30 else b""
        if not content or len(content) % size:
            raise DataError(f"{file} does not consist of records of {size} bytes: it is cut off or damaged", _AGAIN)
        records = np.frombuffer(content, np.uint8).reshape(-1, size)
        split = "test" if file.name.startswith("test") else "train"
        for number, record in enumerate(records):
            pixels = np.ascontiguousarray(np.moveaxis(record[labels:].reshape(3, 32, 32), 0, -1))
            writer.image(split, str(record[labels - 1]), f"{file.stem}_{number:05d}.png", png(pixels))
        writer.progress(writer.number, None)
    named = files[0].parent / ("fine_label_names.txt" if hundred else "batches.meta.txt")
    if named.is_file():
        lines = [line.strip() for line in named.read_text("utf-8", "replace").splitlines() if line.strip()]
        writer.rename({str(number): line for number, line in enumerate(lines)})
    writer.read_as.append(f"CIFAR-{100 if hundred else 10}, {writer.number} images, {named.name} names the classes")

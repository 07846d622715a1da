"""Decoding, resizing and cropping of images on the host, as `Preprocess` describes.

Devices receive uint8 RGB at the input size of the model; `edgekit.ondevice.preprocess` normalizes it there.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgekit.data import formats
from edgekit.data.memory import PIXELS
from edgekit.data.threads import in_order
from edgekit.errors import DataError, MissingError, raise_if_not_damage
from edgekit.records import LEAST_CONTRAST, Content, Preprocess

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling
    from PIL.ImageFile import ImageFile


Seen = TypeVar("Seen")
# Above, a JPEG is decoded at a fraction of its size, up to MAX_SCALED_PIXELS; other formats are refused.
MAX_PIXELS, MAX_SCALED_PIXELS = 80_000_000, 320_000_000
PLAIN = Preprocess(32, 32)
_FULL = (0.0, 65535.0)  # range of integers
LEAST_ALPHA = 8  # opacities below it cannot be seen
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # of each kernel, pixels of the larger grid
_MOST_ROWS = 0.75  # of an image's; more are quicker to resize than to copy
_TALL = 1 << 16  # rows; a longer strip is not copied whole
_BAND_PIXELS = 1 << 20  # converted at a time
_MOST_PNG = 1 << 29  # bytes of a file that is read again without its texts
_TEXT_LIMIT = "MAX_TEXT_"  # in Pillow's message
# Tags of EXIF and TIFF, and two of their values.
_ORIENTATION, _BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 274, 258, 262, 284, 339
_SEPARATE, _SIGNED = 2, 2
# Text entry of a PNG that edgekit wrote of a network's input, which is neither resized nor cropped again.
FITTED = "edgekit network input"


class TooLarge(DataError):
    """An image has more pixels than edgekit decodes."""


def load_image(path: Path, preprocess: Preprocess = PLAIN) -> Image:
    """Decode a file to upright 8-bit RGB.

    Applies the EXIF orientation, converts grey, palette, CMYK and values of more than 8 bits, and puts transparent
    pixels over the background. Of an animation the first frame is used. A JPEG of more than `MAX_PIXELS` is decoded
    at a half, a quarter or an eighth of its size.

    Raises:
        MissingError: the file does not exist. StorageError: the file cannot be read, for example for lack of
            permission. TooLarge: it has more than `MAX_PIXELS`, or as a JPEG `MAX_SCALED_PIXELS`. DataError: the file
            is not an image, or is truncated.
    """
    return _decode(path, preprocess, lambda size: None)[0]


def seen_in(path: Path, preprocess: Preprocess, look: Callable[[Image], Seen]) -> Seen:
    """Decode a file as `load_image` does, within the memory for pixels, and return what `look` returns for it."""
    with ExitStack() as held:
        # No name holds the image, so that its memory is free when the next one takes its place.
        return look(_decode(path, preprocess, lambda size: held.enter_context(PIXELS.hold(size)))[0])


def examine(path: Path, look: Callable[[Image], Seen], preprocess: Preprocess = PLAIN) -> tuple[Content, Seen]:
    """Return what a file holds, and what `look` returns for its RGB image, decoded as in `seen_in`.

    Values of more than 8 bits reach from black to white if `preprocess` has no range for them.
    """
    with ExitStack() as held:
        image, content = _decode(path, preprocess, lambda size: held.enter_context(PIXELS.hold(size)), examine=True)
        assert content is not None
        seen = look(image)
        del image
        return content, seen


def _decode(
    path: Path,
    preprocess: Preprocess,
    reserve: Callable[[int], None],
    examine: bool = False,
    opened: Callable[[], IO[bytes] | Path] | None = None,
) -> tuple[Image, Content | None]:
    """Decode a file; `reserve` is called with the number of bytes that this takes, before the pixels are read.

    Args:
        opened: returns what to read in place of the file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with _opened(opened() if opened else path) as image:
                is_scaled = _scale_down(image, path)
                turn = image.getexif().get(_ORIENTATION, 1) if image.format == "JPEG" else None
                reserve(_bytes_needed(image, turn))
                deep = _Deep.of(image, path, preprocess, examine, opened)
                image.load()
                turn = image.getexif().get(_ORIENTATION, 1) if turn is None else turn
                if deep is not None:
                    content = deep.content(image) if examine else None
                    rgb = deep.in_view_of(content).to_rgb(image)
                else:
                    rgb = _to_rgb(image, preprocess)
                    content = _content(image, rgb) if examine else None
            if content is not None and is_scaled:
                content = replace(content, scaled=True)
            return _upright(rgb, turn), content
    except Image.DecompressionBombError as error:
        raise TooLarge(
            f"{path}: far more than {MAX_PIXELS // 1_000_000} megapixels, the limit", "scale the image down"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, FileNotFoundError):
            raise MissingError(f"{path}: no such file", "check the path") from error
        raise_if_not_damage(error, path)
        if opened is None and _TEXT_LIMIT in str(error) and path.stat().st_size <= _MOST_PNG:
            stripped = _without_text(path.read_bytes())
            return _decode(path, preprocess, reserve, examine, lambda: BytesIO(stripped))
        # Pillow's own message would repeat the path.
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        why = "not a known image format" if isinstance(error, UnidentifiedImageError) else why
        if formats.sniff(path) == "HEIC" and not formats.reads_heic():
            hint = f"convert it, for example: magick {quote(str(path))} {quote(str(path.with_suffix('.jpg')))}"
            raise DataError(
                f"{path}: HEIC, which needs the package pillow-heif", f"{hint}   (or: {formats.INSTALL_HEIC})"
            ) from error
        hint = "get a sound copy of the file, or leave it out"
        raise DataError(f"{path}: cannot be decoded ({why})", hint) from error


def _without_text(png: bytes) -> bytes:
    """Return a PNG file without its texts, of which Pillow refuses more than a megabyte."""
    parts, at = [png[:8]], 8
    while at + 8 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            parts.append(png[at:end])
        at = end
    return b"".join(parts)


def _opened(path: Path | IO[bytes]) -> ImageFile:
    """Open a file without reading its pixels, a JPEG also above the limit at which Pillow refuses."""
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        return Image.open(path, formats=formats.readable())
    except Image.DecompressionBombError as error:
        try:
            return JpegImageFile(path)
        except SyntaxError:
            raise error from None


def _scale_down(image: ImageFile, path: Path) -> bool:
    """Let an image above the limit be decoded at a fraction of its size. Returns whether that is so.

    Raises:
        TooLarge: it is no JPEG, or too large even so.
    """
    width, height = image.size
    if width * height <= MAX_PIXELS:
        return False
    if image.format == "JPEG" and width * height <= MAX_SCALED_PIXELS:
        fraction = next(f for f in (2, 4, 8) if -(-width // f) * -(-height // f) <= MAX_PIXELS)
        image.draft(None, (width // fraction, height // fraction))
        return True
    raise TooLarge(
        f"{path}: {width}x{height} is {width * height / 1e6:.0f} megapixels, the limit is {MAX_PIXELS // 1_000_000}"
        + (f" (JPEG: {MAX_SCALED_PIXELS // 1_000_000})" if image.format == "JPEG" else ""),
        "scale the image down; a classifier uses a few hundred pixels per side",
    )


def _bytes_needed(image: ImageFile, turn: int | None) -> int:
    """Return the bytes that decoding takes at its peak, approximately; `turn`: the EXIF orientation if known."""
    pixels = image.size[0] * image.size[1]
    own = {"1": 1, "L": 1, "P": 1, "LA": 4, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    converted = 0 if image.mode == "RGB" else 4
    # A WebP or GIF is put together on a canvas; a progressive JPEG keeps all coefficients at its full size.
    canvas = {"WEBP": 8, "GIF": 4}.get(image.format or "", 0)
    full = 1 if not (scale := getattr(image, "decoderconfig", ())) else scale[0] ** 2
    coefficients = 6 * full if image.info.get("progressive") else 0
    return pixels * (own + converted + canvas + coefficients + (0 if turn == 1 else 4))


def _upright(image: Image, orientation: int) -> Image:
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
    turn = dict(enumerate(turns, 2)).get(orientation)
    return image if turn is None else image.transpose(turn)


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes of full width that cover an image, so that converting one takes little memory."""
    width, height = size
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(height, top + rows)


def _to_rgb(image: Image, preprocess: Preprocess) -> Image:
    """Convert an image of at most 8 bits a channel to RGB, over the background."""
    from PIL import Image

    if not _has_alpha(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    for box in _bands(image.size):
        rgb.paste(_over(image.crop(box).convert("RGBA"), preprocess), box)
    return rgb


def _has_alpha(image: Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _over(rgba: Image, preprocess: Preprocess) -> Image:
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*preprocess.colour, 255)), rgba).convert("RGB")


def _content(image: Image, rgb: Image) -> Content:
    """Describe an image of at most 8 bits a channel, given itself and its RGB."""
    if not _has_alpha(image):
        return Content(colour=_single(rgb.getextrema()))  # type: ignore[arg-type]
    low, high = np.full(4, 255), np.zeros(4)  # of what can be seen; alpha of everything
    for box in _bands(image.size):
        pixels = np.asarray(image.crop(box).convert("RGBA")).reshape(-1, 4)
        seen = pixels[pixels[:, 3] >= LEAST_ALPHA, :3]
        low[3], high[3] = min(low[3], pixels[:, 3].min()), max(high[3], pixels[:, 3].max())
        if len(seen):
            low[:3], high[:3] = np.minimum(low[:3], seen.min(0)), np.maximum(high[:3], seen.max(0))
    if high[3] < LEAST_ALPHA:
        return Content(colour=(0, 0, 0))
    colour = _single(list(zip(low[:3].tolist(), high[:3].tolist())))
    return Content(transparent=bool(high[3] - low[3] >= LEAST_CONTRAST), colour=colour)


def _single(extrema: Sequence[tuple[float, float]]) -> tuple[int, int, int] | None:
    """Return the colour of an image whose channels have these (lowest, highest) values; None if it has several."""
    if any(high - low >= LEAST_CONTRAST for low, high in extrema):
        return None
    red, green, blue = (int(low + high) // 2 for low, high in extrema)
    return red, green, blue


@dataclass(frozen=True)
class _Deep:
    """Reader of an image of more than 8 bits a channel.

    Attributes:
        kind: "integer" or "float". low: the lower bytes of an image whose Pillow mode has only the higher ones.
        unsigned: 32-bit values that Pillow reads as signed ones. inverted: 0 is white (MinIsWhite).
    """

    kind: str
    preprocess: Preprocess
    low: Image | None = None
    unsigned: bool = False
    inverted: bool = False

    @staticmethod
    def of(
        image: ImageFile,
        path: Path,
        preprocess: Preprocess,
        examine: bool,
        opened: Callable[[], IO[bytes] | Path] | None = None,
    ) -> _Deep | None:
        """Return the reader of an opened image; None if it has at most 8 bits a channel.

        Raises:
            DataError: its values are of a kind that Pillow reads wrongly.
        """
        tags = getattr(image, "tag_v2", {})
        is_signed = _SIGNED in _several(tags.get(_SAMPLE_FORMAT))
        if image.mode == "F" or image.mode.startswith("I"):
            kind = "float" if image.mode == "F" else "integer"
            # Pillow inverts MinIsWhite for up to 8 bits only. Runs without a range were trained without.
            inverted = preprocess.pixel_range is not None and tags.get(_PHOTOMETRIC) == 0
            return _Deep(kind, preprocess, None, image.mode == "I" and bool(tags) and not is_signed, inverted)
        if is_signed:
            raise DataError(f"{path}: signed 8-bit values are not supported", "convert it to unsigned or 16-bit values")
        full = not examine and preprocess.pixel_range in (None, _FULL)
        if tags.get(_PLANES) == _SEPARATE and 16 in _several(tags.get(_BITS)):
            if full and image.tile[0].codec_name == "libtiff":
                return None
            raise DataError(f"{path}: 16-bit colours in separate planes are not supported", "store them pixel by pixel")
        modes = [args if isinstance(args, str) else args[0] for _, _, _, args in image.tile if args]
        if not modes or not all(isinstance(m, str) and re.fullmatch("(RGB[AX]?|RGBa|LA);16[BLN]", m) for m in modes):
            return None
        if full:
            return None  # the higher bytes, which Pillow returns, are enough
        return _Deep("integer", preprocess, _lower_bytes(path, modes[0], opened))

    def in_view_of(self, content: Content | None) -> _Deep:
        """Return a reader with the range of values of an image, if there is none yet."""
        if content is None or self.preprocess.pixel_range is not None or content.low >= content.high:
            return self
        return replace(self, preprocess=replace(self.preprocess, pixel_range=(content.low, content.high)))

    def to_rgb(self, image: Image) -> Image:
        """Convert a loaded image to RGB."""
        from PIL import Image

        low, high = self.preprocess.pixel_range or (_FULL if self.kind == "integer" else (0.0, 1.0))
        rgb = Image.new("RGB", image.size)
        for box in _bands(image.size):
            values = self._values(image, box)
            if self.kind == "float":
                known = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
                levels = ((known.clip(low, high) - low) / (high - low) * 255).round().astype(np.uint8)
            else:
                levels = (256 * (values.astype(np.float64).clip(low, high) - low) / (high - low)).clip(0, 255)
                levels = levels.astype(np.uint8)
            part = Image.fromarray(255 - levels if self.inverted else levels)
            rgb.paste(_over(part, self.preprocess) if part.mode == "RGBA" else part.convert("RGB"), box)
        return rgb

    def content(self, image: Image) -> Content:
        """Describe a loaded image."""
        low, high, strange, transparent = math.inf, -math.inf, False, False
        for box in _bands(image.size):
            values = self._values(image, box)
            transparent |= values.ndim == 3 and values.shape[2] == 4 and int(np.ptp(values[..., 3])) > 0
            values = values[..., :3] if values.ndim == 3 else values
            finite = values[np.isfinite(values)]
            strange |= finite.size < values.size
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        low, high = (low, high) if low <= high else (0.0, 0.0)
        return Content(self.kind, low, high, transparent=transparent, strange=strange)

    def _values(self, image: Image, box: tuple[int, int, int, int]) -> np.ndarray:
        """Return the values of a part of an image, (height, width) or (height, width, channels)."""
        values = np.asarray(image.crop(box))
        if self.low is not None:
            return values * np.uint16(256) + np.asarray(self.low.crop(box))
        return values.view(np.uint32) if self.unsigned else values


def _several(value: Any) -> tuple[Any, ...]:
    """Return a TIFF tag as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def _lower_bytes(path: Path, mode: str, opened: Callable[[], IO[bytes] | Path] | None = None) -> Image:
    """Return an image of the lower bytes of 16-bit colours, of which Pillow returns the higher bytes.

    Args:
        mode: in which Pillow would unpack the file, such as "RGB;16B".
    Raises:
        DataError: the lower bytes cannot be had.
    """
    from PIL import Image

    if mode.startswith("RGBa"):
        raise DataError(f"{path}: 16-bit colours with premultiplied alpha are not supported", "convert it to 8 bits")
    with Image.open(opened() if opened else path, formats=formats.readable()) as image:
        is_little = mode.endswith("L") or (mode.endswith("N") and sys.byteorder == "little")
        other = "RGBA" if mode.startswith("LA") else mode[:-1] + ("B" if is_little else "L")
        image.tile = [
            tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:])) for tile in image.tile
        ]
        image.load()
        if not mode.startswith("LA"):
            return image
        _, grey, _, alpha = image.split()  # higher and lower byte of each
        return Image.merge("RGBA", (grey, grey, grey, alpha))


def fit(image: Image, preprocess: Preprocess) -> np.ndarray:
    """Resize an RGB image as `preprocess.resize` says. Returns RGB, uint8 (image_size, image_size, 3).

    The bytes are the same with every version of Pillow that edgekit allows. A PNG with the entry `FITTED` stays as it
    is, if it has that size.
    """
    size = preprocess.image_size
    if image.info.get(FITTED) and image.size == (size, size):
        return np.array(image, np.uint8)
    if preprocess.resize != "crop":
        return np.array(whole(image, size, preprocess), np.uint8)
    # Resizes only the part inside the crop, so that a strip of 1 x 10,000 pixels needs little memory.
    return np.array(_resized(image, (size, size), preprocess, centre_box(*image.size, preprocess)), np.uint8)


def centre_box(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom edge of what the central crop shows of an image."""
    scale = preprocess.resize_size / min(width, height)
    half_w, half_h = (min(preprocess.image_size / scale, side) / 2 for side in (width, height))
    return width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h


def whole(image: Image, side: int, preprocess: Preprocess) -> Image:
    """Return all of an RGB image as a square of `side` pixels: squashed, or between bars of the background colour."""
    from PIL import Image

    everything = (0.0, 0.0, float(image.width), float(image.height))
    if preprocess.resize == "squash":
        return _resized(image, (side, side), preprocess, everything)
    longest = max(image.size)
    # Rounded half up in integers, as the page of `edgekit serve` does.
    width, height = (max(1, (2 * length * side + longest) // (2 * longest)) for length in image.size)
    square = Image.new("RGB", (side, side), preprocess.colour)
    inside = _resized(image, (width, height), preprocess, everything)
    square.paste(inside, ((side - width) // 2, (side - height) // 2))
    return square


def _resized(
    image: Image, size: tuple[int, int], preprocess: Preprocess, box: tuple[float, float, float, float]
) -> Image:
    """Return the part `box` of an RGB image in another size: the horizontal pass first, then the vertical one.

    Each pass rounds to 8 bits, so that their order matters, by up to 7 levels in photographs. Pillow chooses it by the
    shape of the image, and 12.3 and 13.0 choose differently; so each pass is a call of its own.

    Args:
        size: width and height. box: left, top, right and bottom edge.
    """
    from PIL import Image

    (width, height), (left, top, right, bottom), kernel = size, box, _kernel(preprocess)
    reach = _SUPPORT[preprocess.resample] * max((bottom - top) / height, 1.0) + 2
    first, last = max(int(top - reach), 0), min(int(bottom + reach) + 1, image.height)  # rows that are needed
    if last - first > _MOST_ROWS * image.height:
        first, last = 0, image.height
    rows = image.crop((0, first, image.width, last)) if last - first < image.height else image
    rows = rows.resize((width, last - first), kernel, box=(left, 0, right, last - first))
    if first and image.height <= _TALL:  # the vertical pass counts its rows from the top, as other languages do
        strip, rows = rows, Image.new("RGB", (width, last))
        rows.paste(strip, (0, first))
        first = 0
    edges = (float(np.float32(edge)) - first for edge in (top, bottom))  # as Pillow rounds them
    return rows.resize(size, kernel, box=(0, next(edges), width, next(edges)))


def _kernel(preprocess: Preprocess) -> Resampling:
    from PIL.Image import Resampling

    return {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}[preprocess.resample]


def load_fitted(path: Path, preprocess: Preprocess) -> np.ndarray:
    """Decode and fit one file. Returns RGB, uint8 (image_size, image_size, 3)."""
    return seen_in(path, preprocess, lambda image: fit(image, preprocess))


def load_pixels(paths: Sequence[Path], preprocess: Preprocess) -> np.ndarray:
    """Decode and fit files. Returns RGB, uint8 (N, image_size, image_size, 3)."""
    pixels = np.empty((len(paths), preprocess.image_size, preprocess.image_size, 3), np.uint8)
    for number, path in enumerate(paths):
        pixels[number] = load_fitted(path, preprocess)
    return pixels


def load_batches(paths: Sequence[Path], preprocess: Preprocess, size: int) -> Iterator[np.ndarray]:
    """Decode and fit files on all cores, and yield them in order, `size` at a time.

    Each batch is uint8 (n, image_size, image_size, 3). Memory does not grow with the number of files.
    """
    with closing(in_order(lambda path: load_fitted(path, preprocess), paths)) as squares:
        for start in range(0, len(paths), size):
            yield np.stack(list(islice(squares, min(size, len(paths) - start))))


def save_pixels(paths: Sequence[Path], preprocess: Preprocess, target: Path) -> None:
    """Decode and fit files into one .npy file, uint8 (N, image_size, image_size, 3), with one image in memory."""
    shape = (len(paths), preprocess.image_size, preprocess.image_size, 3)
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    for number, path in enumerate(paths):
        pixels[number] = load_fitted(path, preprocess)
    pixels.flush()

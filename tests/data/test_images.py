"""Decoding: every kind of file becomes upright 8-bit RGB, or an error that names it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.data import images
from edgekit.data.formats import EXTENSIONS
from edgekit.data.images import fit, load_image, load_pixels
from edgekit.errors import DataError, MissingError
from edgekit.records import Content, Preprocess
from tests.datasets import write_images

RED = (255, 0, 0)


def noise(height: int = 24, width: int = 17, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str = "a.png", **options: object) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def decoded(tmp_path: Path, image: Image.Image, name: str = "a.png", **options: object) -> np.ndarray:
    result = load_image(saved(tmp_path, image, name, **options))
    assert result.mode == "RGB"
    return np.asarray(result)


def refused(path: Path) -> str:
    """The message of the error that decoding `path` raises; it names the file."""
    with pytest.raises(DataError) as caught:
        load_image(path)
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, name: str) -> None:
    pixels = noise()
    options = {"lossless": True} if name.endswith("webp") else {}
    assert (decoded(tmp_path, Image.fromarray(pixels), name, **options) == pixels).all()
    assert Path(name).suffix in EXTENSIONS


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = noise()[..., 0]
    assert (decoded(tmp_path, Image.fromarray(grey)) == grey[..., None]).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    pixels = np.zeros((1, 3, len(mode)), np.uint8)
    pixels[0, :, -1] = (0, 128, 255)
    assert decoded(tmp_path, Image.fromarray(pixels, mode))[0, :, 0] == pytest.approx([255, 127, 0], abs=1)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparency_lies_over_the_chosen_background(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.array([[[255, 255, 255, 0], [255, 255, 255, 255]]], np.uint8), "RGBA")
    path = saved(tmp_path, image.convert(mode))
    for background, colour in (("black", [0, 0, 0]), ("#0a141e", [10, 20, 30]), ("white", [255, 255, 255])):
        found = np.asarray(load_image(path, Preprocess(32, 32, background=background)))
        assert found.tolist() == [[colour, [255, 255, 255]]]


def test_a_large_picture_is_put_over_the_background_like_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, Image.fromarray(noise(40, 33, 4)))
    expected = np.asarray(load_image(path))
    monkeypatch.setattr(images, "_BAND_PIXELS", 100)  # three rows
    assert (np.asarray(load_image(path)) == expected).all()


def test_a_palette_keeps_its_colours_and_its_transparent_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putdata([0, 1])
    assert decoded(tmp_path, image).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert decoded(tmp_path, image, transparency=1).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decoded(tmp_path, image, "a.jpg", quality=100)[4, 4] == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_to_8_not_clipped(tmp_path: Path, name: str) -> None:
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert decoded(tmp_path, Image.fromarray(grey), name)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    assert decoded(tmp_path, Image.fromarray(np.array([[False, True]])))[0, :, 0].tolist() == [0, 255]


# EXIF 2.32, tag 0x0112: how the stored pixels must be turned to stand upright.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = noise()
    assert (decoded(tmp_path, Image.fromarray(pixels), exif=exif) == UPRIGHT[orientation](pixels)).all()


@pytest.mark.parametrize("kind", [1, 7])  # with both, Pillow cannot write the data anew
def test_damaged_exif_data_beside_the_orientation_does_no_harm(tmp_path: Path, kind: int) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "maker", 6, 72.0
    content = exif.tobytes()
    order = "<" if b"II*" in content else ">"
    for tag, right in ((0x010F, 2), (0x011A, 5)):  # the type of a tag's value is another one
        content = content.replace(struct.pack(order + "HH", tag, right), struct.pack(order + "HH", tag, kind))
    pixels = noise()
    assert (decoded(tmp_path, Image.fromarray(pixels), exif=content) == UPRIGHT[6](pixels)).all()


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 255, 0))]
    pixels = decoded(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels == RED).all()


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert "cannot be decoded" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.tif", "a.webp"])
def test_a_truncated_image_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, Image.fromarray(noise(64, 64)), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be decoded" in refused(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.webp"])
def test_damage_anywhere_gives_pixels_or_a_data_error(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(noise()), name, **({} if name in ("a.bmp", "a.gif") else {"exif": exif}))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 4):
                damaged[at] = rng.integers(256)
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                load_image(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.png: no such file$"):
        load_image(tmp_path / "a.png")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 8_001), (60_000, 60_000)])
def test_a_huge_image_is_refused_by_its_header_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    assert re.search(
        "megapixels, the limit is 80$|^far more than 80 megapixels, the limit$", refused(tmp_path / "a.png")
    )


def test_80_megapixels_are_not_too_many(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(10_000, 8_000))
    assert "cannot be decoded" in refused(tmp_path / "a.png")  # it is let in, and then found truncated


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (5000, 1), (1, 1), (300, 200), (33, 1024)])
def test_fit_gives_the_square_whatever_the_shape(width: int, height: int) -> None:
    pixels = fit(Image.new("RGB", (width, height), RED), Preprocess(32, 40))
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert (pixels == RED).all()


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (200, 97), (30, 30)])
def test_fit_is_resize_of_the_shorter_side_and_centre_crop(width: int, height: int, resample: str) -> None:
    # Smooth, so that a shift of a fraction of a pixel shows as little more than rounding.
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([255 * x / width, 255 * y / height, 128 + 60 * np.sin(x / 9)], 2).astype(np.uint8)
    image = Image.fromarray(smooth)
    scale = 40 / min(width, height)
    resized = image.resize((round(width * scale), round(height * scale)), getattr(Image.Resampling, resample.upper()))
    left, top = (resized.width - 32) // 2, (resized.height - 32) // 2
    expected = np.asarray(resized.crop((left, top, left + 32, top + 32)), int)
    difference = np.abs(fit(image, Preprocess(32, 40, resample)) - expected)
    assert difference.mean() < 3


def bars(width: int, height: int, resize: str, background: str = "#102030") -> np.ndarray:
    image = Image.new("RGB", (width, height), RED)
    return fit(image, Preprocess(32, 32, resize=resize, background=background))


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (39, 7), (300, 200)])
def test_squash_shows_all_of_the_picture_and_nothing_else(width: int, height: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    found = fit(Image.fromarray(pixels), Preprocess(32, 32, resize="squash"))
    assert (bars(width, height, "squash") == RED).all()
    assert width == 1 or (found[:, :14].max() == 0 and found[:, 18:].min() == 255)


@pytest.mark.parametrize(
    ("width", "height", "rows", "columns"),
    [
        (39, 7, slice(13, 19), slice(0, 32)),  # 32 x 5.7
        (7, 39, slice(0, 32), slice(13, 19)),
        (64, 64, slice(0, 32), slice(0, 32)),
        (64, 3, slice(15, 17), slice(0, 32)),  # 32 x 1.5: half a pixel is rounded up
        (5000, 1, slice(15, 16), slice(0, 32)),
        (4, 2, slice(8, 24), slice(0, 32)),
    ],
)
def test_letterbox_puts_the_picture_between_bars_of_the_background(
    width: int, height: int, rows: slice, columns: slice
) -> None:
    expected = np.full((32, 32, 3), (0x10, 0x20, 0x30), np.uint8)
    expected[rows, columns] = RED
    assert (bars(width, height, "letterbox") == expected).all()


def test_a_letterboxed_picture_is_not_distorted() -> None:
    pixels = noise(16, 32)
    found = fit(Image.fromarray(pixels), Preprocess(32, 32, resize="letterbox"))
    assert (found[8:24] == pixels).all()


def test_fit_without_a_change_of_size_changes_nothing() -> None:
    pixels = noise(32, 32)
    assert (fit(Image.fromarray(pixels), Preprocess(32, 32)) == pixels).all()


def test_load_pixels_stacks_files_in_order_and_takes_none(tmp_path: Path) -> None:
    paths = [saved(tmp_path, Image.new("RGB", (40, 40), (i, 0, 0)), f"{i}.png") for i in (5, 3, 9)]
    pixels = load_pixels(paths, Preprocess(32, 32))
    assert pixels[:, 0, 0, 0].tolist() == [5, 3, 9]
    assert load_pixels([], Preprocess(32, 32)).shape == (0, 32, 32, 3)


def test_the_source_file_is_closed(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    (tmp_path / "a.png").write_bytes(content.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF"])
def test_only_the_listed_formats_are_opened(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, Image.fromarray(noise(32, 32)), "a.png", format=kind)
    assert refused(path) == "cannot be decoded (not a known image format)"


def test_batches_are_decoded_on_several_threads_and_come_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", {"a": 11})
    paths = sorted((tmp_path / "images").rglob("*.png"))
    expected = images.load_pixels(paths, Preprocess(32, 36))
    both, decode = threading.Barrier(2, timeout=20), images.load_fitted
    monkeypatch.setattr("edgekit.data.threads.cores", lambda: 2)

    def together(path: Path, preprocess: Preprocess) -> Any:
        if path in paths[:2]:
            both.wait()  # one thread alone would wait for ever
        return decode(path, preprocess)

    monkeypatch.setattr(images, "load_fitted", together)
    found = list(images.load_batches(paths, Preprocess(32, 36), 4))
    assert [len(batch) for batch in found] == [4, 4, 3]
    assert np.array_equal(np.concatenate(found), expected)


def test_the_first_file_that_cannot_be_decoded_ends_the_batches(tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 9})
    paths = sorted((tmp_path / "images").rglob("*.png"))
    for path in (paths[5], paths[7]):
        path.write_bytes(b"")
    batches = images.load_batches(paths, Preprocess(32, 36), 4)
    assert len(next(batches)) == 4
    with pytest.raises(DataError, match=paths[5].name):
        next(batches)


def in_range(path: Path, low: float, high: float) -> list[int]:
    """Levels of the first row, given the values that are black and white."""
    return np.asarray(load_image(path, Preprocess(32, 32, pixel_range=(low, high))))[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", np.int32), ("a.tif", ">u2")]
)
def test_integers_of_more_than_8_bits_are_scaled_as_the_range_says(tmp_path: Path, name: str, kind: Any) -> None:
    if kind == ">u2":
        path = tmp_path / name
        path.write_bytes(tiff(16, 1, struct.pack(">6H", 0, 16, 60, 255, 4095, 65535), 6, order=">"))
    else:
        path = saved(tmp_path, Image.fromarray(np.array([[0, 16, 60, 255, 4095, 65535]], kind)), name)
    assert in_range(path, 0, 255) == [0, 16, 60, 255, 255, 255]
    assert in_range(path, 0, 4095) == [0, 1, 3, 15, 255, 255]
    assert in_range(path, 0, 65535) == [0, 0, 0, 0, 15, 255]
    assert in_range(path, 16, 60) == [0, 0, 255, 255, 255, 255]


def test_the_full_range_of_16_bits_is_what_no_range_gives(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)))
    full = np.asarray(load_image(path, Preprocess(32, 32, pixel_range=(0, 65535))))
    assert (full == np.asarray(load_image(path))).all()
    assert (full[..., 0] == np.arange(65536).reshape(256, 256) >> 8).all()


def test_floats_are_scaled_as_the_range_says_and_no_number_is_the_lowest(tmp_path: Path) -> None:
    values = np.array([[0, 0.5, 1, 60, 255, -3, np.nan, np.inf]], np.float32)
    path = saved(tmp_path, Image.fromarray(values), "a.tif")
    assert in_range(path, 0, 1) == [0, 128, 255, 255, 255, 0, 0, 255]
    assert in_range(path, 0, 255) == [0, 0, 1, 60, 255, 0, 0, 255]
    assert in_range(path, -3, 255)[:2] == [3, 3]
    assert np.asarray(load_image(path))[0, :, 0].tolist() == in_range(path, 0, 1)


def tiff(bits: int, kind: int, data: bytes, width: int, photometric: int = 1, order: str = "<") -> bytes:
    """An uncompressed grey TIFF of one row. `kind`: 1 unsigned, 2 signed, 3 float."""

    def short(value: int) -> bytes:
        return struct.pack(order + "HH", value, 0)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    entries = [
        (256, 4, long(width)), (257, 4, long(1)), (258, 3, short(bits)), (259, 3, short(1)),
        (262, 3, short(photometric)),
        (273, 4, long(8 + 2 + 10 * 12 + 4)), (277, 3, short(1)), (278, 4, long(1)), (279, 4, long(len(data))),
        (339, 3, short(kind)),
    ]  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + long(8) + struct.pack(order + "H", len(entries))
    return head + b"".join(struct.pack(order + "HHI", tag, type_, 1) + v for tag, type_, v in entries) + long(0) + data


def test_unsigned_32_bits_are_not_read_as_signed_ones(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(32, 1, struct.pack("<3I", 0, 2**31, 2**32 - 1), 3))
    assert in_range(tmp_path / "a.tif", 0, 2**32 - 1) == [0, 128, 255]
    (tmp_path / "b.tif").write_bytes(tiff(32, 2, struct.pack("<3i", -(2**31), 0, 2**31 - 1), 3))
    assert in_range(tmp_path / "b.tif", -(2**31), 2**31 - 1) == [0, 128, 255]


def test_signed_16_bits_keep_their_sign(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(16, 2, struct.pack("<3h", -1000, 0, 3000), 3))
    assert in_range(tmp_path / "a.tif", -1000, 3000) == [0, 64, 255]


def test_signed_8_bits_are_refused_not_read_as_unsigned(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(8, 2, b"\0\x7f\x80\xff", 4))
    assert refused(tmp_path / "a.tif") == "signed 8-bit values are not supported"


@pytest.mark.parametrize(
    ("bits", "kind", "data", "high"),
    [(8, 1, b"\0\xff", 255), (16, 1, b"\0\0\xff\x0f", 4095), (32, 3, struct.pack("<2f", 0, 1), 1)],
)
def test_what_is_stored_as_min_is_white_is_inverted_at_every_depth(
    tmp_path: Path, bits: int, kind: int, data: bytes, high: float
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(bits, kind, data, 2, photometric=0))
    assert in_range(tmp_path / "a.tif", 0, high) == [255, 0]


def png16(colours: np.ndarray) -> bytes:
    """A PNG of 16-bit colours, uint16 (H, W, C): 2 channels are grey and alpha, 3 RGB, 4 RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = colours.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(k, d) for k, d in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("high", [255, 4095, 65535])
def test_16_bit_colours_are_scaled_as_the_range_says(tmp_path: Path, channels: int, high: int) -> None:
    colours = np.random.default_rng(0).integers(0, high + 1, (9, 7, channels), dtype=np.uint16)
    if channels != 3:
        colours[..., -1] = high  # opaque at that scale
    (tmp_path / "a.png").write_bytes(png16(colours))
    found = np.asarray(load_image(tmp_path / "a.png", Preprocess(32, 32, pixel_range=(0, high))))
    expected = np.minimum(255, colours[..., :-1] * 256.0 // high) if channels != 3 else colours * 256.0 // high
    assert (found == np.minimum(255, expected)).all()


def test_16_bit_colours_in_separate_planes_are_refused_not_read_wrongly(tmp_path: Path) -> None:
    entries = [
        (256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 140),
        (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 3, 152), (284, 3, 1, 2),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    body = struct.pack("<I3H3I3I3H", 0, 16, 16, 16, 164, 166, 168, 2, 2, 2, 900, 800, 700)
    (tmp_path / "a.tif").write_bytes(head + body)
    assert refused(tmp_path / "a.tif") == "16-bit colours in separate planes are not supported"


def test_16_bit_colours_at_full_scale_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png16(np.full((2, 2, 3), 51200, np.uint16)))
    monkeypatch.setattr(images, "_lower_bytes", lambda *_: pytest.fail("decoded twice"))
    assert (np.asarray(load_image(tmp_path / "a.png")) == 200).all()
    assert (np.asarray(load_image(tmp_path / "a.png", Preprocess(32, 32, pixel_range=(0, 65535)))) == 200).all()


def content(path: Path) -> Content:
    return images.examine(path, lambda image: None)[0]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_the_values_of_16_bit_colours_are_told_exactly(tmp_path: Path, channels: int) -> None:
    colours = np.full((3, 3, channels), 700, np.uint16)
    colours[0, 0, :-1], colours[..., -1] = 3921, 3
    (tmp_path / "a.png").write_bytes(png16(colours))
    assert content(tmp_path / "a.png") == Content("integer", 3 if channels == 3 else 700, 3921)


def test_the_values_of_grey_files_are_told(tmp_path: Path) -> None:
    kinds = {"a.png": np.uint16, "b.tif": np.int32, "c.tif": np.float32}
    for name, kind in kinds.items():
        found = content(saved(tmp_path, Image.fromarray(np.array([[5, 200, 90]], kind)), name))
        assert found == Content("float" if name == "c.tif" else "integer", 5, 200)
    strange = np.array([[np.nan, 0.25, np.inf]], np.float32)
    assert content(saved(tmp_path, Image.fromarray(strange), "d.tif")) == Content("float", 0.25, 0.25, strange=True)
    nothing = np.full((1, 3), np.nan, np.float32)
    assert content(saved(tmp_path, Image.fromarray(nothing), "e.tif")) == Content("float", strange=True)


WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)


def layered(colour: tuple[int, ...], alpha: list[int]) -> Image.Image:
    return Image.fromarray(np.array([[(*colour, a) for a in alpha]], np.uint8), "RGBA")


@pytest.mark.parametrize(
    ("image", "blank_over"),
    [
        (layered(WHITE, [0, 255]), [WHITE]),
        (layered(BLACK, [0, 90, 255]), [BLACK]),
        (layered(GREY, [0, 255]), [GREY]),
        (layered(GREY, [255, 255]), [WHITE, BLACK, GREY]),
        (layered(GREY, [0, 0]), [WHITE, BLACK, GREY]),
        (Image.new("L", (2, 2), 9), [WHITE, BLACK, GREY]),
        (Image.fromarray(np.array([[0, 90]], np.uint8)), []),
        (Image.fromarray(np.array([[[9, 9, 9, 0], [200, 9, 9, 255], [9, 200, 9, 255]]], np.uint8), "RGBA"), []),
    ],
)
def test_a_picture_is_blank_where_its_visible_colour_is_that_below(
    tmp_path: Path, image: Image.Image, blank_over: list[tuple[int, int, int]]
) -> None:
    found = content(saved(tmp_path, image))
    assert [colour for colour in (WHITE, BLACK, GREY) if found.is_blank(colour)] == blank_over


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 pixels, 8,000 for a JPEG."""
    monkeypatch.setattr(images, "MAX_PIXELS", 2000)
    monkeypatch.setattr(images, "MAX_SCALED_PIXELS", 8000)


@pytest.mark.parametrize(
    ("width", "height", "fraction"), [(50, 40, 1), (51, 40, 2), (97, 80, 2), (97, 82, 4), (1000, 8, 2)]
)
@pytest.mark.usefixtures("small_limit")
def test_a_large_jpeg_is_decoded_at_a_fraction_and_one_at_the_limit_as_it_is(
    tmp_path: Path, width: int, height: int, fraction: int
) -> None:
    y, x = np.mgrid[:height, :width]
    smooth = Image.fromarray(np.stack([255 * x / width, 255 * y / height, 0 * x], 2).astype(np.uint8))
    path = saved(tmp_path, smooth, "a.jpg", quality=95)
    found = load_image(path)
    assert found.size == (-(-width // fraction), -(-height // fraction))
    assert content(path).scaled == (fraction > 1)
    if fraction == 1:
        with Image.open(path) as whole:
            assert (np.asarray(found) == np.asarray(whole)).all()
    expected = np.asarray(smooth.resize(found.size, Image.Resampling.BOX), int)
    assert np.abs(np.asarray(found, int) - expected).mean() < 4


@pytest.mark.usefixtures("small_limit")
def test_what_is_larger_still_or_no_jpeg_is_refused(tmp_path: Path) -> None:
    assert refused(saved(tmp_path, Image.new("RGB", (90, 89)), "a.jpg")).endswith("the limit is 0 (JPEG: 0)")
    assert refused(saved(tmp_path, Image.new("RGB", (51, 40)))).endswith("the limit is 0")


def test_a_jpeg_is_read_even_where_pillow_takes_it_for_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = (saved(tmp_path, Image.new("RGB", (60, 60), RED), name) for name in ("a.jpg", "a.png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert load_image(path).size == (60, 60)
    assert refused(other) == "far more than 80 megapixels, the limit"


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_png_is_read_whatever_text_it_holds(tmp_path: Path, where: str, deep: bool) -> None:
    """Drawing programs and generators of images keep megabytes of their own there, which Pillow refuses."""
    plain, path = tmp_path / "plain.png", tmp_path / "a.png"
    if deep:
        plain.write_bytes(png16(np.random.default_rng(0).integers(0, 4096, (9, 7, 3), dtype=np.uint16)))
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(plain)
    body = b"zTXt" + b"prompt\0\0" + zlib.compress(bytes(5_000_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    whole = plain.read_bytes()
    at = whole.index(b"IDAT" if where == "before" else b"IEND") - 4
    path.write_bytes(whole[:at] + chunk + whole[at:])
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"), Image.open(path) as image:
        image.load()
    as_read = Preprocess(32, 32, pixel_range=(0, 4095) if deep else None)
    assert (np.asarray(load_image(path, as_read)) == np.asarray(load_image(plain, as_read))).all()
    assert images.examine(path, lambda image: image.size) == images.examine(plain, lambda image: image.size)


SHAPES = (
    *((1, 1), (224, 224), (224, 300), (300, 224), (10000, 3), (7, 5), (223, 225), (1999, 1333), (3, 4000), (65, 64)),
    *((333, 500), (500, 333), (1, 70000), (640, 480)),
)
# Of all shapes, sizes, kernels and ways of resizing below; the C++, Kotlin and TypeScript of apps give the same bytes.
FITTED_SHA256 = "6a6921b52c6b6b5eca95d225928405489fdbcdf8197051e6851061edb5451c04"
DIGEST = """
import hashlib, sys
import numpy as np
from PIL import Image
from edgekit.data.images import fit
from edgekit.records import Preprocess
random, digest = np.random.default_rng(0), hashlib.sha256()
for width, height in {shapes}:
    image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    for shorter, size, kernel in ((256, 224, "bilinear"), (224, 224, "bilinear"), (110, 96, "bicubic")):
        for kind in ("crop", "squash", "letterbox"):
            preprocess = Preprocess(size, shorter if kind == "crop" else size, kernel, resize=kind)
            digest.update(fit(image, preprocess).tobytes())
print(Image.__version__, digest.hexdigest())
"""


def digest_with(folder: Path | None) -> tuple[str, str]:
    """The version of Pillow, in a folder or this one, and the SHA-256 of what `fit` makes with it."""
    before = [str(folder)] if folder else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*before, *sys.path])}
    code = DIGEST.format(shapes=SHAPES)
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    version, found = shown.stdout.split()
    return version, found


def test_fit_gives_the_bytes_of_the_contract() -> None:
    assert digest_with(None)[1] == FITTED_SHA256


@pytest.mark.slow
@pytest.mark.parametrize("version", ["12.3.0", "13.0.0"])
def test_fit_gives_the_same_bytes_with_every_pillow_that_is_allowed(tmp_path: Path, version: str) -> None:
    """Alone, `Image.resize` gives other bytes in these two: they choose the order of the passes differently."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "15"]
    install += ["--no-deps", "--target", str(tmp_path), f"pillow=={version}"]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pillow {version} took too long to install")
    if done.returncode:
        pytest.skip(f"pillow {version} cannot be installed here")
    assert digest_with(tmp_path) == (version, FITTED_SHA256)


def test_fit_makes_the_horizontal_pass_first() -> None:
    """A tall picture, for which some versions of Pillow would make the vertical one first: other bytes."""
    image = Image.fromarray(noise(500, 333))
    across = image.resize((224, 500), Image.Resampling.BILINEAR, box=(20.8125, 0, 312.1875, 500))
    expected = across.resize((224, 224), Image.Resampling.BILINEAR, box=(0, 104.3125, 224, 395.6875))
    assert (fit(image, Preprocess(224, 256)) == np.asarray(expected)).all()
    down = image.resize((333, 224), Image.Resampling.BILINEAR, box=(0, 104.3125, 333, 395.6875))
    other = down.resize((224, 224), Image.Resampling.BILINEAR, box=(20.8125, 0, 312.1875, 224))
    assert (np.asarray(other) != np.asarray(expected)).any()

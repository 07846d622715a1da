"""Image formats: by the ending of a file, or by its first bytes where the ending tells nothing."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
# Not every format that Pillow opens: its EPS reader runs Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "AVIF")
INSTALL_HEIC = "pip install pillow-heif"  # the extra "heic"
# Endings of pictures, videos and arrays that are never read: to be told apart from files that are no images at all.
OTHER_IMAGES = HEIC_EXTENSIONS | {
    *(".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".psd", ".psb", ".xcf", ".svg", ".eps", ".ai", ".ico", ".icns", ".tga"),
    *(".dds", ".exr", ".hdr", ".pcx", ".pfm", ".qoi", ".dcm", ".dicom", ".nii", ".mha", ".fits", ".npy", ".npz"),
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw", ".3fr", ".iiq"),
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".thm"),
}
# Backups, halves of downloads and previews: images by their content, but a second time or not whole.
_BACKUP = re.compile(r"(~|\.(bak|tmp|temp|part|partial|crdownload|download|old|orig|swp)|_original)$", re.I)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
}
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def ending(name: str) -> str:
    """Return the ending of a file name in small letters, with its dot; "" if it has none that looks like one."""
    found = re.search(r"[^.](\.[a-z][a-z0-9]{0,9})$", name, re.I)
    return found[1].lower() if found else ""


def is_backup(name: str) -> bool:
    """Return True for the name of a backup copy or of an unfinished download."""
    return _BACKUP.search(name) is not None


def of_content(start: bytes) -> str:
    """Return the format of a file from its first 64 bytes: one of `FORMATS`, "HEIC", or "" for anything else."""
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[1-6]\s+(#[^\n]*\n|\d)", start):
        return "PPM"
    if start[4:8] == b"ftyp":
        brands = [start[8:12], *(start[n : n + 4] for n in range(16, min(64, int.from_bytes(start[:4], "big")), 4))]
        named = {_BRANDS[brand] for brand in brands if brand in _BRANDS}
        return "AVIF" if "AVIF" in named else "HEIC" if named else ""
    return ""


def sniff(path: Path | str) -> str:
    """Return the format of a file as `of_content` does; "" if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            return of_content(file.read(64))
    except OSError:
        return ""


@cache
def readable() -> tuple[str, ...]:
    """Return the formats that Pillow may open: `FORMATS`, and HEIF if the package pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener(thumbnails=False)
    return (*FORMATS, "HEIF")


def reads_heic() -> bool:
    """Return True if HEIC files can be read."""
    return "HEIF" in readable()

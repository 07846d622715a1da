"""Draw the pictures of the golden set: ``python -m benchmarks.golden_pictures`` writes edgekit/shipping/pictures.

They are kept in the repository, so that every kit has the same bytes, whichever version of Pillow writes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parents[1] / "edgekit" / "shipping" / "pictures"
_ORIENTATION = 274  # tag of EXIF


def drawn(width: int, height: int, seed: int, noise: float = 6.0) -> np.ndarray:
    """Return colours that change slowly, with a bright disc left of the centre and fine stripes on the right."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    across, down = x / max(1, width - 1), y / max(1, height - 1)
    colours = np.stack([80 + 150 * across, 200 - 160 * down, 60 + 120 * across * down], 2)
    disc = (x - width * 0.35) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) * 0.22) ** 2
    colours[disc] = (250, 220, 30)
    stripes = (across > 0.6) & (down > 0.5) & ((x + y) % 3 == 0)
    colours[stripes] = (20, 20, 160)
    return (colours + random.normal(0, noise, colours.shape)).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(exist_ok=True)

    def png(name: str, image: Image.Image) -> None:
        image.save(FOLDER / f"{name}.png", optimize=True)

    for name, size in {
        "landscape": (96, 64), "portrait": (64, 96), "tall": (12, 130), "wide": (130, 12),
        "tiny": (7, 5),
    }.items():  # fmt: skip
        png(name, Image.fromarray(drawn(*size, len(name))))
    large = drawn(640, 480, 10, noise=0.0) // 16 * 16  # few colours, so that the file is small
    png("large", Image.fromarray(large))
    png("grey", Image.fromarray(drawn(70, 50, 20)).convert("L"))
    png("palette", Image.fromarray(drawn(70, 50, 21)).convert("P", palette=Image.Palette.ADAPTIVE, colors=32))
    pixels = drawn(70, 50, 22)
    alpha = np.linspace(0, 255, 70, dtype=np.uint8)[None].repeat(50, 0)[..., None]
    png("alpha", Image.fromarray(np.concatenate([pixels, alpha], 2), "RGBA"))
    upright = Image.fromarray(drawn(60, 40, 30))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
        stored.save(FOLDER / f"exif-{orientation}.jpg", quality=90, subsampling=0, exif=exif)


if __name__ == "__main__":
    main()

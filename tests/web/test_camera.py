"""The page places pictures on the square that the model sees as the library does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.images import fit
from edgekit.records import Preprocess

SCRIPT = Path(__file__).parents[2] / "edgekit" / "web" / "static" / "camera.js"
SIZES = [(39, 7), (7, 39), (64, 3), (300, 200), (640, 480), (1, 5000), (33, 33)]


def placed(preprocess: Preprocess) -> list[list[float]]:
    """What the page cuts (x, y, width, height) and where it draws that, for each of `SIZES`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    (function,) = re.findall(r"^export (function placed\(.*?^\})$", SCRIPT.read_text(encoding="utf-8"), re.S | re.M)
    job = {"image_size": preprocess.image_size, "resize_size": preprocess.resize_size, "resize": preprocess.resize}
    script = f"{function}\nconst sizes = {json.dumps(SIZES)};\n"
    script += f"console.log(JSON.stringify(sizes.map(([w, h]) => placed({json.dumps(job)}, w, h))))"
    return list(json.loads(subprocess.run([node, "-e", script], capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_the_whole_picture_lies_where_the_library_puts_it(resize: str) -> None:
    preprocess = Preprocess(32, 32, resize=resize, background="#0000ff")
    for (width, height), (x, y, w, h, left, top, across, down) in zip(SIZES, placed(preprocess)):
        assert (x, y, w, h) == (0, 0, width, height)
        expected = np.full((32, 32, 3), (0, 0, 255), np.uint8)
        expected[int(top) : int(top + down), int(left) : int(left + across)] = (255, 0, 0)
        assert (fit(Image.new("RGB", (width, height), "red"), preprocess) == expected).all()


def test_a_crop_is_the_central_square_at_the_scale_of_the_shorter_side() -> None:
    for (width, height), found in zip(SIZES, placed(Preprocess(32, 40))):
        side = min(width, height) * 32 / 40
        assert found == pytest.approx([(width - side) / 2, (height - side) / 2, side, side, 0, 0, 32, 32])

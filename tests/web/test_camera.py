"""The page sees of a picture what the library sees, byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.images import fit
from edgekit.records import Preprocess
from edgekit.web import server

SIZES = [(39, 7), (7, 39), (64, 3), (300, 200), (640, 480), (1, 5000), (33, 33)]
SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
import { fit } from "./fit.mjs";
const { contract, sizes } = JSON.parse(readFileSync("job.json"));
sizes.forEach(([width, height], n) => {
  const frame = { width, height, data: readFileSync(`${n}.rgba`) };
  writeFileSync(`${n}.rgb`, fit(frame, contract));
});
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
def test_a_frame_becomes_the_square_that_the_library_makes(tmp_path: Path, resize: str) -> None:
    preprocess = Preprocess(32, 40 if resize == "crop" else 32, resize=resize, background="#0000ff")
    random = np.random.default_rng(0)
    frames = [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for w, h in SIZES]
    for number, frame in enumerate(frames):
        (tmp_path / f"{number}.rgba").write_bytes(frame.convert("RGBA").tobytes())
    job = {"contract": preprocess.contract(), "sizes": SIZES}
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "run.mjs").write_text(SCRIPT)
    shutil.copyfile(server.FIT, tmp_path / "fit.mjs")
    subprocess.run(["node", "run.mjs"], cwd=tmp_path, check=True)
    for number, frame in enumerate(frames):
        assert (tmp_path / f"{number}.rgb").read_bytes() == fit(frame, preprocess).tobytes()

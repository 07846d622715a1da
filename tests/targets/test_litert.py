"""The folder for phones."""

from __future__ import annotations

from pathlib import Path

from edgekit.records import PRECISIONS, Artifact
from edgekit.targets.kits import write_litert


def test_readme_lists_every_model_and_what_to_feed_it(tmp_path: Path) -> None:
    artifacts = [Artifact(f"android/model.{p}.tflite", "android", p, "litert", "NHWC", "0", "0") for p in PRECISIONS]
    write_litert(tmp_path, artifacts, None)
    text = (tmp_path / "README.txt").read_text()
    assert all(f"model.{p}.tflite" in text for p in PRECISIONS)
    assert "NHWC" in text or "(1, height, width, 3)" in text

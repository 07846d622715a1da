"""A GPU in software (SwiftShader, which Chromium brings), for the road to a GPU where there is none.

LiteRT finds it through Vulkan and calls it fully accelerated; what it says of time is of no meaning.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_PLACES = (Path("/usr/lib/chromium"), *sorted(Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*")))
_NEEDED = ("libvk_swiftshader.so", "libvulkan.so.1")


def plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started from now on see it and no other GPU; skips the test where there is none."""
    place = next((p for p in _PLACES if all((p / name).is_file() for name in _NEEDED)), None)
    if place is None:
        pytest.skip("no SwiftShader: apt install chromium")
    (folder / "libvulkan.so.1").symlink_to(place / "libvulkan.so.1")
    driver = {"library_path": str(place / "libvk_swiftshader.so"), "api_version": "1.0.5"}
    (folder / "driver.json").write_text(json.dumps({"file_format_version": "1.0.0", "ICD": driver}))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    _only(str(folder / "driver.json"), monkeypatch)


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started from now on see no GPU, also where there is one."""
    _only("/nonexistent", monkeypatch)


def _only(drivers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, drivers)

"""Every test of this folder has an index cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that EDGEKIT_CACHE names."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EDGEKIT_CACHE", str(folder))
    return folder

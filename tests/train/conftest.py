"""Fixtures of the training tests: small networks in the table, three colours, a cache of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.data.dataset import index
from edgekit.records import DatasetIndex
from edgekit.train import zoo
from tests.conftest import write_images
from tests.train import small


@pytest.fixture(scope="module")
def rows() -> Iterator[None]:
    """The small networks are rows of the table. A model is one row."""
    zoo.MODELS.update(small.ROWS)
    yield
    for name in small.ROWS:
        zoo.MODELS.pop(name, None)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Three colours, 20 images each, split by content."""
    return index(write_images(tmp_path_factory.mktemp("data") / "images", {"apple": 20, "banana": 20, "cherry": 20}))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"

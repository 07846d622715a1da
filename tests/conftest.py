"""Fixtures that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Every worker with threads of its own on every core is many times slower, and the number decides the last bits of sums.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which reads it once

from tests import datasets
from tests.fixtures import adb_client, bare, board, colours, files, lab, made, road, rows, team  # noqa: F401

# What takes minutes on one worker, the longest first: begun last, it would go on alone.
_LONGEST = ("tests/test_tiny.py", "tests/contract", "tests/cli/test_jetson.py", "tests/devices/test_aarch64.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    places = {name: place for place, name in enumerate(_LONGEST)}

    def place(item: pytest.Item) -> int:
        return next((n for name, n in places.items() if item.nodeid.startswith(name)), len(places))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What edgekit can make again lies apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def notes_on_standard_error() -> Iterator[None]:
    """Notes are shown as the command line shows them; that the library is silent by itself has a test of its own."""
    from edgekit.cli import console

    with console.attached():
        yield


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three small classes, 20 images each."""
    return datasets.write_images(tmp_path / "images", {"apple": 20, "banana": 20, "cherry": 20})

"""Clients and release folders, made once for all tests."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.release.attacks import Folders
from tests.release.clients import Missing

KINDS = {
    "python": "python-litert",
    "kotlin": "android-litert",
    "typescript": "web-litert",
    "cpp": "cpp-litert",
    "swift": "ios-litert",
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("releases"))


def command(language: str, scratch: Path) -> list[str]:
    """Return the command of a client; the test is skipped where it cannot be built."""
    try:
        return importlib.import_module(f"tests.release.clients.{language}").prepared(scratch)
    except (Missing, ModuleNotFoundError) as why:
        pytest.skip(str(why))


@pytest.fixture(
    scope="session", params=[pytest.param(each, marks=pytest.mark.xdist_group(f"client-{each}")) for each in KINDS]
)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    return KINDS[request.param], command(request.param, tmp_path_factory.mktemp(request.param))

"""One real run of a tiny network, trained and exported through the command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.cli.app import run
from edgekit.train import zoo
from tests import nets
from tests.conftest import write_images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs/fruit, trained and exported for jetson and desktop."""
    zoo.MODELS["tiny"] = nets.TINY
    folder = tmp_path_factory.mktemp("road")
    data = write_images(folder / "photos", {"apple": 20, "banana": 20, "cherry": 20})
    options = ["--model", "tiny", "--weights", "none", "--epochs", "4", "--batch-size", "8", "--lr", "0.03"]
    runs = ["--runs-dir", str(folder / "runs")]
    assert run(["train", str(data), *options, "--augment", "none", "--name", "fruit", *runs]) == 0
    assert run(["export", "fruit", "-t", "jetson", "-t", "desktop", *runs]) == 0
    yield folder
    del zoo.MODELS["tiny"]


@pytest.fixture
def road(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in ./runs/fruit, that a test may spoil."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "fruit"

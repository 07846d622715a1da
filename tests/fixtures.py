"""Fixtures of several folders: devices behind real servers, a trained run, small networks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.cli.app import run
from edgekit.data.dataset import index
from edgekit.models import zoo
from edgekit.records import DatasetIndex
from tests import nets
from tests.archive import postgres
from tests.datasets import write_images
from tests.devices import adbd, android_root, sshd
from tests.training import small


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[sshd.Server]:
    """A running server that `EDGEKIT_SSH` finds as the host ``board``."""
    if sshd.SERVER is None:
        pytest.skip("no sshd here: apt install openssh-server")
    server = sshd.start(tmp_path_factory.mktemp("board") / "device")
    monkeypatch.setenv("EDGEKIT_SSH", server.ssh)
    yield server
    server.stop()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A model of no use to anyone, and four images."""
    import numpy as np

    np.save(tmp_path / "pixels.npy", np.zeros((4, 8, 8, 3), np.uint8))
    (tmp_path / "some.model").write_text("")
    return {"pixels.npy": tmp_path / "pixels.npy", "model": tmp_path / "some.model"}


@dataclass
class Lab:
    """A client, its phone, and the folder that the phone sees as its own."""

    client: adbd.Client
    phone: adbd.Phone
    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "tmp" / "edgekit"

    def heat(self, *status: int) -> None:
        """What the phone says of its heat, look by look."""
        (self.root / "thermal").write_text("".join(f"{each}\n" for each in status))

    @property
    def fixed(self) -> list[str]:
        """What its fixed-performance mode was set to, in turn."""
        path = self.root / "fixed"
        return path.read_text().split() if path.is_file() else []

    def wait_until(self, fixed: list[str]) -> None:
        end = time.monotonic() + 20
        while self.fixed != fixed:
            assert time.monotonic() < end, self.fixed
            time.sleep(0.1)


@pytest.fixture(scope="module")
def adb_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[adbd.Client]:
    made = adbd.client(tmp_path_factory.mktemp("adb") / "home")
    yield made
    made.stop()


@pytest.fixture
def bare(adb_client: adbd.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A phone that is not plugged in."""
    monkeypatch.setenv("EDGEKIT_ADB", adb_client.program)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    shell, environment = android_root.make(tmp_path / "phone")
    lab = Lab(adb_client, adbd.Phone(shell, environment), tmp_path / "phone")
    yield lab
    lab.phone.unplug()
    adb_client.run("disconnect")


@pytest.fixture
def lab(bare: Lab) -> Lab:
    bare.client.connect(bare.phone.plug_in())
    return bare


@pytest.fixture(scope="session")
def team() -> Iterator[postgres.Server]:
    """A running PostgreSQL."""
    if why := postgres.missing():
        pytest.skip(why)
    server = postgres.start()
    yield server
    server.stop()


# One real run of a tiny network, trained and exported through the command line.


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


# Fixtures of the training tests: small networks in the table, three colours, a cache of one's own.


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

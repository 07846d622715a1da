"""A device behind a real sshd, and a phone for a real adb."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench import adbd, android_root, postgres, sshd


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

"""A device behind a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import sshd


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

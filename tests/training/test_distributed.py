"""Two real gloo processes, started by torchrun, against one: the same global batch, the same weights."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.cli import app
from edgekit.cli.app import run
from edgekit.errors import UsageError
from edgekit.models import zoo
from edgekit.training.distributed import Team, join
from tests import nets
from tests.datasets import write_images

ALONE = Team(0, 1, torch.device("cpu"))
ROOT = Path(__file__).parents[2]
OPTIONS = "--model tiny --weights none --strategy full --imbalance none --amp off --epochs 3 --batch-size 8 --lr 0.03"


def train_alone(folder: Path, *more: str) -> None:
    """Train in ``folder/runs`` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny", nets.TINY)
        patch.setenv("EDGEKIT_CACHE", str(folder / "cache"))
        arguments = ["train", str(folder / "images"), *OPTIONS.split(), *more, "--runs-dir", str(folder / "runs")]
        assert run(arguments) == 0


def train_together(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Train in ``folder/runs`` in two processes; returns the finished command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m"]
    arguments = ["train", str(folder / "images"), *OPTIONS.split(), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "EDGEKIT_RUNS_DIR": str(folder / "runs")}
    environment["EDGEKIT_CACHE"] = str(folder / "cache")
    command = [sys.executable, *torchrun, "tests.training.torchrun_child", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def kept(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the record of a run."""
    run = folder / "runs" / name
    state = torch.load(run / "checkpoint.pt", weights_only=True)["state_dict"]
    return state, json.loads((run / "run.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("team")
    write_images(path / "images", {"apple": 19, "banana": 20, "cherry": 20})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--freeze-bn",), ("--strategy", "head", "--weights", "{start}")])
def test_two_processes_give_the_weights_of_one_and_the_leader_alone_speaks(folder: Path, more: tuple[str, ...]) -> None:
    if "head" in more:  # it needs weights to start from
        train_alone(folder, "--name", "start")
    more = tuple(m.format(start=folder / "runs" / "start" / "checkpoint.pt") for m in more)
    name = more[0].strip("-")
    train_alone(folder, *more, "--name", f"{name}-1")
    done = train_together(folder, *more, "--name", f"{name}-2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/3") == 1
    assert done.stderr.count("3 classes") == 1
    assert sorted(p.name for p in (folder / "runs").glob(f"{name}-2*")) == [f"{name}-2"]
    (one, first), (two, second) = (kept(folder, f"{name}-{processes}") for processes in (1, 2))
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=2e-5) for k in one)
    for a, b in zip(first["history"], second["history"]):
        for figure in ("train_loss", "val_loss", "val_top1", "val_macro_f1"):
            assert a[figure] == pytest.approx(b[figure], rel=1e-4)


@pytest.mark.slow
def test_a_wrong_request_is_said_once(folder: Path) -> None:
    done = train_together(folder, "--batch-size", "9")
    assert done.returncode != 0
    assert done.stderr.count("a batch of 9 cannot be shared by 2 processes") == 1
    assert "--batch-size 10" in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wrong_request_is_left_to_the_first_process(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that failed at once would be seen by torchrun before the first one has printed anything."""
    waited: list[tuple[float, Any]] = []
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(app.time, "sleep", lambda s: waited.append((s, signal.getsignal(signal.SIGTERM))))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run(["train", "digits", "--epochs", "-1"]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert waited == ([(app._FIRST, signal.SIG_DFL)] if rank else [])  # torchrun's SIGTERM ends it without a word
    assert capsys.readouterr().err.startswith("[process 1] error: " if rank else "error: ")


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        pytest.raises(UsageError, match="a batch of 32 cannot be shared by 3 processes") as caught,
        join(ALONE.device, 32),
    ):
        pass
    assert "--batch-size 33" in caught.value.hint


@pytest.mark.parametrize("total", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_hold_every_item_once(total: int, size: int) -> None:
    shares = [Team(rank, size, ALONE.device).share(torch.arange(total)).tolist() for rank in range(size)]
    assert sorted(number for share in shares for number in share) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("total", [1, 2, 5, 7])
def test_gathering_puts_shares_in_order_and_drops_the_padding(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = torch.arange(total * 2).reshape(total, 2)
    team = Team(0, 3, ALONE.device)

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for rank, part in enumerate(parts):
            share = items[rank::3]
            part[: len(share)] = share
            part[len(share) :] = -1

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    assert torch.equal(team.gather(team.share(items), total), items)


def test_alone_nothing_is_sent() -> None:
    assert ALONE.sum(2.5) == 2.5
    assert ALONE.broadcast(b"x") == b"x"
    assert ALONE.gather(torch.ones(3), 3).tolist() == [1, 1, 1]
    ALONE.wait()
    ALONE.same("it", "value")

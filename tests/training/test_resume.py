"""Killed and resumed: the weights are those of an undisturbed training, bit for bit.

Trainings run in forked processes that get real signals at random moments.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.data.dataset import index
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.models import zoo
from edgekit.records import DatasetIndex
from edgekit.training import features, resume
from edgekit.training.distributed import Team
from edgekit.training.loop import finetune
from edgekit.training.options import TrainOptions
from edgekit.training.resume import STATE_FILE
from edgekit.training.workers import WorkerError
from tests import nets
from tests.datasets import write_images
from tests.training.recorder import Recorder

pytestmark = pytest.mark.xdist_group("resume")
ALONE = Team(0, 1, torch.device("cpu"))


def tiny(**changes: Any) -> TrainOptions:
    """Options for the tiny network, which is in the table while these tests run."""
    plain = {"epochs": 3, "batch_size": 8, "lr": 0.03, "weights": "none", "imbalance": "none", "amp": "off"}
    return TrainOptions(**{"arch": "tiny", "strategy": "full", **plain, **changes})


# Everything that has a state of its own, once.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"ema": 0.9, "mix": "both"},
    "sgd on a plateau": {"optimizer": "sgd", "lr": 0.1, "schedule": "plateau", "clip": 1.0, "epochs": 6},
    "hidden layer, dropout, sampling": {"hidden": 8, "dropout": 0.5, "imbalance": "sampling"},
    "unfreezing": {"unfreeze_every": 1, "layer_decay": 0.5},
    "cached features": {
        "arch": "efficientnet_lite0",
        "strategy": "head",
        "weights": None,
        "views": 2,
        "epochs": 6,
        "image_size": 32,
    },
    "bf16": {"amp": "bf16"},
    "early stopping": {"patience": 1, "lr": 0.2, "epochs": 8},
}


@pytest.fixture(scope="module", autouse=True)
def tiny_row() -> Iterator[None]:
    zoo.MODELS["tiny"] = nets.TINY
    yield
    del zoo.MODELS["tiny"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    torch.set_num_threads(1)  # the same additions in the same order, here and in the process that is killed
    return index(write_images(tmp_path_factory.mktemp("data") / "images", {"apple": 20, "banana": 20, "cherry": 20}))


def sit(data: DatasetIndex, options: TrainOptions, folder: Path) -> None:
    """Train, or go on if there is a state; in a process of its own."""
    torch.set_num_threads(1)
    zoo.MODELS["tiny"] = nets.TINY
    try:
        finetune(data, options, folder, Recorder(), ALONE, resume=(folder / STATE_FILE).is_file())
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)


def start(data: DatasetIndex, options: TrainOptions, folder: Path) -> multiprocessing.Process:
    folder.mkdir(exist_ok=True)
    # Forked from a process that has imported all and done nothing: this one may have threads of autograd's by now.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=sit, args=(data, options, folder))
    process.start()
    return process  # type: ignore[return-value]


def undisturbed(data: DatasetIndex, options: TrainOptions, folder: Path) -> tuple[bytes, float]:
    """The checkpoint's bytes, and how many seconds it took once everything was imported."""
    for _ in range(2):
        started = time.monotonic()
        finetune(data, options, folder, Recorder(), ALONE)
        seconds = time.monotonic() - started
    return (folder / "checkpoint.pt").read_bytes(), seconds


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(
    name: str, colours: DatasetIndex, tmp_path: Path
) -> None:
    options, rng = tiny(**VARIANTS[name]), random.Random(name)
    expected, seconds = undisturbed(colours, options, tmp_path / "undisturbed")
    kills = 0
    for round_ in range(2):
        folder = tmp_path / str(round_)
        for attempt in range(50):
            process = start(colours, options, folder)
            process.join(rng.uniform(0.1, 1.2 if attempt else 0.4) * seconds)
            if process.exitcode == 0:
                break
            with contextlib.suppress(ProcessLookupError):  # it has just come to its end
                os.kill(process.pid or 0, rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                kills += 1
            process.join()
            assert process.exitcode in (0, 1, 130, -signal.SIGKILL, -signal.SIGTERM)  # 1, -15: before it listened
        else:
            pytest.fail("it never came to its end")
        assert (folder / "checkpoint.pt").read_bytes() == expected
    assert kills


def test_a_signal_in_an_epoch_loses_no_step(colours: DatasetIndex, tmp_path: Path) -> None:
    class Interrupting(Recorder):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            super().step(epoch, step, steps, loss)
            if (epoch, step) == (2, 2):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        finetune(colours, tiny(), tmp_path, Interrupting(), ALONE)
    rest = Recorder()
    finetune(colours, tiny(), tmp_path, rest, ALONE, resume=True)
    assert rest.steps[0] == (2, 3)
    assert [stats.epoch for stats in rest.epochs] == [2, 3]


def test_a_process_that_dies_while_it_decodes_images_loses_no_step(colours: DatasetIndex, tmp_path: Path) -> None:
    class Killing(Recorder):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            super().step(epoch, step, steps, loss)
            if (epoch, step) == (2, 2):
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)

    first, rest = Killing(), Recorder()
    with pytest.raises(WorkerError, match=r"killed \(SIGKILL\)"):
        finetune(colours, tiny(workers=2), tmp_path, first, ALONE)
    assert not multiprocessing.active_children()
    resumed = finetune(colours, tiny(workers=2), tmp_path, rest, ALONE, resume=True)
    assert len(first.steps + rest.steps) == len(set(first.steps + rest.steps)) == 3 * rest.steps[-1][1]
    whole = finetune(colours, tiny(), tmp_path / "whole", Recorder(), ALONE)
    assert resumed is not None
    assert whole is not None
    assert resumed.sha256 == whole.sha256


def test_a_state_of_another_number_of_processes_is_refused(colours: DatasetIndex, tmp_path: Path) -> None:
    interrupt(colours, tmp_path)
    state = resume.load(resume.read(tmp_path / STATE_FILE))
    with pytest.raises(UsageError, match="used 1 processes on cpu: it cannot continue with 2"):
        state.check_place(2, "cpu")


def test_features_that_were_made_anew_otherwise_are_refused(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bits of features depend on which images a network is given together."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    options = tiny(**VARIANTS["cached features"])

    class Interrupting(Recorder):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if epoch == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        finetune(colours, options, tmp_path, Interrupting(), ALONE)
    for block in (tmp_path / "cache" / "features").rglob("*.npy"):
        rows = np.load(block)
        rows["features"][0, 0] += 1e-3
        block.unlink()
        features._write(block.parent, rows)
    with pytest.raises(DataError, match="cached features"):
        finetune(colours, options, tmp_path, Recorder(), ALONE, resume=True)


def test_a_state_of_other_options_is_refused(colours: DatasetIndex, tmp_path: Path) -> None:
    interrupt(colours, tmp_path)
    with pytest.raises(DataError, match="different data, options or cached features"):
        finetune(colours, tiny(lr=0.01), tmp_path, Recorder(), ALONE, resume=True)


def interrupt(data: DatasetIndex, folder: Path) -> None:
    """Leave a training after its first epoch."""

    class Interrupting(Recorder):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        finetune(data, tiny(), folder, Interrupting(), ALONE)


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_state_is_an_error(colours: DatasetIndex, tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        finetune(colours, tiny(), tmp_path, Recorder(), ALONE, resume=True)
    assert (tmp_path / STATE_FILE).read_bytes() == content


def test_a_truncated_state_is_an_error(colours: DatasetIndex, tmp_path: Path) -> None:
    interrupt(colours, tmp_path)
    whole = (tmp_path / STATE_FILE).read_bytes()
    for length in range(0, len(whole), len(whole) // 7):
        with pytest.raises(DataError, match="damaged"):
            resume.load(whole[:length])


def test_without_a_state_there_is_nothing_to_resume(colours: DatasetIndex, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no interrupted training"):
        finetune(colours, tiny(), tmp_path, Recorder(), ALONE, resume=True)

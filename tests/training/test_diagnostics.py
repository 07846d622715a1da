"""What is said when a step fails: which files diverged, which batch size fits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import EdgekitError, ExitStatus, is_out_of_memory
from edgekit.models import build, checkpoints, zoo
from edgekit.models.zoo import ModelRow
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training import diagnostics, learner
from edgekit.training.batches import order
from edgekit.training.distributed import Team
from edgekit.training.learner import Learner
from edgekit.training.loop import Training, _Losses, finetune
from edgekit.training.resume import STATE_FILE, TrainingProgress
from tests import nets
from tests.datasets import write_images
from tests.training import small
from tests.training.recorder import Recorder

pytestmark = [pytest.mark.xdist_group("trouble"), pytest.mark.usefixtures("rows")]
NAN, INF = float("nan"), float("inf")
PATHS = [Path(f"images/{n}.png") for n in range(8)]
ROOT = Path(__file__).parents[2]


def diverged(values: list[float], **changes: Any) -> EdgekitError:
    paths = PATHS[: len(values)]
    hint = diagnostics.remedy(small.options(**changes), kept=True)
    return diagnostics.diverged(torch.tensor(values), paths, "epoch 2, batch 3", hint)


def test_nothing_is_promised_before_something_was_kept() -> None:
    assert diagnostics.remedy(small.options(), kept=False) == "try --lr 0.003 or --clip 1"


def test_one_image_without_a_loss_is_named() -> None:
    error = diverged([1.0, NAN, 2.0])
    assert error.message == "the loss became nan at epoch 2, batch 3 for images/1.png"
    assert error.hint == "the best weights so far are kept; try --lr 0.003 or --clip 1"


def test_of_many_images_three_are_named_and_the_others_counted() -> None:
    message = diverged([INF, 1.0, INF, INF, INF, INF, 1.0, INF]).message
    assert "became inf" in message
    assert message.endswith("for images/0.png, images/2.png, images/3.png and 3 more")


def test_if_all_are_lost_it_is_the_weights() -> None:
    message = diverged([NAN] * 4).message
    assert "for every image of the batch" in message
    assert message.endswith("the weights diverged")


def test_clipping_is_not_proposed_twice() -> None:
    assert "--clip" not in diverged([NAN, 1.0], clip=1.0).hint


def test_a_name_that_drives_the_terminal_is_made_visible() -> None:
    error = diagnostics.diverged(torch.tensor([NAN, 1.0]), [Path("\x1b[2Ja.png"), PATHS[0]], "epoch 1", "")
    assert "\x1b" not in error.message


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let images of a step (counted from 0, over all epochs) have a loss that is not finite."""

    def poison(step: int, images: list[int], value: float = NAN) -> None:
        real, calls = learner.criterion, iter(range(10_000))

        def criterion(*arguments: Any) -> Any:
            plain = real(*arguments)

            def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
                found = plain(logits, target)
                if next(calls) == step:
                    found = found + torch.tensor([value if n in images else 0.0 for n in range(len(found))])
                return found

            return loss

        monkeypatch.setattr(learner, "criterion", criterion)

    return poison


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("every", [None, 3, 1000])
def test_a_training_names_epoch_batch_and_file_and_keeps_the_epoch_before(
    colours: DatasetIndex, tmp_path: Path, poisoned: Any, value: float, every: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if every is not None:
        small.read_later(monkeypatch, every)
    options, recorder = small.options(), Recorder()
    train = colours.split("train")
    steps = order(len(train), options, 2, None)
    poisoned(len(steps) + 1, [3], value)
    with pytest.raises(EdgekitError) as caught:
        finetune(colours, options, tmp_path, recorder, small.ALONE)
    bad = colours.root / train[int(steps[1][3])].path
    assert caught.value.message == f"the loss became {value} at epoch 2, batch 2 for {bad}"
    assert "--lr 0.003" in caught.value.hint
    assert caught.value.status is ExitStatus.FAILED
    assert len(recorder.epochs) == 1
    checkpoint, model = checkpoints.load(tmp_path / "checkpoint.pt")
    assert checkpoint.labels == colours.labels
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())


def test_a_loss_of_another_process_is_named_too(
    colours: DatasetIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first of two processes, whose own losses are finite; the other one has the odd images."""
    theirs = torch.tensor([1.0, NAN, 1.0, 1.0])

    class First(Team):
        def sums(self, values: Sequence[float]) -> list[float]:
            others = [1.0, NAN] if len(values) == 2 else [0.0] * len(values)
            return [own + other for own, other in zip(values, others)]

        def gather(self, own: torch.Tensor, total: int) -> torch.Tensor:
            others = theirs if own.is_floating_point() else torch.arange(10, 14)
            return torch.stack([own, others], 1).flatten()[:total]

        def wrap(self, model: nn.Module) -> nn.Module:
            return model

    training = Training(colours, small.options(), First(0, 2, torch.device("cpu")), lambda *_: None)
    losses = _Losses(training, TrainingProgress())
    losses.add(torch.ones(4), torch.arange(4), 8)
    with pytest.raises(EdgekitError) as caught:
        losses.read()
    bad = colours.root / colours.split("train")[11].path
    assert caught.value.message == f"the loss became nan at epoch 1, batch 1 for {bad}"


def test_weights_that_are_lost_are_not_blamed_on_an_image(colours: DatasetIndex, tmp_path: Path) -> None:
    state = build.build("tiny", 3).state_dict()
    state["0.weight"].fill_(NAN)
    torch.save(state, tmp_path / "weights.pt")
    options = small.options(weights=str(tmp_path / "weights.pt"))
    (tmp_path / "run").mkdir()
    with pytest.raises(EdgekitError, match=r"nan at epoch 1, batch 1 for every image of the batch.*weights diverged"):
        finetune(colours, options, tmp_path / "run", Recorder(), small.ALONE)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("could not create a memory object"),
        RuntimeError("std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
    ],
    ids=str,
)
def test_out_of_memory_is_known_in_every_librarys_words(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_other_errors_are_not(error: BaseException, colours: DatasetIndex) -> None:
    assert not is_out_of_memory(error)


def test_pytorchs_own_message_of_a_real_failure_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


class Hungry(nn.Module):
    """The tiny network on a GPU that holds `most` images."""

    most = 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nets.tiny(classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.net(images)


def hungry(num_classes: int) -> nn.Module:
    return Hungry(num_classes)


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> type[Hungry]:
    row = ModelRow("tests.training.test_diagnostics:hungry", "none", "net.5", Preprocess(32, 36), ("net.0-1",))
    monkeypatch.setitem(zoo.MODELS, "hungry", row)
    return Hungry


@pytest.mark.parametrize(("most", "batch", "fits"), [(8, 32, 8), (8, 9, 4), (15, 30, 15), (2, 40, 2), (31, 32, 16)])
def test_the_batch_size_that_fits_is_named_and_then_trains(
    colours: DatasetIndex, tmp_path: Path, limited: type[Hungry], most: int, batch: int, fits: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limited, "most", most)
    options = small.options("hungry", batch_size=batch, epochs=1)
    with pytest.raises(EdgekitError) as caught:
        finetune(colours, options, tmp_path, Recorder(), small.ALONE)
    assert caught.value.message == f"out of memory: a batch of {batch} images of 32 px does not fit; {fits} would"
    assert caught.value.hint == f"use --batch-size {fits}"
    assert list(tmp_path.iterdir()) == []
    recorder = Recorder()
    finetune(colours, small.options("hungry", batch_size=fits, epochs=1), tmp_path, recorder, small.ALONE)
    assert len(recorder.epochs) == 1


def test_if_two_images_do_not_fit_other_ways_are_named(
    colours: DatasetIndex, tmp_path: Path, limited: type[Hungry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited, "most", 1)
    with pytest.raises(EdgekitError, match="nor would 2") as caught:
        finetune(colours, small.options("hungry"), tmp_path, Recorder(), small.ALONE)
    assert "--image-size" in caught.value.hint


def test_what_was_saved_before_memory_ran_out_stays(
    colours: DatasetIndex, tmp_path: Path, limited: type[Hungry], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling(Recorder):
        def epoch(self, stats: Any) -> None:
            super().epoch(stats)
            monkeypatch.setattr(limited, "most", 4)  # somebody else takes memory

    with pytest.raises(EdgekitError, match="4 would"):
        finetune(colours, small.options("hungry"), tmp_path, Filling(), small.ALONE)
    assert checkpoints.load(tmp_path / "checkpoint.pt")[0].arch == "hungry"
    assert (tmp_path / STATE_FILE).is_file()


def test_trying_a_batch_moves_no_weight(limited: type[Hungry], monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(build.build("hungry", 3), Preprocess(32, 36), small.options("hungry"), small.ALONE)
    learner.begin(1)
    before = {k: v.detach().clone() for k, v in learner.model.named_parameters()}
    assert diagnostics.largest_fit(learner, 64) == 8
    assert all(torch.equal(v, before[k]) for k, v in learner.model.named_parameters())
    assert all(p.grad is None for p in learner.model.parameters())


def test_another_error_is_not_explained_away() -> None:
    learner = Learner(build.build("tiny", 3), Preprocess(32, 36), small.options(), small.ALONE)
    with pytest.raises(RuntimeError, match="shapes"), diagnostics.explained(learner):
        raise RuntimeError("shapes")


LIMITED = """
import resource, sys
import torch, torchvision.transforms.v2, matplotlib.figure
from edgekit.api import evaluate, train
from edgekit.cli.app import run
from edgekit.models import build, zoo
from edgekit.training import diagnostics
from tests.training import small
# Address space is limited here, and a heap that was kept is full of holes.
diagnostics.keep_freed_memory = lambda: False
zoo.MODELS.update(small.ROWS)
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + 550 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_when_memory_really_runs_out_the_batch_size_that_is_named_trains(tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 50, "b": 50})
    plain = "--model tiny --weights none --strategy full --imbalance none --amp off --epochs 1 --augment none"
    command = [sys.executable, "-c", LIMITED, "train", str(tmp_path / "images"), *plain.split(), "--image-size", "384"]
    variables = {"OMP_NUM_THREADS": "1", "EDGEKIT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}

    def train(batch: str) -> subprocess.CompletedProcess[str]:
        arguments = [*command, "--batch-size", batch, "--runs-dir", str(tmp_path / "runs")]
        return subprocess.run(
            arguments, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
        )

    failed = train("64")
    assert failed.returncode == ExitStatus.FAILED, failed.stderr
    assert "out of memory: a batch of 64 images of 384 px does not fit; " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list((tmp_path / "runs").iterdir()) == []
    named = failed.stderr.partition("hint: use --batch-size ")[2].split()[0]
    assert 2 <= int(named) <= 32
    done = train(named)
    assert done.returncode == 0, done.stderr

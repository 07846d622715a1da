"""The training loop, on three colours at 32 pixels: with tiny networks, and with a real one where that matters."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.data.images import load_pixels
from edgekit.errors import EdgekitError, UsageError
from edgekit.models import build, checkpoints
from edgekit.models.build import pick_device, predict_logits
from edgekit.records import Checkpoint, DatasetIndex
from edgekit.scores import EpochStats
from edgekit.training.diagnostics import keep_freed_memory
from edgekit.training.learner import Learner
from edgekit.training.loop import finetune
from edgekit.training.options import TrainOptions
from edgekit.training.validation import Measured, Validation
from tests.training import small
from tests.training.recorder import Recorder

pytestmark = [pytest.mark.xdist_group("finetune"), pytest.mark.usefixtures("rows", "cache")]
LITE = TrainOptions("efficientnet_lite0", "full", epochs=2, batch_size=16, image_size=32, augment="none", flip=False)


def train(data: DatasetIndex, folder: Path, options: TrainOptions, recorder: Recorder | None = None) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    checkpoint = finetune(data, options, folder, recorder or Recorder(), small.ALONE)
    assert checkpoint is not None
    return checkpoint


def weights_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return checkpoints.load(checkpoint.path)[1].state_dict()


def val_figures(path: Path, data: DatasetIndex) -> tuple[float, float]:
    """Top-1 in percent and loss of a checkpoint on the val split."""
    checkpoint, model = checkpoints.load(path)
    val = data.split("val")
    pixels = load_pixels([data.root / sample.path for sample in val], checkpoint.preprocess)
    logits, labels = predict_logits(model, pixels, checkpoint.preprocess), torch.tensor([s.label for s in val])
    return 100 * (logits.argmax(1) == labels).float().mean().item(), nn.functional.cross_entropy(logits, labels).item()


@pytest.fixture(scope="module")
def trained(rows: None, colours: DatasetIndex, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Recorder]:
    recorder = Recorder()
    return train(colours, tmp_path_factory.mktemp("trained"), small.options(epochs=4), recorder), recorder


@pytest.fixture
def start(tmp_path: Path) -> str:
    """A file of weights to start from, for the networks that have no pretrained ones."""
    torch.manual_seed(3)
    torch.save(build.build("staged", 3).state_dict(), tmp_path / "start.pt")
    return str(tmp_path / "start.pt")


def test_a_tiny_network_learns_the_colours(trained: tuple[Checkpoint, Recorder]) -> None:
    assert max(stats.val_top1 for stats in trained[1].epochs) >= 90
    assert trained[1].losses[-1] < trained[1].losses[0]


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"imbalance": "focal"}, {"imbalance": "sampling"}], ids=str)
def test_it_learns_in_other_ways_too(colours: DatasetIndex, tmp_path: Path, changes: dict[str, Any]) -> None:
    recorder = Recorder()
    train(colours, tmp_path, small.options(epochs=5, **changes), recorder)
    assert max(stats.val_top1 for stats in recorder.epochs) >= 90


def test_a_head_on_imagenet_features_learns_the_colours(colours: DatasetIndex, tmp_path: Path) -> None:
    recorder = Recorder()
    train(colours, tmp_path, replace(LITE, strategy="head", epochs=15, lr=0.01), recorder)
    assert max(stats.val_top1 for stats in recorder.epochs) >= 60  # guessing: 33
    assert recorder.epochs[-1].train_loss < 0.9 * recorder.epochs[0].train_loss


def test_every_epoch_and_step_is_reported(trained: tuple[Checkpoint, Recorder], colours: DatasetIndex) -> None:
    steps = -(-len(colours.split("train")) // 8)
    assert [stats.epoch for stats in trained[1].epochs] == [1, 2, 3, 4]
    assert trained[1].steps == [(epoch, step) for epoch in range(1, 5) for step in range(1, steps + 1)]
    assert all(stats.seconds > 0 and stats.images_per_s > 0 and stats.lr > 0 for stats in trained[1].epochs)


def test_the_epoch_that_did_best_on_val_is_kept(trained: tuple[Checkpoint, Recorder], colours: DatasetIndex) -> None:
    checkpoint, recorder = trained
    best = max(recorder.epochs, key=lambda stats: (stats.val_top1, -stats.val_loss))
    assert val_figures(checkpoint.path, colours) == pytest.approx((best.val_top1, best.val_loss), rel=1e-4)
    assert [stats.epoch for stats in recorder.epochs if stats.best][-1] == best.epoch


def measuring(monkeypatch: pytest.MonkeyPatch, *figures: tuple[float, float, float]) -> None:
    """Let validation find these (loss, top-1, macro F1), epoch after epoch."""
    answers = iter(figures)
    monkeypatch.setattr(Validation, "measure", lambda *_: Measured(*next(answers)))


class Keeping(Recorder):
    """Keeps the bytes of the checkpoint after every epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.kept: list[bytes] = []

    def epoch(self, stats: EpochStats) -> None:
        super().epoch(stats)
        self.kept.append((self.folder / "checkpoint.pt").read_bytes())


@pytest.mark.parametrize(
    ("monitor", "best"),
    [
        ("top1", [True, True, False, False]),
        ("macro_f1", [True, False, True, False]),
        ("loss", [True, False, False, True]),
    ],
)
def test_a_later_worse_epoch_does_not_replace_the_best_in_what_is_monitored(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, best: list[bool]
) -> None:
    measuring(monkeypatch, (1.0, 50, 50), (1.1, 60, 40), (1.2, 55, 70), (0.9, 40, 60))
    keeping = Keeping(tmp_path)
    train(colours, tmp_path, small.options(epochs=4, monitor=monitor), keeping)
    assert [stats.best for stats in keeping.epochs] == best
    for before, after, stats in zip(keeping.kept, keeping.kept[1:], keeping.epochs[1:]):
        assert (before != after) == stats.best


def test_of_equally_right_epochs_the_one_with_the_lower_loss_is_kept(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, (1.0, 50, 50), (0.8, 50, 50), (0.9, 50, 50))
    recorder = Recorder()
    train(colours, tmp_path, small.options(), recorder)
    assert [stats.best for stats in recorder.epochs] == [True, True, False]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 6), (0, 7)])
def test_patience_stops_early(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    top1 = [50.0, 60.0, 55.0, 70.0, 65.0, 65.0, 65.0]
    measuring(monkeypatch, *[(1.0, value, 50.0) for value in top1])
    recorder = Recorder()
    checkpoint = train(colours, tmp_path, small.options(epochs=7, patience=patience), recorder)
    assert len(recorder.epochs) == epochs
    assert checkpoint.path.is_file()


def test_the_same_seed_gives_the_same_weights(
    trained: tuple[Checkpoint, Recorder], colours: DatasetIndex, tmp_path: Path
) -> None:
    torch.manual_seed(77)
    again = train(colours, tmp_path, small.options(epochs=4))
    assert again.sha256 == trained[0].sha256


@pytest.mark.parametrize("every", [1, 3, 4, 1000])
def test_reading_the_losses_later_changes_no_figure(
    trained: tuple[Checkpoint, Recorder], colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    every: int,
) -> None:  # fmt: skip
    small.read_later(monkeypatch, every)
    recorder = Recorder()
    assert train(colours, tmp_path, small.options(epochs=4), recorder).sha256 == trained[0].sha256
    for found, expected in zip(recorder.epochs, trained[1].epochs, strict=True):
        assert (found.train_loss, found.val_loss, found.lr) == (expected.train_loss, expected.val_loss, expected.lr)
    assert recorder.steps == trained[1].steps
    steps = len(recorder.steps) // 4
    assert recorder.losses[steps - 1 :: steps] == trained[1].losses[steps - 1 :: steps]


def test_a_signal_between_two_readings_loses_no_step(
    trained: tuple[Checkpoint, Recorder], colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(Recorder):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            super().step(epoch, step, steps, loss)
            if (epoch, step) == (2, 3):
                signal.raise_signal(signal.SIGTERM)

    small.read_later(monkeypatch, 1000)
    first, rest = Interrupting(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(colours, tmp_path, small.options(epochs=4), first)
    checkpoint = finetune(colours, small.options(epochs=4), tmp_path, rest, small.ALONE, resume=True)
    assert first.steps + rest.steps == trained[1].steps
    assert checkpoint is not None
    assert checkpoint.sha256 == trained[0].sha256
    assert rest.losses[-1] == trained[1].losses[-1]


def test_another_seed_gives_other_weights(
    trained: tuple[Checkpoint, Recorder], colours: DatasetIndex, tmp_path: Path
) -> None:
    other = weights_of(train(colours, tmp_path, small.options(seed=1)))
    assert not torch.equal(other["0.weight"], weights_of(trained[0])["0.weight"])


def test_worker_processes_do_not_change_the_weights(colours: DatasetIndex, tmp_path: Path) -> None:
    options = small.options(epochs=1, augment="light", flip=True)
    alone = train(colours, tmp_path / "alone", options)
    helped = train(colours, tmp_path / "helped", replace(options, workers=2))
    assert alone.sha256 == helped.sha256


def test_a_loss_that_is_nan_in_validation_alone_stops_without_saving(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "logits", lambda _, inputs: torch.full((len(inputs), 3), torch.nan))
    recorder = Recorder()
    with pytest.raises(EdgekitError, match=r"loss on val became nan \(epoch 1\)") as caught:
        train(colours, tmp_path, small.options(), recorder)
    assert "--lr 0.003" in caught.value.hint
    assert recorder.losses
    assert recorder.epochs == []
    assert list(tmp_path.glob("*.pt")) == []


def test_nan_in_a_later_validation_keeps_the_best(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, (1.0, 50, 50), (float("nan"), 60, 60))
    keeping = Keeping(tmp_path)
    with pytest.raises(EdgekitError, match=r"epoch 2"):
        train(colours, tmp_path, small.options(), keeping)
    assert (tmp_path / "checkpoint.pt").read_bytes() == keeping.kept[0]
    assert checkpoints.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("cached", [True, False])
def test_the_head_strategy_leaves_every_tensor_of_the_backbone_as_it_was(
    colours: DatasetIndex, tmp_path: Path, cached: bool
) -> None:
    found = weights_of(train(colours, tmp_path, replace(LITE, strategy="head", cache_features=cached, epochs=1)))
    before = build.build("efficientnet_lite0", 3, 32)
    build.load_weights(before, "efficientnet_lite0", "pretrained")
    expected = {k: v for k, v in before.state_dict().items() if not k.startswith("classifier.1.")}
    assert len(expected) > 200
    assert not [k for k, v in expected.items() if not torch.equal(found[k], v)]
    assert not torch.equal(found["classifier.1.weight"], before.state_dict()["classifier.1.weight"])


def test_partial_leaves_the_first_stages_as_they_were_and_trains_the_others(
    colours: DatasetIndex, tmp_path: Path
) -> None:
    found = weights_of(train(colours, tmp_path, replace(LITE, strategy="partial", frozen_stages=3, epochs=1)))
    before = build.build("efficientnet_lite0", 3, 32)
    build.load_weights(before, "efficientnet_lite0", "pretrained")
    frozen = tuple(f"features.{n}." for n in range(9))  # stages 1 to 3
    changed = {k for k, v in before.state_dict().items() if not torch.equal(found[k], v)}
    assert not [k for k in changed if k.startswith(frozen)]
    assert changed == {k for k in found if not k.startswith(frozen)}


@pytest.mark.parametrize("changes", [{}, {"hidden": 8}, {"ema": 0.8}, {"optimizer": "sgd"}], ids=str)
def test_training_the_head_on_kept_features_is_training_it_on_images(
    colours: DatasetIndex, tmp_path: Path, start: str, changes: dict[str, Any]
) -> None:
    options = small.options("staged", strategy="head", weights=start, dropout=0.0, **changes)
    cached, plain = Recorder(), Recorder()
    one = weights_of(train(colours, tmp_path / "cached", options, cached))
    two = weights_of(train(colours, tmp_path / "plain", replace(options, cache_features=False), plain))
    for key, value in two.items():
        torch.testing.assert_close(one[key], value, rtol=1e-3, atol=1e-4)
    assert cached.losses == pytest.approx(plain.losses, rel=1e-3)
    assert cached.steps == plain.steps
    assert [stats.val_top1 for stats in cached.epochs] == [stats.val_top1 for stats in plain.epochs]


def test_a_hidden_layer_is_in_the_checkpoint(colours: DatasetIndex, tmp_path: Path) -> None:
    checkpoint = train(colours, tmp_path, small.options("staged", hidden=8, epochs=1))
    assert checkpoint.hidden == 8
    assert weights_of(checkpoint)["9.0.weight"].shape == (8, 16)


@pytest.mark.slow
def test_a_real_network_learns_the_colours_at_another_size(colours: DatasetIndex, tmp_path: Path) -> None:
    recorder = Recorder()
    options = TrainOptions("resnet18", "scratch", epochs=4, batch_size=8, lr=1e-3, image_size=32, augment="none")
    train(colours, tmp_path, replace(options, imbalance="none", amp="off"), recorder)
    assert max(stats.val_top1 for stats in recorder.epochs) >= 60
    assert recorder.epochs[-1].train_loss < recorder.epochs[0].train_loss


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="CUDA"):
        pick_device("cuda")
    assert pick_device("auto").type == "cpu"
    assert pick_device("cpu").type == "cpu"


def test_keeping_freed_memory_takes_effect_with_glibc_alone() -> None:
    import platform

    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")

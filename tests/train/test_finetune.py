"""The training loop, on three colours at 32 pixels: once with ResNet-18, else with a tiny network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.data.dataset import index
from edgekit.data.images import load_pixels
from edgekit.errors import EdgekitError, UsageError
from edgekit.records import Checkpoint, DatasetIndex
from edgekit.train import checkpoints, finetune, models
from edgekit.train.finetune import EpochStats, TrainOptions
from edgekit.train.memory import keep_freed_memory
from tests import nets
from tests.conftest import write_images

pytestmark = pytest.mark.xdist_group("finetune")
RESNET = TrainOptions("resnet18", epochs=4, batch_size=8, lr=1e-3, image_size=32, weights="none", augment="none")


@pytest.fixture(scope="module", autouse=True)
def tiny_row() -> Iterator[None]:
    """A model is one row in the table."""
    models.MODELS["tiny"] = nets.TINY
    yield
    del models.MODELS["tiny"]


@pytest.fixture(scope="module")
def options(tiny_row: None) -> TrainOptions:
    return TrainOptions("tiny", epochs=4, batch_size=8, lr=0.03, weights="none", augment="none")


@dataclass
class Recorder:
    """Keeps what the loop reports."""

    losses: list[float] = field(default_factory=list)
    epochs: list[EpochStats] = field(default_factory=list)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)

    def epoch(self, stats: EpochStats) -> None:
        self.epochs.append(stats)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    return index(write_images(tmp_path_factory.mktemp("data") / "images", {"apple": 20, "banana": 20, "cherry": 20}))


@pytest.fixture(scope="module")
def trained(
    colours: DatasetIndex, options: TrainOptions, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Recorder]:
    recorder = Recorder()
    path = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    return finetune.finetune(colours, options, path, recorder), recorder


def val_figures(path: Path, data: DatasetIndex) -> tuple[float, float]:
    """Top-1 in percent and loss of a checkpoint on the val split."""
    checkpoint, model = checkpoints.load(path)
    val = data.split("val")
    pixels = load_pixels([data.root / sample.path for sample in val], checkpoint.preprocess)
    logits, labels = finetune.predict_logits(model, pixels, checkpoint.preprocess), torch.tensor([s.label for s in val])
    return 100 * (logits.argmax(1) == labels).float().mean().item(), nn.functional.cross_entropy(logits, labels).item()


@pytest.mark.slow
def test_resnet18_learns_the_colours(colours: DatasetIndex, tmp_path: Path) -> None:
    recorder = Recorder()
    finetune.finetune(colours, RESNET, tmp_path / "c.pt", recorder)
    assert max(stats.val_top1 for stats in recorder.epochs) >= 60
    assert recorder.epochs[-1].train_loss < recorder.epochs[0].train_loss


def test_a_tiny_network_learns_the_colours(trained: tuple[Checkpoint, Recorder]) -> None:
    assert max(stats.val_top1 for stats in trained[1].epochs) >= 90
    assert trained[1].losses[-1] < trained[1].losses[0]


def test_every_epoch_and_step_is_reported(trained: tuple[Checkpoint, Recorder]) -> None:
    assert [stats.epoch for stats in trained[1].epochs] == [1, 2, 3, 4]
    assert len(trained[1].losses) % 4 == 0


def test_the_epoch_that_did_best_on_val_is_kept(trained: tuple[Checkpoint, Recorder], colours: DatasetIndex) -> None:
    checkpoint, recorder = trained
    best = max(recorder.epochs, key=lambda stats: (stats.val_top1, -stats.val_loss))
    assert val_figures(checkpoint.path, colours) == pytest.approx((best.val_top1, best.val_loss), rel=1e-4)
    assert [stats.epoch for stats in recorder.epochs if stats.best][-1] == best.epoch


def test_a_later_worse_epoch_does_not_replace_the_best(
    colours: DatasetIndex, options: TrainOptions, tmp_path: Path
) -> None:
    kept: list[bytes] = []

    class Keeping(Recorder):
        """Keeps the bytes of the checkpoint after every epoch."""

        def epoch(self, stats: EpochStats) -> None:
            super().epoch(stats)
            kept.append((tmp_path / "c.pt").read_bytes())

    recorder = Keeping()
    finetune.finetune(colours, replace(options, epochs=6, lr=0.5), tmp_path / "c.pt", recorder)
    assert not all(stats.best for stats in recorder.epochs)
    for before, after, stats in zip(kept, kept[1:], recorder.epochs[1:]):
        assert (before != after) == stats.best


def test_the_same_seed_gives_the_same_weights(
    trained: tuple[Checkpoint, Recorder], colours: DatasetIndex, options: TrainOptions, tmp_path: Path
) -> None:
    again = finetune.finetune(colours, options, tmp_path / "again.pt", Recorder())
    (_, first), (_, second) = checkpoints.load(trained[0].path), checkpoints.load(again.path)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_another_seed_gives_other_weights(
    trained: tuple[Checkpoint, Recorder], colours: DatasetIndex, options: TrainOptions, tmp_path: Path
) -> None:
    first = checkpoints.load(trained[0].path)[1].get_parameter("0.weight")
    other = finetune.finetune(colours, replace(options, seed=1, epochs=1), tmp_path / "other.pt", Recorder())
    assert not torch.equal(checkpoints.load(other.path)[1].get_parameter("0.weight"), first)


def test_a_nan_loss_stops_with_advice_and_keeps_the_best(
    colours: DatasetIndex, options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poisoned(nn.CrossEntropyLoss):
        """The real loss; NaN from the second epoch on, as a diverging run gives it."""

        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return super().forward(logits, labels) * (float("nan") if recorder.epochs else 1.0)

    recorder = Recorder()
    monkeypatch.setattr(nn, "CrossEntropyLoss", Poisoned)
    with pytest.raises(EdgekitError, match=r"nan \(epoch 2, step 1\)") as caught:
        finetune.finetune(colours, options, tmp_path / "c.pt", recorder)
    assert "--lr 0.003" in caught.value.hint
    assert val_figures(tmp_path / "c.pt", colours)[0] == pytest.approx(recorder.epochs[0].val_top1)


def test_a_loss_that_is_nan_in_validation_alone_stops_without_saving(
    colours: DatasetIndex, options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "predict_logits", lambda _, pixels, __: torch.full((len(pixels), 3), torch.nan))
    recorder = Recorder()
    with pytest.raises(EdgekitError, match=r"nan \(epoch 1, validation\)"):
        finetune.finetune(colours, options, tmp_path / "c.pt", recorder)
    assert recorder.losses
    assert recorder.epochs == []
    assert list(tmp_path.iterdir()) == []


def test_a_learning_rate_that_explodes_is_noticed(colours: DatasetIndex, options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match=r"loss became (nan|inf)"):
        finetune.finetune(colours, replace(options, lr=9.9, weight_decay=1e30), tmp_path / "c.pt", Recorder())
    assert not (tmp_path / "c.pt").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"arch": "resnet81"},
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": 10.0},
        {"augment": "heavy"},
        {"device": "tpu"},
    ],
)
def test_options_that_cannot_train_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(RESNET, **wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="CUDA"):
        finetune.pick_device("cuda")
    assert finetune.pick_device("auto").type == "cpu"


def test_a_last_batch_of_one_image_is_left_out(colours: DatasetIndex) -> None:
    images = len(colours.split("train"))
    loader = finetune._loader(colours, replace(RESNET, batch_size=images - 1), models.preprocess_for("resnet18", 32))
    assert [len(labels) for _, labels in loader] == [images - 1]


def test_biases_and_batch_norms_have_no_weight_decay() -> None:
    decayed, plain = finetune._parameter_groups(models.build("resnet18", 3), 0.01)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    factor = finetune._warmup_cosine(replace(RESNET, epochs=10), 10)
    rates = [factor(step) for step in range(101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_keeping_freed_memory_takes_effect_with_glibc_alone() -> None:
    import platform

    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")


def test_normalize_is_the_devices_own(colours: DatasetIndex) -> None:
    from edgekit.ondevice.preprocess import normalize as on_device

    preprocess = models.preprocess_for("efficientnet_lite0", 32)
    pixels = load_pixels([colours.root / s.path for s in colours.samples[:2]], preprocess)
    ours = finetune.normalize(torch.from_numpy(pixels), preprocess).numpy()
    theirs = on_device(pixels[1], preprocess.mean, preprocess.std, "NCHW")
    assert ours[1:] == pytest.approx(theirs, abs=1e-5)

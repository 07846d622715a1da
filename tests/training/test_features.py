"""Kept features: what the head would see, computed once for each content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.data.dataset import index
from edgekit.data.images import load_pixels
from edgekit.models import build, zoo
from edgekit.models.build import load_weights, normalize
from edgekit.records import DatasetIndex, Sample
from edgekit.training import features
from edgekit.training.features import Backbone, Features, View, backbone, extract, views_of
from tests.datasets import write_images

pytestmark = [pytest.mark.xdist_group("features"), pytest.mark.usefixtures("rows", "cache")]
PLAIN, LIGHT = View(0), View(1, "light", True)


class Counting:
    """A backbone that counts the images that go through it."""

    def __init__(self, arch: str = "staged", seed: int = 0, weights: str = "none") -> None:
        torch.manual_seed(seed)
        self.model = build.build(arch, 3, 32)
        load_weights(self.model, arch, weights)
        self.source = backbone(self.model, arch, zoo.preprocess_for(arch, 32))
        self.images = 0
        self.model.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.images += len(output)

    def run(self, data: DatasetIndex, *views: View, samples: tuple[Sample, ...] | None = None) -> tuple[Features, int]:
        """The features of the train split, and how many images had to go through the network."""
        before = self.images
        found = extract(self.source, data.root, samples or data.split("train"), views or [PLAIN], lambda *_: None)
        return found, self.images - before


@pytest.fixture
def network() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    return index(write_images(tmp_path_factory.mktemp("data") / "images", {"a": 70, "b": 70}, 36))


def rows(found: Features, turn: int = 1, count: int = 60) -> torch.Tensor:
    return found.rows(range(count), turn)


@pytest.mark.parametrize(
    ("arch", "weights"), [("efficientnet_lite0", "pretrained"), ("resnet18", "none"), ("staged", "none")]
)
def test_the_head_on_features_answers_what_the_network_answers(arch: str, weights: str, fruit: DatasetIndex) -> None:
    network = Counting(arch, weights=weights)
    samples = fruit.split("train")[:40]
    found, _ = network.run(fruit, samples=samples)
    pixels = load_pixels([fruit.root / s.path for s in samples], network.source.preprocess)
    with torch.inference_mode():
        expected = network.model.eval()(normalize(torch.from_numpy(pixels), network.source.preprocess))
        got = build.head_of(network.model, arch)(rows(found, count=40))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_second_extraction_runs_nothing_and_gives_the_same(network: Counting, fruit: DatasetIndex) -> None:
    first, ran = network.run(fruit, PLAIN, LIGHT)
    again, ran_again = network.run(fruit, PLAIN, LIGHT)
    assert (ran, ran_again) == (2 * len(fruit.split("train")), 0)
    for turn in (1, 2):
        assert torch.equal(rows(first, turn), rows(again, turn))


def test_a_moved_and_renamed_data_set_is_known(network: Counting, fruit: DatasetIndex, tmp_path: Path) -> None:
    first, _ = network.run(fruit)
    shutil.copytree(fruit.root, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        path.rename(path.with_name(f"new-{path.name}"))
    moved = index(tmp_path / "elsewhere")
    assert {s.path for s in moved.samples} != {s.path for s in fruit.samples}
    again, ran = network.run(moved)
    assert ran == 0
    rank = {s.sha256: n for n, s in enumerate(moved.split("train"))}
    order = [rank[s.sha256] for s in fruit.split("train")]
    assert torch.equal(again.rows(order, 1), first.rows(range(len(order)), 1))


def test_new_images_alone_are_computed(network: Counting, fruit: DatasetIndex) -> None:
    every = fruit.split("train")
    network.run(fruit, samples=every[:50])
    found, ran = network.run(fruit)
    assert ran == len(every) - 50
    fresh = Counting().source
    pixels = load_pixels([fruit.root / s.path for s in every], fresh.preprocess)
    torch.testing.assert_close(rows(found, count=len(every)), features.head_inputs(fresh, pixels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "view",
    [View(1, "light"), View(2, "light", True), View(1, "randaugment", True), View(1, "light", True, seed=1)],
    ids=str,
)
def test_another_view_augmentation_or_seed_is_computed_anew(network: Counting, fruit: DatasetIndex, view: View) -> None:
    first, _ = network.run(fruit, LIGHT)
    other, ran = network.run(fruit, view)
    assert ran == len(fruit.split("train"))
    assert not torch.equal(rows(first), rows(other))


def change_weight(source: Backbone) -> Backbone:
    with torch.no_grad():
        source.model.get_parameter("0.weight")[0, 0, 0, 0] += 1e-3
    return backbone(source.model, source.arch, source.preprocess)


def change_statistics(source: Backbone) -> Backbone:
    source.model.get_buffer("4.running_mean")[3] += 1e-3
    return backbone(source.model, source.arch, source.preprocess)


def change_preprocess(source: Backbone) -> Backbone:
    return backbone(source.model, source.arch, replace(source.preprocess, mean=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize("change", [change_weight, change_statistics, change_preprocess])
def test_other_weights_or_preprocessing_are_computed_anew(
    network: Counting, fruit: DatasetIndex, change: Callable[[Backbone], Backbone]
) -> None:
    network.run(fruit)
    network.source = change(network.source)
    assert network.run(fruit)[1] == len(fruit.split("train"))


def test_another_head_changes_nothing(network: Counting, fruit: DatasetIndex) -> None:
    network.run(fruit)
    other = Counting()
    nn.init.ones_(build.head_of(other.model, "staged").get_parameter("weight"))
    other.source = backbone(other.model, "staged", other.source.preprocess)
    assert other.run(fruit)[1] == 0
    assert other.source.key == network.source.key
    assert Counting(seed=1).source.key != network.source.key


def blocks(cache: Path) -> list[Path]:
    return sorted((cache / "features").rglob("*.npy"))


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "other"])
def test_a_damaged_block_is_removed_and_computed_again(
    network: Counting, fruit: DatasetIndex, cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK", 32)
    first, ran = network.run(fruit)
    before = blocks(cache)
    assert len(before) == -(-ran // 32)
    content = before[0].read_bytes()
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    others = before[1].read_bytes()
    before[0].write_bytes({"flipped": flipped, "truncated": content[:-9], "empty": b"", "other": others}[damage])
    again, ran_again = network.run(fruit)
    assert 0 < ran_again <= 32
    torch.testing.assert_close(rows(again), rows(first), rtol=1e-4, atol=1e-6)
    assert network.run(fruit)[1] == 0


def test_a_killed_extraction_goes_on_after_its_last_whole_block(
    network: Counting, fruit: DatasetIndex, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK", 32)
    samples = fruit.split("train")

    def kill(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(network.source, fruit.root, samples, [PLAIN], kill)
    assert len(blocks(cache)) == 1
    found, ran = network.run(fruit)
    assert ran == len(samples) - 32
    expected = extract(Counting().source, fruit.root, samples, [PLAIN], lambda *_: None)
    assert torch.equal(rows(found), rows(expected))


def test_a_half_written_block_is_not_taken_for_one(network: Counting, fruit: DatasetIndex, cache: Path) -> None:
    network.run(fruit)
    folder = blocks(cache)[0].parent
    (folder / ".abc.npy.tmp1").write_bytes(b"half")
    (folder / ".abc.npy").write_bytes(b"half")
    assert network.run(fruit)[1] == 0


def test_equal_files_are_computed_once(network: Counting, fruit: DatasetIndex) -> None:
    samples = fruit.split("train")
    twice = (*samples[:10], replace(samples[3], path=samples[0].path), *samples[:5])
    found, ran = network.run(fruit, samples=twice)
    assert ran == 10
    assert torch.equal(found.rows([10], 1), found.rows([3], 1))
    assert torch.equal(found.rows(range(11, 16), 1), found.rows(range(5), 1))


def test_views_differ_and_follow_from_seed_number_and_content_alone(
    fruit: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = views_of(3, "light", True, seed=7)
    samples = fruit.split("train")[:20]
    first, _ = Counting().run(fruit, *views, samples=samples)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "another"))
    torch.manual_seed(5)
    again, ran = Counting().run(fruit, *views[::-1], samples=samples[::-1])
    assert ran == 60
    numbers = list(range(20))
    for turn in (1, 2, 3):
        a, b = first.rows(numbers, turn), again.rows(numbers[::-1], 4 - turn)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(a, first.rows(numbers, turn % 3 + 1), rtol=1e-3)
    assert torch.equal(first.rows(numbers, 4), first.rows(numbers, 1))  # turns go round


def test_without_augmentation_there_is_one_view_and_it_is_the_plain_one() -> None:
    assert views_of(4, "none", False, seed=3) == [View(0)]
    assert len(set(views_of(4, "none", True, seed=3))) == 4
    assert View(0) not in views_of(4, "light", False, seed=3)


def test_the_backbone_is_asked_in_evaluation_mode(network: Counting, fruit: DatasetIndex) -> None:
    before = {k: v.clone() for k, v in network.model.state_dict().items()}
    network.model.train()
    network.run(fruit)
    assert all(torch.equal(v, before[k]) for k, v in network.model.state_dict().items())


def test_progress_counts_every_image_of_every_view(network: Counting, fruit: DatasetIndex) -> None:
    said: list[tuple[int, int, str]] = []
    samples = fruit.split("train")
    extract(network.source, fruit.root, samples, [PLAIN, LIGHT], lambda *now: said.append(now))
    assert said == [(len(samples), 2 * len(samples), "features"), (2 * len(samples), 2 * len(samples), "features")]


def test_a_single_image_is_enough(fruit: DatasetIndex) -> None:
    assert rows(Counting("tiny").run(fruit, samples=fruit.split("train")[:1])[0], count=1).shape == (1, 16)

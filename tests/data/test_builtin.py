"""The built-in data set: real digits, written once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.data import builtin, dataset
from edgekit.errors import MissingError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built-in digits, in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return dataset.resolve("digits")


def test_digits_are_1797_images_of_ten_classes(digits: Path) -> None:
    index = dataset.index(digits)
    assert index.labels == tuple("0123456789")
    assert len(index.samples) == 1797
    assert not index.skipped
    assert {path.name for path in digits.iterdir()} == set("0123456789")


def test_digits_keep_their_pixels(digits: Path) -> None:
    from sklearn.datasets import load_digits

    from edgekit.data.images import load_image

    real = load_digits()
    for number in (0, 1000, 1796):
        pixels = np.asarray(load_image(digits / str(real.target[number]) / f"{number:04d}.png"))
        assert np.abs(pixels[..., 0] / 255 - real.images[number] / 16).max() < 1 / 255


def test_a_data_set_is_written_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setitem(builtin.BUILTIN, "digits", lambda folder: calls.append((folder / "a").touch()))
    assert builtin.materialize("digits") == builtin.materialize("digits")
    assert len(calls) == 1


def test_an_interrupted_write_leaves_nothing_that_looks_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "0").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setitem(builtin.BUILTIN, "digits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builtin.materialize("digits")
    assert list((tmp_path / "datasets").iterdir()) == []


def test_without_its_package_the_command_that_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingError, match="scikit-learn") as caught:
        builtin.materialize("digits")
    assert caught.value.hint.startswith('pip install "scikit-learn')

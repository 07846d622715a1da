"""IDX, NPZ and CIFAR files: the right pixels under the right labels, and files that are damaged or are pickles."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.data import arrays, dataset, sources
from edgekit.data.listing import Listing
from edgekit.data.sources import Reading
from edgekit.errors import DataError

RNG = np.random.default_rng(0)


def pixels(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def idx(file: Path, array: np.ndarray, packed: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    file.write_bytes(gzip.compress(content) if packed else content)
    return file


def seen(found: Listing) -> dict[str, list[np.ndarray]]:
    """Split and label -> images, in the order of the files."""
    made: dict[str, list[np.ndarray]] = {}
    for entry in found.files:
        made.setdefault(f"{entry.split}:{entry.label}", []).append(np.asarray(Image.open(found.root / entry.path)))
    return made


def assert_images(found: Listing, split: str, images: np.ndarray, labels: list[str]) -> None:
    have = seen(found)
    for label in sorted({*labels}):
        want = [image for image, own in zip(images, labels) if own == label]
        got = have[f"{split}:{label}"]
        assert len(got) == len(want)
        assert all(np.array_equal(a, b) for a, b in zip(got, want))


def npz(file: Path, **content: Any) -> Path:
    np.savez(file, **content)
    return file


# IDX ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("ending", "below"), [("-idx{}-ubyte", ""), (".idx{}-ubyte", "MNIST/raw/")])
def test_idx_files(tmp_path: Path, packed: bool, ending: str, below: str) -> None:
    made = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images, labels = pixels(30, 12, 10), np.arange(30, dtype=np.uint8) % 3
        end = ".gz" if packed else ""
        idx(tmp_path / "d" / below / f"{stem}-images{ending.format(3)}{end}", images, packed)
        idx(tmp_path / "d" / below / f"{stem}-labels{ending.format(1)}{end}", labels, packed)
        made[split] = images, [str(label) for label in labels]
    found = sources.find(tmp_path / "d")
    assert found.present == ("train", "test")
    for split, (images, labels) in made.items():
        assert_images(found, split, images, labels)
    assert found.notes[0] == "read as: IDX, 60 images in train, test"
    assert len(dataset.index(tmp_path / "d").split("val")) == 6


def test_one_idx_file_with_its_labels_colours_and_names(tmp_path: Path) -> None:
    images, labels = pixels(12, 9, 8, 3), np.arange(12, dtype=np.uint8) % 2
    file = idx(tmp_path / "train-images-idx4-ubyte", images)
    idx(tmp_path / "train-labels-idx1-ubyte", labels)
    (tmp_path / "classes.txt").write_text("even\nodd\n")
    found = sources.find(file)
    assert_images(found, "train", images, ["even", "odd"] * 6)
    assert "names of the numbers from classes.txt" in found.notes


def test_a_file_that_lies_there_packed_and_unpacked_counts_once(tmp_path: Path) -> None:
    images, labels = pixels(12, 9, 8), np.arange(12, dtype=np.uint8) % 2
    for packed, end in ((False, ""), (True, ".gz")):
        idx(tmp_path / f"train-images-idx3-ubyte{end}", images, packed)
        idx(tmp_path / f"train-labels-idx1-ubyte{end}", labels, packed)
    assert len(sources.find(tmp_path).files) == 12


def spoil(folder: Path, name: str, change: Any) -> None:
    file = folder / f"train-{name}-ubyte"
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images-idx3", lambda b: b[:-5], "is cut off: 11 of 12 images were read"),
        ("images-idx3", lambda b: b[:9], "cut off in its header"),
        ("images-idx3", lambda b: b + b"x", "longer than its header says"),
        ("images-idx3", lambda b: b"\0\0\x0d\3" + b[4:], "is no IDX file of bytes"),
        ("images-idx3", lambda b: b[:4] + struct.pack(">3I", 12, 0, 8) + b[16:], "images of shape"),
        ("images-idx3", lambda b: b[:4] + struct.pack(">3I", 12, 4_000_000_000, 8) + b[16:], "images of shape"),
        ("images-idx3", lambda b: b[:4] + struct.pack(">3I", 13, 9, 8) + b[16:], "13 images, and .* 12 labels"),
        ("labels-idx1", lambda b: b[:-1], "11 labels, and its header says 12"),
        ("labels-idx1", lambda b: b + b"x", "13 labels, and its header says 12"),
        ("labels-idx1", lambda b: b[:4] + struct.pack(">I", 4_000_000_000) + b[8:], "4000000000 labels"),
        ("labels-idx1", lambda b: b"", "is empty"),
    ],
)
def test_damaged_idx_files_are_told_and_nothing_is_left(
    tmp_path: Path, name: str, change: Any, message: str, cache_folder: Path
) -> None:
    idx(tmp_path / "train-images-idx3-ubyte", pixels(12, 9, 8))
    idx(tmp_path / "train-labels-idx1-ubyte", np.arange(12, dtype=np.uint8) % 2)
    spoil(tmp_path, name, change)
    with pytest.raises(DataError, match=message):
        sources.find(tmp_path)
    assert list(cache_folder.rglob("*.png")) == []


def test_idx_images_without_labels_are_told(tmp_path: Path) -> None:
    file = idx(tmp_path / "train-images-idx3-ubyte", pixels(12, 9, 8))
    with pytest.raises(DataError, match="but no labels for it"):
        sources.find(file)
    packed = idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(12, dtype=np.uint8), True)
    packed.write_bytes(packed.read_bytes()[:-6])
    with pytest.raises(DataError, match="cut off or damaged"):
        sources.find(file)


# NPZ ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files(tmp_path: Path, keys: tuple[str, str, str, str], save: Any) -> None:
    train, test = pixels(30, 12, 10, 3), pixels(18, 12, 10, 3)
    save(tmp_path / "d.npz", **dict(zip(keys, (train, np.arange(30) % 3, test, (np.arange(18) % 3)[:, None]))))
    found = sources.find(tmp_path / "d.npz")
    assert_images(found, "train", train, ["0", "1", "2"] * 10)
    assert_images(found, "test", test, ["0", "1", "2"] * 6)
    assert found.notes[0] == f"read as: NPZ, {keys[0]} with {keys[1]}, {keys[2]} with {keys[3]}, 48 images"


def test_medmnist(tmp_path: Path) -> None:
    made = {}
    for split in ("train", "val", "test"):
        made |= {f"{split}_images": pixels(12, 28, 28), f"{split}_labels": (np.arange(12) % 2)[:, None]}
    index = dataset.index(npz(tmp_path / "pneumoniamnist.npz", **made))
    assert {split: len(index.split(split)) for split in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), 12
    )


def test_images_with_labels_and_names_in_the_file(tmp_path: Path) -> None:
    images = pixels(20, 8, 8)
    file = npz(tmp_path / "d.npz", images=images, labels=np.arange(20) % 2, class_names=np.array(["cat", "dog"]))
    assert_images(sources.find(file), "", images, ["cat", "dog"] * 10)


def test_files_of_one_array_each(tmp_path: Path) -> None:
    images = pixels(20, 8, 8)
    for split in ("train", "test"):
        np.savez(tmp_path / f"kmnist-{split}-imgs.npz", images)
        np.savez(tmp_path / f"kmnist-{split}-labels.npz", np.arange(20) % 2)
    found = sources.find(tmp_path)
    assert_images(found, "train", images, ["0", "1"] * 10)
    assert_images(found, "test", images, ["0", "1"] * 10)


@pytest.mark.parametrize(
    ("given", "want", "said"),
    [
        (lambda p: np.moveaxis(p, -1, 1), lambda p: p, ""),
        (lambda p: p.astype(np.int64), lambda p: p, "0 becomes black and 255 white"),
        (lambda p: (p / 255).astype(np.float32), lambda p: p, "0 becomes black and 1 white"),
        (lambda p: (p / 127.5 - 1).astype(np.float64), lambda p: p, "-1 becomes black and 1 white"),
        (lambda p: (p // 16).astype(np.float64), lambda p: np.round((p // 16) * 17.0), "0 becomes black and 15 white"),
        (np.asfortranarray, lambda p: p, ""),
        (lambda p: p[..., :1], lambda p: p[..., 0], ""),
        (lambda p: p > 127, lambda p: (p > 127) * 255, "0 becomes black and 1 white"),
        (lambda p: p[..., 0].reshape(len(p), -1), lambda p: p[..., 0], ""),
        (lambda p: p[..., 0].astype(np.uint16) * 257, lambda p: p[..., 0].astype(np.uint16) * 257, "16 bits stay so"),
    ],
)  # fmt: skip
def test_other_layouts_and_values_are_pixels_again_and_told(tmp_path: Path, given: Any, want: Any, said: str) -> None:
    images = pixels(20, 12, 12, 3)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    found = sources.find(npz(tmp_path / "d.npz", images=given(images), labels=np.arange(20) % 2))
    assert_images(found, "", want(images), ["0", "1"] * 10)
    assert said in "\n".join(found.notes)
    assert ("becomes" in "\n".join(found.notes)) == ("becomes" in said)


@pytest.mark.parametrize(
    ("labels", "want"),
    [
        (np.array(["b", "a"] * 5), ["b", "a"] * 5),
        (np.array([b"b", b"a"] * 5), ["b", "a"] * 5),
        (np.arange(10) % 2.0, ["0", "1"] * 5),
        (np.eye(2)[np.arange(10) % 2], ["0", "1"] * 5),
    ],
)
def test_labels_as_names_floats_and_rows_of_0_and_1(tmp_path: Path, labels: np.ndarray, want: list[str]) -> None:
    images = pixels(10, 8, 8)
    assert_images(sources.find(npz(tmp_path / "d.npz", images=images, labels=labels)), "", images, want)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/edgekit-pickle-was-run"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": pixels(4, 8, 8)}, "not one array of images with one of labels"),
        ({"a": pixels(4, 8, 8), "b": np.arange(4)}, "no images by a usual name: a uint8"),
        ({"images": pixels(4, 8, 8), "labels": np.arange(3)}, "4 images, and labels 3 labels"),
        ({"images": pixels(4, 8, 8), "labels": np.ones((4, 3))}, "of no class, or of several"),
        ({"images": pixels(4, 8, 8), "labels": np.arange(4) + 0.5}, "no numbers of classes"),
        ({"images": pixels(4, 8, 8, 7), "labels": np.arange(4)}, "images of shape"),
        ({"images": RNG.normal(size=(4, 8, 8)), "labels": np.arange(4)}, "cannot be turned back"),
        ({"images": np.full((4, 8, 8), np.nan), "labels": np.arange(4)}, "no finite numbers"),
        ({"images": np.zeros((4, 8, 8), complex), "labels": np.arange(4)}, "are no pixels"),
        ({"x_train": pixels(4, 8, 8), "y_train": np.arange(4), "images": pixels(4, 8, 8)}, "with a split and without"),
        ({"images": np.array([_Evil()] * 4, object), "labels": np.arange(4)}, "holds Python objects"),
        ({"images": pixels(4, 8, 8), "labels": np.array([_Evil()] * 4, object)}, "holds Python objects"),
    ],
)  # fmt: skip
def test_npz_files_that_cannot_be_used_are_told(
    tmp_path: Path, content: dict[str, Any], message: str, cache_folder: Path
) -> None:
    with pytest.raises(DataError, match=message):
        sources.find(npz(tmp_path / "d.npz", **content))
    assert list(cache_folder.rglob("*.png")) == []
    assert not Path("/tmp/edgekit-pickle-was-run").exists()


def test_npz_files_that_are_damaged_are_told(tmp_path: Path) -> None:
    file = npz(tmp_path / "d.npz", images=pixels(4, 8, 8), labels=np.arange(4))
    content = bytearray(file.read_bytes())
    file.write_bytes(content[:200])
    with pytest.raises(DataError, match="cut off or damaged"):
        sources.find(file)
    content[200:210] = b"0123456789"
    file.write_bytes(content)
    with pytest.raises(DataError, match="cut off or damaged"):
        sources.find(file)


def test_images_without_labels_are_for_calibration(tmp_path: Path) -> None:
    file = npz(tmp_path / "d.npz", images=pixels(4, 8, 8))
    assert len(sources.find(file, Reading(labelled=False)).files) == 4


# CIFAR --------------------------------------------------------------------------------------------


def test_the_pickles_of_cifar_are_refused_by_name(tmp_path: Path) -> None:
    ten, hundred = tmp_path / "a" / "cifar-10-batches-py", tmp_path / "b"
    ten.mkdir(parents=True), hundred.mkdir()
    for folder, names in ((ten, ("data_batch_1", "test_batch", "batches.meta")), (hundred, ("train", "test", "meta"))):
        for name in names:
            (folder / name).write_bytes(pickle.dumps({"data": [_Evil()]}))
    for folder, number in ((ten, 10), (ten.parent, 10), (hundred, 100)):
        with pytest.raises(DataError, match=f"CIFAR-{number} as Python pickles") as caught:
            sources.find(folder)
        assert f"cifar-{number}-binary.tar.gz" in caught.value.hint
    for name in ("x.pkl", "x.npy", "x.mat"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match="edgekit does not read"):
            sources.find(tmp_path / name)
    assert not Path("/tmp/edgekit-pickle-was-run").exists()


def test_the_binary_files_of_cifar(tmp_path: Path) -> None:
    images = pixels(20, 32, 32, 3)
    planes = np.moveaxis(images, -1, 1).reshape(20, -1)
    labels = (np.arange(20, dtype=np.uint8) % 2)[:, None]
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(np.hstack([labels, planes]).tobytes())
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\n\n")
    found = sources.find(tmp_path)
    assert_images(found, "train", images, ["airplane", "automobile"] * 10)
    assert_images(found, "test", images, ["airplane", "automobile"] * 10)
    (tmp_path / "test_batch.bin").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="records of 3073 bytes"):
        sources.find(tmp_path)


def test_the_same_pixels_in_idx_and_npz_have_one_fingerprint(tmp_path: Path) -> None:
    images, labels = pixels(30, 12, 10), np.arange(30, dtype=np.uint8) % 3
    idx(tmp_path / "i" / "images-idx3-ubyte", images)
    idx(tmp_path / "i" / "labels-idx1-ubyte", labels)
    for number, (image, label) in enumerate(zip(images, labels)):
        (tmp_path / "f" / str(label)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / str(label) / f"{number}.png").write_bytes(arrays.png(image))
    prints = {
        dataset.index(data).fingerprint
        for data in (tmp_path / "i", tmp_path / "f", npz(tmp_path / "d.npz", x=images, y=labels))
    }
    assert len(prints) == 1


def test_hints_tell_what_is_to_be_done(tmp_path: Path) -> None:
    idx(tmp_path / "i" / "t10k-images-idx3-ubyte.gz", pixels(4, 9, 9), True)
    npz(tmp_path / "odd.npz", foo=pixels(4, 9, 9), bar=np.arange(4))
    npz(tmp_path / "short.npz", images=pixels(4, 9, 9), labels=np.arange(3))
    for data, hint in (
        ("i", "put t10k-labels-idx1-ubyte.gz there"),
        ("odd.npz", "np.savez(FILE, images=..., labels=...)"),
        ("short.npz", "a label for each image"),
    ):
        with pytest.raises(DataError) as caught:
            sources.find(tmp_path / data)
        assert hint in caught.value.hint

"""Images in memory: what comes in is what the network sees, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from edgekit.data import images
from edgekit.errors import DataError, UsageError
from edgekit.importing import arrays
from edgekit.models.build import normalize
from edgekit.records import Preprocess, Sample

SQUARE = Preprocess(32, 37)  # an odd border: half a pixel on each side
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
LABELS = np.array([2, 0, 1, 1, 2])


def loaded(samples: list[Sample], run: Path) -> np.ndarray:
    return images.load_pixels([run / arrays.FOLDER / sample.path for sample in samples], SQUARE)


def batches(normalized: bool = True) -> DataLoader[Any]:
    tensor = torch.from_numpy(PIXELS)
    floats = normalize(tensor, SQUARE) if normalized else tensor.permute(0, 3, 1, 2) / 255
    return DataLoader(TensorDataset(floats, torch.from_numpy(LABELS)), batch_size=2)


@pytest.mark.parametrize(
    ("given", "normalized"),
    [
        ((PIXELS, LABELS), None),
        ((torch.from_numpy(PIXELS), LABELS.tolist()), None),
        ((PIXELS.transpose(0, 3, 1, 2), LABELS), None),
        ([(PIXELS[:3], LABELS[:3]), (PIXELS[3:], LABELS[3:])], None),
        (batches(), True),
        (batches(normalized=False), False),
        ([{"pixel_values": x.half().float(), "labels": y} for x, y in batches()], True),
        ({"image": PIXELS, "label": LABELS}, None),
    ],
)
def test_what_comes_in_is_what_the_network_sees(given: Any, normalized: bool | None, tmp_path: Path) -> None:
    samples = arrays.save(given, tmp_path, "test", SQUARE, 3, normalized)
    assert [sample.label for sample in samples] == LABELS.tolist()
    assert {sample.split for sample in samples} == {"test"}
    assert (loaded(samples, tmp_path) == PIXELS).all()


def test_pictures_of_another_size_are_preprocessed_like_files(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 80, 3), np.uint8)
    samples = arrays.save([picture, PIXELS[0]], tmp_path, "calibration", SQUARE, 3)
    Image.fromarray(picture).save(tmp_path / "as_file.png")
    expected = images.load_pixels([tmp_path / "as_file.png"], SQUARE)[0]
    found = loaded(samples, tmp_path)
    assert (found[0] == expected).all()
    assert (found[1] == PIXELS[0]).all()
    assert [sample.label for sample in samples] == [-1, -1]


def test_an_endless_loader_ends(tmp_path: Path) -> None:
    def endless() -> Any:
        while True:
            yield PIXELS, LABELS

    assert len(arrays.save(endless(), tmp_path, "calibration", SQUARE, 3)) == arrays.MOST_CALIBRATION


FLOATS = np.zeros((2, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    ("given", "normalized", "kind", "message"),
    [
        (FLOATS, None, UsageError, "nothing says what their values mean"),
        (np.zeros((2, 3, 40, 40), np.float32), True, DataError, r"the network takes \(N, 3, 32, 32\)"),
        (FLOATS + 20, True, DataError, "are not \\(pixel / 255 - mean\\) / std"),
        (np.linspace(0, 1, FLOATS.size).reshape(FLOATS.shape), True, DataError, "look like pixel / 255"),
        (FLOATS + 20, False, DataError, "are not pixel / 255"),
        (FLOATS * np.nan, True, DataError, "NaN"),
        (np.zeros((2, 32, 32), np.uint8), None, DataError, "batches of 4 dimensions"),
        (np.zeros((2, 32, 32, 1), np.uint8), None, DataError, "edgekit's networks take RGB"),
        (np.zeros((2, 3, 32, 3), np.uint8), None, DataError, "second or the last dimension"),
        (np.zeros((2, 32, 32, 3), np.int64), None, DataError, "images are int64"),
        ([], None, DataError, "is empty"),
        (7, None, UsageError, "cannot be read from int"),
        ([{"x": FLOATS}], True, DataError, "and none of pixel_values"),
        (["a.png"], None, DataError, "a batch is str"),
    ],
)
def test_what_is_not_clear_is_refused(
    given: Any, normalized: bool | None, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        arrays.save(given, tmp_path, "calibration", SQUARE, 3, normalized)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "without labels"), ([0, 1], "for 5 images"), ([0, 1, 2, 3, 0], "of 0 to 3"), ([0.5] * 5, "float64")],
)
def test_evaluation_images_need_labels(labels: Any, message: str, tmp_path: Path) -> None:
    given = [{"image": PIXELS} if labels is None else {"image": PIXELS, "label": np.array(labels)}]
    with pytest.raises(DataError, match=message):
        arrays.save(given, tmp_path, "test", SQUARE, 3)

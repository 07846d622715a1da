"""Sources: what is taken for what, and runs whose images came out of a container."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit import runs
from edgekit.cli.app import run as command
from edgekit.data import calibration, dataset, layout, location, sources
from edgekit.data.columns import Columns
from edgekit.errors import EdgekitError, MissingError
from edgekit.quantization import CalibrationRecipe
from edgekit.runs import DataInfo, Run, RunInfo
from tests.data.test_archives import shards, tarred, zipped
from tests.data.test_arrays import idx, npz, pixels
from tests.data.test_hub import table
from tests.data.test_rows import named, write
from tests.datasets import write_images


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Training TRAIN train_split train_set trainset train_images train-data trn training_data"),
        ("val", "val valid Validation val_split validation_split val_images dev eval devset validate val2017"),
        ("test", "test Testing TEST test_images test_set testset test-data holdout held_out_test test_split"),
    ],
)
def test_usual_names_of_splits(split: str, names: str) -> None:
    for name in names.split():
        assert layout.split_of(name)[0] == split, name


@pytest.mark.parametrize("name", ["cat", "strain", "contest", "training_val", "images", "evaluate", "latest"])
def test_names_that_are_no_splits(name: str) -> None:
    assert layout.split_of(name)[0] == ""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("flowers/train.csv", "flowers"),
        ("flowers/labels.csv", "flowers"),
        ("x/roses.csv", "roses"),
        ("x/roses.tar.gz", "roses"),
        ("x/roses-{000..009}.tar", "roses"),
        ("x/{000..009}.tar", "x"),
        ("x/mnist.npz", "mnist"),
    ],
)
def test_a_short_name_for_a_run(path: str, name: str) -> None:
    assert sources.name_of(Path("/data", path)) == name


def kept(data: Path, folder: Path) -> Run:
    """A run of `data`, without weights."""
    index = dataset.index(data)
    info = RunInfo(status="finished", data=DataInfo(str(index.container or index.root), index.fingerprint))
    return runs.create_run(folder, "fruit", info, data=index)


def test_what_was_unpacked_is_unpacked_again_when_the_cache_was_emptied(
    images: Path, tmp_path: Path, cache_folder: Path
) -> None:
    run = kept(zipped(images, tmp_path / "d.zip"), tmp_path / "runs")
    index = dataset.of_run(run)
    assert index.container == tmp_path / "d.zip"
    assert index.root.is_relative_to(cache_folder)
    for spoil in (
        lambda: shutil.rmtree(cache_folder / "datasets"),
        lambda: (index.root / "apple" / "000.png").unlink(),
    ):
        spoil()
        found = location.take(run, index.samples, "the test", index)
        assert len(found.samples) == 60
        assert (found.root / "apple" / "000.png").is_file()
    shutil.rmtree(cache_folder / "datasets")
    (tmp_path / "d.zip").unlink()
    with pytest.raises(MissingError, match="gone since training"):
        location.take(run, index.samples, "the test", index)


def test_images_of_a_run_in_another_container_are_matched_by_content(images: Path, tmp_path: Path) -> None:
    run = kept(images, tmp_path / "runs")
    index = dataset.of_run(run)
    write(images / "l.csv", [("path", "label"), *named(images)])
    shards(images, tmp_path / "w")
    places = (
        zipped(images, tmp_path / "d.zip"),
        images / "l.csv",
        tmp_path / "w",
        tmp_path / "w" / "data-{000000..000002}.tar",
    )
    for place in places:
        moved = dataclasses.replace(run, images=place)
        assert len(location.take_all(moved, index.samples, "the test", index).samples) == 60, place
        assert len(runs.choose_run(tmp_path / "runs", "fruit", place).info.data.fingerprint) == 64  # type: ignore[union-attr]
    with pytest.raises(MissingError, match="neither a folder nor a file"):
        runs.choose_run(tmp_path / "runs", "fruit", tmp_path / "none")
    shutil.rmtree(images)
    now, lost, _ = location.relocate(run, places[0])
    assert not lost
    again = dataset.of_run(now)
    assert (again.container, again.fingerprint) == (places[0], index.fingerprint)


def test_the_chosen_columns_are_kept_and_used_again(images: Path, tmp_path: Path) -> None:
    write(images / "l.csv", [("where", "what"), *named(images)])
    chosen = Columns("where", "what")
    index = dataset.index(images / "l.csv", chosen=chosen)
    info = RunInfo(status="finished", data=DataInfo(str(index.root), index.fingerprint))
    run = runs.create_run(tmp_path / "runs", "fruit", info, data=index)
    assert dataset.of_run(run).columns == "path=where,label=what"
    moved = dataclasses.replace(run, images=images / "l.csv")
    assert len(location.take(moved, index.samples, "the test", index).samples) == 60


def test_the_index_of_a_folder_is_saved_as_before(images: Path) -> None:
    assert {"container", "columns"} & dataset.index(images).document().keys() == set()


def test_calibration_images_come_from_containers_too(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(CalibrationRecipe(name="x"), samples=10)
    want = calibration.from_folder(images, recipe).chosen.fingerprint
    write(
        images / "l.csv", [("path",), *[(path,) for path, _ in named(images)]][:1] + [(p, "") for p, _ in named(images)]
    )
    for data in (zipped(images, tmp_path / "d.zip"), shards(images, tmp_path / "w", per=60)[0], images / "l.csv"):
        found = calibration.from_folder(data, recipe)
        assert found.chosen.fingerprint == want, data
        assert all(path.is_file() for path in found.paths)


def test_data_check_tells_what_was_taken_for_what(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(images / "l.csv", [("path", "label"), *named(images), ("gone.png", "apple")])
    assert command(["data", "check", str(file), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["read_as"] == ["table l.csv: 61 rows, path is path, label is label"]
    assert [f["message"] for f in report["findings"] if f["kind"] == "unreadable"] == [
        "l.csv line 62: file does not exist (gone.png)"
    ]
    assert report["counts"]["apple"] == {"train": 14, "val": 3, "test": 3}
    assert command(["data", "check", str(zipped(images, tmp_path / "d.zip"))]) == 0
    assert "read as: zip file of class folders" in capsys.readouterr().out
    write(images / "m.csv", [("where", "what"), *named(images)])
    assert command(["data", "check", str(images / "m.csv"), "--columns", "path=where,label=what"]) == 0
    assert command(["data", "check", str(images / "m.csv"), "--columns", "where"]) == 2


def test_a_folder_or_file_of_nothing_is_told_with_what_edgekit_reads(tmp_path: Path) -> None:
    (tmp_path / "x.docx").write_bytes(b"x")
    (tmp_path / "d").mkdir()
    for path in (tmp_path / "x.docx", tmp_path / "d"):
        assert command(["data", "check", str(path)]) == 3
    assert command(["data", "check", str(tmp_path / "none.zip")]) == 4


KINDS = ("d.zip", "d.tar", "d.tar.gz", "s.tar", "d.npz", "train-images-idx3-ubyte", "t.parquet", "saved", "l.csv")


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_end_in_a_listing_or_in_an_error_of_edgekit(
    kind: str, tmp_path: Path, cache_folder: Path
) -> None:
    """Whatever is changed or cut off; and nothing is left of what could not be read."""
    images = write_images(tmp_path / "images", {"a": 3, "b": 3}, 12)
    made = {
        "d.zip": lambda: zipped(images, tmp_path / "d.zip"),
        "d.tar": lambda: tarred(images, tmp_path / "d.tar"),
        "d.tar.gz": lambda: tarred(images, tmp_path / "d.tar.gz"),
        "s.tar": lambda: shards(images, tmp_path, "s.tar"),
        "d.npz": lambda: npz(tmp_path / "d.npz", images=pixels(6, 9, 9), labels=np.arange(6) % 2),
        "train-images-idx3-ubyte": lambda: (
            idx(tmp_path / kind, pixels(6, 9, 9)), idx(tmp_path / "train-labels-idx1-ubyte", pixels(6) % 2)
        ),
        "t.parquet": lambda: table(images).to_parquet(str(tmp_path / kind)),
        "saved": lambda: table(images).save_to_disk(str(tmp_path / "saved")),
        "l.csv": lambda: write(images / "l.csv", [("path", "label"), *named(images)]),
    }  # fmt: skip
    made[kind]()
    data = images / kind if kind == "l.csv" else tmp_path / kind
    file = next(data.glob("*.arrow")) if kind == "saved" else data
    sound = file.read_bytes()
    rng = random.Random(0)
    told: list[tuple[str, str]] = []
    for _ in range(40):
        content = bytearray(sound)
        for _ in range(rng.choice((1, 1, 3, 20))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        file.write_bytes(content)
        try:
            sources.find(data)
        except EdgekitError as error:
            told.append((error.message, error.hint))
    assert told
    assert all(message and hint for message, hint in told)
    assert not [path for path in cache_folder.glob("datasets/.*") if path.is_dir()]

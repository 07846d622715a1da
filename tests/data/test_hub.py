"""Data sets that Hugging Face's own library wrote: the same labels, splits and fingerprint as the folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekit.data import dataset, hub, sources
from edgekit.data.columns import Columns
from edgekit.data.sources import Reading
from edgekit.errors import DataError
from tests.datasets import write_images

FEATURES = datasets.Features(
    {"image": datasets.Image(), "label": datasets.ClassLabel(names=["apple", "banana", "cherry"])}
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def table(images: Path, numbers: bool = True) -> datasets.Dataset:
    """The images as bytes, with their class."""
    paths = sorted(images.rglob("*.png"), key=lambda path: (path.name, path.parent.name))
    names = sorted({path.parent.name for path in paths})
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
        "label": [names.index(path.parent.name) if numbers else path.parent.name for path in paths],
    }
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names) if numbers else datasets.Value("string")}
    )
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train", "val", "test"), 5):
        write_images(tmp_path / "split" / name, {"a": 8, "b": 8}, 16, seed)
    return tmp_path / "split"


@pytest.mark.parametrize("numbers", [True, False])
def test_a_data_set_saved_on_disk(images: Path, tmp_path: Path, numbers: bool) -> None:
    want = dataset.index(images)
    table(images, numbers).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    index = dataset.index(tmp_path / "saved")
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
    assert index.container == tmp_path / "saved"
    named = " with names" if numbers else ""
    assert index.notes == (f"read as: saved data set, 60 images, image is image, label is label{named}",)


def test_splits_of_a_saved_dictionary(split: Path, tmp_path: Path) -> None:
    want = dataset.index(split).fingerprint
    parts = {name: table(split / own) for name, own in (("train", "train"), ("validation", "val"), ("test", "test"))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    index = dataset.index(tmp_path / "saved")
    assert index.fingerprint == want
    assert "splits by their names: validation is val" in index.notes
    parts["unsupervised"] = table(split / "val")
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "more"))
    index = dataset.index(tmp_path / "more")
    assert index.fingerprint == want
    assert [(left.reason, left.of) for left in index.left_out] == [("outside", {"unsupervised": 16})]
    datasets.DatasetDict({"left": parts["train"], "right": parts["test"]}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(DataError, match="none is train, val or test"):
        sources.find(tmp_path / "none")


def test_parquet_files_as_the_hub_has_them(images: Path, split: Path, tmp_path: Path) -> None:
    want = dataset.index(images).fingerprint
    table(images).to_parquet(str(tmp_path / "one.parquet"))
    assert dataset.index(tmp_path / "one.parquet").fingerprint == want
    folder = tmp_path / "repo" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "repo" / "README.md").write_text("---\n---\n")
    for name, own in (("train", "train"), ("validation", "val"), ("test", "test")):
        whole = table(split / own)
        for shard in range(2):
            whole.shard(2, shard).to_parquet(str(folder / f"{name}-0000{shard}-of-00002-3f2a1b.parquet"))
    for data in (tmp_path / "repo", folder):
        index = dataset.index(data)
        assert index.fingerprint == dataset.index(split).fingerprint
        assert index.notes[0] == "read as: 6 Parquet files, 48 images, image is image, label is label with names"


def test_several_configurations_are_for_the_user_to_choose(images: Path, tmp_path: Path) -> None:
    for name in ("full", "small"):
        (tmp_path / "repo" / name).mkdir(parents=True)
        table(images).to_parquet(str(tmp_path / "repo" / name / "train-00000-of-00001.parquet"))
    with pytest.raises(DataError, match="several data sets: full, small") as caught:
        sources.find(tmp_path / "repo")
    assert str(tmp_path / "repo" / "small") in caught.value.hint
    assert len(sources.find(tmp_path / "repo" / "small").files) == 60


def test_an_image_folder_with_metadata(images: Path, tmp_path: Path) -> None:
    want = dataset.index(images).fingerprint
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for path in sorted(images.rglob("*.png")):
        name = f"{path.parent.name}_{path.name}"
        shutil.copy(path, flat / name)
        rows.append({"file_name": name, "label": path.parent.name})
    (flat / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert dataset.index(flat).fingerprint == want
    (flat / "metadata.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), flat / "metadata.parquet")
    assert dataset.index(flat).fingerprint == want


def test_arrow_files_of_the_cache(images: Path, tmp_path: Path) -> None:
    made = table(images)
    made.save_to_disk(str(tmp_path / "saved"))
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(next((tmp_path / "saved").glob("*.arrow")), cache / "fruit-train.arrow")
    shutil.copy(tmp_path / "saved" / "dataset_info.json", cache)
    want = dataset.index(images).fingerprint
    assert dataset.index(cache).fingerprint == want
    assert dataset.index(cache / "fruit-train.arrow").fingerprint == want


def test_images_that_are_paths(images: Path, tmp_path: Path) -> None:
    """Data sets of older versions have the paths of files in place of their bytes."""
    want = dataset.index(images).fingerprint
    paths = sorted(images.rglob("*.png"))
    for base in (str(images), ""):
        rows = [
            {"image": {"bytes": None, "path": f"{base}/{p.relative_to(images)}".lstrip("" if base else "/")},
             "label": p.parent.name} for p in paths
        ]  # fmt: skip
        schema = pa.schema(
            [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.string())]
        )
        place = images if not base else tmp_path
        pq.write_table(pa.Table.from_pylist(rows, schema), place / "t.parquet")
        assert dataset.index(place / "t.parquet").fingerprint == want
    (images / "apple" / "000.png").unlink()
    pq.write_table(pa.Table.from_pylist(rows[::-1], schema), images / "t.parquet")
    index = dataset.index(images / "t.parquet")
    assert [(left.reason, left.files) for left in index.left_out] == [("gone", 1)]
    pq.write_table(pa.Table.from_pylist(rows[:9], schema), images / "t.parquet")
    shutil.rmtree(images / "apple"), shutil.rmtree(images / "banana"), shutil.rmtree(images / "cherry")
    with pytest.raises(DataError, match=r"are not there, such as apple/000.png"):
        sources.find(images / "t.parquet")


def test_rows_without_labels_are_counted(images: Path, tmp_path: Path) -> None:
    rows = table(images).to_dict()
    made = datasets.Dataset.from_dict({**rows, "label": [-1, None, *rows["label"][2:]]}, features=FEATURES)
    made.to_parquet(str(tmp_path / "t.parquet"))
    index = dataset.index(tmp_path / "t.parquet")
    assert len(index.samples) == 58
    assert [(left.reason, left.files) for left in index.left_out] == [("unlabelled", 2)]
    assert len(sources.find(tmp_path / "t.parquet", Reading(labelled=False)).files) == 60


def test_several_labels_and_images_are_for_the_user_to_choose(images: Path, tmp_path: Path) -> None:
    rows = table(images).to_dict()
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "mask": datasets.Image(),
            "fine": datasets.ClassLabel(names=["x", "y", "z"]),
            "coarse": datasets.ClassLabel(names=["p", "q"]),
        }
    )
    made = {"img": rows["image"], "mask": rows["image"], "fine": rows["label"], "coarse": [n % 2 for n in range(60)]}
    datasets.Dataset.from_dict(made, features=features).to_parquet(str(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match="several columns of labels: fine, coarse") as caught:
        sources.find(tmp_path / "t.parquet")
    assert "--columns" in caught.value.hint
    assert dataset.index(tmp_path / "t.parquet", chosen=Columns(label="coarse")).labels == ("p", "q")
    assert dataset.index(tmp_path / "t.parquet", chosen=Columns("mask", "fine")).labels == ("x", "y", "z")
    with pytest.raises(DataError, match="no column what"):
        sources.find(tmp_path / "t.parquet", Reading(columns=Columns("what")))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.999])
@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_file_that_is_cut_off_is_told_and_nothing_is_left(
    images: Path, tmp_path: Path, share: float, kind: str, cache_folder: Path
) -> None:
    table(images).save_to_disk(str(tmp_path / "saved"))
    file = next((tmp_path / "saved").glob("*.arrow"))
    if kind == "parquet":
        file = tmp_path / "t.parquet"
        table(images).to_parquet(str(file))
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(DataError, match=r"cut off|damaged"):
        sources.find(file if kind == "parquet" else file.parent)
    assert list(cache_folder.rglob("*.png")) == []


def test_an_arrow_file_cut_off_between_two_batches_is_told(images: Path, tmp_path: Path) -> None:
    table(images).save_to_disk(str(tmp_path / "saved"))
    file = next((tmp_path / "saved").glob("*.arrow"))
    os.truncate(file, file.stat().st_size - 8)
    with pytest.raises(DataError, match="it has no end"):
        sources.find(tmp_path / "saved")


@pytest.mark.parametrize("name", ["../other", "/etc", "..", "", 5])
def test_a_description_that_leads_elsewhere_is_refused(images: Path, tmp_path: Path, name: object) -> None:
    table(images).save_to_disk(str(tmp_path / "saved"))
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state["_data_files"][0]["filename"] = name
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="that is not in it"):
        hub.saved_parts(tmp_path / "saved")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"splits": []}', '{"splits": 3}', '{"splits": ["train"]}'])
def test_damaged_descriptions_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "d" / "train").mkdir(parents=True)
    (tmp_path / "d" / "dataset_dict.json").write_text(content)
    (tmp_path / "d" / "train" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        sources.find(tmp_path / "d")


def test_images_as_plain_bytes(images: Path, tmp_path: Path) -> None:
    paths = sorted(images.rglob("*.png"))
    made = pa.table({"image": [p.read_bytes() for p in paths], "label": [p.parent.name for p in paths]})
    pq.write_table(made, tmp_path / "t.parquet")
    assert dataset.index(tmp_path / "t.parquet").fingerprint == dataset.index(images).fingerprint

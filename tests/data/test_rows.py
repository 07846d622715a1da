"""Tables of images: how files are read, which columns are taken, and what is wrong with rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekit.data import columns, dataset, rows, sources, tables
from edgekit.data.columns import Columns
from edgekit.data.listing import Listing
from edgekit.data.sources import Reading
from edgekit.errors import DataError, UsageError
from tests.datasets import write_images

Rows = Iterable[Sequence[object]]


def write(file: Path, content: Rows, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows(content)
    return file


def named(images: Path, below: str = "") -> list[tuple[str, str]]:
    """Path and label of each image of `images`."""
    return [(f"{below}{p.relative_to(images).as_posix()}", p.parent.name) for p in sorted(images.rglob("*.png"))]


def pairs(found: Listing) -> dict[str, str]:
    return {entry.path: entry.label for entry in found.files}


def notes(found: Listing) -> str:
    return "\n".join(found.notes)


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_delimiter_and_encoding_are_found_and_told(images: Path, delimiter: str, encoding: str) -> None:
    file = write(images / "l.csv", [("path", "label"), *named(images)], delimiter, encoding)
    found = sources.find(file)
    assert pairs(found) == dict(named(images))
    assert found.root == images
    assert ("between the columns" in notes(found)) == (delimiter != ",")
    assert ("UTF-16" in notes(found)) == encoding.startswith("utf-16")
    assert ("byte-order mark" in notes(found)) == (encoding == "utf-8-sig")


def listed(images: Path, kind: str) -> str:
    """The images of a folder as a text or JSON file."""
    rows = named(images)
    numbers = {"apple": 3, "banana": 5, "cherry": 9}
    files = [{"id": number, "file_name": path} for number, (path, _) in enumerate(rows)]
    objects = [{"id": n, "image_id": n, "category_id": numbers[label]} for n, (_, label) in enumerate(rows)]
    documents = {
        "objects": [{"image": path, "class": label, "size": 9} for path, label in rows],
        "pairs": dict(rows),
        "coco": {
            "images": files,
            "annotations": objects + objects,
            "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        },
    }
    lines = {"blanks": "  ", "tabs": "\t", "commas": ","}
    if kind in lines:
        return "\n".join(f"{path}{lines[kind]}{label}" for path, label in rows)
    return json.dumps(documents[kind])


KINDS = [
    ("l.txt", "blanks", "blanks between path and label; no header"),
    ("l.lst", "tabs", "path is column 1"),
    ("l.txt", "commas", "path is column 1"),
    ("l.json", "objects", "path is image, label is class"),
    ("l.json", "pairs", "path is path"),
    ("l.json", "coco", "path is path"),
]


@pytest.mark.parametrize(("name", "kind", "said"), KINDS)
def test_text_and_json_give_the_index_of_the_folder(
    images: Path, tmp_path: Path, name: str, kind: str, said: str
) -> None:
    want = dataset.index(images)
    text = listed(images, kind)
    (images / name).write_text(text)
    index = dataset.index(images / name)
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
    assert said in index.notes[0]
    flat = tmp_path / "flat"
    flat.mkdir()
    for path, _ in named(images):
        (images / path).rename(flat / path.replace("/", " of "))
    (flat / name).write_text(text.replace("/", " of "))
    assert dataset.index(flat).fingerprint == want.fingerprint


def test_images_with_objects_of_several_categories_are_told(images: Path) -> None:
    document = json.loads(listed(images, "coco"))
    document["annotations"].append({"image_id": 0, "category_id": 9})
    (images / "l.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"1 of 60 images have objects of several categories"):
        sources.find(images / "l.json")


def test_text_and_json_that_are_no_tables_are_no_data(images: Path) -> None:
    want = sources.find(images)
    (images / "README.txt").write_text("000.png is an apple.\nAll others are, too.")
    (images / "classes.txt").write_text("apple\nbanana\ncherry")
    (images / "map.json").write_text('{"0": "apple"}')
    (images / "paths.txt").write_text("\n".join(path for path, _ in named(images)))
    found = sources.find(images)
    assert (found.files, found.read_as) == (want.files, [])
    for name in ("README.txt", "map.json", "paths.txt"):
        with pytest.raises(DataError):
            sources.find(images / name)


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.ods", "train.csv.gz", "tags.xml", "a.json"])
def test_files_that_may_name_the_labels_and_are_not_read_are_told(images: Path, tmp_path: Path, name: str) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path, _ in named(images):
        (images / path).rename(flat / path.replace("/", "_"))
    (flat / name).write_bytes(b"[]")
    with pytest.raises(DataError, match=f"{name} is not read") as caught:
        sources.find(flat)
    assert "a table of path,label" in caught.value.hint
    with pytest.raises(DataError, match=name):
        sources.find(flat / name)


def test_every_kind_of_table_gives_the_index_of_the_folder(images: Path) -> None:
    want = dataset.index(images)
    content = named(images)
    write(images / "a.csv", [("path", "label"), *content])
    write(images / "b.tsv", [("file", "class"), *content], "\t")
    (images / "c.jsonl").write_text("".join(json.dumps({"file_name": p, "label": x}) + "\n" for p, x in content))
    paths, names = zip(*content)
    pq.write_table(pa.table({"image_path": paths, "category": names}), images / "d.parquet")
    for file in ("a.csv", "b.tsv", "c.jsonl", "d.parquet"):
        index = dataset.index(images / file)
        assert (index.labels, index.fingerprint, index.root) == (want.labels, want.fingerprint, images)
        assert index.samples == want.samples
        assert index.notes[0].startswith(f"read as: table {file}: 60 rows, path is ")


def test_quotes_commas_and_line_ends_within_cells_keep_the_line_numbers(images: Path) -> None:
    content = [("path", "note", "label"), ("apple/000.png", 'two\nlines, "quoted"', "apple"), ("gone.png", "", "apple")]
    found = sources.find(write(images / "l.csv", [*content, ("banana/000.png", "", "banana")]))
    assert pairs(found) == {"apple/000.png": "apple", "banana/000.png": "banana"}
    assert [(row.kind, row.line, row.what) for row in found.bad] == [("missing", 4, "gone.png")]


def test_the_first_line_that_excel_writes_names_the_delimiter(images: Path) -> None:
    (images / "l.csv").write_text("sep=;\r\npath;label\r\napple/000.png;a\r\nx.png;b\r\n")
    found = sources.find(images / "l.csv")
    assert pairs(found) == {"apple/000.png": "a"}
    assert found.bad[0].line == 4


def test_a_quote_that_is_not_closed_is_told_with_its_line(images: Path) -> None:
    (images / "l.csv").write_text('path,label\napple/000.png,apple\n"banana/000.png,banana\napple/001.png,apple\n')
    with pytest.raises(DataError, match="line 3: a quote that is not closed"):
        sources.find(images / "l.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "single column|is empty"),
        (b"path,label\n", "has no rows"),
        (b"apple/000.png\nbanana/000.png\n", "single column"),
        (b"\x89PNG\0\x01\0\0\0" * 100, "no text|not text"),
        (b"path,label\napple/000.png,\0\n", "zero bytes"),
    ],
)
def test_what_is_no_table_is_told(images: Path, content: bytes, message: str) -> None:
    (images / "l.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        sources.find(images / "l.csv")


def test_windows_1252_is_told(images: Path) -> None:
    (images / "l.csv").write_bytes("path,label\napple/000.png,Äpfel\nbanana/000.png,b\n".encode("cp1252"))
    found = sources.find(images / "l.csv")
    assert pairs(found)["apple/000.png"] == "Äpfel"
    assert "Windows-1252" in notes(found)


@pytest.mark.parametrize("name", ["l.jsonl", "l.parquet"])
def test_damaged_json_lines_and_parquet_are_told(images: Path, name: str) -> None:
    (images / name).write_text('{"file_name": "apple/000.png", "label": "a"}\n{"file_name": \n')
    with pytest.raises(DataError, match=r"line 2 is not JSON|no Parquet file, or damaged"):
        sources.find(images / name)


# Columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "label", "split"),
    [
        ("filename", "class", "subset"),
        ("Image", "Category", "Set"),
        ("image_path", "target", "split"),
        ("filepath", "diagnosis", "phase"),
        ("img", "species", "partition"),
        ("file_name", "label_name", "Split"),
    ],
)
def test_usual_names_of_columns(images: Path, path: str, label: str, split: str) -> None:
    content = [(p, x, "train" if n % 3 else "test") for n, (p, x) in enumerate(named(images))]
    found = sources.find(write(images / "l.csv", [(path, label, split), *content]))
    assert pairs(found) == dict(named(images))
    assert found.present == ("train", "test")
    assert f"path is {path}, label is {label}, split is {split}" in notes(found)


def test_columns_without_usual_names_are_named_by_the_user(images: Path) -> None:
    file = write(images / "l.csv", [("where", "what"), *named(images)])
    with pytest.raises(DataError, match="no column of paths") as caught:
        sources.find(file)
    assert "where, what" in caught.value.hint
    assert "--columns" in caught.value.hint
    found = sources.find(file, Reading(columns=columns.parsed("path=where,label=what")))
    assert pairs(found) == dict(named(images))
    assert pairs(sources.find(file, Reading(columns=Columns("1", "2")))) == dict(named(images))
    with pytest.raises(DataError, match="no column which for the label"):
        sources.find(file, Reading(columns=Columns("where", "which")))


@pytest.mark.parametrize("text", ["path", "path=", "paths=a", "path=a,path=b", "a=b"])
def test_columns_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        columns.parsed(text)


def test_columns_are_written_as_they_are_read() -> None:
    for asked in (Columns(), Columns("a"), Columns("a", "b", "c")):
        assert columns.parsed(columns.written(asked)) == asked


def test_two_columns_of_labels_that_differ_are_for_the_user_to_choose(images: Path) -> None:
    content = [(p, x, f"{n % 2}") for n, (p, x) in enumerate(named(images))]
    file = write(images / "l.csv", [("path", "label", "diagnosis"), *content])
    with pytest.raises(DataError, match="several columns that may hold the labels: label, diagnosis") as caught:
        sources.find(file)
    assert "--columns label=label" in caught.value.hint
    assert set(pairs(sources.find(file, Reading(columns=Columns(label="diagnosis")))).values()) == {"0", "1"}


def test_numbers_beside_names_of_the_same_classes_are_not_used(images: Path) -> None:
    content = [(p, "abc".index(x[0]), x) for p, x in named(images)]
    found = sources.find(write(images / "l.csv", [("path", "class_id", "class_name"), *content]))
    assert pairs(found) == dict(named(images))
    assert "class_id tells the same, and is not used" in notes(found)


def test_one_column_of_0_and_1_for_each_class(images: Path) -> None:
    classes = ("apple", "banana", "cherry")
    content = [(p.removesuffix(".png"), *(f"{float(x == c)}" for c in classes)) for p, x in named(images)]
    found = sources.find(write(images / "l.csv", [("image", *classes), *content]))
    assert pairs(found) == dict(named(images))
    assert "a column of 0 and 1 for each class: apple, banana, cherry" in notes(found)
    assert "names without an ending, which was looked up: 60" in notes(found)
    broken = [(content[0][0], "1", "1", "0"), (content[1][0], "0", "0", "0"), *content[2:]]
    found = sources.find(write(images / "l.csv", [("image", *classes), *broken]))
    assert [(row.kind, row.line) for row in found.bad] == [("one_hot", 2), ("one_hot", 3)]


def test_a_file_without_a_header_is_read_and_told(images: Path) -> None:
    found = sources.find(write(images / "l.csv", named(images)))
    assert pairs(found) == dict(named(images))
    assert "no header; path is column 1, label is column 2" in notes(found)
    with_split = [(x, "val" if n % 4 == 0 else "train", p) for n, (p, x) in enumerate(named(images))]
    found = sources.find(write(images / "l.csv", with_split))
    assert pairs(found) == dict(named(images))
    assert found.present == ("train", "val")
    assert "path is column 3, label is column 1, split is column 2" in notes(found)
    with pytest.raises(DataError, match="no header") as caught:
        sources.find(write(images / "l.csv", [(p, x, n) for n, (p, x) in enumerate(named(images))]))
    assert "--columns path=1,label=2" in caught.value.hint


def test_a_fold_of_numbers_is_no_split_and_told(images: Path) -> None:
    content = [(p, x, n % 5) for n, (p, x) in enumerate(named(images))]
    found = sources.find(write(images / "l.csv", [("path", "label", "fold"), *content]))
    assert found.present == ("",)
    assert "fold (0, 1, 2, 3) has no names of splits, and is not used" in notes(found)


def test_names_of_splits_are_taken_as_those_of_folders(images: Path) -> None:
    words = ("Training", "valid", "TEST")
    content = [(p, x, words[n % 3]) for n, (p, x) in enumerate(named(images))]
    found = sources.find(write(images / "l.csv", [("path", "label", "split"), *content]))
    assert found.present == ("train", "val", "test")
    assert "splits by their names: TEST is test, Training is train, valid is val" in notes(found)


# Labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", "apple\nbanana\ncherry\n"),
        ("labels.txt", "0 apple\n1 banana\n2 cherry\n"),
        ("class_names.json", '["apple", "banana", "cherry"]'),
        ("class_to_idx.json", '{"apple": 0, "banana": 1, "cherry": 2}'),
        ("label_num_to_disease_map.json", '{"0": "apple", "1": "banana", "2": "cherry"}'),
    ],
)
@pytest.mark.parametrize("number", ["{}", "{}.0"])
def test_numbers_get_the_names_of_a_file_beside_the_table(images: Path, file: str, content: str, number: str) -> None:
    (images / file).write_text(content)
    table = [(p, number.format("abc".index(x[0]))) for p, x in named(images)]
    index = dataset.index(write(images / "l.csv", [("path", "label"), *table]))
    assert index.fingerprint == dataset.index(write(images / "m.csv", [("path", "label"), *named(images)])).fingerprint
    assert f"names of the numbers from {file}" in index.notes


def test_numbers_without_names_are_told(images: Path) -> None:
    table = [(p, "abc".index(x[0])) for p, x in named(images)]
    found = sources.find(write(images / "l.csv", [("path", "label"), *table]))
    assert set(pairs(found).values()) == {"0", "1", "2"}
    assert "labels are the numbers 0 to 2, without names" in notes(found)


def test_files_that_name_the_numbers_differently_are_refused(images: Path) -> None:
    (images / "classes.txt").write_text("a\nb\nc\n")
    (images / "labels.txt").write_text("c\nb\na\n")
    table = [(p, "abc".index(x[0])) for p, x in named(images)]
    with pytest.raises(DataError, match=r"classes.txt and labels.txt in .* differently"):
        sources.find(write(images / "l.csv", [("path", "label"), *table]))


# Paths ------------------------------------------------------------------------------------------


def test_names_are_looked_up_in_the_folders_below(images: Path) -> None:
    """As archives of competitions have it: ids in train.csv, images in a folder beside it."""
    images.rename(images.parent / "part_1")
    root = images.parent / "data"
    root.mkdir()
    flat = root / "train_images"
    flat.mkdir()
    table = []
    for n, (path, label) in enumerate(named(images.parent / "part_1")):
        (images.parent / "part_1" / path).rename(flat / f"ISIC_{n:04d}.png")
        table.append((f"ISIC_{n:04d}", label))
    found = sources.find(write(root / "train.csv", [("image_id", "dx"), *table]))
    assert pairs(found) == {f"train_images/{name}.png": label for name, label in table}
    assert "names looked up in train_images/: 60" in notes(found)
    assert pairs(sources.find(root)) == pairs(found)


def test_absolute_paths_of_this_and_of_another_place(images: Path, tmp_path: Path) -> None:
    here = [(str(images / p), x) for p, x in named(images)]
    assert pairs(sources.find(write(images / "l.csv", [("path", "label"), *here]))) == dict(named(images))
    outside = sources.find(write(tmp_path / "lists" / "l.csv", [("path", "label"), *here]))
    assert (outside.root, pairs(outside)) == (images, dict(named(images)))
    assert f"absolute paths, below {images}" in notes(outside)
    for prefix in ("/home/nobody/images/", "C:\\Users\\nobody\\images\\", "file:///srv/", "~/x/"):
        moved = [(f"{prefix}{p}", x) for p, x in named(images)]
        found = sources.find(write(images / "l.csv", [("path", "label"), *moved]))
        assert pairs(found) == dict(named(images)), prefix
        assert "absolute paths of another place" in notes(found)


def test_paths_with_blanks_and_backslashes(images: Path) -> None:
    (images / "apple" / "000.png").rename(images / "apple" / "a b .png")
    table = [("apple/a b .png", "apple"), (" apple/001.png ", "apple"), ("banana\\000.png", "banana")]
    found = sources.find(write(images / "l.csv", [("path", "label"), *table]))
    want = {"apple/a b .png": "apple", "apple/001.png": "apple", "banana/000.png": "banana"}
    assert pairs(found) == want
    assert "paths with blanks around them, which are left out: 1" in notes(found)
    assert "paths with backslashes, taken for slashes: 1" in notes(found)


@pytest.mark.parametrize(
    ("row", "kind", "sentence"),
    [
        (("gone.png", "apple"), "missing", "1 file does not exist: line 3 (gone.png)"),
        (("", "apple"), "no_path", "1 row has no path: line 3"),
        (("apple/001.png", " "), "no_label", "1 row has no label: line 3 (apple/001.png)"),
        (("../secret.png", "apple"), "outside", "1 path leads out of the folder: line 3 (../secret.png)"),
        (("apple/../../secret.png", "apple"), "outside", "leads out of the folder: line 3"),
        (("apple/000.png", "pear"), "two_labels", "1 file has several labels: line 3 (apple/000.png is apple and"),
        (("apple/001.png", "a", "b"), "cells", "1 row is longer or shorter than the header: line 3 (3 cells, not 2)"),
        (("apple/001.png",), "cells", "1 row is longer or shorter than the header: line 3 (1 cells, not 2)"),
        (("a\nb.png", "apple"), "missing", "line 3 (a\\nb.png)"),
        (("https://host/a.png", "apple"), "address", "1 row has an address of the web: line 3 (https://host/a.png)"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_told_with_its_line(
    images: Path, row: tuple[str, ...], kind: str, sentence: str
) -> None:
    (images.parent / "secret.png").write_bytes((images / "apple" / "000.png").read_bytes())
    content = [("path", "label"), ("apple/000.png", "apple"), row, *named(images)[2:]]
    file = write(images / "l.csv", content)
    with pytest.raises(DataError) as caught:
        dataset.index(file)
    assert sentence in caught.value.message
    assert "--skip-bad" in caught.value.hint
    assert [entry.kind for entry in sources.find(file).bad] == [kind]
    kept = dataset.index(file, skip_bad=True)
    assert len(kept.samples) == 58 if kind == "two_labels" else 59
    assert any(line.startswith("l.csv line 3") for line in kept.skipped)


def test_many_bad_rows_are_counted_and_the_first_are_named(images: Path) -> None:
    gone = [(f"gone{n}.png", "apple") for n in range(12)]
    with pytest.raises(DataError) as caught:
        dataset.index(write(images / "l.csv", [("path", "label"), *gone, *named(images)]))
    assert "l.csv: 12 files do not exist: line 2 (gone0.png), line 3 (gone1.png)" in caught.value.message
    assert caught.value.message.endswith("line 6 (gone4.png), 7 more")


def test_a_table_in_another_folder_than_its_images_is_told(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the files that .* names exists below") as caught:
        sources.find(write(tmp_path / "elsewhere" / "l.csv", [("path", "label"), *named(images)]))
    assert "put the table into the folder of the images" in caught.value.hint


def test_equal_rows_count_once_and_are_told(images: Path) -> None:
    found = sources.find(write(images / "l.csv", [("path", "label"), *named(images), *named(images)[:3]]))
    assert len(found.files) == 60
    assert "rows of files that are named before, used once: 3" in notes(found)
    assert not found.bad


def test_a_file_in_two_splits_and_a_split_of_no_known_name(images: Path) -> None:
    content = [(p, x, "train") for p, x in named(images)]
    content += [("apple/000.png", "apple", "test")]
    content[5] = (*content[5][:2], "odd")
    found = sources.find(write(images / "l.csv", [("path", "label", "split"), *content]))
    assert [(row.kind, row.line, row.what) for row in found.bad] == [
        ("no_split", 7, "odd"),
        ("two_splits", 62, "apple/000.png is in train and test"),
    ]


def test_images_that_no_row_names_are_counted(images: Path) -> None:
    found = sources.find(write(images / "l.csv", [("path", "label"), *named(images)[5:]]))
    assert dict(found.left_out["unnamed"]) == {"apple": 5}


# A table in the folder of the images -------------------------------------------------------------


def test_a_table_beside_class_folders_with_the_same_labels_is_not_used(images: Path) -> None:
    want = dataset.index(images)
    write(images / "labels.csv", [("path", "label"), *[(p, "abc".index(x[0])) for p, x in named(images)]])
    index = dataset.index(images)
    assert (index.fingerprint, index.labels) == (want.fingerprint, want.labels)
    assert "labels.csv tells the labels of the class folders, and is not used" in index.notes


def test_a_table_that_divides_class_folders_gives_the_splits(images: Path) -> None:
    content = [(p, x, ("train", "val", "test")[n % 3]) for n, (p, x) in enumerate(named(images))]
    write(images / "split.csv", [("path", "label", "split"), *content])
    found = sources.find(images)
    assert found.present == ("train", "val", "test")
    assert {f.path: f.split for f in found.files} == {p: s for p, _, s in content}
    assert "its labels are those of the class folders" in notes(found)


def test_a_table_that_contradicts_the_folders_is_refused_with_both_readings(images: Path) -> None:
    content = [(p, ("red", "green")[n % 2]) for n, (p, _) in enumerate(named(images))]
    file = write(images / "labels.csv", [("path", "label"), *content])
    with pytest.raises(DataError, match=r"two ways: by its folders, as classes apple, banana, cherry; or by labels"):
        sources.find(images)
    assert set(pairs(sources.find(file)).values()) == {"red", "green"}
    assert pairs(sources.find(images, Reading(layout="classes"))) == dict(named(images))


def test_splits_with_a_table_each(tmp_path: Path) -> None:
    want = {}
    for seed, split in enumerate(("train", "valid", "test")):
        write_images(tmp_path / "all" / split, {"a": 6, "b": 6}, 16, seed)
    want = dataset.index(tmp_path / "all").fingerprint
    root = tmp_path / "flat"
    for split in ("train", "valid", "test"):
        content = []
        for path, label in named(tmp_path / "all" / split):
            name = f"{split}/{path.replace('/', '_')}"
            (root / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / split / path).rename(root / name)
            content.append((name, label))
        write(root / f"{split}.csv", [("path", "label"), *content])
    assert dataset.index(root).fingerprint == want
    for split in ("train", "valid", "test"):  # as an image folder of Hugging Face has it
        content = [(p.partition("/")[2], x) for p, x in csv.reader((root / f"{split}.csv").open()) if p != "path"]
        write(root / split / "metadata.csv", [("file_name", "label"), *content])
        (root / f"{split}.csv").unlink()
    assert dataset.index(root).fingerprint == want


def test_what_has_no_labels_in_a_folder_is_told(images: Path) -> None:
    flat = images.parent / "d"
    (flat / "train").mkdir(parents=True)
    (flat / "test").mkdir()
    table = []
    for n, (path, label) in enumerate(named(images)):
        (images / path).rename(flat / ("test" if n % 6 == 0 else "train") / f"{n}.png")
        table.append((f"{n}.png", label, n % 6 == 0))
    write(flat / "train.csv", [("id", "label"), *[row[:2] for row in table if not row[2]]])
    write(flat / "test.csv", [("id", "width"), *[(row[0], 40) for row in table if row[2]]])
    write(flat / "sample_submission.csv", [("id", "label"), *[(row[0], "apple") for row in table if row[2]]])
    index = dataset.index(flat)
    assert len(index.samples) == 50
    assert "sample_submission.csv is not read: a submission has no true labels" in index.notes
    assert "test.csv is not read: has no column of labels by a usual name" in index.notes
    assert all(sample.path.startswith("train/") for sample in index.samples)


def test_several_tables_that_are_no_splits_are_refused(images: Path) -> None:
    flat = images.parent / "d"
    flat.mkdir()
    for path, label in named(images):
        (images / path).rename(flat / f"{label}{path[-7:]}")
    content = [(p.name, p.name[:5]) for p in sorted(flat.iterdir())]
    write(flat / "a.csv", [("path", "label"), *content])
    write(flat / "b.csv", [("path", "label"), *content])
    with pytest.raises(DataError, match=r"several tables of images: a.csv, b.csv"):
        sources.find(flat)


def test_the_table_is_read_only_as_far_as_asked(images: Path) -> None:
    file = write(images / "l.csv", [("path", "label"), *named(images)])
    assert len(tables.read(file, 7).rows) == 7
    assert rows.is_names(images / "l.csv") is False


def test_numbered_folders_are_parts_beside_a_table_of_other_labels(images: Path) -> None:
    """As HAM10000 and the chest X-rays of the NIH are packed."""
    root = images.parent / "d"
    table = []
    for n, (path, label) in enumerate(named(images)):
        name = f"images_part_{n % 2}/{n:03d}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (images / path).rename(root / name)
        table.append((f"{n:03d}", label))
    write(root / "metadata.csv", [("image_id", "dx"), *table])
    found = sources.find(root)
    assert {path[-7:-4]: label for path, label in pairs(found).items()} == dict(table)
    assert "names looked up in images_part_0/, images_part_1/: 60" in notes(found)


def test_a_table_that_describes_the_classes_is_not_taken_for_one_of_images(images: Path) -> None:
    """As the traffic signs of GTSRB are packed."""
    root = images.parent / "d"
    root.mkdir()
    tables_of: dict[str, list[tuple[str, str]]] = {"Train": [], "Test": [], "Meta": []}
    for n, (path, label) in enumerate(named(images)):
        name = "Meta" if n % 20 == 0 else "Test" if n % 5 == 0 else "Train"
        (root / name).mkdir(exist_ok=True)
        (images / path).rename(root / name / f"{n}.png")
        tables_of[name].append((f"{name}/{n}.png", label))
    for name, content in tables_of.items():
        write(root / f"{name}.csv", [("Path", "ClassId"), *content])
    found = sources.find(root)
    assert pairs(found) == dict(tables_of["Train"] + tables_of["Test"])
    assert found.present == ("train", "test")
    assert "Meta.csv is not read: it lies beside the tables of splits" in notes(found)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_only_the_beginning_of_a_long_table_is_tried(
    images: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(tables, "_START", 256)
    content = [("path", "label", "note"), *[(p, x, "ä" * (n % 7)) for n, (p, x) in enumerate(named(images))]]
    file = write(images / "l.csv", content, encoding=encoding)
    start = tables.read(file, 50)
    assert 2 <= len(start.rows) < 20
    assert start.rows == tables.read(file).rows[: len(start.rows)]
    assert len(tables.read(file).rows) == 60

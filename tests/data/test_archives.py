"""Archives and shards: the same images, labels, splits and fingerprint as the folder; and hostile or damaged files."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset

from edgekit.data import archives, calibration, dataset, evaluation, listing, sources, unpacked
from edgekit.errors import DataError, MissingError, StorageError
from edgekit.quantization import CalibrationRecipe
from tests.datasets import write_images


def zipped(folder: Path, file: Path, below: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{below}{path.relative_to(folder).as_posix()}")
    return file


def tarred(folder: Path, file: Path, below: str = "") -> Path:
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        archive.add(folder, below or ".")
    return file


def shards(folder: Path, base: Path, name: str = "data-{:06d}.tar", per: int = 25, ending: str = "cls") -> list[Path]:
    """Write the images of ``folder/<class>/*.png`` with WebDataset's own writer, in an order that mixes the classes."""
    base.mkdir(parents=True, exist_ok=True)
    paths = sorted(folder.rglob("*.png"), key=lambda path: (path.name, path.parent.name))
    labels = sorted({path.parent.name for path in paths})
    made = []
    for number, first in enumerate(range(0, len(paths), per)):
        file = base / name.format(number)
        with webdataset.TarWriter(str(file)) as sink:
            for path in paths[first : first + per]:
                label = labels.index(path.parent.name)
                value = {"cls": label, "json": {"label": path.parent.name, "size": 40}, "txt": path.parent.name}[ending]
                sink.write({"__key__": f"{path.parent.name}_{path.stem}", "png": path.read_bytes(), ending: value})
        made.append(file)
    return made


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train", "val", "test"), 5):
        write_images(tmp_path / "split" / name, {"a": 8, "b": 8}, 16, seed)
    return tmp_path / "split"


def members(file: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(file, "w") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


# The same as the folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "set/", "a/b/", "a/images/"])
@pytest.mark.parametrize("pack", [("d.zip", zipped), ("d.tar", tarred), ("d.tar.gz", tarred), ("d.tgz", tarred)])
def test_class_folders_in_an_archive(
    images: Path, tmp_path: Path, below: str, pack: tuple[str, Callable[[Path, Path, str], Path]]
) -> None:
    want = dataset.index(images)
    name, write = pack
    file = write(images, tmp_path / name, below)
    index = dataset.index(file)
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
    assert [(s.path, s.split) for s in index.samples] == [(s.path, s.split) for s in want.samples]
    assert index.container == file
    kind = "zip file" if name == "d.zip" else "tar file"
    assert index.notes[0] == f"read as: {kind} of class folders{', ' + below.strip('/') if below else ''}"


def test_splits_and_a_table_in_an_archive(split: Path, images: Path, tmp_path: Path) -> None:
    want = dataset.index(split).fingerprint
    assert dataset.index(zipped(split, tmp_path / "s.zip")).fingerprint == want
    assert dataset.index(zipped(split, tmp_path / "t.zip", "set/")).fingerprint == want
    want = dataset.index(images).fingerprint
    flat = tmp_path / "flat" / "all"
    flat.mkdir(parents=True)
    lines = ["name,label"]
    for path in sorted(images.rglob("*.png")):
        shutil.copy(path, flat / f"{path.parent.name}_{path.name}")
        lines.append(f"{path.parent.name}_{path.stem},{path.parent.name}")
    (tmp_path / "flat" / "list.csv").write_text("\n".join(lines))
    index = dataset.index(zipped(tmp_path / "flat", tmp_path / "f.zip", "x/"))
    assert index.fingerprint == want
    assert index.notes[0].startswith("read as: zip file, x: table list.csv: 60 rows, path is name")


@pytest.mark.parametrize("ending", ["cls", "json", "txt"])
def test_shards_of_webdataset(images: Path, tmp_path: Path, ending: str) -> None:
    want = dataset.index(images)
    shards(images, tmp_path / "w", ending=ending)
    if ending == "cls":
        (tmp_path / "w" / "classes.txt").write_text("apple\nbanana\ncherry\n")
    for data in (tmp_path / "w", tmp_path / "w" / "data-{000000..000002}.tar"):
        index = dataset.index(data)
        assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
        assert index.notes[0] == f"read as: WebDataset, 3 shards, 60 images, the label in .{ending}"
    one = dataset.index(tmp_path / "w" / "data-000001.tar")
    assert len(one.samples) == 25


def test_splits_in_the_names_of_shards_and_of_their_folders(split: Path, tmp_path: Path) -> None:
    want = dataset.index(split).fingerprint
    for name in ("train", "val", "test"):
        shards(split / name, tmp_path / "names", f"x-{name}-{{:04d}}.tar", 7, "txt")
        shards(split / name, tmp_path / "folders" / name, "{:04d}.tar", 7, "txt")
    assert dataset.index(tmp_path / "names").fingerprint == want
    assert dataset.index(tmp_path / "folders").fingerprint == want


def test_shards_compressed_and_numbers_without_names(images: Path, tmp_path: Path) -> None:
    for file in shards(images, tmp_path / "w"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    index = dataset.index(tmp_path / "w")
    assert index.labels == ("0", "1", "2")
    assert "labels are the numbers 0 to 2, without names (classes.txt: one on each line, from 0 on)" in index.notes


def test_images_without_labels_are_for_calibration(images: Path, tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "c-0.tar")) as sink:
        for n, path in enumerate(sorted(images.rglob("*.png"))):
            sink.write({"__key__": f"{n}", "png": path.read_bytes()})
    found = sources.find(tmp_path / "c-0.tar", sources.Reading(labelled=False))
    assert len(found.files) == 60
    with pytest.raises(DataError):
        sources.find(tmp_path / "c-0.tar")


# The cache ----------------------------------------------------------------------------------------


def test_an_archive_is_unpacked_once_and_again_when_files_are_missing(images: Path, tmp_path: Path) -> None:
    file = zipped(images, tmp_path / "d.zip")
    first = sources.find(file)
    before = (first.root / "apple" / "000.png").stat().st_mtime_ns
    moved = file.rename(tmp_path / "e.zip")
    assert sources.find(moved).root == first.root
    assert (first.root / "apple" / "000.png").stat().st_mtime_ns == before
    assert unpacked.use(first.root)
    (first.root / "apple" / "000.png").unlink()
    assert not unpacked.use(first.root)
    again = sources.find(moved)
    assert (again.root / "apple" / "000.png").read_bytes() == (images / "apple" / "000.png").read_bytes()
    (images / "apple" / "000.png").unlink()
    assert sources.find(zipped(images, tmp_path / "e.zip")).root != first.root


def test_nothing_is_left_of_an_archive_that_is_cut_off(images: Path, tmp_path: Path, cache_folder: Path) -> None:
    file = tarred(images, tmp_path / "d.tar")
    file.write_bytes(file.read_bytes()[:50_000])
    with pytest.raises(DataError, match=r"d.tar is cut off: \d+ files were read"):
        sources.find(file)
    assert list(cache_folder.rglob("*.png")) == []


def test_a_full_disk_is_told_before_anything_is_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(images, tmp_path / "d.zip")
    monkeypatch.setattr("edgekit.data.unpacked._free", lambda folder: 1000)
    with pytest.raises(StorageError, match="GB are free") as caught:
        sources.find(file)
    assert "EDGEKIT_CACHE" in caught.value.hint


def test_names_that_are_equal_in_shards_stay_apart(images: Path, tmp_path: Path) -> None:
    paths = sorted((images / "apple").iterdir()) + sorted((images / "banana").iterdir())
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / f"s-{number}.tar")) as sink:
            for n, path in enumerate(paths[number::2]):
                sink.write({"__key__": f"{n:03d}", "png": path.read_bytes(), "txt": path.parent.name})
    found = sources.find(tmp_path / "s-{0..1}.tar")
    assert len({entry.path for entry in found.files}) == 40
    assert {(found.root / f.path).read_bytes() for f in found.files} == {path.read_bytes() for path in paths}


# Hostile and damaged ------------------------------------------------------------------------------


def hostile_tar(images: Path, file: Path) -> Path:
    good = [
        (info(f"{p.parent.name}/{p.name}"), p.read_bytes())
        for p in sorted(images.rglob("*.png"))
    ]  # fmt: skip
    bad = [
        (info("/tmp/edgekit-absolute.png"), b"x"),
        (info("../../outside.png"), b"x"),
        (info("apple/../../../outside.png"), b"x"),
        (info("apple/link.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (info("apple/hard.png", tarfile.LNKTYPE, "apple/000.png"), b""),
        (info("apple/device.png", tarfile.CHRTYPE), b""),
        (info("apple/pipe.png", tarfile.FIFOTYPE), b""),
        (info("C:\\outside.png"), b"x"),
        (info("apple/000.png/inside.png"), b"x"),
    ]
    return members(file, *good[:1], *bad, *good[1:])


def test_hostile_members_of_a_tar_file_are_never_written(images: Path, tmp_path: Path, cache_folder: Path) -> None:
    want = dataset.index(images).fingerprint
    index = dataset.index(hostile_tar(images, tmp_path / "d.tar"))
    assert index.fingerprint == want
    assert next(left.files for left in index.left_out if left.reason == "unsafe") == 9
    everything = [*tmp_path.rglob("*outside*"), *cache_folder.rglob("*outside*")]
    assert everything == []
    assert not any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in cache_folder.rglob("*"))


def test_hostile_members_of_a_zip_file_are_never_written(images: Path, tmp_path: Path, cache_folder: Path) -> None:
    want = dataset.index(images).fingerprint
    file = zipped(images, tmp_path / "d.zip")
    with zipfile.ZipFile(file, "a") as archive:
        for name in ("../outside.png", "/outside.png", "a/../../outside.png", "C:/outside.png", "..\\outside.png"):
            archive.writestr(zipfile.ZipInfo(name), b"x")
        link = zipfile.ZipInfo("apple/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    index = dataset.index(file)
    assert index.fingerprint == want
    assert next(left.files for left in index.left_out if left.reason == "unsafe") == 6
    assert list(cache_folder.rglob("*outside*")) == []
    assert not any(path.is_symlink() for path in cache_folder.rglob("*"))


def test_hostile_samples_of_a_shard_are_never_written(images: Path, tmp_path: Path, cache_folder: Path) -> None:
    entries = []
    for n, path in enumerate(sorted(images.rglob("*.png"))):
        entries += [(info(f"{n:03d}.png"), path.read_bytes()), (info(f"{n:03d}.cls"), path.parent.name.encode())]
    entries[4:4] = [
        (info("../../evil.png"), b"x"),
        (info("/evil.png"), b"x"),
        (info("evil.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
    ]
    found = sources.find(members(tmp_path / "s.tar", *entries))
    assert len(found.files) == 60
    assert found.left_out["unsafe"].total() == 3
    assert list(cache_folder.rglob("*evil*")) == []


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("exact", [False, True])
def test_a_shard_that_is_cut_off_is_told_with_what_was_read(
    images: Path, tmp_path: Path, cut: float, exact: bool, cache_folder: Path
) -> None:
    """Also where it ends between two members, which Python's tarfile takes for the end."""
    file = shards(images, tmp_path / "w", per=60)[0]
    size = int(file.stat().st_size * cut)
    if exact:
        with tarfile.open(file) as archive:
            size = max(m.offset for m in archive.getmembers() if m.offset <= size and m.name.endswith(".cls"))
    os.truncate(file, size)
    with pytest.raises(DataError, match=r"data-000000.tar is cut off: \d+ samples were read") as caught:
        sources.find(file)
    assert "download it again" in caught.value.hint
    assert list(cache_folder.rglob("*.png")) == []


def test_an_archive_that_is_none_is_told(tmp_path: Path) -> None:
    for name in ("d.zip", "d.tar", "d.tar.gz"):
        (tmp_path / name).write_bytes(b"nonsense" * 1000)
        with pytest.raises(DataError, match=r"is no zip file|is no tar file"):
            sources.find(tmp_path / name)


NAMES = (
    "d.zip",
    "d.tar",
    "d.tar.gz",
    "d.npz",
    "d.parquet",
    "d.arrow",
    "train-images-idx3-ubyte.gz",
    "data_batch_1.bin",
)
INSTEAD = [
    (b"", "is empty"),
    (b"\n<!DOCTYPE html><html>Sign in", "is a page of the web"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
    (b"\x89PNG\r\n\x1a\n" + bytes(60), r"is an image \(PNG\) by its content"),
]


@pytest.mark.parametrize(("content", "why"), INSTEAD)
def test_what_was_downloaded_instead_of_a_file_is_told(tmp_path: Path, content: bytes, why: str) -> None:
    """For each kind of container, given itself or by its folder."""
    for number, name in enumerate(NAMES):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        for data in (folder / name, folder)[: 1 if "image" in why else 2]:
            with pytest.raises(DataError, match=why) as caught:
                sources.find(data)
            assert name in caught.value.message
            assert caught.value.hint
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(DataError):
        sources.find(tmp_path / "d.csv")


def test_a_zip_file_that_is_damaged_or_cut_off_is_told(images: Path, tmp_path: Path, cache_folder: Path) -> None:
    file = zipped(images, tmp_path / "d.zip")
    content = bytearray(file.read_bytes())
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut off or damaged"):
        sources.find(file)
    content[2000:2010] = b"0123456789"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cut off or damaged.*(CRC|invalid)"):
        sources.find(file)
    assert list(cache_folder.rglob("*.png")) == []


def test_an_encrypted_zip_file_is_told(images: Path, tmp_path: Path) -> None:
    file = zipped(images, tmp_path / "d.zip")
    content = bytearray(file.read_bytes())
    at = content.rfind(b"PK\x01\x02")
    content[at + 8] |= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted") as caught:
        sources.find(file)
    assert "password" in caught.value.hint


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    monkeypatch.setattr(unpacked, "_ALWAYS_FINE", 1 << 20)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.bmp").write_bytes(bytes(20 << 20))
    for file in (zipped(tmp_path / "b", tmp_path / "b.zip"), tarred(tmp_path / "b", tmp_path / "b.tar.gz")):
        with pytest.raises(DataError, match="no archive of images does"):
            sources.find(file)
    assert list(cache_folder.rglob("*.bmp")) == []


def test_a_zip_file_from_windows_and_one_with_names_in_unmarked_utf8(images: Path, tmp_path: Path) -> None:
    want = dataset.index(images).fingerprint
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for path in sorted(images.rglob("*.png")):
            entry = zipfile.ZipInfo("x")
            entry.filename = f"{path.parent.name}\\{path.name}"
            archive.writestr(entry, path.read_bytes())
    assert dataset.index(tmp_path / "w.zip").fingerprint == want
    (images / "apple").rename(images / "äpfel")
    file = zipped(images, tmp_path / "u.zip")
    content = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset + 1] &= ~0x08
            at = content.find(mark, at + 4)
    file.write_bytes(content)
    assert dataset.index(file).labels == ("banana", "cherry", "äpfel")


@pytest.mark.parametrize("name", ["d.7z", "d.rar", "d.tar.zst"])
def test_other_archives_are_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"7z\xbc\xaf\x27\x1c" * 10)
    with pytest.raises(DataError, match="edgekit reads zip and tar files"):
        sources.find(tmp_path / name)


def test_captions_are_no_classes(images: Path, tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "c-0.tar")) as sink:
        for n, path in enumerate(sorted(images.rglob("*.png"))):
            sink.write({"__key__": f"{n}", "png": path.read_bytes(), "txt": f"a photo of number {n}"})
    with pytest.raises(DataError, match="these are no classes"):
        sources.find(tmp_path / "c-0.tar")


def test_samples_that_lack_something_are_counted(images: Path, tmp_path: Path) -> None:
    paths = sorted(images.rglob("*.png"))
    with webdataset.TarWriter(str(tmp_path / "c-0.tar")) as sink:
        for n, path in enumerate(paths):
            sample = {"__key__": f"{n:03d}", "png": path.read_bytes(), "cls": n % 3, "npy": b"x"}
            for ending in {5: ("png",), 6: ("cls",), 7: ("cls",)}.get(n, ()):
                del sample[ending]
            sink.write(sample)
    found = sources.find(tmp_path / "c-0.tar")
    assert len(found.files) == 57
    assert dict(found.left_out["no_image"]) == {".npy": 60, "samples without an image": 1}
    assert found.left_out["unlabelled"].total() == 2
    assert any("2 files without a label" in listing.sentence(left) for left in found.counted)


def test_missing_shards_and_files_are_told(images: Path, tmp_path: Path) -> None:
    shards(images, tmp_path / "w")
    with pytest.raises(MissingError, match="1 of 4 shards are missing"):
        sources.find(tmp_path / "w" / "data-{000000..000003}.tar")
    shards_of_four = tmp_path / "w" / "data-{000000..000003}.tar"
    with pytest.raises(MissingError, match=r"1 of 4 shards are missing, such as .*data-000003.tar"):
        dataset.resolve(str(shards_of_four))
    with pytest.raises(MissingError, match="1 of 4 shards are missing"):
        evaluation.index(shards_of_four, ("a", "b"))
    with pytest.raises(MissingError, match="1 of 4 shards are missing"):
        calibration.from_folder(shards_of_four, CalibrationRecipe(name="x"))
    with pytest.raises(MissingError):
        dataset.resolve(str(tmp_path / "gone.zip"))


def test_containers_of_several_kinds_in_a_folder_are_refused(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    zipped(images, root / "a.zip")
    assert len(sources.find(root).files) == 60
    (root / "b.npz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds b.npz, a.zip|holds a.zip, b.npz"):
        sources.find(root)


def test_an_image_is_no_data_set(images: Path) -> None:
    with pytest.raises(DataError, match="is an image"):
        sources.find(images / "apple" / "000.png")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("a/b.png", "a/b.png"),
        ("./a//b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("..", ""),
        ("a/../b", ""),
        ("/a", ""),
        ("\\\\server\\a", ""),
        ("c:a", ""),
        ("a/..b", "a/..b"),
        ("a\0b", ""),
        ("\udcff", ""),
        ("x" * 256, ""),
        ("", ""),
    ],
)
def test_safe_paths(name: str, want: str) -> None:
    assert archives.safe_path(name) == want

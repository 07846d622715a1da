"""Archives: zip and tar files of class folders, and the tar shards of WebDataset, whatever lies in them."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgekit.data import columns, formats, rows
from edgekit.data.layout import split_of
from edgekit.data.unpacked import Readable, Writer, check_size
from edgekit.errors import DataError, from_os_error
from edgekit.labels import visible

ZIP = re.compile(r"\.zip$", re.I)
TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.I)
UNKNOWN = re.compile(r"\.(7z|rar|tar\.zst|zst|tar\.lz4|cab|iso|dmg)$", re.I)
_MOST_MEMBERS = 20_000_000
_LARGEST_SAMPLE = 1 << 28
_ZERO_BLOCK = bytes(512)
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError, UnicodeError)
_AGAIN = "copy or download it again"
_TRIED_SAMPLES = 20
_MOST_CLASSES = 0.5  # of the samples: more different texts are captions


def safe_path(name: str) -> str:
    """Return the relative path of a member; "" if it leads elsewhere, or is no name of a file."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain) or ".." in parts or "\0" in plain:
        return ""
    try:
        if any(len(part.encode("utf-8")) > 255 for part in parts) or len(plain) > 2000:
            return ""
    except UnicodeEncodeError:
        return ""
    return "/".join(parts)


def zip_need(file: Path) -> int:
    """Return the size of what a zip file holds, in bytes, by its own table.

    Raises:
        DataError: it is encrypted, damaged, or has an impossible size.
    """
    with _zip(file) as opened:
        members = opened.infolist()
        if any(member.flag_bits & 1 for member in members):
            raise DataError(f"{file} is encrypted", "unpack it with its password, and give the folder")
        if len(members) > _MOST_MEMBERS:
            raise DataError(f"{file} has {len(members)} files", "unpack it, and give the folder")
        size = sum(member.file_size for member in members)
    check_size(size, file.stat().st_size)
    return size


@contextmanager
def _zip(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as opened:
            yield opened
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise DataError(f"{file} is no zip file, is cut off or damaged: {visible(str(error))}", _AGAIN) from None
    except NotImplementedError as error:
        raise DataError(
            f"{file} is compressed in a way that Python does not read: {error}", "unpack it, and give the folder"
        ) from None
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error


def write_zip(file: Path, writer: Writer) -> None:
    """Write the files of a zip file as they are."""
    with _zip(file) as opened:
        members = opened.infolist()
        windows = not any("/" in member.orig_filename for member in members)
        total = sum(member.file_size for member in members)
        done = twice = 0
        seen: set[str] = set()
        for member in members:
            name = _zip_name(member)
            if member.is_dir() or (windows and name.endswith("\\")):
                continue
            path = safe_path(name)
            mode = member.external_attr >> 16
            if not path or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                writer.left_out["unsafe"][visible(name[:80])] += 1
                continue
            twice += path in seen
            seen.add(path)
            with opened.open(member) as source:
                if not writer.file(path, source):
                    writer.left_out["unsafe"][visible(path)] += 1
            done += member.file_size
            writer.progress(done, total)
        if twice:
            writer.said.append(f"{twice} names occur twice in the zip file; the last is used")


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member, in UTF-8 also where that is not marked."""
    name = member.orig_filename
    if not member.flag_bits & 0x800 and not name.isascii():
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return name


class _Counted(io.RawIOBase):
    """A file that is read once, from its beginning to its end: its position, and its last bytes."""

    def __init__(self, file: Readable) -> None:
        self.file, self.tail = file, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        if content:
            self.tail = (self.tail + content[-512:])[-512:]
        return content


@contextmanager
def _plain(file: Path) -> Iterator[tuple[Readable, IO[bytes]]]:
    """Open a tar file, and yield it unpacked and as it lies on the disk."""
    import bz2

    with open(file, "rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        if start[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw) as gz:
                yield gz, raw
        elif start[:3] == b"BZh":
            with bz2.BZ2File(raw) as bz:
                yield bz, raw
        elif start == b"\xfd7zXZ\0":
            with lzma.LZMAFile(raw) as xz:
                yield xz, raw
        else:
            yield raw, raw


class Tar:
    """Members of a tar file, read as a stream.

    Attributes:
        read: regular files that were read. position: bytes of the file on the disk that were read.
    """

    def __init__(self, file: Path, what: str = "files") -> None:
        self.file, self._what = file, what
        self.read = self.position = 0

    def __iter__(self) -> Iterator[tuple[tarfile.TarInfo, Content | None]]:
        """Yield each member, with its content if it is a regular file.

        Raises:
            DataError: the file is cut off, damaged, or no tar file.
        """
        try:
            with _plain(self.file) as (whole, raw):
                counted = _Counted(whole)
                with tarfile.open(fileobj=counted, mode="r|", errorlevel=1) as opened:
                    for member in opened:
                        self.position = raw.tell()
                        regular = member.isreg() and not member.issparse()
                        content = opened.extractfile(member) if regular else None
                        yield member, Content(self, content) if content else None
                        opened.members = []  # type: ignore[attr-defined]  # or all are kept
                while counted.read(1 << 20):
                    pass
                if counted.tail != _ZERO_BLOCK:
                    raise EOFError("it has no end")
        except DataError:
            raise
        except _BROKEN as error:
            raise self.damaged(error) from None
        except OSError as error:
            if error.errno is None:  # of gzip and bz2
                raise self.damaged(error) from None
            raise from_os_error(error, f"reading {self.file}") from error

    def damaged(self, error: Exception) -> DataError:
        """Return the error for a file that cannot be read to its end."""
        cut = isinstance(error, EOFError) or re.search(
            r"unexpected end|end-of-stream|truncated|empty header", str(error)
        )
        why = "is cut off" if cut else f"is no tar file, or damaged ({visible(str(error))})"
        return DataError(f"{self.file} {why}: {self.read} {self._what} were read", _AGAIN)


class Content:
    """Content of a member of a tar file.

    Raises:
        DataError: the file is cut off or damaged, while it is read.
    """

    def __init__(self, archive: Tar, file: IO[bytes]) -> None:
        self._archive, self._file = archive, file

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all of them for -1; b"" at the end."""
        try:
            return self._file.read(size)
        except (*_BROKEN, OSError) as error:
            raise self._archive.damaged(error) from None


def write_tar(file: Path, writer: Writer) -> None:
    """Write the files of a tar file as they are; never links, devices, or what leads elsewhere."""
    archive = Tar(file)
    total = file.stat().st_size
    for member, content in archive:
        if member.isdir():
            continue
        path = safe_path(member.name)
        if not path or content is None or not writer.file(path, content):
            writer.left_out["unsafe"][visible(member.name[:80])] += 1
            continue
        archive.read += 1
        writer.progress(archive.position, total)


def _key(name: str) -> tuple[str, str]:
    """Return key and ending of a member, as WebDataset divides its name: at the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if dot and stem else ("", "")


class _Sample:
    """Members of one key: image, and what may be its label."""

    def __init__(self, key: str) -> None:
        self.key, self.image, self.ending = key, b"", ""
        self.cls = self.json = self.txt = ""

    def add(self, ending: str, content: bytes) -> bool:
        """Take a member in; False if it is not used."""
        last = f".{ending.rpartition('.')[2]}"
        if last in formats.EXTENSIONS | formats.HEIC_EXTENSIONS and not self.image:
            self.image, self.ending = content, last
        elif ending in ("cls", "cls2", "cls.txt", "label", "label.txt"):
            self.cls = _text(content)
        elif ending == "json":
            self.json = _json_label(content)
        elif ending in ("txt", "text"):
            self.txt = _text(content)
        else:
            return False
        return True


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").strip()[:200]
    except UnicodeDecodeError:
        return ""


def _json_label(content: bytes) -> str:
    """Return the label in a JSON object, or of a JSON number or string; "" if there is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if isinstance(value, dict):
        value = columns.label_in(value)
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _samples(archive: Tar) -> Iterator[tuple[_Sample, Counter[str], list[str]]]:
    """Yield each sample of a shard, with the members that are not used, by their ending, and the unsafe ones."""
    sample, unused, unsafe = _Sample(""), Counter[str](), list[str]()
    for member, content in archive:
        if member.isdir():
            continue
        path = safe_path(member.name)
        key, ending = _key(path)
        if not path or content is None:
            unsafe.append(member.name)
            continue
        if not key:
            unused[path] += 1
            continue
        if member.size > _LARGEST_SAMPLE:
            raise DataError(f"{archive.file}: {visible(path)} has {member.size / 1e6:.0f} MB", "it is no image")
        if key != sample.key:
            if sample.key:
                yield sample, unused, unsafe
                archive.read += 1
                unused, unsafe = Counter(), []
            sample = _Sample(key)
        if not sample.add(ending, content.read()):
            unused[f".{ending}"] += 1
    if sample.key or unused or unsafe:
        yield sample, unused, unsafe
        archive.read += bool(sample.key)


def is_shard(file: Path) -> bool:
    """Return True if a tar file begins with samples of WebDataset: images with a label beside them."""
    try:
        for number, (sample, _, _) in enumerate(_samples(Tar(file, "samples"))):
            if sample.image and (sample.cls or sample.json or (sample.txt and "/" not in sample.key)):
                return True
            if number >= _TRIED_SAMPLES:
                break
    except DataError:
        pass  # told when all of it is read
    return False


def write_shards(shards: Sequence[Path], base: Path, writer: Writer, labelled: bool = True) -> None:
    """Write the images of WebDataset shards; their split is in the name of the shard or of its folder."""
    total = sum(shard.stat().st_size for shard in shards)
    done = 0
    sources: Counter[str] = Counter()
    texts: set[str] = set()
    splits: dict[str, str] = {}
    for shard in shards:
        split, named = split_of_path(shard, base)
        if split:
            splits.setdefault(named, split)
        archive = Tar(shard, "samples")
        for sample, unused, unsafe in _samples(archive):
            writer.left_out["no_image"].update(unused)
            writer.left_out["unsafe"].update(visible(name[:80]) for name in unsafe)
            source, label = next(
                ((s, v) for s, v in ((".cls", sample.cls), (".json", sample.json), (".txt", sample.txt)) if v),
                ("", ""),
            )
            if not sample.image:
                writer.left_out["no_image"]["samples without an image"] += bool(sample.key)
            elif labelled and not label:
                writer.left_out["unlabelled"][visible(shard.name)] += 1
            else:
                sources[source] += 1
                if source == ".txt":
                    texts.add(label)
                writer.image(split, label if labelled else "", sample.key + sample.ending, sample.image)
            writer.progress(done + archive.position, total)
        done += shard.stat().st_size
    if labelled and not writer.number:
        raise DataError(
            f"no sample in {shards[0]} has an image and a label", "WebDataset: KEY.jpg with KEY.cls, .json or .txt"
        )
    if labelled and len(texts) > max(50, _MOST_CLASSES * sources[".txt"]):
        raise DataError(
            f"{len(texts)} different texts in the .txt members of {sources['.txt']} samples: these are no classes",
            "edgekit needs the class of each image: a .cls member, or a label in .json",
        )
    shown = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
    labels = " and ".join(f"the label in {source}" for source in sources if source) if labelled else "no labels"
    writer.read_as.append(f"WebDataset, {shown}, {writer.number} images, {labels}")
    if labelled:
        names, said = rows.names_for({label for _, label, _ in writer.labelled}, base)
        writer.rename(names)
        writer.said += said
    if unusual := [f"{visible(name)} is {split}" for name, split in splits.items() if name != split]:
        writer.said.append(f"splits by the names of the shards: {', '.join(unusual[:6])}")


def split_of_path(file: Path, base: Path) -> tuple[str, str]:
    """Return the split of a file by its name, else by its folders below `base`; and the name that told it."""
    parts = list(file.relative_to(base).parts)
    parts[-1] = re.sub(r"[-_.]?\d+[-_]of[-_]\d+.*$", "", parts[-1])
    parts[-1] = re.sub(r"([-_.]?\d+)?([-_]of[-_]\d+)?(\.\w+)+$", "", parts[-1])
    for part in reversed(parts):
        split, rest = split_of(part)
        if split and (not rest or part == parts[-1]):
            return split, part
    return "", ""

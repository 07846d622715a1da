"""Data sets of Hugging Face: saved on disk as Arrow files, or as Parquet files with the images in a column."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.data import columns, rows
from edgekit.data.archives import split_of_path
from edgekit.data.columns import Columns
from edgekit.data.layout import split_of
from edgekit.data.tables import arrow, is_image_type
from edgekit.data.unpacked import Writer
from edgekit.errors import DataError, from_os_error
from edgekit.labels import visible

_DICT, _STATE = "dataset_dict.json", "state.json"
DESCRIPTIONS = (_DICT, _STATE, "dataset_info.json")
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream of Arrow
_BATCH = 64
_NO_IMAGES = ("Audio", "Video", "Pdf")  # in columns like those of images
_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Part:
    """A file of a data set, with the split of all of its rows; `unused`: the name of a split that edgekit has not."""

    file: Path
    split: str
    unused: str = ""


def is_saved(folder: Path) -> bool:
    """Return True for the folder of a data set that ``save_to_disk`` wrote."""
    return (folder / _DICT).is_file() or ((folder / _STATE).is_file() and any(folder.glob("*.arrow")))


def saved_parts(folder: Path) -> list[Part]:
    """Return the Arrow files of a data set that ``save_to_disk`` wrote.

    Raises:
        DataError: its own description is damaged, or names files that are missing.
    """
    if not (folder / _DICT).is_file():
        return [Part(file, "") for file in _files_of(folder)]
    names = _json(folder / _DICT).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise DataError(f"{folder / _DICT} is damaged: it names no splits", _AGAIN)
    parts = []
    for name in names:
        split = split_of(name)[0]
        parts += [Part(file, split, "" if split else name) for file in _files_of(folder / _plain(name, folder))]
    if all(part.unused for part in parts):
        raise DataError(
            f"{folder} has the parts {', '.join(map(visible, names[:6]))}, and none is train, val or test",
            f"give the folder of one of them: {folder / names[0]}",
        )
    return parts


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error}", _AGAIN) from None
    if not isinstance(value, dict):
        raise DataError(f"{file} is damaged: it is no JSON object", _AGAIN)
    return value


def _plain(name: object, folder: Path) -> str:
    """Return the name of a file or folder in `folder`, which must be that alone."""
    if not isinstance(name, str) or not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise DataError(f"{folder} names a file that is not in it: {visible(str(name))}", "do not use it")
    return name


def _files_of(folder: Path) -> list[Path]:
    listed = _json(folder / _STATE).get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DataError(f"{folder / _STATE} is damaged: it names no files", _AGAIN)
    found = [folder / _plain(entry.get("filename"), folder) for entry in listed]
    if missing := [file for file in found if not file.is_file()]:
        raise DataError(f"{len(missing)} of {len(found)} files are missing, such as {missing[0]}", _AGAIN)
    return found


def file_parts(files: Sequence[Path], base: Path) -> list[Part]:
    """Return Parquet or Arrow files with the splits in their names, or in those of their folders.

    Raises:
        DataError: they are of several data sets.
    """
    splits = {file: split_of_path(file, base) for file in files}
    folders = {file: _config(file, base) for file in files}
    if len({*folders.values()}) > 1:
        names = sorted({*folders.values()})
        raise DataError(
            f"{base} holds several data sets: {', '.join(visible(name or '.') for name in names[:6])}",
            f"give the folder of one of them: {base / names[-1]}",
        )
    known = {split for split, _ in splits.values() if split}
    return [Part(file, splits[file][0], file.name if known and not splits[file][0] else "") for file in files]


def _config(file: Path, base: Path) -> str:
    """Return the folders of a file below `base`, without those of its split and ``data``."""
    parts = [part for part in file.relative_to(base).parts[:-1] if not split_of(part)[0] and part != "data"]
    return "/".join(parts)


@contextmanager
def _read(file: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Open a Parquet or Arrow file, and yield its schema and its batches of rows.

    Raises:
        DataError: it is cut off or damaged.
    """
    pa = arrow()
    try:
        if file.suffix.lower() == ".parquet":
            with pa.parquet.ParquetFile(file) as opened:
                yield opened.schema_arrow, opened.iter_batches(_BATCH)
            return
        with open(file, "rb") as raw:
            raw.seek(max(0, file.stat().st_size - len(_END)))
            ended = raw.read() == _END
        with pa.memory_map(str(file)) as mapped:
            reader = pa.ipc.open_stream(mapped)
            yield reader.schema, iter(reader)
        if not ended:
            raise DataError(f"{file} is cut off: it has no end", _AGAIN)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise from_os_error(error, f"reading {file}") from error
        raise DataError(f"{file} is cut off or damaged: {visible(str(error)[:200])}", _AGAIN) from None


def _features(schema: Any, folder: Path) -> dict[str, Any]:
    """Return the description of the columns that ``datasets`` leaves in a file or beside it."""
    for content in ((schema.metadata or {}).get(b"huggingface"), None):
        try:
            value = json.loads(content)["info"]["features"] if content else {}
        except (ValueError, KeyError, TypeError, RecursionError):
            value = {}
        if isinstance(value, dict) and value:
            return value
    info = folder / "dataset_info.json"
    value = _json(info).get("features") if info.is_file() else None
    return value if isinstance(value, dict) else {}


@dataclass
class _Columns:
    """Columns of one file: image, label, and the names of the numbers in it."""

    image: str
    label: str
    names: list[str]


def _choose(file: Path, schema: Any, asked: Columns, labelled: bool) -> _Columns:
    features = _features(schema, file.parent)
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict)}
    hint = f"its columns: {', '.join(map(visible, schema.names[:20]))}; choose with --columns path=IMAGE,label=LABEL"
    images = [
        f.name
        for f in schema
        if (is_image_type(f.type) and kinds.get(f.name) not in _NO_IMAGES) or kinds.get(f.name) == "Image"
    ]
    image = _one(file, images, columns.usual_path(images), asked.path, schema.names, "images", hint)
    label, names = "", []
    if labelled:
        plain = [f.name for f in schema if not is_image_type(f.type) and f.name != image]
        classes = [name for name in plain if kinds.get(name) == "ClassLabel"]
        usual = columns.usual_label(classes or plain)
        label = _one(file, classes or usual, usual[:1], asked.label, schema.names, "labels", hint)
        given = features.get(label, {}).get("names") if isinstance(features.get(label), dict) else None
        names = [str(name) for name in given] if isinstance(given, list) else []
    return _Columns(image, label, names)


def _one(
    file: Path, found: Sequence[str], usual: Sequence[str], asked: str, known: Sequence[str], what: str, hint: str
) -> str:
    """Return the column that is asked for, the only one found, or the first with a usual name."""
    if asked:
        if asked not in known:
            raise DataError(f"{file} has no column {visible(asked)}", hint)
        return asked
    if len(found) == 1:
        return found[0]
    if found and usual and what == "images":
        return usual[0]
    if not found:
        raise DataError(f"{file} has no column of {what}", hint)
    raise DataError(f"{file} has several columns of {what}: {', '.join(map(visible, found[:8]))}", hint)


def write(parts: Sequence[Part], base: Path, kind: str, writer: Writer, asked: Columns, labelled: bool = True) -> None:
    """Write the images of Parquet or Arrow files.

    Args:
        base: folder that paths of images may be relative to. kind: what it is, in words.

    Raises:
        DataError: a file is damaged, or has no images or labels.
    """
    total = sum(part.file.stat().st_size for part in parts)
    done = 0
    chosen = None
    gone: list[str] = []
    numbers = False
    for part in parts:
        with _read(part.file) as (schema, batches):
            chosen = _choose(part.file, schema, asked, labelled)
            for batch in batches:
                wanted = [name for name in (chosen.image, chosen.label) if name]
                if part.unused:
                    writer.left_out["outside"][visible(part.unused)] += batch.num_rows
                    continue
                chosen_part = batch.select(wanted)
                chosen_part.validate(full=True)  # offsets in a damaged file lead out of it
                for row in chosen_part.to_pylist():
                    name, content = _image(row[chosen.image], base, gone)
                    label = _label(row[chosen.label], chosen.names, part.file) if labelled else ""
                    numbers = numbers or not chosen.names
                    if not content:
                        writer.left_out["gone"][
                            visible(str(PurePosixPath(name).parent)) if name else "rows without an image"
                        ] += 1
                    elif labelled and not label:
                        writer.left_out["unlabelled"][part.split or visible(part.file.name)] += 1
                    else:
                        writer.image(part.split, label, name or f"{writer.number:06d}", content)
                writer.progress(done, total)
        done += part.file.stat().st_size
    if chosen is None or not writer.number:
        why = f": the files of its images are not there, such as {gone[0]}" if gone else ""
        raise DataError(f"{base} has no row with an image{' and a label' if labelled else ''}{why}", _AGAIN)
    taken = f"image is {visible(chosen.image)}" + (f", label is {visible(chosen.label)}" if labelled else "")
    named = " with names" if chosen.names else ""
    writer.read_as.append(f"{kind}, {writer.number} images, {taken}{named}")
    counted = Counter(split for split, _, _ in writer.labelled)
    if any(counted) and (unusual := _unusual(parts)):
        writer.said.append(f"splits by their names: {unusual}")
    if labelled and numbers:
        found, said = rows.names_for({label for _, label, _ in writer.labelled}, base)
        writer.rename(found)
        writer.said += said


def _unusual(parts: Sequence[Part]) -> str:
    names = {(part.file.parent.name, part.split) for part in parts if part.split}
    return ", ".join(f"{visible(n)} is {s}" for n, s in sorted(names) if split_of(n)[0] == s and n != s)


def _image(value: Any, base: Path, gone: list[str]) -> tuple[str, bytes]:
    """Return name and content of an image: bytes, or a record of bytes and path; b"" if there is no file."""
    if isinstance(value, (bytes, bytearray)):
        return "", bytes(value)
    path = value.get("path") if isinstance(value, dict) else value
    content = value.get("bytes") if isinstance(value, dict) else None
    name = path if isinstance(path, str) else ""
    if isinstance(content, (bytes, bytearray)) and content:
        return name, bytes(content)
    if name and "\0" not in name:
        for file in (Path(name), base / name):
            if file.is_absolute() and file.is_file():
                try:
                    return name, file.read_bytes()
                except OSError as error:
                    raise from_os_error(error, f"reading {file}") from error
        gone.append(visible(name))
    return name, b""


def _label(value: Any, names: Sequence[str], file: Path) -> str:
    """Return the label of a row; "" for none, and for -1, which the hub writes in its place."""
    if value is None or value == -1 or value == "":
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(f"{file}: labels such as {visible(str(value)[:50])}", "edgekit needs one class for each image")
    if isinstance(value, int) and names:
        if not 0 <= value < len(names):
            raise DataError(f"{file}: the label {value} has no name among {len(names)}", "its description is damaged")
        return names[value]
    return str(value).strip()

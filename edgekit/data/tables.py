"""Tables of images: CSV, TSV, JSON, Parquet and text files as rows of text, and how such a file is written."""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, from_os_error, missing_package
from edgekit.labels import visible

TEXT = frozenset({".csv", ".tsv"})
ENDINGS = TEXT | {".jsonl", ".ndjson", ".parquet"}
MOST_BYTES = 1 << 30
_LISTS = frozenset({".txt", ".lst"})
_MOST_JSON = 1 << 26  # of a file that nobody named
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_TRIED_ROWS, _TRIED_CHARACTERS, _START = 50, 200_000, 1 << 22
_IMAGE_NAME = re.compile(r"\.(jpe?g|jpe|jfif|png|apng|bmp|webp|tiff?|gif|avif|p[pgbn]m|hei[cf])$", re.I)


_IMAGE_FIRST = re.compile(
    r"\ufeff?\s*(\S.*?\.(?:jpe?g|jpe|jfif|png|bmp|webp|tiff?|gif|ppm|pgm))(?:[ \t]+(\S.*?))?\s*", re.I
)


@dataclass
class Table:
    """Rows of a file, as text.

    Attributes:
        header: names of the columns; "1", "2", ... in a file without a header.
        rows: one list of cells for each row, as long as the header. lines: line, or number, of each row in the file.
        ragged: (line, number of cells) of the rows that are longer or shorter than the header, which are left out.
        said: how the file is written, in words, where that is not plain CSV in UTF-8.
        headless: whether the file has no header. holds_images: whether it holds the images themselves.
    """

    file: Path
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    ragged: list[tuple[int, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    headless: bool = False
    holds_images: bool = False

    def column(self, number: int) -> list[str]:
        """Return the cells of a column."""
        return [row[number] for row in self.rows]


def read(file: Path, most: int | None = None) -> Table:
    """Read a table.

    Args:
        most: number of rows after which reading stops.

    Raises:
        DataError: it is no such file, or has no rows. MissingError: the package for Parquet is not installed.
        StorageError: it cannot be read.
    """
    ending = file.suffix.lower()
    try:
        if ending == ".parquet":
            table = _parquet(file, most)
        elif most is None and file.stat().st_size > MOST_BYTES:
            raise DataError(f"{file} has more than {MOST_BYTES >> 30} GiB", "save it as Parquet, or divide it")
        elif ending in (".jsonl", ".ndjson"):
            table = _json_lines(file, most)
        elif ending == ".json":
            table = _json(file, most)
        elif ending in _LISTS and _is_spaced(file):
            table = _lines(file, most)
        else:
            table = _csv(file, most)
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error
    if not table.rows and not table.ragged:
        raise DataError(f"{file} has no rows", "a row for each image: path,label")
    return table


def is_list(file: Path) -> bool:
    """Return True for a text or JSON file that is a table, which its ending does not tell."""
    ending = file.suffix.lower()
    try:
        if ending == ".json" and file.is_file():
            return file.stat().st_size <= _MOST_JSON and bool(_json_rows(file))
        if ending not in _LISTS or not file.is_file():
            return False
        text, _ = decode(file, True)
        first = next((line for line in text.splitlines() if line.strip()), "")
        spaced = _IMAGE_FIRST.fullmatch(first)
        return bool(spaced and spaced[2]) or any(
            _IMAGE_NAME.search(cell.strip()) for cell in re.split(r"[,;\t|]", first)[:-1]
        )
    except DataError:
        return ending == ".json"  # `read` tells what is wrong with it
    except OSError:
        return False


def _is_spaced(file: Path) -> bool:
    """Return True if blanks stand between path and label, in most of the first lines."""
    text, _ = decode(file, True)
    lines = [line for line in text.splitlines() if line.strip()][:_TRIED_ROWS]
    return (
        sum(bool((m := _IMAGE_FIRST.fullmatch(line)) and m[2] and m[2][0] not in ",;|") for line in lines)
        > len(lines) / 2
    )


def _lines(file: Path, most: int | None) -> Table:
    """Read lines of a path, blanks and a label."""
    text, encoding = decode(file, most is not None)
    table = Table(file, ["1", "2"], said=[*filter(None, [encoding]), "blanks between path and label"], headless=True)
    for number, line in enumerate(text.splitlines(), 1):
        if len(table.rows) == most:
            break
        if not line.strip():
            continue
        found = _IMAGE_FIRST.fullmatch(line)
        if found and found[2]:
            table.rows.append([found[1], found[2]])
            table.lines.append(number)
        else:
            table.ragged.append((number, len(line.split())))
    return table


def _json_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON file; none if it is no list of images.

    It is a list of objects, an object of path and label, or has the lists ``images``, ``annotations`` and
    ``categories`` of COCO, with the category of each image.
    """
    text, _ = decode(file)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if isinstance(value, dict) and isinstance(images := value.get("images"), list):
        return _coco(file, images, value.get("annotations"), value.get("categories"))
    if isinstance(value, dict):
        plain = all(isinstance(label, (str, int)) for label in value.values())
        named = sum(bool(_IMAGE_NAME.search(str(name))) for name in value)
        return (
            [{"path": path, "label": label} for path, label in value.items()]
            if plain and 2 * named > len(value)
            else []
        )
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        first = value[0].values()
        return value if any(isinstance(cell, str) and _IMAGE_NAME.search(cell) for cell in first) else []
    return []


def _coco(file: Path, images: list[Any], annotations: Any, categories: Any) -> list[dict[str, Any]]:
    """Return a row for each image of COCO's lists.

    Raises:
        DataError: images have objects of several categories.
    """
    try:
        names = {each["id"]: str(each["name"]) for each in categories}
        found: dict[Any, set[str]] = {each["id"]: set() for each in images}
        for each in annotations:
            found[each["image_id"]].add(names[each["category_id"]])
        several = sum(len(labels) > 1 for labels in found.values())
        rows = [{"path": str(each["file_name"]), "label": next(iter(found[each["id"]]), "")} for each in images]
    except (KeyError, TypeError):
        return []
    if several:
        raise DataError(
            f"{file}: {several} of {len(rows)} images have objects of several categories: edgekit needs one class each",
            "write a table of path,label with one class for each image, or cut out the objects",
        )
    return rows


def _json(file: Path, most: int | None) -> Table:
    found = _json_rows(file)
    if not found:
        raise DataError(
            f"{file} is no list of images that edgekit reads",
            'a list of {"path": .., "label": ..}, an object {"PATH": "LABEL"}, or images, annotations and categories',
        )
    header = list(dict.fromkeys(key for row in found for key in row))
    rows = [[_text(row.get(key)) for key in header] for row in found[:most]]
    return Table(file, header, rows, list(range(1, len(rows) + 1)))


def _csv(file: Path, most: int | None) -> Table:
    text, encoding = decode(file, most is not None)
    said = [encoding] if encoding else []
    skipped = 0
    if named := re.match(r"sep=(.)\r?\n", text):  # the first line that Excel writes
        delimiter, skipped, text = named[1], 1, text[named.end() :]
    else:
        delimiter = _delimiter(text, file)
    if delimiter != ("\t" if file.suffix.lower() == ".tsv" else ","):
        said.append(f"{_DELIMITERS.get(delimiter, repr(delimiter))} between the columns")
    records = _records(file, text, delimiter, skipped)
    first = next(records, None)
    if first is None:
        raise DataError(f"{file} is empty", "a row for each image: path,label")
    header = [cell.strip() for cell in first[1]]
    if headless := any(_IMAGE_NAME.search(cell) for cell in header):
        records = (record for part in ([first], records) for record in part)
        header = [str(number) for number in range(1, len(header) + 1)]
    table = Table(file, header, said=said, headless=headless)
    for line, cells in records:
        if len(table.rows) == most:
            break
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(header):
            table.ragged.append((line, len(cells)))
        else:
            table.rows.append(cells)
            table.lines.append(line)
    return table


def decode(file: Path, start_only: bool = False) -> tuple[str, str]:
    """Return the text of a file, and its encoding in words unless that is plain UTF-8.

    Args:
        start_only: whole lines from its beginning are enough.

    Raises:
        DataError: it is no text.
    """
    with open(file, "rb") as stream:
        content = stream.read(_START if start_only else -1)
    if start_only and len(content) == _START:
        end = content.rfind(b"\n")
        content = content[: end // 2 * 2 if 0 in content[:100] else end] if end > 0 else content
    for mark, encoding, name in _MARKS:
        if content.startswith(mark):
            return _decoded(file, content, encoding), name
    start = content[:1000]
    if start.count(0) > len(start) // 4:
        encoding = "utf-16-le" if start[1::2].count(0) > start[::2].count(0) else "utf-16-be"
        return _decoded(file, content, encoding), "UTF-16"
    try:
        return _decoded(file, content, "utf-8"), ""
    except DataError:
        if 0 in content or file.suffix.lower() not in TEXT:
            raise
    return _decoded(file, content, "cp1252"), "not UTF-8: taken for Windows-1252"


def _decoded(file: Path, content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}", "save it in UTF-8") from error
    if "\0" in text:
        raise DataError(f"{file} is no text: it contains zero bytes", "save it as CSV in UTF-8")
    return text


def _delimiter(text: str, file: Path) -> str:
    """Return the delimiter with which most of the first rows have the same number of cells, above one.

    csv.Sniffer takes letters for delimiters where paths lie in equal folders, and does not look into quotes.
    """
    start = text[:_TRIED_CHARACTERS]
    best, found = (0.0, 0), ""
    for delimiter in _DELIMITERS:
        rows = []
        try:
            for row in csv.reader(io.StringIO(start, newline=""), delimiter=delimiter):
                rows.append(len(row))
                if len(rows) > _TRIED_ROWS:
                    break
        except csv.Error:
            continue
        if len(start) < len(text):
            rows = rows[:-1] or rows
        width, count = Counter(filter(None, rows)).most_common(1)[0] if any(rows) else (0, 0)
        if width > 1 and (score := (round(count / len(rows), 1), width)) > best:
            best, found = score, delimiter
    if not found:
        raise DataError(
            f"{file} has a single column", "a row for each image: path,label; with commas, semicolons or tabs between"
        )
    return found


def _records(file: Path, text: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of each record that is not blank; a cell in quotes may go over several lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1 + skipped
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = "a quote that is not closed" if "end of data" in str(error) else str(error)
            raise DataError(f"{file} line {line}: {why}", "write quotes within a cell twice") from None
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1 + skipped


def _json_lines(file: Path, most: int | None) -> Table:
    text, encoding = decode(file, most is not None)
    found: list[tuple[int, dict[str, Any]]] = []
    for line, content in enumerate(text.split("\n"), 1):
        if len(found) == most:
            break
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} line {line} is not JSON: {error}", "one JSON object on each line") from None
        if not isinstance(value, dict):
            raise DataError(f"{file} line {line} is no JSON object", 'one on each line: {"file_name": .., "label": ..}')
        found.append((line, value))
    header = list(dict.fromkeys(key for _, value in found for key in value))
    rows = [[_text(value.get(key)) for key in header] for _, value in found]
    return Table(file, header, rows, [line for line, _ in found], said=[encoding] if encoding else [])


def _text(value: Any) -> str:
    """Return a value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def arrow() -> Any:
    """Return the package pyarrow.

    Raises:
        MissingError: it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise missing_package("pyarrow", "a Parquet file, or a data set that Hugging Face saved,", "data") from None


def is_image_type(kind: Any) -> bool:
    """Return True for the type of a column that may hold encoded images: bytes, or a record with bytes."""
    types = arrow().types
    if types.is_struct(kind):
        return any(kind.field(n).name == "bytes" for n in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _parquet(file: Path, most: int | None) -> Table:
    """Read the columns of plain values; bytes and nested values are left out, except images with a path."""
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            names = [f.name for f in schema if not pa.types.is_nested(f.type) and not is_image_type(f.type)]
            table = Table(file, names, holds_images=any(map(is_image_type, schema.types)))
            for batch in opened.iter_batches(columns=names):
                columns = [column.to_pylist() for column in batch.columns]
                table.rows += ([_text(value) for value in row] for row in zip(*columns))
                if most is not None and len(table.rows) >= most:
                    del table.rows[most:]
                    break
    except pa.ArrowException as error:
        raise DataError(f"{file} is no Parquet file, or damaged: {visible(str(error))}", "copy it again") from None
    table.lines = list(range(1, len(table.rows) + 1))
    return table

"""Sources of images: what a file or a folder that the user named is taken for, and the listing of its images.

A folder is read as class folders (`listing`), or by a table beside the images (`rows`). Archives, shards, arrays and
saved data sets are unpacked into the cache first (`unpacked`); everything after that works as with folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from edgekit.data import archives, arrays, bundles, columns, formats, hub, listing, rows, tables, unpacked
from edgekit.data.bundles import Member
from edgekit.data.columns import Columns
from edgekit.data.layout import AmbiguousError, split_of
from edgekit.data.listing import Listing
from edgekit.data.rows import Lookup, Part
from edgekit.data.unpacked import Container, Writer
from edgekit.errors import DataError, EdgekitError, MissingError, from_os_error
from edgekit.labels import visible

FORMS = (
    "a folder of class folders, a table of path,label (CSV, TSV, JSON, Parquet, text), a zip or tar file, WebDataset "
    "shards, a data set that Hugging Face saved, IDX or NPZ files"
)
_TABLES = "tables in CSV, TSV, JSON, Parquet, or as lines of text"
# Files that may name the labels, and are not read.
_SHEET = re.compile(r"\.(xlsx?|xlsm|ods|numbers|json|xml|[ct]sv\.(gz|zip|bz2|xz)|sqlite|db|feather|dta|sav)$", re.I)
_TEXT = tables.ENDINGS - {".parquet"}
_PAGE = re.compile(rb"\s*(<!doctype\s+html|<html|<\?xml|version https://git-lfs)", re.I)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_KINDS = {
    "zip": archives.ZIP,
    "tar": archives.TAR,
    "npz": arrays.NPZ,
    "idx": arrays.IDX,
    "cifar": arrays.CIFAR,
    "parquet": re.compile(r"\.parquet$", re.I),
    "arrow": re.compile(r"\.arrow$", re.I),
}
_TRIED, _DEEPEST = 50, 3
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Reading:
    """Choices of the user about the reading of a source.

    Attributes:
        layout: one of `layout.LAYOUTS`. skip_empty: leave out classes of which no image can be used.
        columns: of a table, as the user chose them. labelled: whether labels are needed.
    """

    layout: str = "auto"
    skip_empty: bool = False
    columns: Columns = field(default_factory=Columns)
    labelled: bool = True


PLAIN = Reading()


def is_there(data: str | Path) -> bool:
    """Return True if there is a file, a folder, or all shards of ``name-{000..009}.tar``."""
    return Path(data).exists() or bool((shards := _expanded(Path(data))) and all(shard.is_file() for shard in shards))


def check_there(data: str | Path, message: str, hint: str) -> None:
    """Check that there is something to read.

    Raises:
        MissingError: there is not: with `message` and `hint`, or with the shards that are missing.
    """
    if not is_there(data):
        _check_shards(_expanded(Path(data)))
        raise MissingError(message, hint)


def _check_shards(shards: Sequence[Path]) -> None:
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise MissingError(
            f"{len(missing)} of {len(shards)} shards are missing, such as {missing[0]}", "check the numbers in braces"
        )


def is_plain(data: Path) -> bool:
    """Return True for a folder of images without a table that names them."""
    return data.is_dir() and not _is_container(data) and not _tables(data, data, columns.PLAIN)[0]


def name_of(data: Path) -> str:
    """Return a short name for the data in a file or folder: that of the folder for ``train.csv`` and the like."""
    if data.is_dir():
        return data.name
    stem = re.sub(r"[-_.]*\{.*?\}", "", re.sub(r"(\.\w{1,8}){1,2}$", "", data.name))
    usual = {"labels", "metadata", "data", "images", "annotations", "index", "dataset", "list"}
    plain = not stem or split_of(stem)[0] or stem.casefold() in usual
    return data.absolute().parent.name if plain else stem


def find(data: Path, how: Reading = PLAIN) -> Listing:
    """List the images of a source, with their classes and splits.

    Raises:
        DataError: it cannot be read, or in several ways. MissingError: it is not there, or a package is missing.
        StorageError: there is no room for what it holds.
    """
    if data.is_dir():
        return _folder(data, how)
    if shards := _expanded(data):
        return _shards(data, shards, data.parent, how)
    if not data.is_file():
        raise MissingError(f"{data} is neither a file nor a folder", f"edgekit reads {FORMS}")
    return _file(data, how)


def place(data: Path, asked: Columns = columns.PLAIN) -> Path:
    """Return the folder below which the images of a source lie, unpacked if need be; their labels do not matter."""
    if data.is_dir() and not _is_container(data):
        return data
    try:
        return find(data, Reading(columns=asked)).root
    except MissingError:
        raise
    except DataError:
        return find(data, Reading(columns=asked, labelled=False)).root


def _expanded(data: Path) -> list[Path]:
    """Return the files that ``name-{000..009}.tar`` stands for; none for a name without braces."""
    if not (found := _BRACES.search(data.name)):
        return []
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + _MOST_SHARDS:
        return []
    numbers = (str(number).zfill(len(found[1])) for number in range(first, last + 1))
    head, tail = data.name[: found.start()], data.name[found.end() :]
    return [data.with_name(f"{head}{number}{tail}") for number in numbers]


def _file(file: Path, how: Reading) -> Listing:
    """List the images of one file."""
    ending = file.suffix.lower()
    if _is_data(file.name):
        _check_content([file])
    if _is_archive(file):
        return _archive(file, how)
    if archives.TAR.search(file.name):
        return _shards(file, [file], file.parent, how)
    if (kind := _kind(file.name)) in ("npz", "idx", "cifar", "arrow"):
        return _arrays(file, kind, _siblings(file, kind), file.parent, how)
    if ending == ".parquet" and tables.read(file, 1).holds_images:
        return _arrays(file, "parquet", [file], file.parent, how)
    if ending in tables.ENDINGS or ending == ".json" or tables.is_list(file):
        return rows.read([Part(tables.read(file), file.parent)], file.parent, how.columns, how.labelled)
    if _SHEET.search(file.name):
        raise DataError(
            f"{file} is not read: edgekit reads {_TABLES}", "save it as CSV: a row for each image, path,label"
        )
    if archives.UNKNOWN.search(file.name):
        raise DataError(f"{file}: edgekit reads zip and tar files", "unpack it, and give the folder")
    if formats.sniff(file):
        raise DataError(f"{file} is an image, not a data set", "give the folder that holds the class folders")
    if ending in (".pkl", ".pickle", ".npy", ".mat", ".h5", ".hdf5", ".lmdb", ".tfrecord"):
        raise DataError(
            f"{file}: edgekit does not read {ending} files",
            "save the images as NPZ: np.savez(FILE, images=images, labels=labels)",
        )
    raise DataError(f"{file} is no data set that edgekit reads", f"edgekit reads {FORMS}")


def _check_content(given: Sequence[Path]) -> None:
    """Check that files are not empty, and no page or pointer that was downloaded in their place.

    Raises:
        DataError: one is. StorageError: one cannot be read.
    """
    for file in given:
        try:
            with open(file, "rb") as opened:
                start = opened.read(64)
        except OSError as error:
            raise from_os_error(error, f"reading {file}") from error
        if not start:
            raise DataError(f"{file} is empty", "copy or download it again")
        if found := _PAGE.match(start):
            if b"lfs" in found[1]:
                raise DataError(f"{file} is a pointer of Git LFS, not the file itself", "git lfs pull")
            raise DataError(f"{file} is a page of the web, not data", "download it again; maybe that needs a login")
        if file.suffix.lower() not in _TEXT and (kind := formats.of_content(start)):
            raise DataError(
                f"{file} is an image ({kind}) by its content", "give the folder that holds the class folders"
            )


def _siblings(file: Path, kind: str) -> list[Path]:
    """Return a file and those in its folder that belong to it: the labels of IDX images."""
    if kind == "idx" and (found := arrays.IDX.search(file.name)):
        others = (arrays.IDX.search(name) for name in _names(file.parent))
        return [file.parent / other[0] for other in others if other and other[1] == found[1]]
    return [file]


def _arrays(data: Path, kind: str, files: list[Path], base: Path, how: Reading) -> Listing:
    """List the images in IDX, NPZ, CIFAR, Parquet or Arrow files."""
    files = sorted(files)
    asked, labelled = how.columns, how.labelled
    if kind == "idx":
        parts = arrays.idx_parts(files)
        files = [file for _, images, labels in parts for file in (images, labels)]
        write: Callable[[Writer], None] = partial(arrays.write_idx, parts, base)
    elif kind == "npz":
        write = partial(arrays.write_npz, files, labelled=labelled)
    elif kind == "cifar":
        write = partial(arrays.write_cifar, files)
        files = [*files, *(p for p in sorted(files[0].parent.glob("*.txt")) if p.name in arrays.CIFAR_NAMES)]
    else:
        shards = hub.file_parts(files, base)
        noun = f"{len(files)} {kind.capitalize()} file{'' if len(files) == 1 else 's'}"
        write = partial(hub.write, shards, base, noun, asked=asked, labelled=labelled)
    return _unpacked(data, kind, files, base, how, write)


def _saved(root: Path, how: Reading) -> Listing:
    """List the images of a data set that Hugging Face's ``save_to_disk`` wrote."""
    parts = hub.saved_parts(root)
    files = [part.file for part in parts]
    files += [path for path in sorted(root.rglob("*.json")) if path.name in hub.DESCRIPTIONS]
    write = partial(hub.write, parts, root, "saved data set", asked=how.columns, labelled=how.labelled)
    return _unpacked(root, "saved", files, root, how, write)


def _unpacked(
    data: Path, kind: str, files: list[Path], base: Path, how: Reading, write: Callable[[Writer], None]
) -> Listing:
    names = [base / name for name in _names(base) if rows.is_names(base / name)] if how.labelled else []
    need = sum(file.stat().st_size for file in files)
    key = f"{kind} {columns.written(how.columns)} {how.labelled}"
    return unpacked.unpack(Container(data, [*dict.fromkeys([*files, *names])], base, key, need), write)


def opened(data: Path) -> Path:
    """Return the folder that a zip or tar file becomes; anything else as it is."""
    return _top(_outer(data).root)[0] if data.is_file() and _is_archive(data) else data


def _is_archive(file: Path) -> bool:
    """Return True for a zip file, and for a tar file that is no shard."""
    is_tar = archives.TAR.search(file.name) is not None
    return archives.ZIP.search(file.name) is not None or (is_tar and not archives.is_shard(file))


def _outer(file: Path) -> Listing:
    """Unpack an archive."""
    if archives.ZIP.search(file.name):
        container = Container(file, [file], file.parent, "zip file", archives.zip_need(file))
        return unpacked.unpack(container, partial(archives.write_zip, file))
    container = Container(file, [file], file.parent, "tar file", file.stat().st_size)
    return unpacked.unpack(container, partial(archives.write_tar, file))


def _archives(root: Path, packed: list[Path], how: Reading) -> Listing:
    """List the images of the zip and tar files in a folder, by the tables beside them if these tell the classes."""
    if len(packed) == 1:
        base = opened(packed[0])
        if not how.labelled:
            return _archive(packed[0], how)
        made = _read(root, base, how, partial(_archive, packed[0], how))
        if made.container is None:  # read by a table beside it
            made.container = root
            made.read_as = [f"{visible(packed[0].name)}: {line}" for line in made.read_as]
        return made
    outer = _outer_of_all(root, packed)
    if how.labelled:
        made = _read(root, outer.root, how, partial(_bundle, root, outer, packed, how))
    else:
        made = listing.find_any(outer.root)
    made.container = root
    made.said = [*outer.said, *made.said]
    for reason, counted in outer.left_out.items():
        made.left_out[reason].update(counted)
    return made


def _outer_of_all(root: Path, packed: list[Path]) -> Listing:
    """Unpack the archives of a folder together, each into a folder of its own."""
    is_zip = [archives.ZIP.search(file.name) is not None for file in packed]
    need = sum(archives.zip_need(file) if z else file.stat().st_size for file, z in zip(packed, is_zip))

    def write(writer: Writer) -> None:
        for number, file in enumerate(packed):
            writer.below = _place_of(file, root, number)
            (archives.write_zip if is_zip[number] else archives.write_tar)(file, writer)

    return unpacked.unpack(Container(root, packed, root, "archives", need), write)


def _place_of(file: Path, root: Path, number: int) -> str:
    """Return the folder that an archive is unpacked to, beside others."""
    return archives.safe_path(file.relative_to(root).as_posix()) or f"archive {number}"


def _bundle(root: Path, outer: Listing, packed: list[Path], how: Reading) -> Listing:
    """List the images of several archives, which are splits, classes, or parts of one data set."""
    members = [_member(outer.root, _place_of(f, root, n), f.relative_to(root)) for n, f in enumerate(packed)]
    mounts, said = bundles.mounts(root, members, how.layout)
    try:
        made = listing.find(outer.root, "auto" if how.layout == "parts" else how.layout, how.skip_empty, mounts)
    except EdgekitError as error:
        error.message = error.message.replace(str(outer.root), str(root))
        error.hint = error.hint.replace(str(outer.root), str(root))
        error.message += f" ({said})"
        raise
    made.read_as = [said]
    return made


def _member(base: Path, place: str, file: Path) -> Member:
    """Return what an archive holds that is unpacked at `place`."""
    top = _top(base / place)[0]
    folders = [name for name in _names(top) if (top / name).is_dir() and listing.has_images(top / name)]
    deep = any(
        (top / name / inner).is_dir() and listing.has_images(top / name / inner)
        for name in folders
        for inner in _names(top / name)
    )
    name = archives.TAR.sub("", archives.ZIP.sub("", file.as_posix()))
    loose = any(True for _ in listing.images_in(top, (), True))
    return Member(file.as_posix(), name, top.relative_to(base).as_posix(), tuple(folders), loose, deep)


def _archive(file: Path, how: Reading) -> Listing:
    """List the images of an archive as those of the folder that it becomes."""
    outer = _outer(file)
    kind = "zip file" if archives.ZIP.search(file.name) else "tar file"
    root, below = _top(outer.root)
    try:
        made = _folder(root, how)
    except EdgekitError as error:
        error.message = error.message.replace(str(root), f"{file}{f', {below}' if below else ''}")
        raise
    made.container = file
    where = f", {visible(below)}" if below else ""
    made.read_as = [f"{kind}{where}: {line}" for line in made.read_as] or [f"{kind} of class folders{where}"]
    made.said = [*outer.said, *made.said]
    for reason, counted in outer.left_out.items():
        made.left_out[reason].update(counted)
    return made


def _top(root: Path) -> tuple[Path, str]:
    """Return the folder inside an archive that is the data set, and its path: below folders that hold all of it."""
    below = ""
    while True:
        here = root / below
        names = _names(here)
        folders = [name for name in names if (here / name).is_dir()]
        loose = [name for name in names if name not in folders and (_is_data(name) or formats.sniff(here / name))]
        if len(folders) != 1 or loose or split_of(folders[0])[0]:
            return here, below
        inside = _names(here / folders[0])
        if not any((here / folders[0] / name).is_dir() or _is_data(name) for name in inside):
            return here, below
        below = f"{below}/{folders[0]}" if below else folders[0]


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted, without hidden ones; none if it cannot be listed."""
    try:
        return sorted(path.name for path in folder.iterdir() if not listing.is_system(path.name))
    except OSError:
        return []


def _is_data(name: str) -> bool:
    """Return True for the name of a table or a container."""
    return Path(name).suffix.lower() in tables.ENDINGS or _kind(name) != ""


def _shards(data: Path, shards: Sequence[Path], base: Path, how: Reading) -> Listing:
    """List the images of WebDataset shards."""
    _check_shards(shards)
    _check_content(shards)
    write = partial(archives.write_shards, shards, base, labelled=how.labelled)
    return _unpacked(data, "shards", [*shards], base, how, write)


def _folder(root: Path, how: Reading) -> Listing:
    """List the images of a folder: class folders, what a table beside them names, or what its files hold."""
    if hub.is_saved(root):
        return _saved(root, how)
    if not how.labelled:
        found = listing.find_any(root)
        return found if found.files else _container(root, how) or found
    if how.layout != "auto" and not listing.has_images(root) and (packed := _packed(root)):
        return _archives(root, packed, how)
    if how.layout == "parts":
        return _parts(root, how)
    return _read(root, root, how, partial(listing.find, root, how.layout, how.skip_empty))


def _parts(root: Path, how: Reading) -> Listing:
    """List the images of a folder whose folders are parts of one data set."""
    members = [_member(root, name, Path(name)) for name in _names(root) if (root / name).is_dir()]
    held = [member for member in members if member.classes or member.loose]
    if len(held) < 2:
        raise DataError(
            f"{root} has fewer than two folders of images", "--layout parts reads the folders in it as one data set"
        )
    mounts = [listing.Mount("", member.folder) for member in held]
    made = listing.find(root, "auto", how.skip_empty, mounts)
    made.read_as = [f"{len(held)} folders, parts of one data set: {', '.join(visible(m.name) for m in held[:4])}"]
    made.read_as[0] += f" and {len(held) - 4} more" if len(held) > 4 else ""
    return made


def _read(root: Path, images: Path, how: Reading, by_folders: Callable[[], Listing]) -> Listing:
    """List images by their folders, or by a table in `root` that names them.

    Args:
        images: `root`, or the folder that the archives in it were unpacked to.
    """
    if how.layout != "auto":
        return by_folders()
    parts, unread = _tables(root, images, how.columns)
    try:
        found = by_folders()
    except DataError as error:
        if parts:
            return _with_unread(_by_table(root, images, parts, how), unread)
        if images == root and not listing.has_images(root) and (made := _container(root, how)):
            return made
        unread = {**_sheets(root), **unread}
        if unread:
            named = "; ".join(f"{visible(name)} is not read: {why}" for name, why in list(unread.items())[:3])
            raise DataError(f"{error.message}; {named}", error.hint) from None
        raise
    return _with_unread(_agreed(root, images, found, parts, how), unread) if parts else found


def _sheets(root: Path) -> dict[str, str]:
    """Return the files of a folder that may name the labels and are not read, with the reason."""
    names = [name for name in _names(root) if _SHEET.search(name)]
    return {n: "it is no list of images" if n.endswith(".json") else f"edgekit reads {_TABLES}" for n in names}


def _with_unread(found: Listing, unread: dict[str, str]) -> Listing:
    found.said += [f"{visible(name)} is not read: {why}" for name, why in unread.items()]
    return found


def _tables(root: Path, images: Path, asked: Columns) -> tuple[list[Part], dict[str, str]]:
    """Return the tables of a folder that name `images` with labels, and why others do not."""
    places = [(root, "")]
    files: list[tuple[Path, Path, str]] = []
    names = _names(root)
    places += [(root / n, split) for n in names if (split := split_of(n)[0]) and (root / n).is_dir()]
    for folder, split in places:
        for name in names if folder == root else _names(folder):
            file = folder / name
            usual = folder == root or file.stem.lower() == "metadata"
            if usual and file.is_file() and (file.suffix.lower() in tables.ENDINGS or tables.is_list(file)):
                files.append((file, folder, split))
    found, unread = [], {}
    for file, folder, split in files:
        name = file.relative_to(root).as_posix()
        if "submission" in file.name.lower():
            unread[name] = "a submission has no true labels"
            continue
        if images != root:
            folder = images
        try:
            start = tables.read(file, _TRIED)
            if start.holds_images:
                continue
            chosen = columns.choose(start, asked, (lookup := Lookup(folder, folder)).exists)
            there = sum(lookup.exists(cell) for cell in start.column(chosen.path))
        except EdgekitError as error:
            unread[name] = error.message.removeprefix(f"{file} ")
            continue
        if 2 * there < len(start.rows):
            unread[name] = f"{there} of its first {len(start.rows)} files exist"
        else:
            found.append(Part(start, folder, split))
    return found, unread


def _by_table(root: Path, images: Path, parts: list[Part], how: Reading) -> Listing:
    """List the images that the tables of a folder name.

    Raises:
        DataError: there are several of them, and their names are not those of splits.
    """
    said: list[str] = []
    if len(parts) > 1:
        named = [part.split or split_of(part.table.file.stem)[0] for part in parts]
        if "train" in named and "" in named:  # others describe the classes, or are made of them
            others = ", ".join(part.table.file.name for part, split in zip(parts, named) if not split)
            said.append(f"{visible(others)} is not read: it lies beside the tables of splits")
            parts = [part for part, split in zip(parts, named) if split]
            named = [split for split in named if split]
        if len({*named}) < len(parts) or "" in named:
            files = ", ".join(visible(part.table.file.relative_to(root).as_posix()) for part in parts)
            raise DataError(
                f"{root} has several tables of images: {files}", f"give the one to read: {parts[0].table.file}"
            )
        parts = [replace(part, split=split) for part, split in zip(parts, named)]
    whole = [replace(part, table=tables.read(part.table.file)) for part in parts]
    found = rows.read(whole, images, how.columns)
    found.said += said
    return found


def _agreed(root: Path, images: Path, found: Listing, parts: list[Part], how: Reading) -> Listing:
    """Return the reading by folders or by a table, where both are possible.

    Raises:
        DataError: they differ.
    """
    tabled = _by_table(root, images, parts, how)
    files = ", ".join(visible(part.table.file.relative_to(root).as_posix()) for part in parts)
    folders = {entry.label for entry in found.files}
    if len({re.sub(r"\d+", "", name) for name in folders} if _are_parts(folders, tabled) else folders) < 2:
        return tabled
    by_folder = {entry.path: entry.label for entry in found.files}
    pairs = {(by_folder[e.path], e.label) for e in tabled.files if e.path in by_folder}
    same = len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    if not same:
        table = parts[0].table.file
        raise AmbiguousError(
            f"{root} can be read in two ways: by its folders, as classes {_few(found)}; or by {files}, as classes "
            f"{_few(tabled)}",
            f"give {table} for the second; say --layout classes for the first (or splits)",
            [(root, "classes", folders), (table, "auto", {entry.label for entry in tabled.files})],
        )
    if found.present == ("",) and tabled.present != ("",):
        tabled.said.append("its labels are those of the class folders")
        return tabled
    found.said.append(f"{files} tells the labels of the class folders, and is not used")
    return found


def _are_parts(folders: set[str], tabled: Listing) -> bool:
    """Return True for folders such as ``images_001`` and ``images_002``, which no label in the table resembles."""
    numbered = all(re.search(r"\d", name) and re.search(r"[^\W\d]", name) for name in folders)
    return numbered and not folders & {entry.label for entry in tabled.files}


def _few(found: Listing) -> str:
    names = sorted({entry.label for entry in found.files})
    return ", ".join(map(visible, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _kind(name: str) -> str:
    """Return the kind of container that a file is by its name; "" for others."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), "")


def _is_container(root: Path) -> bool:
    """Return True for a folder without images that holds containers."""
    return hub.is_saved(root) or (not listing.has_images(root) and bool(_contained(root)))


def _contained(root: Path) -> dict[str, list[Path]]:
    """Return the containers in a folder, and in the folders in it to a depth of three, by their kind."""
    found: dict[str, list[Path]] = {}
    for folder, inside, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        inside[:] = sorted(name for name in inside if depth < _DEEPEST and not listing.is_system(name))
        for name in sorted(names):
            if (kind := _kind(name)) and not name.startswith(".") and Path(folder, name).is_file():
                found.setdefault(kind, []).append(Path(folder, name))
    return found


def _packed(root: Path) -> list[Path]:
    """Return the zip and tar files of a folder, if it holds no other containers, and they are no shards."""
    found = _contained(root)
    tars = found.get("tar", [])
    if not found or found.keys() - {"zip", "tar"} or (tars and archives.is_shard(tars[0])):
        return []
    return sorted([*found.get("zip", []), *tars])


def _container(root: Path, how: Reading) -> Listing | None:
    """List the images in the containers of a folder; None if there are none.

    Raises:
        DataError: there are several that are no shards of one data set.
    """
    arrays.refuse_pickles(root)
    found = _contained(root)
    if not found:
        return None
    _check_content([file for same in found.values() for file in same])
    kind, same = next(iter(found.items()))
    if packed := _packed(root):
        return _archives(root, packed, how)
    if len(found) == 1:
        if kind == "tar":
            return _shards(root, same, root, how)
        if kind == "parquet" and tables.read(same[0], 1).holds_images:
            return _arrays(root, kind, same, root, how)
        if kind in ("npz", "idx", "cifar", "arrow"):
            return _arrays(root, kind, same, same[0].parent if kind == "idx" else root, how)
    names = [visible(file.relative_to(root).as_posix()) for more in found.values() for file in more]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    raise DataError(f"{root} holds {shown}: several data sets, or parts of one", "give one of them, or unpack them")

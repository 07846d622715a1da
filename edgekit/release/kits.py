"""Reads kits for a release: which of their files devices take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import files
from edgekit.errors import DataError, UsageError
from edgekit.release import metadata
from edgekit.release.metadata import Release
from edgekit.shipping import kit

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

_CONTRACT, _GOLDEN = "preprocess.json", "golden.tsv"


@dataclass(frozen=True)
class Found:
    """Files of kits.

    Attributes:
        kits: as in `Release`. files: name in the release folder -> file here. lengths: target -> its bytes and SHA-256.
        contract: the newest schema of the kits.
    """

    kits: Mapping[str, Mapping[str, str]]
    files: Mapping[str, Path]
    lengths: Mapping[str, tuple[int, str]]
    contract: int

    def targets(self) -> dict[str, TargetFile]:
        """Return the files as targets of TUF."""
        from tuf.api.metadata import TargetFile

        return {name: TargetFile(length, {"sha256": sha256}, name) for name, (length, sha256) in self.lengths.items()}

    def release(self, app: int) -> Release:
        """Return the release that these files are. app: least version of an app that may take it."""
        if app < 0:
            raise UsageError(f"{app} is no version of an app", "a whole number, such as Android's versionCode")
        return Release(app, self.contract, self.kits)


def read(folders: Sequence[Path]) -> Found:
    """Return the files of kits that a release needs.

    Raises:
        MissingError: a folder is no kit. DataError: a file of it was changed. UsageError: two kits are of one kind.
    """
    made: dict[str, dict[str, str]] = {}
    found: dict[str, Path] = {}
    lengths: dict[str, tuple[int, str]] = {}
    contract = 0
    if not folders:
        raise UsageError("name a kit", "edgekit ship RUN --to android --out KIT")
    for folder in folders:
        manifest = kit.opened(folder)
        name = f"{manifest['kit']}-{manifest['runtime']}"
        if name in made:
            raise UsageError(f"two kits for {name}: {folder} is the second", "a release has one kit of each kind")
        made[name] = {}
        for own, path in device_files(folder, manifest).items():
            sha256 = files.sha256_file(path)
            target = metadata.target_of(own, sha256)
            made[name][own] = target
            found[metadata.place_of(target, sha256)] = path
            lengths[target] = path.stat().st_size, sha256
            if own == _CONTRACT:
                contract = max(contract, int(files.load_json(path)["schema"]))
    return Found(made, found, lengths, contract)


def device_files(folder: Path, manifest: Mapping[str, object]) -> dict[str, Path]:
    """Return the files of a kit that a device needs, by the name that they have there: all in one folder.

    Raises:
        DataError: a file is missing, or was changed after the kit was made.
    """
    listed = manifest["files"]
    assert isinstance(listed, dict)
    assets = _folder_of(_CONTRACT, listed, folder)
    golden = _folder_of(_GOLDEN, listed, folder)
    made = {kit.MANIFEST: folder / kit.MANIFEST}
    model = str(manifest["model"])
    names = {model, "labels.txt", _CONTRACT}
    for name in listed:
        place, _, own = name.rpartition("/")
        if place == assets and (own in names or own.endswith(".typed.onnx")):
            made[own] = folder / name
        elif name.startswith(f"{golden}/"):
            made[f"golden/{name.removeprefix(f'{golden}/')}"] = folder / name
    if missing := names - made.keys():
        raise DataError(f"{folder}: its manifest names no {', '.join(sorted(missing))}", "make the kit again")
    for own, path in made.items():
        name = path.relative_to(folder).as_posix()
        if own != kit.MANIFEST and kit.sha256_inside(folder, name) != listed[name]:
            raise DataError(f"{folder}: {name} was changed, or is missing", "make the kit again: edgekit ship")
        if not re.fullmatch(metadata.FILE, own):
            raise DataError(f"{folder}: devices take no file of the name {own!r}", "make the kit again: edgekit ship")
    return made


def _folder_of(own: str, listed: Mapping[str, object], folder: Path) -> str:
    """Return the folder in a kit that a file lies in; "" is the kit."""
    places = [name.rpartition("/")[0] for name in listed if name.rpartition("/")[2] == own]
    if len(places) != 1:
        raise DataError(f"{folder}: its manifest names {len(places)} files {own}", "make the kit again: edgekit ship")
    return places[0]

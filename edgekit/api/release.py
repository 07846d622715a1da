"""Release: kits for the apps of a release, made of a run, or named."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import MissingError, UsageError
from edgekit.shipping import kit


@contextmanager
def kits_of(source: str | Path, to: Sequence[str] = (), runs_dir: str | Path = "runs") -> Iterator[list[Path]]:
    """Yield the kits that a release is made of; those of a run are removed afterwards.

    Args:
        source: a kit, or a run. to: for which apps, of a run: "android", "cpp", "ios", "python", "web".
        runs_dir: the folder of the runs.

    Raises:
        UsageError: a run, and no kind of kit. MissingError: neither a kit nor a run.
    """
    folder = Path(source)
    if (folder / kit.MANIFEST).is_file():
        if to:
            raise UsageError(f"{folder} is a kit, which is for one kind of app already", "leave out --to")
        yield [folder]
        return
    if not to:
        if folder.is_dir() and not (folder / "run.json").is_file():
            raise MissingError(f"{folder} is no kit: it has no {kit.MANIFEST}", "edgekit ship RUN --to KIND --out DIR")
        raise UsageError(f"say for which apps {source} is released", "--to android --to ios")
    from edgekit.api.ship import ship

    with tempfile.TemporaryDirectory() as scratch:
        yield [ship(source, each, Path(scratch) / each, runs_dir=runs_dir).folder for each in dict.fromkeys(to)]

"""Release folders for tests: small kits, a publisher with a clock of its own, and attacks on what it published."""

from __future__ import annotations

import hashlib
import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edgekit import files
from edgekit.release.publisher import Releases

NOW = datetime.now(timezone.utc).replace(microsecond=0)
SECONDS = int(NOW.timestamp())
KITS = ("android-litert", "cpp-litert", "ios-litert", "python-litert", "web-litert")
MODEL = "model.int8.tflite"


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, days: float) -> None:
        self.now += timedelta(days=days)


def model_files(number: int, contract: int = 1) -> dict[str, bytes]:
    """Return files of a model, other bytes for each number: about 70 kB."""
    labels = f"cat\ndog\nnumber {number}\n".encode()
    document = {"schema": contract, "image_size": 32, "labels_sha256": hashlib.sha256(labels).hexdigest()}
    return {
        MODEL: random.Random(number).randbytes(60_000),
        "labels.txt": labels,
        "preprocess.json": json.dumps(document).encode(),
        "golden/golden.tsv": b"schema\t1\n",
        "golden/scores.f32": random.Random(-number).randbytes(12),
        "golden/probes.rgb": bytes(10_000),  # the same for all
    }


def write_kit(folder: Path, kind: str, number: int, contract: int = 1) -> Path:
    """Write a small kit, such as for "android-litert". Returns its folder."""
    name, _, runtime = kind.partition("-")
    made = model_files(number, contract)
    for own, content in made.items():
        (folder / own).parent.mkdir(parents=True, exist_ok=True)
        (folder / own).write_bytes(content)
    manifest = {
        "schema": 1,
        "kit": name,
        "runtime": runtime,
        "model": MODEL,
        "precision": "int8",
        "files": {own: hashlib.sha256(content).hexdigest() for own, content in made.items()},
    }
    files.save_json(folder / "manifest.json", manifest)
    return folder


def kits(scratch: Path, number: int, kinds: tuple[str, ...] = KITS, contract: int = 1) -> list[Path]:
    """Write kits of one model for several kinds of apps."""
    return [write_kit(scratch / f"kit{number}" / kind, kind, number, contract) for kind in kinds]


def write_app(folder: Path, kind: str, url: str, root: bytes, channel: str = "stable", contract: int = 1) -> Path:
    """Write what an app carries: a kit of model 0, and what its client for updates needs. Returns the folder."""
    write_kit(folder, kind, 0)
    settings = {"schema": 1, "url": url, "channel": channel, "kit": kind, "contract": contract, "built": "0" * 64}
    files.save_json(folder / "updates.json", settings)
    (folder / "root.json").write_bytes(root)
    return folder


class Publisher:
    """A release folder in a scratch folder, with its keys; r2 is the first release, in the channel stable."""

    def __init__(self, scratch: Path, name: str = "public") -> None:
        self.scratch, self.folder, self.keys = scratch, scratch / name, scratch / f"{name}-keys"
        self.clock = Clock()
        self.releases = Releases(self.folder, [self.keys], clock=self.clock)
        self.releases.init()
        self.root = (self.folder / "1.root.json").read_bytes()
        self.add(1)

    def add(self, number: int, channel: str = "stable", **options: object) -> str:
        """Add a model of a number. Returns the release's id."""
        return self.releases.add(kits(self.scratch, number), channel, **options)  # type: ignore[arg-type]

"""The release folder as it grows: bytes of its metadata, seconds to publish, and shares of devices in a rollout.

    python -m benchmarks.releases [RELEASES]

Publishes RELEASES (10,000) small releases into one channel, of five kits each as tests make them (70 kB), and writes
down what a device would fetch after 1, 100 and all of them, and what a publisher takes for one more. The shares are of
10,000 random ids, by the rule that every client has. Written to results/releases.json.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

from edgekit import files
from edgekit.release.publisher import Releases
from edgekit.release.verify import verify
from tests.release.folders import kits

RESULT = Path(__file__).parent / "results" / "releases.json"
SHARES = (1, 5, 25, 50, 100)
DEVICES = 10_000
TIMED = 5


def main() -> None:
    """Measure, and write the result."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        releases = Releases(place / "public", [place / "keys"])
        releases.init()
        made = [kits(place, number) for number in range(2 * TIMED)]
        rows, count = [], 0
        for goal in sorted({1, min(100, most), most}):
            while count < goal:
                releases.add(list(made[count % 2]), "stable")
                count += 1
            rows.append({"releases": count, **sizes(place / "public"), **seconds(releases, made[2:], count)})
            print(rows[-1], flush=True)
            count += TIMED
        started = time.perf_counter()
        found = verify(place / "public")
        rows[-1]["verify_s"] = round(time.perf_counter() - started, 3)
        labels = sent_for_labels(place, releases)
    document = {"rows": rows, "files_verified": found.files, "bytes_for_new_labels": labels, "rollout": rollout()}
    files.save_json(RESULT, document)
    print(json.dumps(document["rollout"]), labels)


def sizes(folder: Path) -> dict[str, int]:
    """Return bytes of the metadata that a device reads."""
    timestamp = (folder / "timestamp.json").read_bytes()
    number = json.loads(timestamp)["signed"]["meta"]["snapshot.json"]["version"]
    snapshot = (folder / f"{number}.snapshot.json").read_bytes()
    number = json.loads(snapshot)["signed"]["meta"]["targets.json"]["version"]
    return {
        "timestamp_bytes": len(timestamp),
        "snapshot_bytes": len(snapshot),
        "targets_bytes": (folder / f"{number}.targets.json").stat().st_size,
        "root_bytes": (folder / "1.root.json").stat().st_size,
        "metadata_files": sum(1 for path in folder.glob("*.json")),
    }


def seconds(releases: Releases, made: list[list[Path]], count: int) -> dict[str, float]:
    """Return the median of publishing one release, of taking it back, and of a refresh, with new files each time."""
    added, back, fresh = [], [], []
    for number in range(TIMED):
        fill = secrets.token_bytes(60_000)
        for folder in made[number % len(made)]:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            (folder / manifest["model"]).write_bytes(fill)
            manifest["files"][manifest["model"]] = hashlib.sha256(fill).hexdigest()
            files.save_json(folder / "manifest.json", manifest)
        added.append(timed(lambda number=number: releases.add(list(made[number % len(made)]), "stable")))
        back.append(timed(lambda: releases.back("stable")))
        fresh.append(timed(releases.refresh))
    named = {"add_s": added, "back_s": back, "refresh_s": fresh}
    return {name: round(statistics.median(values), 4) for name, values in named.items()}


def timed(action: object) -> float:
    """Return the seconds that a call takes."""
    assert callable(action)
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def sent_for_labels(place: Path, releases: Releases) -> dict[str, int]:
    """Return the bytes that a publisher sends for a release in which only the labels are new, against all of it."""
    folder = kits(place / "labels", 77, ("android-litert",))[0]
    before = total(place / "public")
    releases.add([folder], "stable")
    first = total(place / "public")
    text = (folder / "labels.txt").read_bytes() + b"one more\n"
    (folder / "labels.txt").write_bytes(text)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["labels.txt"] = hashlib.sha256(text).hexdigest()
    files.save_json(folder / "manifest.json", manifest)
    releases.add([folder], "stable")
    return {"files_of_the_first": first - before, "files_of_new_labels": total(place / "public") - first}


def total(folder: Path) -> int:
    """Return the bytes of the files of releases."""
    return sum(path.stat().st_size for path in (folder / "targets").rglob("*") if path.is_file())


def rollout() -> list[dict[str, float]]:
    """Return the share of random devices that take a release, and whether those of a smaller share are among them."""
    ids = [secrets.token_hex(16) for _ in range(DEVICES)]
    places = {name: int(hashlib.sha256(f"r7\n{name}".encode()).hexdigest()[:8], 16) % 10_000 for name in ids}
    rows, before = [], set[str]()
    for share in SHARES:
        inside = {name for name, at in places.items() if at < 100 * share}
        rows.append({"asked_percent": share, "taken_percent": 100 * len(inside) / DEVICES, "kept": before <= inside})
        before = inside
    return rows


if __name__ == "__main__":
    main()

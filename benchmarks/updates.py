"""Clients for updates: their answers to every attack, and what a check costs.

    python -m benchmarks.updates

Each client that can be built here meets the attacks of tests/release/attacks.py through a web server on this machine,
as the tests do; TUF's own clients meet those that are on what TUF protects. Milliseconds are of a check alone, without
the start of the program: the difference between programs that make one check and eleven. Written to
results/updates.json; the table of docs/protection.md is printed.
"""

from __future__ import annotations

import importlib
import platform
import subprocess
import tempfile
import time
from pathlib import Path

from edgekit import files
from tests.release.attacks import ATTACKS, Attack, Folders
from tests.release.clients import PASSES, Missing, answers
from tests.release.conftest import KINDS
from tests.release.folders import SECONDS, write_app
from tests.release.site import Site

RESULT = Path(__file__).parent / "results" / "updates.json"
CHECKS, REPEATS = 10, 3


def main() -> None:
    """Measure every client, and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = Folders(Path(scratch) / "folders")
        found = {}
        for language, kind in KINDS.items():
            (place := Path(scratch) / language).mkdir()
            try:
                program = importlib.import_module(f"tests.release.clients.{language}").prepared(place)
            except Missing as why:
                print(f"{language}: {why}")
                continue
            met = {name: answered(program, kind, attack, folders, place) for name, attack in ATTACKS.items()}
            found[language] = {"answers": met, **costs(program, kind, folders, place)}
        files.save_json(RESULT, {"machine": platform.machine(), "clients": found})
    print(table(found))


def answered(program: list[str], kind: str, attack: Attack, folders: Folders, scratch: Path) -> str:
    """Return the state and the reason that a client ends an attack with."""
    with tempfile.TemporaryDirectory(dir=scratch) as place, Site(*(folders[each] for each in attack.folders)) as site:
        site.tricks = dict(attack.tricks)
        app = write_app(Path(place) / "app", kind, site.url, folders.root)
        fixed = ["--kit", app, "--state", Path(place) / "state", "--test", PASSES, "--timeout", "0.5", *attack.options]
        last = {}
        for number in range(len(attack.answers)):
            later = attack.later[number] if attack.later else 0
            last = answers(program, *map(str, fixed), "--now", str(SECONDS + later), "check")[-1]
    return ": ".join(filter(None, (last["state"], last["release"], last["reason"])))


def costs(program: list[str], kind: str, folders: Folders, scratch: Path) -> dict[str, float]:
    """Return milliseconds, bytes and requests of a check that finds nothing new, and of one that takes a release."""
    with tempfile.TemporaryDirectory(dir=scratch) as place, Site(folders["old"]) as site:
        app = write_app(Path(place) / "app", kind, site.url, folders.root)

        def seconds(state: str, checks: int) -> float:
            fixed = ["--kit", app, "--state", Path(place) / state, "--test", PASSES, "--now", SECONDS]
            started = time.perf_counter()
            subprocess.run([*program, *map(str, fixed), *["check"] * checks], capture_output=True, check=True)
            return time.perf_counter() - started

        seconds("state", 1)
        site.sent = 0
        site.requests.clear()
        one = min(seconds("state", 1) for _ in range(REPEATS))
        sent, asked = site.sent / REPEATS, len(site.requests) / REPEATS
        many = min(seconds("state", 1 + CHECKS) for _ in range(REPEATS))
        site.sent = 0
        site.requests.clear()
        new = min(seconds(f"new{number}", 1) for number in range(REPEATS))
        return {
            "program_ms": 1000 * one,
            "unchanged_ms": 1000 * (many - one) / CHECKS,
            "unchanged_bytes": sent,
            "unchanged_requests": asked,
            "update_ms": 1000 * (new - one + (many - one) / CHECKS),
            "update_bytes": site.sent / REPEATS,
            "update_requests": len(site.requests) / REPEATS,
        }


def table(found: dict[str, dict[str, object]]) -> str:
    """Return the answers as a table in Markdown: what all clients say alike stands once."""
    lines = [f"| attack | {' | '.join(found)} | python-tuf |", "|---" * (len(found) + 2) + "|"]
    for name, attack in ATTACKS.items():
        cells = []
        for client in found.values():
            met = client["answers"]
            assert isinstance(met, dict)
            cells.append(str(met[name]).partition(":")[0])
        lines.append(f"| {name} | {' | '.join(cells)} | {attack.tuf[-1] if attack.tuf else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

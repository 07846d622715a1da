"""Every client against every attack, through a real web server."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.release.attacks import ATTACKS, Folders
from tests.release.clients import Missing
from tests.release.folders import SECONDS, write_app
from tests.release.site import Site

KINDS = {
    "python": "python-litert",
    "kotlin": "android-litert",
    "typescript": "web-litert",
    "cpp": "cpp-litert",
    "swift": "ios-litert",
}
PASSES = "/bin/true"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("releases"))


def command(language: str, scratch: Path) -> list[str]:
    """Return the command of a client; the test is skipped where it cannot be built."""
    try:
        return importlib.import_module(f"tests.release.clients.{language}").prepared(scratch)
    except (Missing, ModuleNotFoundError) as why:
        pytest.skip(str(why))


@pytest.fixture(
    scope="session", params=[pytest.param(each, marks=pytest.mark.xdist_group(f"client-{each}")) for each in KINDS]
)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    return KINDS[request.param], command(request.param, tmp_path_factory.mktemp(request.param))


def answers(client: list[str], *arguments: str | Path) -> list[dict[str, str]]:
    """Run a client, and return the lines that it prints."""
    done = subprocess.run([*client, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_answered(client: tuple[str, list[str]], folders: Folders, name: str, tmp_path: Path) -> None:
    attack, (kind, program) = ATTACKS[name], client
    with Site(*(folders[each] for each in attack.folders)) as site:
        site.tricks = dict(attack.tricks)
        app = write_app(tmp_path / "app", kind, site.url, folders.root)
        fixed = ["--kit", app, "--state", tmp_path / "state", "--test", PASSES, "--timeout", "0.5", *attack.options]
        found: list[dict[str, str]] = []
        if attack.later:  # a clock for each check
            for seconds in attack.later:
                found += answers(program, *fixed, "--now", SECONDS + seconds, "check")
        else:
            found = answers(program, *fixed, "--now", SECONDS, *["check"] * len(attack.answers))
        used = answers(program, *fixed, "start")[0]
    assert len(found) == len(attack.answers)
    for answer, (state, release, reason) in zip(found, attack.answers):
        assert (answer["state"], answer["release"]) == (state, release), answer
        assert re.search(reason, answer["reason"]), answer
    taken = [release for state, release, _ in attack.answers if state == "updated"]
    assert used["release"] == (taken[-1] if taken else "")
    assert not (tmp_path / "evil").exists()

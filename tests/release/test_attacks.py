"""Every client against every attack, through a real web server."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater
from urllib3.exceptions import HTTPError

from tests.release.attacks import ATTACKS, Folders
from tests.release.clients import PASSES, answers
from tests.release.folders import NOW, SECONDS, write_app
from tests.release.site import Site

TUFJS = Path(__file__).parents[2] / "node_modules" / "tuf-js"


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


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.tuf])
def test_python_tuf_answers_an_attack(folders: Folders, name: str, tmp_path: Path) -> None:
    """TUF's own client in Python reads the same folders, and refuses the same attacks."""
    attack, found = ATTACKS[name], []
    (tmp_path / "targets").mkdir()
    with Site(*(folders[each] for each in attack.folders)) as site:
        site.tricks = dict(attack.tricks)
        for number in range(len(attack.tuf)):
            place = str(tmp_path / "targets")
            try:
                updater = Updater(str(tmp_path), site.url, place, f"{site.url}/targets/", bootstrap=folders.root)
                later = attack.later[number] if attack.later else 0
                updater._trusted_set.reference_time = NOW + timedelta(seconds=later)
                updater.refresh()
                published = updater._trusted_set.targets.unrecognized_fields["x-edgekit"]
                release = published["releases"][published["channels"]["stable"]["release"]]
                for target in release["kits"]["python-litert"].values():
                    info = updater.get_targetinfo(target)
                    assert info
                    updater.download_target(info, str(tmp_path / "file"))
                found.append("ok")
            except (RepositoryError, DownloadError, HTTPError):
                found.append("refused")
    assert tuple(found) == attack.tuf


@pytest.mark.skipif(
    not TUFJS.is_dir() or not shutil.which("node"), reason="tuf-js is not installed: install Node.js, then npm ci"
)
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.tuf and not attack.later])
def test_tuf_js_answers_an_attack(folders: Folders, name: str, tmp_path: Path) -> None:
    """TUF's client in JavaScript reads the same folders, and refuses the same attacks."""
    attack = ATTACKS[name]
    (tmp_path / "root.json").write_bytes(folders.root)
    with Site(*(folders[each] for each in attack.folders)) as site:
        site.tricks = dict(attack.tricks)
        command = ["node", str(Path(__file__).with_name("tufjs.mjs")), site.url, str(tmp_path), str(len(attack.tuf))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert tuple(line.split("\t")[0] for line in done.stdout.splitlines()) == attack.tuf, done.stdout

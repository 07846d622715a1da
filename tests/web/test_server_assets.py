"""The files of the page are all there, LiteRT.js as it was published."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from edgekit.web.server import ASSETS, FOLDER
from edgekit.web.visits import VERSION

LITERT = FOLDER / "litert"
README = (LITERT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.-]+)` \| (?:`(\w{64})`)? ?\| `(\w{64})` \|$", README, re.MULTILINE)
OURS = [path for path in sorted(FOLDER.iterdir()) if path.is_file()]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("name", "packed", "unpacked"), ROWS)
def test_litert_js_is_what_the_table_says(name: str, packed: str, unpacked: str) -> None:
    content = (LITERT / name).read_bytes()
    if packed:
        assert sha256(content) == packed
        content = gzip.decompress(content)
    assert sha256(content) == unpacked


def test_the_table_has_every_file_and_the_version() -> None:
    assert {row[0] for row in ROWS} | {"README.md"} == {path.name for path in LITERT.iterdir()}
    assert f"@litertjs/core@{VERSION}" in README


def test_every_file_is_served_and_every_served_file_exists() -> None:
    served = {asset.path for asset in ASSETS.values()}
    assert served == {path for path in FOLDER.rglob("*") if path.is_file() and path.name != "README.md"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_files_load_nothing_from_elsewhere_and_write_no_html(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "<style", " style="):
        assert unsafe not in text
    assert max(map(len, text.splitlines())) <= 300


def test_scripts_import_files_that_are_served() -> None:
    for path, asset in ASSETS.items():
        if path.endswith(".js") and not asset.packed:
            for name in re.findall(r"""(?:from|import) ['"](\./[^'"]+)['"]""", asset.path.read_text(encoding="utf-8")):
                folder = path.rpartition("/")[0]
                assert f"{folder}/{name.removeprefix('./')}" in ASSETS

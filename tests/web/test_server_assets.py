"""Files that the page loads: edgekit's own, and those of LiteRT.js as npm installs it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit import config
from edgekit.api import serve
from edgekit.errors import MissingError
from edgekit.web import litertjs
from edgekit.web.server import ASSETS, FIT, FOLDER
from tests.web.webstand import needs_litertjs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).parents[2]
OURS = [FIT, *(path for path in sorted(FOLDER.iterdir()) if path.is_file())]


def locked() -> dict[str, dict[str, Any]]:
    document = json.loads((CHECKOUT / "package-lock.json").read_text(encoding="utf-8"))
    return {path: package for path, package in document["packages"].items() if path}


def test_litert_js_is_pinned_to_one_version_with_its_hash() -> None:
    manifest = json.loads((CHECKOUT / "package.json").read_text(encoding="utf-8"))
    assert manifest["dependencies"] == {"@litertjs/core": litertjs.VERSION}
    served = {name: package for name, package in locked().items() if "dev" not in package}
    assert set(served) == {"node_modules/@litertjs/core", "node_modules/@litertjs/wasm-utils"}
    assert {package["version"] for package in served.values()} == {litertjs.VERSION}
    for package in locked().values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"])
        assert "resolved" not in package  # the registry is the one that npm is set up for
    assert {package["license"] for package in served.values()} == {"Apache-2.0"}
    assert litertjs.VERSION in (CHECKOUT / "NOTICE").read_text(encoding="utf-8")


def test_a_wheel_contains_what_is_served_of_litert_js() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    built = project["tool"]["hatch"]["build"]["hooks"]["custom"]["files"]
    manifests = {"core/package.json", "wasm-utils/package.json"}
    assert set(built) == {f"node_modules/@litertjs/{path}" for path in {*litertjs.FILES.values(), *manifests}}
    assert "NOTICE" in project["project"]["license-files"]


def test_no_file_of_litert_js_lies_in_the_package() -> None:
    assert not [path for path in CHECKOUT.joinpath("edgekit").rglob("*") if "wasm" in path.name]


@needs_litertjs
def test_litert_js_is_served_as_it_was_published_but_for_one_import() -> None:
    for name, path in litertjs.FILES.items():
        published = (litertjs.folder() / path).read_bytes()
        served = gzip.decompress(litertjs.compressed(name))
        if name == "core.js":
            assert served != published
            published = published.replace(b"@litertjs/wasm-utils", b"./wasm-utils.js")
        assert served == published


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder in which npm has installed LiteRT.js; its files are empty."""
    for path in litertjs.FILES.values():
        file = tmp_path / "node_modules/@litertjs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    manifest = tmp_path / "node_modules/@litertjs/core/package.json"
    manifest.write_text(json.dumps({"version": litertjs.VERSION}), encoding="utf-8")
    monkeypatch.setattr(config, "_CHECKOUT", tmp_path)
    litertjs.check()
    return tmp_path


@pytest.mark.parametrize("missing", ["node_modules", "node_modules/@litertjs/core/wasm/litert_wasm_internal.wasm"])
def test_without_litert_js_the_command_that_installs_it_is_named(installed: Path, missing: str) -> None:
    path = installed / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingError, match="is not installed") as refusal:
        litertjs.check()
    assert refusal.value.hint == f"npm ci --prefix {installed}"
    anything: Any = None
    with pytest.raises(MissingError, match="is not installed"):  # before it reads anything of the run
        serve.offer_of(anything, [], anything, anything)


def test_another_version_of_litert_js_is_refused(installed: Path) -> None:
    (installed / "node_modules/@litertjs/core/package.json").write_text('{"version": "2.5.2"}', encoding="utf-8")
    with pytest.raises(MissingError, match=f"needs LiteRT.js {litertjs.VERSION}; installed is 2.5.2"):
        litertjs.check()


def test_every_file_of_the_page_is_served() -> None:
    own = {path.removeprefix("/") or "index.html" for path in ASSETS if not path.startswith("/litert/")}
    assert own == {path.name for path in OURS}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_files_load_nothing_from_elsewhere_and_write_no_html(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "<style", " style="):
        assert unsafe not in text
    assert max(map(len, text.splitlines())) <= 300


@needs_litertjs
def test_scripts_import_files_that_are_served() -> None:
    imported = {}
    for path, asset in ASSETS.items():
        if path.endswith(".js") and "_wasm_" not in path:
            content = asset.read()
            text = (gzip.decompress(content) if asset.encoding else content).decode("utf-8")
            imported[path] = re.findall(r"""(?:from|import) ['"]([^'"]+)['"]""", text)
            for name in imported[path]:
                assert name.startswith("./"), name
                assert f"{path.rpartition('/')[0]}/{name.removeprefix('./')}" in ASSETS
    assert imported["/litert/core.js"] == ["./wasm-utils.js"]

"""LiteRT.js, the npm package that runs models in a browser: its files, as the server sends them.

``npm ci`` installs it into the checkout, as package-lock.json pins it; a wheel contains it.
"""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path

from edgekit import config
from edgekit.errors import MissingError
from edgekit.records import Artifact

VERSION = "2.5.3"
# Builds of the runtime: with relaxed SIMD, without it (Safari), and with threads (cross-origin isolated pages). The
# package has one more, for models that WebGPU runs only in part; edgekit does not measure those.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal")
_MANIFEST = "core/package.json"
# Name on the server -> path in the folder of npm's scope @litertjs.
FILES = {
    "core.js": "core/dist/index.js",
    "wasm-utils.js": "wasm-utils/dist/index.js",
    **{f"{build}.{kind}": f"core/wasm/{build}.{kind}" for build in _BUILDS for kind in ("js", "wasm")},
}
# Browsers resolve addresses, not names of packages.
_IMPORT, _SERVED_IMPORT = b'from "@litertjs/wasm-utils"', b'from "./wasm-utils.js"'


def folder() -> Path:
    """Return the folder of the scope @litertjs: in the installed package, else in the checkout."""
    return config.data_dir("node_modules") / "@litertjs"


def check() -> None:
    """Check that the pinned version is installed.

    Raises:
        MissingError: it is not, or a file of it is missing.
    """
    wanted = [folder() / path for path in (*FILES.values(), _MANIFEST)]
    command = f"npm ci --prefix {config.data_dir('node_modules').parent}"
    if missing := next((path for path in wanted if not path.is_file()), None):
        raise MissingError(f"LiteRT.js {VERSION} is not installed: {missing} does not exist", command)
    found = json.loads(wanted[-1].read_text(encoding="utf-8")).get("version")
    if found != VERSION:
        raise MissingError(f"edgekit serve needs LiteRT.js {VERSION}; installed is {found}", command)


def refuses(artifact: Artifact) -> str:
    """Return why it cannot run a file for LiteRT; "" if it can."""
    return "its input is int8, which LiteRT.js does not support" if artifact.input == "int8" else ""


@functools.cache
def compressed(name: str) -> bytes:
    """Return one of `FILES` compressed by gzip; the result is kept in memory."""
    content = (folder() / FILES[name]).read_bytes()
    if name == "core.js":
        content = content.replace(_IMPORT, _SERVED_IMPORT)
    return gzip.compress(content, 6, mtime=0)

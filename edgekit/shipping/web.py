"""The kit for browsers: ES modules for LiteRT.js, with their TypeScript."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit import web
from edgekit.records import Artifact
from edgekit.shipping import browser, kit
from edgekit.web import litertjs

_PACKAGES = "/node_modules/@litertjs/"
_WHOLE = "golden set"  # level of a test that did not run
_FIT = Path(web.__file__).parent / "fit"


def refuses(artifact: Artifact) -> str:
    """Return why a file is not for LiteRT.js; "" if it is."""
    if artifact.precision == "16x8":
        return "16x8 is for NPUs; LiteRT.js has no fast kernels for it, and takes 15 times as long as for INT8"
    return litertjs.refuses(artifact)


def values(source: kit.Source) -> dict[str, Any]:
    """Return what the templates need: the version of LiteRT.js."""
    return {"litertjs": litertjs.VERSION}


def check(folder: Path) -> list[kit.Level]:
    """Run the tests of a kit: in Chromium all levels, in Node.js those of pixels and values."""
    here, there = in_node(folder), in_chromium(folder)
    if there[0].state == kit.NOT_VERIFIED and here[0].level != _WHOLE:
        return [replace(each, details=there[0].details) if each.state == kit.NOT_VERIFIED else each for each in here]
    ran = [each for each in here if each.level == _WHOLE or each.state != kit.NOT_VERIFIED]
    return [*there, *(replace(each, level=f"{each.level}, in Node.js") for each in ran)]


def in_node(folder: Path) -> list[kit.Level]:
    """Run ``golden.test.js`` of a kit."""
    node = shutil.which("node")
    if node is None:
        return [kit.Level(_WHOLE, kit.NOT_VERIFIED, ("Node.js is not installed: apt install nodejs",))]
    return kit.results([node, "golden.test.js", "--json"], folder)


def in_chromium(folder: Path, query: str = "") -> list[kit.Level]:
    """Run ``check.html`` of a kit, with LiteRT.js from the kit's node_modules or from edgekit's.

    Args:
        query: of the page, such as "accelerator=webgpu&".
    """
    own = folder / "node_modules" / "@litertjs"
    packages = own if own.is_dir() else litertjs.folder()
    if not (packages / "core").is_dir():
        reason = "LiteRT.js is not installed: npm install in the kit, then edgekit ship --check"
        return [kit.Level(_WHOLE, kit.NOT_VERIFIED, (reason,))]
    try:
        sent = browser.answer(folder, f"check.html?{query}post={browser.SENT}", {_PACKAGES: packages})
        return kit.levels(json.loads(sent))
    except browser.NoAnswer as why:
        return [kit.Level(_WHOLE, kit.NOT_VERIFIED, (str(why),))]


TARGET = kit.Target(
    "web",
    ("litert",),
    check,
    refuses=refuses,
    values=values,
    more=lambda source: {name: _FIT / name for name in ("fit.ts", "fit.js", "fit.d.ts")},
)

"""The client in TypeScript, which browsers run, in Node.js."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.shipping import kit
from tests.release.clients import Missing

DRIVER = Path(__file__).parents[1] / "typescript" / "driver.mjs"


def prepared(scratch: Path) -> list[str]:
    """Return the command of the client."""
    node = shutil.which("node")
    if node is None:
        raise Missing("Node.js is not installed: apt install nodejs")
    program = scratch / "updates.js"  # as a module of its own, which the templates are not
    shutil.copy(kit.TEMPLATES / "web-updates" / "updates.js", program)
    (scratch / "package.json").write_text('{"type": "module"}')
    return [node, str(DRIVER), str(program)]

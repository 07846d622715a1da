"""The client in Python: the program that a kit has."""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.shipping import kit


def prepared(scratch: Path) -> list[str]:
    """Return the command of the client."""
    return [sys.executable, str(kit.TEMPLATES / "python-updates" / "updates.py")]

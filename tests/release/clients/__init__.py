"""Clients of each language, as programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

PASSES = "/bin/true"  # a self-test


class Missing(Exception):
    """A compiler or runtime that a client needs is not installed here."""


def answers(client: Sequence[str], *arguments: str | Path) -> list[dict[str, str]]:
    """Run a client, and return the lines that it prints."""
    done = subprocess.run([*client, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]

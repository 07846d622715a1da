"""Progress of a job: one short line in a file of the job's folder, which the host shows."""

from __future__ import annotations

import os
import time

_FILE = "progress"
_EVERY_S = 2.0
_last = [0.0]


def say(text: str) -> None:
    """Write a line of progress, at most every two seconds; errors are ignored."""
    now = time.monotonic()
    if now - _last[0] < _EVERY_S:
        return
    _last[0] = now
    try:
        with open(_FILE + ".part", "w", encoding="utf-8") as file:
            file.write(text.replace("\n", " ")[:200] + "\n")
        os.replace(_FILE + ".part", _FILE)
    except OSError:
        pass

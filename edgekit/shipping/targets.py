"""The languages and platforms that kits are for."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import unknown
from edgekit.shipping import android, cpp, ios, kit, python, web

_ALL = (android.TARGET, cpp.TARGET, ios.TARGET, python.TARGET, web.TARGET)
TARGETS: dict[str, kit.Target] = {target.name: target for target in _ALL}


def target_of(folder: Path) -> kit.Target:
    """Return for what the kit in a folder is.

    Raises:
        UsageError: for something that this edgekit does not know. Others: `kit.opened`.
    """
    name = str(kit.opened(folder)["kit"])
    if name not in TARGETS:
        raise unknown("kind of kit", name, TARGETS)
    return TARGETS[name]

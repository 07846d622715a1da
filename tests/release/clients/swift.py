"""The client in Swift: the iOS kit's own files for updates, built with a stand-in for CryptoKit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from edgekit.shipping import ios, kit
from tests.release.clients import Missing

SOURCES = kit.TEMPLATES / "ios-updates" / "Sources" / "__package__"
TESTS = Path(__file__).parents[2]
_built: list[str] = []  # the command
FILES = ("Updates", "UpdateMetadata", "UpdateServer", "UpdateStore")


def prepared(scratch: Path) -> list[str]:
    """Build the driver, once for all tests, and return its command."""
    if _built:
        return _built
    swift = ios._compiler()
    if not swift:
        raise Missing("no Swift compiler is installed here")
    package = scratch / "package"
    shutil.copytree(TESTS / "release" / "swift", package)
    for name in ("CCrypto", "CryptoKit"):
        shutil.copytree(TESTS / "shipping" / "swift" / name, package / name)
    for name in FILES:
        shutil.copy(SOURCES / f"{name}.swift", package / "Driver")
    build = [swift, "build", "-c", "release", "--disable-index-store"]
    done = subprocess.run(build, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: " not in done.stdout, done.stdout
    _built.extend([*_loader(swift), str(package / ".build" / "release" / "Driver")])
    return _built


def _loader(swift: str) -> list[str]:
    """Return what runs a program outside of the folder that get-swift.sh made; nothing for any other Swift."""
    system = Path(swift).parent.parent / "system"
    if not system.is_dir():
        return []
    libraries = (system / "usr/lib/x86_64-linux-gnu", system / "usr/libexec/swift/lib/swift/linux")
    return [str(system / "lib64/ld-linux-x86-64.so.2"), "--library-path", ":".join(map(str, libraries))]

"""The client in C++: the program of a kit for boards, built with the compiler alone."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit.shipping import cpp, kit
from tests.release.clients import Missing

SOURCES = kit.TEMPLATES / "cpp-updates" / "src"
NEEDS = "no C++ compiler, or no libssl-dev and libcurl4-openssl-dev"
HEADERS = ("openssl/evp.h", "curl/curl.h")
OPTIONS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", f"-I{kit.TEMPLATES / 'cpp' / 'src'}")


def prepared(scratch: Path) -> list[str]:
    """Return the command of the client."""
    return [str(built(SOURCES / "updates.cpp", scratch / "updates"))]


def built(source: Path, program: Path, options: Sequence[str] = ()) -> Path:
    """Build a program with the client in it, without a warning. Returns its path.

    Raises:
        Missing: there is no compiler, or not what the client needs.
    """
    compiler = cpp._compiler()
    if not compiler:
        raise Missing(NEEDS)
    probe = [compiler, "-E", "-x", "c++", "/dev/null", *(word for each in HEADERS for word in ("-include", each))]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        raise Missing(NEEDS)
    command = [compiler, *OPTIONS, f"-I{SOURCES}", str(source), *options, "-o", str(program), "-lcurl", "-lcrypto"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode or done.stderr:
        raise AssertionError(done.stderr[:2000])
    return program

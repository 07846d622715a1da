"""Plant the doubles on a device of a test: programs on its PATH, Python's tensorrt, the CUDA runtime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def trtexec(folder: Path, number: int = 100300) -> Path:
    """A program ``trtexec`` in `folder`; `number` is the version that it greets with."""
    script = folder / "trtexec"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" DOUBLE_TRT_NUMBER="${{DOUBLE_TRT_NUMBER:-{number}}}" '
        f'exec "{sys.executable}" -m tests.doubles.trtexec "$@"\n'
    )
    script.chmod(0o755)
    return script


def cudart(folder: Path) -> Path:
    """The double of the CUDA runtime, compiled to a library in `folder`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: apt install gcc")
    library = folder / "libcudart.so"
    own = "-Wl,-Bsymbolic"  # its calls of itself are its own, also where torch has loaded the real one for all
    subprocess.run([compiler, "-shared", "-fPIC", own, "-o", str(library), str(HERE / "cudart.c")], check=True)
    return library


def python(folder: Path) -> Path:
    """A Python in `folder` that imports the double of tensorrt, with the double of the CUDA runtime."""
    library = cudart(folder)
    script = folder / "python-tensorrt"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{HERE / "python"}:{ROOT}:$PYTHONPATH" EDGEKIT_CUDART="{library}" '
        f'exec "{sys.executable}" "$@"\n'
    )
    script.chmod(0o755)
    return script


def script(folder: Path, name: str, text: str) -> Path:
    """A shell program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path

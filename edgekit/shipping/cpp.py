"""The kit for C++: headers, a program and its test, on LiteRT's C API or on TensorRT."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekit.shipping import kit

_RUNTIMES = {"litert": kit.TEMPLATES / "cpp-litert", "tensorrt": kit.TEMPLATES / "cpp-tensorrt"}
_DECODERS = {"PNG": ("png.h", "-lpng"), "JPEG": ("cstdio>\n#include <jpeglib.h", "-ljpeg")}
_SECONDS = 300  # of a compiler


def check(folder: Path) -> list[kit.Level]:
    """Compile a kit's program outside of it, and run its ``--check``; without its runtime, the levels of the pixels."""
    if not (compiler := find_compiler()):
        return [kit.Level("golden set", kit.NOT_VERIFIED, ("no C++ compiler here: apt install g++",))]
    manifest = kit.opened(folder)
    library = litert_library() if manifest["runtime"] == "litert" else None
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "classifier"
        options, libraries = decoders(compiler)
        if library is None:
            options.append("-DEDGEKIT_WITHOUT_RUNTIME")
        else:
            libraries += [str(library), f"-Wl,-rpath,{library.parent}"]
        command = [compiler, "-std=c++17", "-O2", *options, str(folder / "main.cpp"), "-o", str(program), *libraries]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return [kit.Level("golden set", kit.NOT_VERIFIED, (f"{compiler} took more than {_SECONDS} s",))]
        if done.returncode:
            error = next((line for line in done.stderr.splitlines() if "error" in line), "no reason given")
            return [kit.Level("compiled", kit.WRONG, (error,))]
        return kit.results([str(program), "--check", "--json", "--kit", str(folder.resolve())], folder)


def find_compiler() -> str | None:
    """Return the C++ compiler of this machine: $CXX, c++, g++ or clang++."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def litert_library() -> Path | None:
    """Return LiteRT's library of the package ai-edge-litert, if it is installed."""
    spec = find_spec("ai_edge_litert")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(place) / "libLiteRt.so").is_file():
            return path
    return None


def decoders(compiler: str) -> tuple[list[str], list[str]]:
    """Return the compiler's options for the libraries that decode files here, and these libraries."""
    options, libraries = [], []
    for name, (header, library) in _DECODERS.items():
        command = [compiler, "-x", "c++", "-", "-fsyntax-only"]
        text = f"#include <{header}>\n"
        if subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False).returncode == 0:
            options.append(f"-DEDGEKIT_{name}")
            libraries.append(library)
    return options, libraries


def values(source: kit.Source) -> dict[str, Any]:
    """Return what contract.hpp needs: the background, numbers as C++ writes them, and the temperature."""
    return {
        "colour": source.contract.preprocess.colour,
        "floats": lambda numbers: ", ".join(f"{float(number)!r}f" for number in numbers),
        "temperature": repr(float(source.contract.temperature or 1.0)),
    }


def more(source: kit.Source) -> dict[str, Path]:
    """Return the code of the file's runtime."""
    return {"runtime.hpp": _RUNTIMES[source.artifact.runtime] / "runtime.hpp"}


TARGET = kit.Target("cpp", ("litert", "tensorrt"), check, more=more, values=values)

"""The kit for C++: headers, a program, CMake; for LiteRT, or for TensorRT on a Jetson."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekit.shipping import kit

_COMPILERS = ("c++", "g++", "clang++")
_DECODERS = {"EDGEKIT_PNG": ("png.h", "-lpng"), "EDGEKIT_JPEG": ("jpeglib.h", "-ljpeg")}
_NEEDS = "no C++ compiler is installed here: apt install g++ cmake"
_SECONDS = 300  # to compile
_LEAST_LITERT = (2, 1, 6)  # whose C functions the kit declares


class BuildError(Exception):
    """A compiler or CMake failed; the message is its first error."""


def check(folder: Path) -> list[kit.Level]:
    """Build the program of a kit in another folder and run its check: with CMake, or the compiler alone."""
    compiler = _compiler()
    if not compiler:
        return [kit.Level("golden set", kit.NOT_VERIFIED, (_NEEDS,))]
    with tempfile.TemporaryDirectory() as scratch:
        copy = kit.copied(folder, Path(scratch) / "kit")  # an engine that is built here is not of the kit
        try:
            program = build(compiler, copy, Path(scratch) / "build")
        except BuildError as error:
            return [kit.Level("build", kit.WRONG, (str(error),))]
        except subprocess.TimeoutExpired:
            return [kit.Level("build", kit.NOT_VERIFIED, (f"compiling took more than {_SECONDS} s",))]
        return kit.results([str(program), "--check", "--json", "--kit", str(copy)], copy)


def build(compiler: str, source: Path, folder: Path) -> Path:
    """Build the program of a kit in a new folder. Returns its path.

    Raises:
        BuildError: that fails.
    """
    has_cmake = shutil.which("cmake") and shutil.which("make")
    return (_cmake if has_cmake else _compile)(compiler, source, folder)


def _compiler() -> str:
    """Return the path of a C++ compiler; "" if there is none."""
    names = (os.environ.get("CXX", ""), *_COMPILERS)
    return next((path for path in map(shutil.which, names) if path), "")


def _litert() -> Path | None:
    """Return LiteRT's library, as the Python package has it; None if there is none, or an older one."""
    found = importlib.util.find_spec("ai_edge_litert")
    version = importlib.metadata.version("ai-edge-litert") if found else ""
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < _LEAST_LITERT:
        return None
    paths = [Path(place) / "libLiteRt.so" for place in (found.submodule_search_locations or [])] if found else []
    return next((path for path in paths if path.is_file()), None)


def _cmake(compiler: str, source: Path, build: Path) -> Path:
    """Build with CMake. Returns the program."""
    library = _litert()
    litert = [f"-DLITERT_LIBRARY={library}"] if library else []
    options = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1", *litert]  # -O3 compiles long
    _run(["cmake", "-S", str(source), "-B", str(build), *options])
    _run(["cmake", "--build", str(build)])
    return build / "classifier"


def _compile(compiler: str, source: Path, build: Path) -> Path:
    """Build with the compiler alone, without TensorRT. Returns the program."""
    build.mkdir()
    program = build / "classifier"
    command = [compiler, "-std=c++17", "-O1", str(source / "src" / "main.cpp"), "-o", str(program)]
    library = _litert()
    if library and kit.opened(source)["runtime"] == "litert":
        command += [str(library), f"-Wl,-rpath,{library.parent}"]
    else:
        command.append("-DEDGEKIT_WITHOUT_RUNTIME")
    _run([*command, *decoders(compiler)])
    return program


def decoders(compiler: str) -> list[str]:
    """Return the options of a compiler for the decoders that are installed."""
    options = []
    for name, (header, link) in _DECODERS.items():
        probe = [compiler, "-x", "c++", "-include", "cstdio", "-include", header, os.devnull, link, "-shared"]
        done = subprocess.run([*probe, "-o", os.devnull], capture_output=True, timeout=_SECONDS, check=False)
        options += [] if done.returncode else [f"-D{name}", link]
    return options


def _run(command: Sequence[str]) -> None:
    """Run a command.

    Raises:
        BuildError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or [f"{command[0]} failed"]
        raise BuildError(next((line for line in lines if "error" in line.lower()), lines[-1]))


def more(source: kit.Source) -> dict[str, Path]:
    """Return the code that runs the model; for TensorRT, the service of a board and the file for its newer versions.

    A kit that takes updates has services of its own among its templates.
    """
    files = kit.TEMPLATES / f"cpp-{source.artifact.runtime}"
    made = {"src/runtime.hpp": files / "runtime.hpp"}
    if source.artifact.runtime == "tensorrt":
        made |= kit.typed(source)
        if not source.updates:
            made["classifier.service"] = files / "classifier.service"
    return made


TARGET = kit.Target("cpp", ("litert", "tensorrt"), check, more=more)

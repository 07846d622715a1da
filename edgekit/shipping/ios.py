"""The kit for iOS: a Swift package, and a podspec for TensorFlowLiteSwift."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from edgekit import files
from edgekit.records import Artifact
from edgekit.shipping import kit

_SECONDS = 600  # for building a kit and its tests
_KEYWORDS = (
    "Any|as|associatedtype|await|break|case|catch|class|continue|default|defer|deinit|do|else|enum|extension|"
    "fallthrough|false|fileprivate|for|func|guard|if|import|in|init|inout|internal|is|let|nil|open|operator|"
    "precedencegroup|private|protocol|Protocol|public|repeat|rethrows|return|self|Self|static|struct|subscript|super|"
    "switch|throw|throws|true|try|Type|typealias|var|where|while"
)
_QUICK = ("-Xswiftc", "-gnone")  # leaves out what only debuggers need
_MODULES = (  # that the kit imports
    "CoreGraphics|CoreVideo|CryptoKit|Foundation|FoundationNetworking|ImageIO|Swift|TensorFlowLite|XCTest"
)


def check(folder: Path) -> list[kit.Level]:
    """Run ``swift test`` in a copy of a kit; where no Swift is installed, only parse its files."""
    swift = _compiler()
    return _tested(folder, swift) if swift else [*_parsed(folder), *_unverified("no Swift compiler is installed here")]


def _compiler() -> str:
    """Return the path of Swift's driver; "" if there is none (OpenStack has a command of that name, too)."""
    path = shutil.which("swift")
    if path is None:
        return ""
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return path if "Swift version" in shown else ""


def _tested(folder: Path, swift: str) -> list[kit.Level]:
    """Run the tests of a kit in a copy of it."""
    with tempfile.TemporaryDirectory(prefix="edgekit-swift-") as made:
        copy, results = Path(made) / "kit", Path(made) / "results.json"
        kit.copied(folder, copy)
        environment = {**os.environ, "EDGEKIT_RESULTS": str(results)}
        with (Path(made) / "shown").open("w+") as shown:
            if not _ended([swift, "test", *_QUICK, "--package-path", str(copy)], copy, environment, shown):
                return _unverified(f"swift test took more than {_SECONDS} s")
            if results.is_file():
                return kit.levels(files.load_json(results))
            shown.seek(0)
            return _failed(shown.read())


def _ended(command: list[str], folder: Path, environment: dict[str, str], shown: IO[str]) -> bool:
    """Run a command, and return whether it ended in time; else it is stopped with what it started."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=shown,
        stderr=shown,
        start_new_session=True,
    )
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def _failed(shown: str) -> list[kit.Level]:
    """Return what output of ``swift test`` says that ended before the golden set was compared."""
    if "no such module 'XCTest'" in shown:
        return _unverified("this Swift has no XCTest: install Xcode")
    errors = [line for line in shown.splitlines() if "error:" in line] or shown.strip().splitlines()[-1:]
    return [kit.Level("swift test", kit.WRONG, tuple(dict.fromkeys(errors)) or ("it printed nothing",))]


def _unverified(why: str) -> list[kit.Level]:
    """Return the levels of the golden set, none of which was checked."""
    return [kit.Level(level, kit.NOT_VERIFIED, (why,)) for level in kit.LEVELS]


def _parsed(folder: Path) -> list[kit.Level]:
    """Return whether the Swift files of a kit have syntax errors."""
    try:
        import tree_sitter
        import tree_sitter_swift
    except ImportError:
        return [kit.Level("syntax", kit.NOT_VERIFIED, ("pip install tree-sitter tree-sitter-swift",))]
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    paths = sorted(folder.rglob("*.swift"))
    wrong = [path for path in paths if parser.parse(path.read_bytes()).root_node.has_error]
    problems = tuple(f"{path.relative_to(folder).as_posix()}: a syntax error" for path in wrong)
    return [kit.Level("syntax", kit.WRONG if wrong else kit.VERIFIED, problems)]


def refuses(artifact: Artifact) -> str:
    """Return why TensorFlowLiteSwift cannot run a file."""
    if artifact.input == "int8":
        return "TensorFlowLiteSwift has no int8 tensors, only uint8"
    if artifact.details.get("output", "float32") != "float32":
        return "its scores are no floats"
    return ""


TARGET = kit.Target(
    "ios",
    ("litert",),
    check,
    assets="Sources/__package__/Model",
    golden="Tests/__package__Tests/golden",
    package="ImageClassifier",
    package_form=(
        rf"(?!(?:{_KEYWORDS}|{_MODULES})$)[A-Za-z][A-Za-z0-9_]{{0,63}}",
        "letters, digits and underscores, a letter first, no word of Swift and no module that the kit imports",
    ),
    refuses=refuses,
)

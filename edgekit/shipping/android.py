"""The kit for Android: a Gradle module with Kotlin for LiteRT, and a sample app."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.shipping import kit

MIN_SDK = 23  # LiteRT's
LITERT = "2.3.2"
MODULE = Path("classifier/src")
_CHECKED = ("Contract", "Fit", "Golden", "Check")  # the code that needs no Android
_JAVA = ("-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # a short run: half the time
_SECONDS = 300  # for Kotlin's compiler
# Of Kotlin and Java: no segment of a package may be one.
_KEYWORDS = (
    "abstract|as|assert|boolean|break|byte|case|catch|char|class|const|continue|default|do|double|else|enum|"
    "extends|false|final|finally|float|for|fun|goto|if|implements|import|in|instanceof|int|interface|is|long|"
    "native|new|null|object|package|private|protected|public|return|short|static|strictfp|super|switch|"
    "synchronized|this|throw|throws|transient|true|try|typealias|typeof|val|var|void|volatile|when|while"
)
_SEGMENT = rf"(?!(?:{_KEYWORDS})(?![A-Za-z0-9_]))[A-Za-z][A-Za-z0-9_]*"
_PACKAGE = (
    rf"(?!(?:java|javax|kotlin|kotlinx|android|androidx)\.)(?=.{{1,100}}\Z){_SEGMENT}(\.{_SEGMENT})+",
    "two or more words with points between, each of letters, digits and _ after a letter, none a keyword of Kotlin or "
    "Java, not of Java, Kotlin or Android, and no more than 100 characters",
)


def compiler() -> list[str]:
    """Return the command of Kotlin's compiler; [] where there is none.

    ``KOTLIN_COMPILER`` names its folder, which has ``lib/kotlin-compiler.jar``, as the npm package kotlin-compiler is;
    without it ``kotlinc`` is taken.
    """
    if home := os.environ.get("KOTLIN_COMPILER"):
        jar = Path(home) / "lib" / "kotlin-compiler.jar"
        main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
        return ["java", *_JAVA, "-cp", str(jar), main, "-kotlin-home", home] if jar.is_file() else []
    found = shutil.which("kotlinc")
    return [found] if found else []


def check(folder: Path) -> list[kit.Level]:
    """Compile a kit's pixel code and its golden test for the Java here, and run them."""
    if not shutil.which("java"):
        return [kit.Level("golden set", kit.NOT_VERIFIED, ("install Java 17 or newer",))]
    if not compiler():
        missing = "no Kotlin compiler: npm install kotlin-compiler, KOTLIN_COMPILER=node_modules/kotlin-compiler"
        return [kit.Level("golden set", kit.NOT_VERIFIED, (missing,))]
    module = folder.resolve() / MODULE
    sources = {name: path for name in _CHECKED for path in module.glob(f"*/kotlin/**/{name}.kt")}
    if missing := ", ".join(f"{name}.kt" for name in _CHECKED if name not in sources):
        return [kit.Level("golden set", kit.WRONG, (f"missing: {missing}",))]
    package = ".".join(sources["Check"].parent.relative_to(module / "test" / "kotlin").parts)
    with tempfile.TemporaryDirectory() as made:
        jar = Path(made) / "check.jar"
        if problem := compiled(list(sources.values()), jar):
            return [problem]
        golden = module / "golden" / "resources" / "golden"
        return kit.results(["java", "-cp", str(jar), f"{package}.CheckKt", str(golden)], folder)


def compiled(sources: Sequence[Path], jar: Path) -> kit.Level | None:
    """Compile Kotlin into a .jar that runs alone. Returns the problem, if there is one."""
    command = [*compiler(), "-include-runtime", "-d", str(jar), *map(str, sources)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return kit.Level("golden set", kit.NOT_VERIFIED, (f"Kotlin's compiler took more than {_SECONDS} s",))
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if "error:" in line] or [f"exit status {done.returncode}"]
    return kit.Level("golden set", kit.WRONG, (f"the Kotlin code does not compile: {errors[0]}",))


def values(source: kit.Source) -> dict[str, Any]:
    """Return what the templates need besides."""
    return {"min_sdk": MIN_SDK, "litert": LITERT}


def enum(text: str) -> str:
    """Return a word of the contract as the name of a Kotlin constant: ``centre-box`` is ``CENTRE_BOX``."""
    return text.upper().replace("-", "_")


TARGET = kit.Target(
    "android",
    ("litert",),
    check,
    assets="classifier/src/main/assets",
    golden="classifier/src/golden/resources/golden",
    package="com.example.classifier",
    package_form=_PACKAGE,
    values=values,
    filters={"enum": enum},
)

"""The client in Kotlin, for Android, on the Java here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgekit.shipping import android, kit
from tests.release.clients import Missing

COMPILER = Path(__file__).parents[2] / "shipping" / "android" / "node_modules" / "kotlin-compiler"
DRIVER = Path(__file__).parents[1] / "kotlin" / "Driver.kt"
CLIENT = kit.TEMPLATES / "android-updates/classifier/src/main/kotlin/__package__/Updates.kt.j2"
# A short run: half the time.
JAVA = ("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


def prepared(scratch: Path) -> list[str]:
    """Return the command of the client."""
    if not COMPILER.is_dir() or not shutil.which("java"):
        raise Missing("Kotlin's compiler is not installed: npm ci --prefix tests/shipping/android, and Java 17")
    os.environ["KOTLIN_COMPILER"] = str(COMPILER)
    try:
        client = scratch / "Updates.kt"
        client.write_text(CLIENT.read_text(encoding="utf-8").replace("{{ package }}", "com.example.fruit"))
        jar = scratch / "driver.jar"
        problem = android.compiled([client, DRIVER], jar)
    finally:
        del os.environ["KOTLIN_COMPILER"]
    assert problem is None, problem
    return [*JAVA, "-cp", str(jar), "com.example.fruit.DriverKt"]

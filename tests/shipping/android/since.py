"""Members of Android and Java in compiled code that are newer than an API level, by npm's @nativescript/types-android.

Its declarations say of each class and member that is newer than API 21 since when Android has it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DECLARATIONS = Path("@nativescript/types-android/lib/android/android-platform-21-37-merged.d.ts")


@dataclass
class Levels:
    """API level of each class (0: from the first), and of its fields and methods, the lowest whatever the arguments."""

    classes: dict[str, int] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Levels:
        """Read the declarations."""
        found, inside, level = Levels(), [], 0
        for text in path.read_text(encoding="utf-8").splitlines():
            line = text.strip()
            if told := re.fullmatch(r"/\*\* @since (\d+) \*/", line):
                level = int(told[1])
                continue
            if opened := re.match(
                r"(?:declare |export )*module ([\w.]+) \{|export (?:abstract )?(?:class|interface) (\w+)", line
            ):
                inside.append(opened[1] or opened[2])
                if opened[2]:
                    name = ".".join(inside)
                    found.classes[name] = min(found.classes.get(name, level), level)
            elif line.endswith("{"):
                inside.append("?")
            elif line.startswith("}") and inside:
                inside.pop()
            elif member := re.match(r"public (?:static )?(\w+)[(:]", line):
                name = ".".join([*inside, member[1]])
                found.members[name] = min(found.members.get(name, level), level)
            if not line.startswith(("*", "/*")):
                level = 0
        return found


def used(classes: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield class and member of every use of Java and Android in .class files."""
    shown = subprocess.run(["javap", "-c", "-p", *map(str, classes)], capture_output=True, text=True, check=True).stdout
    for name, member in sorted(
        set(re.findall(r'(?:Method|Field) ((?:java|javax|android)/[\w/$]+)\."?([<>\w]+)', shown))
    ):
        yield name.replace("/", ".").replace("$", "."), member


def newer(classes: list[Path], least: int, levels: Levels) -> dict[str, int]:
    """Return the members that devices of an API level do not have, and since when Android has them; 0: never."""
    found = {}
    for name, member in used(classes):
        level = max(levels.classes.get(name, 0), levels.members.get(f"{name}.{member}", 0))
        if name not in levels.classes or level > least:
            found[f"{name}.{member}"] = level
    return found

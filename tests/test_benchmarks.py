"""Benchmarks, which no test runs: their imports of edgekit exist, and lie above no other layer than `api`."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def imported(path: Path) -> set[str]:
    """The modules of edgekit that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.partition(".")[0] == "edgekit"}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_modules_that_exist_and_not_the_command_line(path: Path) -> None:
    names = imported(path)
    assert not [name for name in names if name.startswith("edgekit.cli")]
    assert not [name for name in names if importlib.util.find_spec(name) is None]


def test_peers_import_nothing_of_edgekit() -> None:
    assert not [path.name for path in BENCHMARKS.glob("peers/*.py") if imported(path)]


@pytest.mark.slow
def test_the_import_step_of_memory_loads_what_the_others_use() -> None:
    code = "import sys; from pathlib import Path; from benchmarks.memory import imports; imports(Path()); "
    code += "print('edgekit.training.batches' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"

"""The rules of the code itself: direction of imports, sizes, docstrings, what is imported when."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit

PACKAGE = Path(edgekit.__file__).parent
MODULES = {
    ".".join(("edgekit", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")
}
# The layers, from the ground up: a part imports itself and what stands before it. `edgekit` itself is the version and
# the public names, which import nothing before they are used.
LAYERS = [
    *(
        "errors",
        "labels",
        "progress",
        "cores",
        "validation",
        "records",
        "environment",
        "measurements",
        "quantization",
        "scores",
    ),
    *("files", "config", "runs"),
    *("stats", "data", "models", "evaluation", "training", "convert", "importing", "quant", "targets"),
    *("ondevice", "devices", "bench", "web", "archive", "analysis", "reporting", "shipping", "release"),
    *("api", "cli"),
]
RUNTIMES = {
    "run_tensorrt": {"tensorrt", "pycuda", "cuda"},
    "run_tflite": {"ai_edge_litert", "tflite_runtime"},
    "run_onnxruntime": {"onnxruntime"},
    "run_torch": {"torch"},
    "run_openvino": {"openvino"},
}
GENERATED = {"edgekit.targets.metadata_generated"}
MOST_OF_CLI = 0.10
# Standard library, but younger than Python 3.8.
TOO_YOUNG = {"graphlib", "tomllib", "zoneinfo"}
# The beginning of a command in a message; what stands in brackets after it belongs to the sentence.
COMMAND = re.compile(
    r"\bedgekit (train|import|evaluate|compare|export|benchmark|report|history|diff|check|predict|inspect|layers"
    r"|serve|ship|quant|devices|data) (?!needs|reads)[^(;]*$"
)
QUOTED = {"handle", "name", "run", "on"}  # variables that hold quoted words
each_module = pytest.mark.parametrize("module", sorted(MODULES))


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it; ``from a import b`` gives a.b."""
    parts = module.split(".")
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            base = ".".join(filter(None, (package, node.module)))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str:
    """``edgekit.<part>.…``: which part of the package a dotted name belongs to; "" for its top."""
    parts = name.split(".")
    if len(parts) == 1 or parts[1].startswith("__"):
        return ""
    return parts[1] if (PACKAGE / parts[1]).is_dir() or f"edgekit.{parts[1]}" in MODULES else ""


def allowed(part: str) -> set[str]:
    if part == "ondevice":
        return {part}
    return {*LAYERS[: LAYERS.index(part) + 1], ""} if part else {"", "cli", "api", "errors"}


def test_the_package_consists_of_the_known_parts() -> None:
    assert {part_of(module) for module in MODULES} - {""} == set(LAYERS)


@each_module
def test_imports_follow_the_order_of_the_layers(module: str) -> None:
    if module == "edgekit.__init__":
        return  # names what the layers define, for type checkers; at run time it imports what is used
    own = [name for name in imports(module) if name.split(".")[0] == "edgekit"]
    wrong = [name for name in own if part_of(name) not in allowed(part_of(module))]
    assert not wrong, f"{module} must not import {wrong}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    # `edgekit` itself names what other modules define, and loads them when they are used.
    graph = {m: {*map(module_of, imports(m))} - {"", m} for m in MODULES if m != "edgekit.__init__"}
    assert list(circles(graph)) == []


def test_circles_are_found() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}})) == [{"b", "c"}]


def module_of(name: str) -> str:
    """The module that a dotted name lies in; "" for what is not edgekit's."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def circles(graph: dict[str, set[str]]) -> Iterator[set[str]]:
    """Groups of modules of which each can be reached from each."""
    reached = {start: set(graph[start]) for start in graph}
    for middle in graph:  # Warshall
        for start in graph:
            if middle in reached[start]:
                reached[start] |= reached[middle]
    seen: set[str] = set()
    for start in graph:
        if start in reached[start] and start not in seen:
            group = {other for other in reached[start] if start in reached[other]}
            seen |= group
            yield group


def test_the_command_line_is_a_small_part(capsys: pytest.CaptureFixture[str]) -> None:
    lines: dict[str, int] = {}
    for module, path in MODULES.items():
        part = part_of(module) or "(top)"
        lines[part] = lines.get(part, 0) + len(path.read_text(encoding="utf-8").splitlines())
    with capsys.disabled():
        print("\nlines by part:", ", ".join(f"{part} {count}" for part, count in sorted(lines.items())))
    assert lines["cli"] <= MOST_OF_CLI * sum(lines.values())


@pytest.mark.parametrize("module", [m for m in sorted(MODULES) if part_of(m) == "ondevice"])
def test_ondevice_imports_the_standard_library_numpy_itself_and_its_one_runtime(module: str) -> None:
    runtime = RUNTIMES.get(module.rpartition(".")[2], set())
    for name in imports(module):
        top = name.split(".")[0]
        own = name.startswith("edgekit.ondevice.")
        assert own or top in {*sys.stdlib_module_names, "numpy", *runtime} - TOO_YOUNG, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in sorted(MODULES) if part_of(m) == "ondevice"])
def test_ondevice_is_python_3_8(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"), feature_version=(3, 8))
    # What the grammar of 3.8 does not show: built-in generics are evaluated where an alias is made.
    generics = {"list", "dict", "tuple", "set", "type"}
    assigned = (node.value for node in ast.walk(tree) if isinstance(node, ast.Assign))
    for value in assigned:
        subscripts = [n for n in ast.walk(value) if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name)]
        assert not [n.value.id for n in subscripts if n.value.id in generics], f"{module} line {value.lineno}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - GENERATED))
def test_public_modules_classes_and_functions_have_docstrings(module: str) -> None:
    tree = tree_of(module)
    assert ast.get_docstring(tree), "the module has none"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    assert not [n.name for n in public if not ast.get_docstring(n)]


@each_module
def test_docstrings_begin_with_a_verb_or_a_noun(module: str) -> None:
    kinds = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree_of(module)) if isinstance(node, kinds)]
    assert not [text for text in texts if text.split(" ")[0] in ("What", "How", "Whether", "Which", "That", "Where")]


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in ("train", "benchmark", "inspect", "serve", "history", "diff", "check")),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "huggingface_hub",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "numpy",
        "PIL",
        "tensorrt",
        "matplotlib",
        "sqlalchemy",
    }
    code = f"import sys; from edgekit.cli.app import run; status = run({arguments!r}); print(*sys.modules); "
    loaded = set(python(code + "sys.exit(status)").splitlines()[-1].split())
    assert "edgekit.cli.app" in loaded
    assert not loaded & heavy


ONLY_NUMPY = """
import sys
sys.path = [{folder!r}] + [p for p in sys.path if p]

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "ondevice"):
            raise ImportError("refused: " + name)

sys.meta_path.insert(0, Refuse())
import ondevice.main, ondevice.measure, ondevice.preprocess, ondevice.runner
ondevice.runner.open_runner("null", "", 1)
try:
    import edgekit
except ImportError:
    print("alone")
"""


def test_ondevice_runs_with_nothing_but_numpy(tmp_path: Path) -> None:
    (tmp_path / "ondevice").symlink_to(PACKAGE / "ondevice")
    assert python(ONLY_NUMPY.format(folder=str(tmp_path)), "-B").strip() == "alone"


def commands_printed(module: str) -> Iterator[tuple[int, str]]:
    """Line and source of each value that an f-string puts into a command of edgekit."""
    for node in ast.walk(tree_of(module)):
        text = ""
        for part in node.values if isinstance(node, ast.JoinedStr) else ():
            if isinstance(part, ast.Constant):
                text += str(part.value)
            elif isinstance(part, ast.FormattedValue):
                if COMMAND.search(text):
                    yield node.lineno, ast.unparse(part.value)
                text += "0"


@each_module
def test_values_in_printed_commands_are_quoted_for_the_shell(module: str) -> None:
    """A run, folder or device may have a blank in its name; `Run.handle` and `Link.handle` are quoted."""
    bare = [
        f"{module}:{line}: {value}"
        for line, value in commands_printed(module)
        if not value.endswith((".handle", ".handle)")) and "quote(" not in value and value not in QUOTED
    ]
    assert not bare


@each_module
def test_no_hint_advises_to_delete_what_a_user_has(module: str) -> None:
    if module in ("edgekit.config", "edgekit.records"):
        return  # about keys of a file that the user is writing
    strings = [n.value for n in ast.walk(tree_of(module)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not [
        text for text in strings if re.search(r"\b(delete|remove) (the|it|them|these|your|or)\b[^.]{,60}$", text)
    ]

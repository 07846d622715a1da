"""Every name of TensorRT's Python API that is used, looked up in its type stubs, which are of 10.13."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from edgekit.ondevice import run_tensorrt, tensorrt_api
from tests.doubles import plant


class Stubs:
    """The type stubs of TensorRT, read and never imported."""

    def __init__(self, folder: Path) -> None:
        trees = [_parsed((folder / name).read_text()) for name in ("__init__.pyi", "tensorrt.pyi")]
        nodes = [node for tree in trees for node in tree.body]
        self.classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        self.names = {name for node in nodes for name in _defined(node)}

    def members(self, name: str) -> dict[str, ast.stmt]:
        """The members of a class, those of its bases among them."""
        found: dict[str, ast.stmt] = {}
        if name in self.classes:
            for base in self.classes[name].bases:
                found.update(self.members(ast.unparse(base)))
            for node in self.classes[name].body:
                found.update(dict.fromkeys(_defined(node), node))
        return found


def _parsed(text: str) -> ast.Module:
    """The stubs were written by a program; a signature that is no Python loses its parameters."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        lines = text.splitlines()
        line = lines[(error.lineno or 1) - 1]
        assert line.lstrip().startswith("def ")
        lines[(error.lineno or 1) - 1] = re.sub(r"\(.*\)", "(*_)", line)
        return _parsed("\n".join(lines))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return [alias.asname or alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


@pytest.fixture(scope="module")
def stubs() -> Stubs:
    try:
        place = metadata.distribution("tensorrt-stubs").locate_file("tensorrt_bindings")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps tensorrt-stubs==10.13.0.35.1 (make test does)")
    return Stubs(Path(str(place)))


# What a variable of the two modules is, and what a call gives where the stubs do not say.
TYPES = {"builder": "Builder", "config": "IBuilderConfig", "parser": "OnnxParser", "network": "INetworkDefinition",
         "parser.get_error(i)": "ParserError", "flags": "NetworkDefinitionCreationFlag", "self.runtime": "Runtime",
         "self.engine": "ICudaEngine", "self.context": "IExecutionContext"}  # fmt: skip
MODULES = [tensorrt_api, run_tensorrt]


def tree_of(module: Any) -> ast.Module:
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def uses(tree: ast.Module, stubs: Stubs) -> Iterator[tuple[str, str]]:
    """(class, member) of everything that is taken from TensorRT; the class is "" for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = type_of(node.value, stubs)
            if owner is not None:
                yield owner, node.attr


def type_of(node: ast.expr, stubs: Stubs) -> str | None:
    """The class in the stubs that an expression is of; "" is the module, None is unknown."""
    text = ast.unparse(node)
    if text in TYPES:
        return TYPES[text]
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and (owner := type_of(node.func.value, stubs)):
            method = stubs.members(owner).get(node.func.attr)
            return ast.unparse(method.returns) if isinstance(method, ast.FunctionDef) and method.returns else None
        return None
    if text in ("trt", "self.trt"):
        return ""
    if isinstance(node, ast.Attribute) and type_of(node.value, stubs) == "":
        return node.attr
    return None


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_name_of_tensorrt_that_is_used_is_in_its_stubs(module: Any, stubs: Stubs) -> None:
    used = set(uses(tree_of(module), stubs))
    assert not sorted(
        (owner, name) for owner, name in used if name not in (stubs.members(owner) if owner else stubs.names)
    )
    expected = {("", "Builder"), ("IBuilderConfig", "set_timing_cache"), ("ITimingCache", "serialize"),
                ("ParserError", "desc"), ("ProfilingVerbosity", "DETAILED"), ("", "Runtime"), ("ICudaEngine",
                "num_io_tensors"), ("IExecutionContext", "execute_async_v3"), ("TensorIOMode", "INPUT")}  # fmt: skip
    everything = {use for each in MODULES for use in uses(tree_of(each), stubs)}
    assert expected <= everything  # what collects them works


def test_flags_that_are_set_by_name_are_in_the_stubs(stubs: Stubs) -> None:
    flags = {f for p in ("fp32", "fp16", "int8") for f in tensorrt_api.precision_flags((10, 3), p)}
    assert flags == {"FP16", "INT8"}
    assert flags | {"TF32", "GPU_FALLBACK"} <= stubs.members("BuilderFlag").keys()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_what_tensorrt_calls_back_has_its_names_and_parameters(module: Any, stubs: Stubs) -> None:
    inherited = [
        (base.attr, method)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Attribute) and type_of(base.value, stubs) == ""
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name != "__init__"
    ]
    assert inherited
    for base, method in inherited:
        theirs = stubs.members(base)[method.name]
        assert isinstance(theirs, ast.FunctionDef)
        assert len(method.args.args) == len(theirs.args.args), (base, method.name)


def public(node: ast.ClassDef) -> Iterator[str]:
    yield from (name for each in node.body for name in _defined(each) if not name.startswith("_"))
    targets = [t for each in node.body if isinstance(each, ast.Assign) for t in each.targets]
    names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    yield from (name for name in names if not name.startswith("_"))


def test_the_double_of_tensorrt_invents_no_names(stubs: Stubs) -> None:
    own = {"_Config": "IBuilderConfig", "_Network": "INetworkDefinition", "_Context": "IExecutionContext",
           "_Engine": "ICudaEngine", "_Memory": "IHostMemory", "_Problem": "ParserError"}  # fmt: skip
    tree = ast.parse((plant.HERE / "python" / "tensorrt" / "__init__.py").read_text())
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert len(classes) > 10
    invented = []
    for node in classes:
        theirs = stubs.members(own.get(node.name, node.name))
        invented += [f"{node.name}.{name}" for name in public(node) if name not in theirs]
    assert invented == ["_Memory.serialize"]  # one class is both a timing cache and an engine

"""Java stubs of Android classes, made of the Python stubs of PyPI's chaquopy-stubs-android (API 36).

They are enough to compile against: signatures, and `Nullable` where Android says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGE = "chaquopy-stubs-android"
_INTERFACES = {"OnClickListener"}  # that Kotlin makes of a lambda
_PLAIN = {"str": "String", "int": "int", "bool": "boolean", "float": "float", "None": "void"}


def folder() -> Path | None:
    """Return where the Python stubs are; None if they are not installed."""
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file("")))
    except metadata.PackageNotFoundError:
        return None


def write(source: Path, names: list[str], out: Path) -> None:
    """Write the stubs of some top-level classes, each into a .java file.

    Args:
        source: where the Python stubs are. names: with their packages.
    """
    known = set(names)
    for name in names:
        package, _, short = name.rpartition(".")
        first, _, rest = package.partition(".")
        tree = ast.parse((source / f"{first}-stubs" / rest.replace(".", "/") / "__init__.pyi").read_text())
        found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == short)
        path = out / package.replace(".", "/") / f"{short}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([f"package {package};", *_class(found, package, known), ""]))
    path = out / "android/annotation/Nullable.java"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("package android.annotation;\npublic @interface Nullable {}\n")


def _class(node: ast.ClassDef, package: str, known: set[str], nested: str = "") -> Iterator[str]:
    """Yield the lines of a class. nested: "static " inside another one."""
    bases = [ast.unparse(base) for base in node.bases]
    is_enum = any(base.startswith("java.lang.Enum") for base in bases)
    kind = "enum" if is_enum else "interface" if node.name in _INTERFACES else "class"
    parent = next((full for base in bases if (full := _known(base, package, known))), "")
    yield f"public {nested}{kind} {node.name} {'extends ' + parent if parent else ''} {{"
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    if is_enum:
        yield ", ".join(ast.unparse(each.target) for each in fields if node.name in ast.unparse(each.annotation)) + ";"
    for each in [] if is_enum else fields:
        yield from _field(each, package, known)
    seen = set()
    for each in node.body:
        if isinstance(each, ast.ClassDef):
            yield from _class(each, package, known, "static ")
        elif isinstance(each, ast.FunctionDef) and not (is_enum and each.name in ("valueOf", "values")):
            line = _method(each, node.name, package, known, kind)
            if line and line not in seen:
                seen.add(line)
                yield line
    if kind == "class" and f"  public {node.name}() {{}}" not in seen:
        yield f"  protected {node.name}() {{}}"
    yield "}"


def _field(node: ast.AnnAssign, package: str, known: set[str]) -> Iterator[str]:
    """Yield a field, if its type is known; constants are not final, so that no compiler folds them."""
    text = ast.unparse(node.annotation)
    is_static = text.startswith("typing.ClassVar[")
    type_ = _type(
        ast.parse(text[len("typing.ClassVar[") : -1] if is_static else text, mode="eval").body, package, known
    )
    if type_:
        yield f"  public {'static ' if is_static else ''}{type_} {ast.unparse(node.target)};"


def _method(node: ast.FunctionDef, owner: str, package: str, known: set[str], kind: str) -> str:
    """Return a method or constructor; "" if one of its types is not known."""
    is_static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
    given = [*node.args.posonlyargs, *node.args.args][0 if is_static else 1 :]
    types = [each.annotation and _type(each.annotation, package, known) for each in given]
    if not all(types) or node.returns is None:
        return ""
    arguments = ", ".join(f"{type_} a{number}" for number, type_ in enumerate(types))
    if node.name == "__init__":
        return f"  public {owner}({arguments}) {{}}"
    result = _type(node.returns, package, known)
    if not result:
        return ""
    head = f"  {'@android.annotation.Nullable ' if 'None' in _names(node.returns)[1:] else ''}public "
    head += f"{'static ' if is_static else ''}{result} {node.name}({arguments})"
    return head + (";" if kind == "interface" else " { throw new RuntimeException(); }")


def _names(node: ast.expr) -> list[str]:
    """Return the parts of ``a | b | c``."""
    if isinstance(node, ast.BinOp):
        return [*_names(node.left), *_names(node.right)]
    return [str(node.value)] if isinstance(node, ast.Constant) and node.value else [ast.unparse(node)]


def _type(node: ast.expr, package: str, known: set[str]) -> str:
    """Return the Java type of an annotation; "" if it is not known."""
    names = _names(node)
    primitive = next((name[len("java.j") :] for name in names if name.startswith("java.j") and "." not in name[5:]), "")
    if primitive:
        return primitive
    name = names[0]
    if name.startswith("java.chaquopy.JavaArrayJ"):
        return name[len("java.chaquopy.JavaArrayJ") :].lower() + "[]"
    if name.startswith("java.chaquopy.JavaArray["):
        element = _known(name[len("java.chaquopy.JavaArray[") : -1], package, known)
        return element and element + "[]"
    return _PLAIN.get(name) or _known(name, package, known)


def _known(name: str, package: str, known: set[str]) -> str:
    """Return the full name of a class that is made here or is of Java; "" for others."""
    name = name.partition("[")[0]
    if name.startswith(("java.io.", "java.nio.", "java.lang.")) and not name.startswith("java.lang.Enum"):
        return "" if name == "java.lang.Object" else name
    full = name if name.startswith(("android.", "java.")) else f"{package}.{name}"
    return full if any(full == each or full.startswith(f"{each}.") for each in known) else ""

"""The documents name what exists: files, links, and the layers in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_structure import LAYERS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")]
each_document = pytest.mark.parametrize("path", sorted(DOCUMENTS), ids=lambda path: path.relative_to(ROOT).as_posix())


@each_document
def test_files_of_the_repository_that_a_document_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:edgekit|tests|benchmarks)/[\w/.-]+\.(?:py|toml|json|md|fbs|j2))`", text)
    assert not [name for name in named if not (ROOT / name).is_file()]


@each_document
def test_links_lead_to_files_and_headings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\(([\w/.-]*)(#[\w-]+)?\)", text):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        assert not heading or heading[1:] in headings(linked), f"{target}{heading}"


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_contributing_lists_the_layers_in_their_order() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert re.findall(r"`(\w+)/?`", " ".join(rows)) == LAYERS


def test_the_versions_of_python_are_the_same_everywhere() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    low, end = map(int, re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project)[0])
    listed = [int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', project)]
    assert listed == list(range(low, end))
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert make.count(f"(3, {low}) <= sys.version_info < (3, {end})") == 2
    assert all(f"python3.{minor}" in make for minor in listed)
    assert f"Python 3.{low} to 3.{end - 1}" in (ROOT / "README.md").read_text(encoding="utf-8")

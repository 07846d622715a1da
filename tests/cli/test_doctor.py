"""What works here, and what brings the rest."""

from __future__ import annotations

import importlib.util
import json

import pytest

from edgekit.cli import doctor
from edgekit.cli.app import run


def test_json_lists_every_check_with_a_remedy_where_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert {"edgekit", "run ONNX", "GPU baseline", "data set digits"} <= {check["what"] for check in checks}
    assert all(check["works"] or check["remedy"] for check in checks)
    assert all(check["found"] or not check["works"] for check in checks)


def test_the_table_has_a_line_for_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert all(row[0] in shown for row in doctor._OPTIONAL)


def test_a_package_that_is_there_has_its_version_and_one_that_is_not_its_remedy() -> None:
    from importlib import metadata

    assert doctor._package("x", "PIL", "pillow", "pip") == doctor.Check(
        "x", True, f"pillow {metadata.version('pillow')}"
    )
    assert doctor._package("x", "no_such_module", "none", "pip install it") == doctor.Check(
        "x", False, "", "pip install it"
    )


def test_a_module_without_its_distribution_is_found_all_the_same() -> None:
    assert importlib.util.find_spec("edgekit.cli")
    assert doctor._package("x", "edgekit", "no-such-distribution", "pip").found == "edgekit"


def test_every_remedy_stands_whole_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--json"])
    remedies = {c["what"]: c["remedy"] for c in json.loads(capsys.readouterr().out) if c["remedy"]}
    run(["doctor"])
    shown = capsys.readouterr().out
    assert remedies
    assert all(f"\n\n{what}:\n  {remedy}\n" in shown for what, remedy in remedies.items())

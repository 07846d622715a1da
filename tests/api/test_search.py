"""The search for a model within a budget: its models reach the files and leave the run's own alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit import runs
from edgekit.api import artifacts
from edgekit.api.intermediates import Intermediates
from edgekit.api.search import Found, Search
from edgekit.targets import base

pytestmark = [pytest.mark.xdist_group("road"), pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("target", ["jetson", "android"])
def test_a_model_with_a_float_layer_reaches_the_files_and_not_the_intermediates(road: Path, target: str) -> None:
    intermediates = Intermediates(runs.open_run(road.parent, "fruit"))
    search = Search(intermediates, base.resolve(target), ("relative",))
    whole = search.measure("relative", ())
    ranked = search.ranked("relative")
    mixed = search.measure("relative", (ranked[0],))
    assert mixed.float_layers == (ranked[0],)
    assert 0 <= whole.drop.agreement <= 100
    ours = search.by_recipe["relative"]
    assert ours.quantized.float_layers == ()
    found = Found(ours, search.mixed(ours, mixed.float_layers), mixed, within_budget=True)
    assert artifacts.export_target(found.intermediates, search.resolved, ("int8",), None, found.quantized)
    listed = json.loads((road / "export" / target / "manifest.json").read_text())["artifacts"]
    assert {tuple(each["details"]["float_layers"]) for each in listed if each["precision"] == "int8"} == {(ranked[0],)}
    assert ours.quantized.float_layers == ()

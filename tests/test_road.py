"""The road through the API gets the files and the figures that the commands make."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.app import run
from edgekit.models import zoo
from tests import nets
from tests.datasets import write_images

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("road-of-the-api")]
COMMANDS = [
    "train photos --model efficientnet_lite0 --weights none --image-size 64 --epochs 2 --batch-size 8 --name cli",
    "evaluate cli",
    "export cli --target jetson --target desktop",
    "benchmark cli --suite quick --baseline pytorch",
    "report cli",
    "report cli --format json",
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names of the script after it ran, in a folder where the commands made the run `cli` of the same images."""
    folder = tmp_path_factory.mktemp("road")
    write_images(folder / "photos", {"apple": 20, "banana": 20, "cherry": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "efficientnet_lite0", nets.TINY)
        patch.chdir(folder)
        patch.delenv("EDGEKIT_RUNS_DIR", raising=False)
        assert [run(command.split()) for command in COMMANDS] == [0] * len(COMMANDS)
        yield runpy.run_path(str(Path(__file__).with_name("road.py")))


def made(name: str) -> dict[str, int]:
    """The files of a run, without those whose names hold a time."""
    folder = Path("runs") / name
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and "bench" not in path.parts
    }


def test_the_files_are_those_of_the_commands(both: dict[str, Any]) -> None:
    assert made("api").keys() == made("cli").keys()
    kept = [
        sorted(path.suffix for path in Path(f"runs/{name}/bench").rglob("*") if path.is_file())
        for name in ("api", "cli")
    ]
    assert kept[0] == kept[1]


def test_weights_and_models_are_the_same_bytes(both: dict[str, Any]) -> None:
    manifests = [
        [json.loads(Path(f"runs/{name}/export/{target}/manifest.json").read_text()) for target in ("jetson", "desktop")]
        for name in ("api", "cli")
    ]
    ours, theirs = ([(a["name"], a["sha256"]) for m in side for a in m["artifacts"]] for side in manifests)
    assert ours == theirs
    assert [(a.name, a.sha256) for a in both["artifacts"]] == ours


def test_the_figures_are_those_of_the_commands(both: dict[str, Any]) -> None:
    documents = [json.loads(Path(f"runs/{name}/report.json").read_text()) for name in ("api", "cli")]
    assert documents[0]["test"] == documents[1]["test"]
    ours, theirs = ([(f["artifact"], f["top1"], f["agreement"]) for f in d["figures"]] for d in documents)
    assert ours == theirs
    assert [(row.artifact, row.top1, row.agreement) for row in both["rows"]] == [tuple(f) for f in ours]


def test_every_step_returns_what_it_is_called(both: dict[str, Any]) -> None:
    assert both["run"].info.status == "finished"
    assert both["page"] == Path("runs/api/report.html")
    assert both["answers"][0].top[0].label in both["run"].info.labels
    assert {row.entry.artifact for row in both["measurements"]} == {row.artifact for row in both["rows"]}
    assert {verdict.state for verdict in both["verdicts"]} == {"not compared"}
    assert [one.after.artifact for one in both["comparisons"]] == ["desktop/model.int8.onnx"]

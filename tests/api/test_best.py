"""The recipe `best`: distillation after the other steps, which survives being ended."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import config, files, runs
from edgekit.api.intermediates import Intermediates
from edgekit.data import dataset
from edgekit.models import build, checkpoints, zoo
from edgekit.quant import distill, loss, recover
from edgekit.runs import Run, RunInfo
from tests import nets
from tests.datasets import write_images

pytestmark = pytest.mark.filterwarnings("ignore")
BEST = dataclasses.replace(config.load_recipe("best"), samples=40, distillation=6)


@pytest.fixture
def fruit(tmp_path: Path) -> Iterator[Run]:
    """A run that is not trained, with its images."""
    zoo.MODELS["tiny"] = nets.TINY
    data = dataset.index(write_images(tmp_path / "photos", {"apple": 20, "banana": 20}))
    torch.manual_seed(0)
    model = build.build("tiny", 2)
    checkpoint = checkpoints.save(tmp_path / "checkpoint.pt", model, "tiny", data.labels, nets.TINY.preprocess)
    about = {"arch": "tiny", "status": "finished", "checkpoint_sha256": checkpoint.sha256}
    made = runs.create_run(tmp_path / "runs", "fruit", RunInfo.from_document(about))
    shutil.move(tmp_path / "checkpoint.pt", made.path)
    files.save_json(made.path / "data.json", data)
    yield made
    del zoo.MODELS["tiny"]


def kept(run: Run) -> list[str]:
    """The files of the recipe without its hash."""
    return sorted(path.name.partition(".")[2] for path in (run.path / "calibration").iterdir())


def test_best_goes_on_from_default_and_is_kept(fruit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train = distill.distill

    def gaining(*arguments: Any) -> distill.Distilled:
        losses = iter([2.0, 1.0])  # before and after
        found = train(*arguments)
        monkeypatch.setattr(loss, "rounded", lambda *_: next(losses))
        return found

    default = dataclasses.replace(BEST, steps=BEST.steps[:-1])
    before = Intermediates(fruit, default).quantized
    shutil.rmtree(fruit.path / "calibration")
    monkeypatch.setattr(distill, "distill", gaining)
    found = Intermediates(fruit, BEST).quantized
    assert BEST.steps[-1] == "distill"
    assert config.load_recipe("default").steps == default.steps
    assert found.steps == (*before.steps, "distill")
    assert kept(fruit) == ["json", "npz"]
    again = Intermediates(fruit, BEST).quantized
    assert (again.steps, again.table) == (found.steps, found.table)
    assert found.table.symmetric
    for name, layer in found.layers.items():
        assert np.array_equal(again.layers[name].weight, layer.weight)


def test_a_run_that_was_ended_while_distilling_goes_on(
    fruit: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distill, "SAVE_SECONDS", 0.0)
    whole = Intermediates(fruit, BEST).quantized
    shutil.rmtree(fruit.path / "calibration")
    train = recover.distilled

    def ended(*arguments: Any) -> None:
        def update(done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        train(*arguments[:4], update, *arguments[5:])

    monkeypatch.setattr(recover, "distilled", ended)
    with pytest.raises(KeyboardInterrupt):
        _ = Intermediates(fruit, BEST).quantized
    assert kept(fruit) == ["json", "part.pt", "solved.npz"]
    monkeypatch.setattr(recover, "distilled", train)
    monkeypatch.setattr(recover, "recover", None)  # its result is kept
    with caplog.at_level(logging.INFO, "edgekit"):
        found = Intermediates(fruit, BEST).quantized
    assert "distillation continues after step 4" in caplog.text
    assert kept(fruit) == ["json", "npz"]
    assert (found.steps, found.table) == (whole.steps, whole.table)
    for name, layer in whole.layers.items():
        assert np.array_equal(found.layers[name].weight, layer.weight)


def test_models_with_float_activations_are_not_distilled(fruit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "distilled", None)
    assert "distill" not in Intermediates(fruit, BEST).weights_only.steps

"""The table of runners, and the one that does nothing."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from edgekit import ondevice
from edgekit.ondevice import runner


def test_the_null_runner_answers_two_zeros() -> None:
    null = runner.open_runner("null", "no file", 1)
    assert null.infer(np.ones((1, 3, 8, 8), np.float32)).tolist() == [0.0, 0.0]
    assert null.info()["runtime"] == "null"
    null.close()


def test_an_unknown_runtime_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown runtime 'x'; known: .*onnxruntime"):
        runner.open_runner("x", "", 1)


def test_every_run_module_has_its_row() -> None:
    modules = {path.stem for path in Path(ondevice.__file__).parent.glob("run_*.py")}
    assert modules == {row.partition(":")[0] for row in runner.RUNNERS.values()} - {"runner"}


@pytest.mark.parametrize("name", runner.RUNNERS)
def test_every_row_names_a_runner(name: str) -> None:
    module, _, kind = runner.RUNNERS[name].partition(":")
    try:
        found = getattr(importlib.import_module(f"edgekit.ondevice.{module}"), kind)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    assert issubclass(found, runner.Runner)
    assert found.infer is not runner.Runner.infer
    assert found.info is not runner.Runner.info


@pytest.mark.parametrize("name", ["onnxruntime", "torch", "litert"])
def test_a_file_that_is_no_model_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("no model")
    try:
        importlib.import_module("edgekit.ondevice." + runner.RUNNERS[name].partition(":")[0])
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    with pytest.raises(Exception, match=r".+"):
        runner.open_runner(name, str(tmp_path / "model"), 1)

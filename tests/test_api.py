"""The public names: what `import edgekit` offers, what it costs, and each docstring's example."""

from __future__ import annotations

import doctest
import inspect
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit
from edgekit.models import zoo
from tests import nets
from tests.datasets import write_images

FUNCTIONS = [
    "train", "resume", "evaluate", "export", "benchmark", "report", "predict", "history", "diff", "save_reference",
    "check", "open_run", "import_model", "ship",
]  # fmt: skip
RECORDS = [
    "Artifact", "Comparison", "Evaluation", "HistoryRow", "Prediction", "Progress", "Releases", "Run", "RunInfo",
    "Shipped", "Summary", "Tolerances", "Verdict",
]  # fmt: skip
ERRORS = ["DataError", "EdgekitError", "GateError", "MissingError", "ParityError", "StorageError", "UsageError"]


def test_the_public_names_are_these() -> None:
    assert sorted(edgekit.__all__) == sorted([*FUNCTIONS, *RECORDS, *ERRORS])
    assert set(edgekit.__all__) <= set(dir(edgekit))
    assert (Path(edgekit.__file__).parent / "py.typed").is_file()
    assert all(inspect.isfunction(getattr(edgekit, name)) for name in FUNCTIONS)
    assert all(inspect.isclass(getattr(edgekit, name)) for name in [*RECORDS, *ERRORS])


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        edgekit.exprot  # noqa: B018


def test_no_module_has_the_name_of_a_function() -> None:
    folder = Path(edgekit.__file__).parent
    assert not [name for name in FUNCTIONS if (folder / name).exists() or (folder / f"{name}.py").exists()]


@pytest.mark.parametrize("name", [*FUNCTIONS, *RECORDS, *ERRORS])
def test_every_public_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(edgekit, name)) or ""
    assert len(text) > 20
    if name in FUNCTIONS:
        assert "Example:" in text
        documented = [p for p in inspect.signature(getattr(edgekit, name)).parameters if p not in text]
        assert not documented, f"{name} does not say what {documented} are"


def test_importing_edgekit_loads_nothing() -> None:
    code = "import sys; before = set(sys.modules); import edgekit; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - {*sys.stdlib_module_names}
    assert loaded == {"edgekit"}
    assert "edgekit.api" not in done.stdout


SILENT = """
import logging
import edgekit, edgekit.progress
edgekit.progress.note("a note")
edgekit.progress.warn("a warning")
try:
    edgekit.open_run("nowhere", runs_dir="/nonexistent")
except edgekit.MissingError:
    pass
"""


def test_the_library_is_silent_unless_logging_is_set_up() -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    loud = "import logging; logging.basicConfig(level=logging.INFO)\n" + SILENT
    done = subprocess.run([sys.executable, "-c", loud], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["INFO:edgekit:a note", "WARNING:edgekit:a warning"]


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, in which the examples run one after the other; the network is a small one."""
    folder = tmp_path_factory.mktemp("tour")
    write_images(folder / "photos", {"apple": 20, "banana": 20, "cherry": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "efficientnet_lite0", nets.TINY)
        patch.chdir(folder)
        patch.delenv("EDGEKIT_RUNS_DIR", raising=False)
        yield folder


@pytest.mark.xdist_group("tour")
@pytest.mark.parametrize("name", ["train", *(name for name in FUNCTIONS if name != "train")])
def test_the_example_of_each_docstring_runs(name: str, tour: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tour / "photos"
    given = {"edgekit": edgekit, "images": str(photos), "image": str(photos / "apple" / "000.png")}
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(edgekit, name)) or "", given, name, None, 0)
    assert test.examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    result = runner.run(test, out=lambda text: pytest.fail(text, pytrace=False))
    assert result.failed == 0
    assert capsys.readouterr().out == ""


@pytest.mark.xdist_group("tour")
def test_progress_is_called_with_states(tour: Path) -> None:
    seen: list[edgekit.Progress] = []
    edgekit.evaluate("tour", progress=seen.append)
    tasks = {state.task for state in seen}
    assert "evaluating" in tasks
    assert all(any(s.finished for s in seen if s.id == state.id) for state in seen)
    done = [state.done for state in seen if state.task == "evaluating"]
    assert done == sorted(done)
    assert done[-1] > 0


@pytest.mark.xdist_group("tour")
def test_notes_are_logged(tour: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="edgekit"):
        assert edgekit.open_run().name == "tour"
    assert "run: tour (the newest)" in caplog.messages


def test_an_option_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(edgekit.UsageError, match="unknown training option 'epoch'"):
        edgekit.train(str(tmp_path), epoch=3)

"""Which baselines are measured, and what is said of those that cannot be."""

from __future__ import annotations

import pytest

from edgekit.api import baselines
from edgekit.cli.app import run
from edgekit.errors import MissingError, UsageError


def missing() -> MissingError:
    return MissingError("it is not here", "apt install it")


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference, one that runs by default, one that does not, and two that are not here."""
    row = baselines.Baseline
    table = {
        "pytorch": row("torch", "torch", default=True), "quick": row("onnxruntime", "onnxruntime", default=True),
        "slow": row("torch", "torch-compile"), "absent": row("openvino", "openvino", missing, default=True),
        "far": row("torch", "torch-fp16", missing),
    }  # fmt: skip
    monkeypatch.setattr(baselines, "BASELINES", table)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, ["pytorch", "quick"]),
        ([], ["pytorch", "quick"]),
        (["slow"], ["pytorch", "slow"]),
        (["pytorch"], ["pytorch"]),
        (["all"], ["pytorch", "quick", "slow"]),
        (["slow", "quick"], ["pytorch", "quick", "slow"]),
    ],
)
def test_the_reference_is_always_measured_and_comes_first(wanted: list[str] | None, chosen: list[str]) -> None:
    assert baselines.choose(wanted) == chosen


def test_what_was_named_and_is_not_here_is_an_error_with_its_remedy() -> None:
    with pytest.raises(MissingError) as caught:
        baselines.choose(["absent"])
    assert (caught.value.message, caught.value.hint) == ("baseline absent: it is not here", "apt install it")
    with pytest.raises(MissingError):
        baselines.choose(["all", "far"])


def test_all_leaves_out_what_is_not_here_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    baselines.choose(["all"])
    said = capsys.readouterr().err
    assert "left out: baseline absent: it is not here" in said
    assert "left out: baseline far" in said
    baselines.choose(None)
    assert not capsys.readouterr().err


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="fastest"):
        baselines.choose(["fastest"])


def test_a_compiler_is_looked_for_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    error = baselines._no_compiler()
    assert isinstance(error, MissingError)
    assert error.hint == "apt install g++"
    monkeypatch.setenv("CXX", "/bin/sh")
    assert baselines._no_compiler() is None
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert baselines._no_compiler() is not None


def test_an_unknown_baseline_ends_the_command_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark", "--baseline", "fastest"]) != 0
    assert "error" in capsys.readouterr().err

"""The report's material: what cannot be read is left out, with the command that makes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import runs
from edgekit.api import report
from tests.reporting.made import meta


@pytest.mark.parametrize(
    ("stem", "options"),
    [
        ("android", "--target android"),
        ("android-mse", "--target android --recipe mse"),
        ("jetson-orin-nano", "--target jetson-orin-nano"),
        ("jetson-orin-nano-percentile", "--target jetson-orin-nano --recipe percentile"),
        ("android-mine", "--target android --recipe mine.toml"),
        ("jetson-agx-orin-32-mse", "--target jetson-agx-orin-32 --recipe mse"),
    ],
)
def test_a_damaged_debug_file_is_named_with_the_command_that_makes_it_again(
    stem: str, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs.create_run(Path("runs"), "fruit", runs.RunInfo.from_document(meta()))
    (run.path / "quant").mkdir()
    (run.path / "quant" / f"debug-{stem}.json").write_text("{")
    documents, left = report.debug_documents(run)
    assert documents == {}
    assert len(left) == 1
    assert f"edgekit quant debug fruit {options}" in left[0]

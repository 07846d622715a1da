"""Nothing measured is lost by measuring again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import __version__
from edgekit.bench import program, results
from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult
from tests.bench.results import artifact, by_program, result


def at(when: str, **more: object) -> BenchmarkResult:
    made = result(**more)  # type: ignore[arg-type]
    return dataclasses.replace(made, environment=made.environment.with_values(measured=when))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_result_is_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for right in (1, 2, 3):
        results.save(tmp_path, at("2026-11-26T07:41:04+00:00", right=right))
    assert [int((r.logits.argmax(1) == r.expected).sum()) for r in results.load_all(tmp_path)] == [1, 2, 3]
    (newest,) = results.load(tmp_path)
    assert int((newest.logits.argmax(1) == newest.expected).sum()) == 3
    assert len(names(tmp_path)) == 6
    assert all("-20261126T074104Z-" in name for name in names(tmp_path))


def test_two_of_one_second_and_of_equal_values_are_two(tmp_path: Path) -> None:
    one, other = (results.save(tmp_path, result()) for _ in range(2))
    assert one != other
    assert len(results.load_all(tmp_path)) == 2


def test_two_processes_that_take_one_number_take_two_names(tmp_path: Path) -> None:
    stems = {results.free_stem(tmp_path, "a/b", "2026-11-26T07:41:04+00:00", digest * 64) for digest in "ab"}
    assert len(stems) == 2


def test_a_clock_that_went_back_does_not_make_the_last_measurement_old(tmp_path: Path) -> None:
    results.save(tmp_path, at("2026-11-26T07:41:04+00:00", right=1))
    results.save(tmp_path, at("1999-01-01T00:00:00+00:00", right=2))
    (newest,) = results.load(tmp_path)
    assert int((newest.logits.argmax(1) == newest.expected).sum()) == 2


def test_a_result_of_the_former_layout_is_the_oldest(tmp_path: Path) -> None:
    path = results.save(tmp_path, result(right=1))
    for suffix in (".json", ".npz"):
        path.with_suffix(suffix).rename(path.with_name("baseline__pytorch" + suffix))
    assert len(results.load(tmp_path)) == 1
    second = results.save(tmp_path, result(right=2))
    assert "@0001-" in second.name
    (newest,) = results.load(tmp_path)
    assert int((newest.logits.argmax(1) == newest.expected).sum()) == 2
    assert len(results.load_all(tmp_path)) == 2


def test_a_crash_before_the_description_leaves_the_former_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.save(tmp_path, result(right=1))

    def crash(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("edgekit.files.save_json", crash)
        with pytest.raises(KeyboardInterrupt):
            results.save(tmp_path, result(right=2))
    (newest,) = results.load(tmp_path)
    assert int((newest.logits.argmax(1) == newest.expected).sum()) == 1
    results.save(tmp_path, result(right=3))
    assert len(results.load_all(tmp_path)) == 2


def test_nothing_is_left_of_raw_values_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez_compressed", full)
    with pytest.raises(Exception, match="disk is full"):
        results.save(tmp_path, result())
    assert names(tmp_path) == []


def test_devices_and_artifacts_are_told_apart(tmp_path: Path) -> None:
    int8 = artifact("android/model.int8.tflite", "int8", "litert")
    for one in (result(), result(int8), result(device="pi"), result(int8, device="pi"), result(int8, device="pi")):
        results.save(tmp_path, one)
    assert len(results.load(tmp_path)) == 4
    assert len(results.load_all(tmp_path)) == 5


@pytest.mark.parametrize("when", [None, 7, "", "yesterday", "0001-01-01", "9999-12-31T23:59:59-23:00", "\x1b[2J/../x"])
def test_a_time_that_is_none_makes_no_name(tmp_path: Path, when: object) -> None:
    path = results.save(
        tmp_path, dataclasses.replace(result(), environment=result().environment.with_values(measured=when))
    )
    assert results.order(path)[0] == 1
    assert path.parent.parent == tmp_path


def test_figures_of_programs_are_kept_too(tmp_path: Path) -> None:
    for megabytes in (1, 2):
        program.save(tmp_path, by_program(size_bytes=megabytes * 1_000_000))
    (newest,) = program.load(tmp_path)
    assert newest.size_bytes == 2_000_000
    assert len(list(tmp_path.rglob("*.json"))) == 2
    assert results.load(tmp_path) == []


def test_a_result_says_which_edgekit_measured(tmp_path: Path) -> None:
    path = results.save(tmp_path, result())
    assert json.loads(path.read_text())["edgekit"] == __version__


def test_a_longer_number_is_newer_than_a_shorter_one() -> None:
    paths = [Path(f"d/a@{n}-20261126T074104Z-aaaaaaaa.json") for n in ("9999", "10000")]
    assert results.newest(paths) == [paths[1]]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"latencies_ns": np.array([5, 0, 7])}, "latencies_ns is not what a measurement gives"),
        ({"layers": (("conv", -1.0),)}, r"layers\[0\]\[1\] must be float >= 0"),
        ({"size_bytes": 0}, "size_bytes must be int >= 1"),
        ({"layers": (("conv", float("nan")),)}, "not JSON compliant"),
    ],
)
def test_what_could_not_be_read_again_is_not_kept(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    """Kept, it would be left out as damaged by every report."""
    with pytest.raises(DataError, match=f"the result of .* on .* is not kept: .*{why}"):
        results.save(tmp_path, dataclasses.replace(result(), **changes))
    assert names(tmp_path) == []

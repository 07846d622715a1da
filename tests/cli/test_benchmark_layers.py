"""``edgekit layers`` over measurements and errors that lie in a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edgekit import files, runs
from edgekit.api import report
from edgekit.bench import results
from edgekit.cli.app import run
from edgekit.measurements import LayerCost
from edgekit.runs import RunInfo
from tests.analysis.test_layers import COSTS, LITERT, debug
from tests.bench.results import artifact, result
from tests.reporting.made import meta

INT8 = artifact("android/model.int8.tflite", "int8", "litert", sha256="c" * 64)
FP32 = artifact("android/model.fp32.tflite", "fp32", "litert", sha256="d" * 64)


def timed(of: Any = INT8, **more: Any) -> Any:
    """A result with times of layers."""
    plain = result(of, ms=10.0)
    said = plain.environment.with_values(layers_by="a profiler", layers_run_ms=11.0)
    return dataclasses.replace(plain, environment=said, **{"layers": tuple(LITERT), **more})


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Run:
    """A run with a baseline, an INT8 model with times of layers, one of FP32 without, and the network's layers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    made = runs.create_run(tmp_path / "runs", "digits", RunInfo.from_document(meta()))
    (made.path / "checkpoint.pt").touch()
    files.save_json(made.path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": [INT8, FP32]})
    for one in (result(), timed(), result(FP32)):
        results.save(made.path / "bench", one)
    keep(made, COSTS)
    return made


def keep(made: runs.Run, costs: list[LayerCost], parent: str = INT8.parent) -> None:
    described = [dataclasses.asdict(cost) for cost in costs]
    files.save_json(made.path / report.FILE, {"schema": 1, "parent": parent, "layers": described})


def save_debug(made: runs.Run, **more: Any) -> None:
    document = {
        "schema": 1,
        "target": "android",
        "checkpoint_sha256": INT8.parent,
        **debug({"stem.0": 20.0, "fc": 40.0}),
        **more,
    }
    document["effect"] = {"logits": {"sqnr_db": 21.0}}
    files.save_json(made.path / "quant" / "debug-android.json", document)


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}


def test_times_are_shown_by_block_and_the_next_step_is_named(
    measured: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["layers"]) == 0
    said = capsys.readouterr()
    assert rows(said.out)["body.0"][:4] == ["2", "layers", "3.500", "35.0"]
    assert "times: a profiler, medians; layers add up to 10.000 of 11.000 ms of a profiled run" in said.err
    assert "no quantization errors yet; next: edgekit quant debug digits --target android" in said.err
    assert "android/model.int8.tflite on local: stem.0 costs 50 % of the time" in said.err


def test_errors_stand_beside_the_times(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_debug(measured)
    assert run(["layers", "--all", "--verbose"]) == 0
    said = capsys.readouterr()
    assert rows(said.out)["stem.0"][-4:] == ["50.0", "30.0", "20.0", "99.0"]
    assert rows(said.out)["stem.0/maxpool2d"][-1] == "-"
    assert "stem.0 costs 40 % of the time and 99 % of the error" in said.err
    assert "SQNR of the logits: 21.0 dB; expected from the sum of the layers: 20.0 dB" in said.err


def test_errors_of_other_weights_do_not_count(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_debug(measured, checkpoint_sha256="e" * 64)
    assert run(["layers"]) == 0
    assert "no quantization errors yet" in capsys.readouterr().err


def test_json_has_the_rows_and_the_sentence(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_debug(measured)
    assert run(["layers", "--all", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["artifact"], document["layers_by"]) == (INT8.name, "a profiler")
    assert sum(row["percent"] or 0 for row in document["layers"]) == pytest.approx(100)
    assert sum(row["error_percent"] or 0 for row in document["layers"]) == pytest.approx(100)


def test_a_model_without_times_says_what_brings_them(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", "-a", FP32.name]) == 0
    said = capsys.readouterr().err
    assert f"no layer times of {FP32.name} on local: not measured yet; next: edgekit benchmark digits" in said
    assert "is FP32; -a selects an INT8 model" in said


def test_a_runtime_that_cannot_tell_says_why(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    plain = result(FP32)
    environment = plain.environment.with_values(no_layers="it has no profiler")
    results.save(measured.path / "bench", dataclasses.replace(plain, environment=environment))
    assert run(["layers", "-a", FP32.name]) == 0
    assert "on local: it has no profiler" in capsys.readouterr().err


def test_times_of_an_emulator_are_not_shown(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(measured.path / "bench", timed(device="qemu", source="emulated"))
    assert run(["layers", "-d", "qemu"]) == 0
    said = capsys.readouterr()
    assert "qemu is emulated: an emulator has no meaningful times" in said.err
    assert rows(said.out)["body.0"][2] == "-"


def test_columns_have_the_names_of_the_page(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save_debug(measured)
    assert run(["layers", "--all"]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert [name in head for name in ("% of time", "MMACs", "% of error", "cosine")] == [True, True, True, False]


@pytest.mark.parametrize("content", ["{", '{"schema": 1}', {"layers": 3}, {"layers": [{}]}])
def test_a_damaged_file_of_the_network_is_as_if_it_were_missing(measured: runs.Run, content: Any) -> None:
    known = json.dumps({"schema": 1, "parent": INT8.parent, **content}) if isinstance(content, dict) else content
    (measured.path / report.FILE).write_text(known)
    assert report.load_layer_costs(measured) == []


@pytest.mark.parametrize("content", ["{", '{"schema": 1}', '{"schema": 1, "target": "android", "layers": [], '
                                     '"checkpoint_sha256": "x", "effect": {}}'])  # fmt: skip
def test_damaged_errors_are_left_out_and_named(
    measured: runs.Run, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    save_debug(measured)
    (measured.path / "quant" / "debug-android.json").write_text(content)
    assert run(["layers"]) == 0
    said = capsys.readouterr().err
    assert "debug-android.json cannot be read; edgekit quant debug digits --target android makes it again" in said


def limited(of: Any = INT8, **more: Any) -> Any:
    """A result that has a limit of 1 ms."""
    plain = timed(of, **more)
    peaks = {"macs": 10**9, "bytes_moved": 1, "peak_tops": 2.0, "bandwidth_gb_s": 1.0, "peaks_from": "a page"}
    return dataclasses.replace(plain, environment=plain.environment.with_values(**peaks))


def test_the_limit_is_that_of_the_latencies_that_count(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    slow_first = (4_000_000,) * 100 + (1_900_000, 2_100_000) * 300  # a start-up, without which the p50 is 2 ms
    results.save(measured.path / "bench", limited(latencies_ns=slow_first))
    assert run(["layers"]) == 0
    assert "roofline limit: 1 ms (compute: 1000.0 MMACs, 0.0 MB), 50 % of it reached" in capsys.readouterr().err
    results.save(measured.path / "bench", limited(latencies_ns=(500_000,) * 700))
    assert run(["layers"]) == 0
    assert "exceeded, because caches hold data that the limit counts as memory traffic" in capsys.readouterr().err


def test_a_stand_in_and_a_busy_machine_are_marked(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    other = limited(runtime="onnxruntime")
    results.save(measured.path / "bench", other)
    assert run(["layers"]) == 0
    said = capsys.readouterr().err
    assert f"{INT8.name} on local (stand-in): " in said
    assert "is a stand-in, so its latency is not valid" in said
    environment = limited().environment.with_values(busy_before=0.9)
    results.save(measured.path / "bench", dataclasses.replace(limited(), environment=environment))
    assert run(["layers"]) == 0
    said = capsys.readouterr().err
    assert f"{INT8.name} on local !: " in said
    assert "! measured while other programs used the CPU" in said


def test_without_the_baseline_the_next_step_has_the_run(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for path in measured.path.glob("bench/*/baseline-pytorch*.json"):
        path.unlink()
    for path in measured.path.glob("bench/*/*.json"):
        if '"baseline/pytorch"' in path.read_text():
            path.unlink()
    assert run(["layers"]) == 4
    assert "hint: edgekit benchmark digits" in capsys.readouterr().err


def test_what_was_not_measured_is_refused(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", "-d", "moon"]) == 2
    assert "known: local" in capsys.readouterr().err
    results.save(measured.path / "bench", timed(device="pi"))
    assert run(["layers", "-d", "pi", "-a", FP32.name]) == 4
    assert "was not measured on pi" in capsys.readouterr().err


def test_without_measurements_the_benchmark_is_the_next_step(
    measured: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in measured.path.glob("bench/*/*.json"):
        path.unlink()
    assert run(["layers"]) == 4
    assert "hint: edgekit benchmark digits" in capsys.readouterr().err


def test_layers_of_other_weights_are_not_used(measured: runs.Run) -> None:
    assert [cost.name for cost in report.load_layer_costs(measured)] == [cost.name for cost in COSTS]
    keep(measured, COSTS, "e" * 64)
    assert report.load_layer_costs(measured) == []

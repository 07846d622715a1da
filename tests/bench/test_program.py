"""benchmark_model on a phone: a double of the program, sent and run as the real one, behind a real adb client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import files
from edgekit.bench import program, results
from edgekit.devices.jobs import Job
from edgekit.devices.transport import open_transport
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError
from edgekit.measurements import ProgramResult, Suite
from edgekit.records import Artifact, Device
from edgekit.reporting import tables
from tests.bench import results as made_up
from tests.devices import android_root
from tests.fixtures import Lab

SUITE = Suite("quick", warmup_queries=2, warmup_s=0.1, min_queries=50, min_s=0.5, max_s=9.0)
XNNPACK = ("use_xnnpack",)


@pytest.fixture
def model(tmp_path: Path) -> tuple[Artifact, Path]:
    """A file that nobody runs."""
    path = tmp_path / "model.int8.tflite"
    path.write_bytes(b"no flatbuffer")
    digest = files.sha256_file(path)
    return made_up.artifact("phone/model.int8.tflite", "int8", "litert", layout="NHWC", sha256=digest), path


@pytest.fixture
def device(lab: Lab, tmp_path: Path) -> Device:
    """A phone that has the double."""
    path = android_root.benchmark_model(tmp_path / "benchmark_model", *XNNPACK)
    return Device("phone", "android", transport="adb", runtime="litert", api=program.API, threads=2, cpu_mask="3",
                  benchmark_model=str(path))  # fmt: skip


def measure(device: Device, model: tuple[Artifact, Path]) -> ProgramResult:
    with open_transport(device) as transport:
        return program.benchmark(*model, device, SUITE, program.ask(device, transport), transport)


def test_figures_come_with_the_hash_of_the_program_and_the_heat(
    lab: Lab, device: Device, model: tuple[Artifact, Path]
) -> None:
    lab.heat(0, 0, 0, 0, 1)
    found = measure(device, model)
    times = found.figures.mean_ms, found.figures.median_ms, found.figures.init_ms
    assert (found.figures.runs, times) == (2112, pytest.approx((0.464545, 0.462, 4.478)))
    assert found.program_sha256 == files.sha256_file(Path(device.benchmark_model))
    assert (found.source, found.figures.delegation) == ("device", "full")
    environment = found.environment.table()
    assert (environment["thermal_status_before"], environment["thermal_status_after"]) == (0, 1)
    assert (environment["threads"], environment["cpu_mask"], environment["accelerator"]) == (2, "3", "cpu")
    arguments = (lab.root / "arguments").read_text().split()
    assert arguments == environment["arguments"].split()
    assert {"--graph=model.tflite", "--num_threads=2", "--num_runs=50", "--max_secs=9", "--use_xnnpack=true"} <= set(
        arguments
    )
    assert list((lab.cache / "jobs").iterdir()) == []


def test_it_is_no_measurement_but_a_record_of_its_own(
    device: Device, model: tuple[Artifact, Path], tmp_path: Path
) -> None:
    found = measure(device, model)
    program.save(tmp_path / "bench", found)
    assert program.load(tmp_path / "bench") == [found]
    assert results.load(tmp_path / "bench") == []
    (saved,) = (tmp_path / "bench").glob("phone/benchmark_model/*.json")
    saved.write_text(saved.read_text().replace('"runs"', '"walks"'))
    with pytest.raises(DataError):
        program.load(tmp_path / "bench")


def test_the_table_says_what_it_is_not(device: Device, model: tuple[Artifact, Path]) -> None:
    found = measure(replace(device, accelerator="gpu"), model)
    row = dict(zip(tables.PROGRAM_COLUMNS, tables.program_cells(found)))
    assert (row["accelerator"], row["mean ms"], row["median"]) == ("gpu on cores 3", "0.465", "0.462")
    assert row["delegated"] == "full (66 of 66 in TfLiteGpuDelegateV2)"
    assert found.program_sha256[:12] in tables.program_notes([found])[0]
    assert "no accuracy" in tables.program_notes([found])[0]
    emulated = replace(found, source="emulated")
    row = dict(zip(tables.PROGRAM_COLUMNS, tables.program_cells(emulated)))
    assert [row[name] for name in ("mean ms", "std", "min", "max", "median", "init ms")] == ["-"] * 6
    assert "emulated" in tables.program_notes([emulated])[-1]


def test_a_part_on_the_gpu_is_called_one_and_nothing_is_an_error(
    lab: Lab, device: Device, model: tuple[Artifact, Path]
) -> None:
    gpu = replace(device, accelerator="gpu")
    (lab.root / "delegates").write_text(
        "VERBOSE: Replacing 60 out of 66 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions.\n"
    )
    found = measure(gpu, model)
    assert tables.delegated(found) == "partial (60 of 66 in TfLiteGpuDelegateV2)"
    assert "only a part of it ran on the GPU" in "".join(tables.program_notes([found]))
    (lab.root / "delegates").write_text("INFO: nothing about it\n")
    found = measure(gpu, model)
    assert "an unknown part of it ran on the GPU" in "".join(tables.program_notes([found]))
    (lab.root / "delegates").write_text(
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
    )
    with pytest.raises(EdgekitError, match="the figures would be the CPU's"):
        measure(gpu, model)


def test_what_the_program_does_not_know_is_asked_before_it_is_run(
    lab: Lab, device: Device, model: tuple[Artifact, Path]
) -> None:
    with pytest.raises(UsageError, match="has no --use_npu"):
        measure(replace(device, accelerator="npu"), model)
    assert not (lab.root / "arguments").exists()
    (lab.root / "unknown").touch()
    with pytest.raises(EdgekitError, match="does not know --num_threads=1"):
        measure(device, model)


def test_a_program_that_fails_says_why(device: Device, model: tuple[Artifact, Path], tmp_path: Path) -> None:
    model[1].write_bytes(b"")
    empty = replace(model[0], sha256=files.sha256_file(model[1]))
    with pytest.raises(EdgekitError, match="Failed to load model") as caught:
        measure(device, (empty, model[1]))
    assert "edgekit devices probe adb:" in caught.value.hint
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(DataError, match="not benchmark_model"):
        measure(replace(device, benchmark_model=str(other)), model)


def test_without_the_program_the_error_says_where_google_has_it(
    device: Device, model: tuple[Artifact, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    bare = replace(device, benchmark_model="")
    with pytest.raises(MissingError, match="there is no benchmark_model") as caught:
        measure(bare, model)
    assert str(tmp_path / "cache" / "benchmark_model" / "benchmark_model") in caught.value.message
    assert "developers.google.com/edge/litert" in caught.value.hint
    (tmp_path / "cache" / "benchmark_model").mkdir(parents=True)
    android_root.benchmark_model(tmp_path / "cache" / "benchmark_model" / "benchmark_model", *XNNPACK)
    assert measure(bare, model).program_sha256 == files.sha256_file(Path(device.benchmark_model))


def test_what_lies_beside_it_in_its_folder_goes_with_it(
    lab: Lab, device: Device, model: tuple[Artifact, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "litert"
    folder.mkdir()
    flags = "use_npu", "dispatch_library_path", "compiler_plugin_library_path"
    android_root.benchmark_model(folder / "benchmark_model", *flags)
    (folder / "libLiteRtDispatch_X.so").write_bytes(b"dispatch")
    (folder / "notes.txt").write_text("stays here")
    (lab.root / "delegates").write_text(
        "INFO: Replacing 1 out of 1 node(s) with delegate (DispatchDelegate) node, yielding 1 partitions.\n"
    )
    found = measure(replace(device, benchmark_model=str(folder), accelerator="npu"), model)
    assert found.figures.delegation == "full"
    assert found.environment.libraries.startswith("libLiteRtDispatch_X.so:")
    assert (lab.root / "beside").read_text().split() == ["libLiteRtDispatch_X.so"]
    assert "--dispatch_library_path=. --compiler_plugin_library_path=." in found.environment.arguments


def test_its_place_may_be_in_the_home_of_the_user(
    device: Device, model: tuple[Artifact, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert program.find(replace(device, benchmark_model="~/benchmark_model")) == Path(device.benchmark_model)
    (tmp_path / "lib.so").touch()
    assert program.libraries(replace(device, benchmark_model="~")) == [tmp_path / "lib.so"]


@pytest.mark.parametrize("meanwhile", [False, True], ids=["between two jobs", "while it runs"])
def test_a_program_that_changes_gives_no_figures_under_a_hash_that_is_not_its_own(
    device: Device, model: tuple[Artifact, Path], monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    path = Path(device.benchmark_model)
    with open_transport(device) as transport:
        asked = program.ask(device, transport)
        if meanwhile:
            work = transport.run

            def run(job: Job, results: Path) -> None:
                work(job, results)
                path.write_text(path.read_text() + "\n# newer\n")

            monkeypatch.setattr(transport, "run", run)
        else:
            path.write_text(path.read_text() + "\n# newer\n")
        with pytest.raises(StorageError, match=f"changed.*{path}|{path} has changed"):
            program.benchmark(*model, device, SUITE, asked, transport)


def test_it_needs_a_device_that_files_can_be_sent_to() -> None:
    with pytest.raises(UsageError, match="needs the runtime litert and transport adb or ssh"):
        program.find(Device("here", "desktop", transport="local", runtime="litert", api=program.API))

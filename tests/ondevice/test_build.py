"""The job "build", by doubles of trtexec and of TensorRT's Python API, which refuse what each version refuses."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.ondevice import MISFIT, build, trtexec
from edgekit.ondevice.main import run_job
from edgekit.ondevice.tensorrt_api import BuildError
from tests.doubles import engine, plant
from tests.ondevice.conftest import LoadTensorrt

NUMBERS = {"8.5.2": 8502, "10.3.0": 100300, "10.13.0": 101300, "11.4.1": 110401}
WEAK = {"8.5.2", "10.3.0"}
FLAGS = {
    "trtexec": dict(zip(NUMBERS, ("--int8 --fp16", "--int8 --fp16", "--stronglyTyped", ""))),
    "api": dict(zip(NUMBERS, ("INT8 FP16", "INT8 FP16", "strongly typed", "strongly typed"))),
}
CACHE = "TRT-9999-EntropyCalibration2\nimage: 3c010a14\nscores: 3d8a\n"
Prepare = Callable[[str], str]


@pytest.fixture
def base(tmp_path: Path, onnx_bytes: bytes) -> Path:
    """The folder of a job: three ONNX files that differ in their producer only, a calibration cache, keep and out."""
    for name in ("onnx", "typed_onnx", "plain_onnx"):
        model = onnx.load_from_string(onnx_bytes)
        model.producer_name = name
        onnx.save(model, tmp_path / f"model.{name}")
    (tmp_path / "model.cache").write_text(CACHE)
    (tmp_path / "keep").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


def job(precision: str = "int8", **changes: Any) -> dict[str, Any]:
    names = ("onnx", "typed_onnx", "plain_onnx")
    return {"precision": precision, **{n: f"model.{n}" for n in names}, "calibration": "model.cache", "out": "out",
            **changes}  # fmt: skip


@pytest.fixture(params=["trtexec", "api"])
def prepare(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_tensorrt: LoadTensorrt
) -> Prepare:
    """A function that makes a version what builds here, by one of the two ways; it returns what a job names."""

    def by_trtexec(version: str) -> str:
        parts = [int(p) for p in version.split(".")]
        number = parts[0] * (10_000 if parts[0] >= 10 else 1000) + parts[1] * 100 + parts[2]
        return str(plant.trtexec(tmp_path, number))

    def by_api(version: str) -> str:
        monkeypatch.setenv("DOUBLE_TRT_DLA", "2")
        load_tensorrt(version)
        return ""

    return by_trtexec if request.param == "trtexec" else by_api


def engine_of(base: Path) -> tuple[dict[str, Any], str]:
    """What the double built it with, and the producer of the ONNX file in it."""
    built, content = engine.unpack((base / "out" / "model.engine").read_bytes())
    return built, onnx.load_from_string(content).producer_name


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", NUMBERS)
def test_an_engine_is_built_from_the_file_of_this_version_and_described(
    base: Path, prepare: Prepare, version: str
) -> None:
    named = prepare(version)
    record = build.build(job(trtexec=named), str(base))
    expected = "onnx" if version in WEAK else "typed_onnx"
    assert engine_of(base)[1] == expected
    assert (record["onnx"], record["onnx_sha256"]) == (f"model.{expected}", sha256(base / f"model.{expected}"))
    assert record["engine_sha256"] == sha256(base / "out" / "model.engine")
    said = ("tensorrt", "builder", "precision", "dla_core", "timing_cache", "machine", "compute_capability")
    kind = "trtexec" if named else "api"
    assert [record[name] for name in said] == [version, kind, "int8", None, "new", platform.machine(), "8.7"]
    assert record["flags"] == FLAGS[kind][version]
    assert record["seconds"] >= 0
    assert "placement" not in record
    assert json.loads((base / "out" / "result.json").read_text()) == record
    assert {p.name for p in (base / "out").iterdir()} >= {"model.engine", "result.json", "build.log"}
    assert not [*(base / "out").glob("*.new"), *(base / "out").glob("engine*")]


@pytest.mark.parametrize("version", NUMBERS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_engines_are_built_from_their_own_file_with_their_flags(
    base: Path, load_tensorrt: LoadTensorrt, version: str, precision: str
) -> None:
    load_tensorrt(version)
    record = build.build({**job(precision), "typed_onnx": ""}, str(base))
    built, source = engine_of(base)
    assert source == "onnx"
    weak = {"fp32": [], "fp16": ["FP16", "TF32"]}[precision] if version in WEAK else {"fp16": ["TF32"]}.get(precision)
    assert built["flags"] == (weak or [])
    assert ("no TF32" in record["flags"]) == (precision == "fp32")


def test_a_timing_cache_is_kept_and_used_the_next_time(base: Path, prepare: Prepare) -> None:
    named = prepare("10.3.0")
    assert build.build(job(trtexec=named), str(base))["timing_cache"] == "new"
    assert not named or "new timing cache" in (base / "out" / "build.log").read_text()
    kept = base / "keep" / "timing-10.3.0.cache"
    assert kept.read_bytes().startswith(b"timings ")
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]
    assert build.build(job(trtexec=named), str(base))["timing_cache"] == "used"
    if named:
        assert f"Loaded {kept.stat().st_size} bytes of timing cache" in (base / "out" / "build.log").read_text()
        plant.trtexec(base, 100700)
        assert build.build(job(trtexec=named), str(base))["timing_cache"] == "new"  # each version has its own


def test_a_damaged_timing_cache_does_not_stop_a_build(
    base: Path, load_tensorrt: LoadTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = load_tensorrt("10.3.0")
    kept = base / "keep" / "timing-10.3.0.cache"
    kept.write_bytes(b"damaged")
    build.build(job(), str(base))
    assert kept.read_bytes() == b"timings 10.3.0"
    kept.write_bytes(b"damaged")
    create = trt._Config.create_timing_cache
    monkeypatch.setattr(trt._Config, "create_timing_cache", lambda self, c: None if c else create(self, c))
    build.build(job(), str(base))
    assert kept.read_bytes() == b"timings 10.3.0"


def test_without_a_folder_to_keep_it_in_nothing_is_kept(base: Path, prepare: Prepare) -> None:
    (base / "keep").rmdir()
    assert build.build(job(trtexec=prepare("10.3.0")), str(base))["timing_cache"] == "new"
    assert not (base / "keep").exists()


def test_the_workspace_is_limited_and_said(base: Path, prepare: Prepare) -> None:
    named = prepare("10.3.0")
    record = build.build(job(trtexec=named, workspace_mb=96), str(base))
    if named:
        assert record["flags"].endswith(" --memPoolSize=workspace:96")
    else:
        assert record["flags"].endswith(" workspace 96 MB")
        assert engine_of(base)[0]["workspace"] == 96 << 20


@pytest.mark.parametrize(("version", "number"), [("8.5.2", 8502), ("10.3.0", 100300)])
def test_int8_on_a_dla_is_the_float_file_with_our_calibration_under_the_header_of_the_version(
    base: Path, prepare: Prepare, version: str, number: int
) -> None:
    record = build.build(job(trtexec=prepare(version), dla_core=1), str(base))
    built, source = engine_of(base)
    assert (record["onnx"], source) == ("model.plain_onnx", "plain_onnx")
    assert (record["dla_core"], str(built["dla"])) == (1, "1")
    assert record["placement"]["dla"] == ["{ForeignNode[node_conv2d...n4]}"]
    assert record["placement"]["gpu"] == ["node_linear"]
    log = (base / "out" / "build.log").read_text()
    assert "tactic" not in log
    if record["builder"] == "api":
        assert f"calibrated by TRT-{number}-EntropyCalibration2" in log  # the double of trtexec refuses any other
        assert {"INT8", "GPU_FALLBACK"} <= set(built["flags"])
        assert "DLA core 1 with GPU fallback" in record["flags"]
    else:
        assert record["placement"]["refused"] == ["node_linear"]
        assert record["flags"] == "--int8 --fp16 --useDLACore=1 --allowGPUFallback"


def test_the_double_of_trtexec_refuses_a_calibration_cache_of_another_version(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "with_header", lambda cache, version: cache)
    with pytest.raises(BuildError, match="Calibration table does not match"):
        build.build(job(trtexec=str(plant.trtexec(base)), dla_core=0), str(base))


@pytest.mark.parametrize(
    ("version", "precision", "source"),
    [("10.3.0", "fp16", "onnx"), ("11.4.1", "fp16", "typed_onnx"), ("11.4.1", "int8", "typed_onnx")],
)
def test_else_a_dla_gets_what_a_gpu_gets(
    base: Path, prepare: Prepare, version: str, precision: str, source: str
) -> None:
    record = build.build(job(precision, trtexec=prepare(version), dla_core=0), str(base))
    assert (engine_of(base)[1], record["dla_core"]) == (source, 0)
    assert record["placement"]["gpu"] == ["node_linear"]


def test_a_placement_of_very_many_layers_is_cut_off(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtexec, "placement", lambda log: {"dla": ["x"] * 5000, "gpu": [], "refused": []})
    record = build.build(job(trtexec=str(plant.trtexec(base)), dla_core=0), str(base))
    assert len(record["placement"]["dla"]) == 2000


def test_a_dla_core_that_tensorrt_does_not_see_is_an_error(base: Path, load_tensorrt: LoadTensorrt) -> None:
    load_tensorrt("10.3.0")
    with pytest.raises(BuildError, match="there is no DLA core 0: TensorRT sees 0"):
        build.build(job(dla_core=0), str(base))


@pytest.mark.parametrize("version", ["8.4.1", "8.2.1", "7.1.3"])
def test_a_tensorrt_before_8_5_is_too_old(base: Path, prepare: Prepare, version: str) -> None:
    with pytest.raises(BuildError, match=rf"TensorRT {version} is too old: 8\.5 is the least"):
        build.build(job(trtexec=prepare(version)), str(base))
    assert not (base / "out" / "model.engine").exists()


def test_a_trtexec_that_fails_is_an_error_with_its_words_and_leaves_no_engine(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = str(plant.trtexec(base))
    monkeypatch.setenv("DOUBLE_TRT_FAIL", "Error Code 10: Could not find any implementation")
    with pytest.raises(BuildError, match=r"trtexec failed: .*Could not find any implementation"):
        build.build(job(trtexec=named), str(base))
    assert not list((base / "out").glob("model.engine*"))
    assert not (base / "out" / "result.json").exists()
    assert not list((base / "keep").iterdir())


@pytest.mark.parametrize("ending", ["echo PASSED", "touch out/engine.part; echo FAILED; exit 1"])
def test_a_trtexec_that_wrote_nothing_or_ended_with_an_error_has_failed(base: Path, ending: str) -> None:
    greeting = "echo '&&&& RUNNING TensorRT.trtexec [TensorRT v8502]'"
    named = plant.script(base, "liar", f'{greeting}; [ "$1" = --help ] && exit 0; {ending}')
    with pytest.raises(BuildError, match=r"trtexec failed: .*(PASSED|FAILED)"):
        build.build(job(trtexec=str(named)), str(base))
    assert not (base / "out" / "model.engine").exists()


def test_a_file_that_is_no_model_is_an_error_and_leaves_no_engine(base: Path, prepare: Prepare) -> None:
    named = prepare("10.3.0")
    (base / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BuildError, match=r"[Pp]arse"):
        build.build(job(trtexec=named), str(base))
    assert not (base / "out" / "model.engine").exists()


def test_without_any_tensorrt_it_says_what_is_missing(
    base: Path, no_tensorrt: None, load_tensorrt: LoadTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BuildError, match=r"no TensorRT: .*tensorrt.*; no trtexec"):
        build.build(job(), str(base))
    with pytest.raises(BuildError, match=r"no trtexec at '/nowhere/trtexec'"):
        build.build(job(trtexec="/nowhere/trtexec"), str(base))
    load_tensorrt("10.3.0")
    monkeypatch.setenv("EDGEKIT_CUDART", "/nowhere/libcudart.so")
    with pytest.raises(BuildError, match=r"no TensorRT: the CUDA runtime \(libcudart\) was not found; no trtexec"):
        build.build(job(), str(base))


def test_where_python_has_no_tensorrt_the_trtexec_on_path_builds_and_a_named_one_always_does(
    base: Path, no_tensorrt: None, load_tensorrt: LoadTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = base / "tools"
    tools.mkdir()
    named = plant.trtexec(tools, 100700)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert build.open_builder("")[:2] == ("trtexec", "10.7.0")
    load_tensorrt("10.3.0")
    assert build.open_builder("")[:3] == ("api", "10.3.0", {"compute_capability": "8.7"})
    assert build.open_builder(str(named))[:2] == ("trtexec", "10.7.0")


def test_a_job_file_that_says_build_builds(base: Path, load_tensorrt: LoadTensorrt) -> None:
    load_tensorrt("10.3.0")
    (base / "out").rmdir()
    (base / "job.json").write_text(json.dumps({"do": "build", **job("fp16")}))
    assert run_job(str(base / "job.json"))["precision"] == "fp16"
    assert (base / "out" / "model.engine").is_file()


@pytest.mark.parametrize(
    ("version", "header"),
    [
        ("8.5.2", b"TRT-8502-EntropyCalibration2"),
        ("8.5.2.2", b"TRT-8502-EntropyCalibration2"),
        ("8.6.1", b"TRT-8601-EntropyCalibration2"),
        ("10.3.0", b"TRT-100300-EntropyCalibration2"),
        ("10.3.0.30", b"TRT-100300-EntropyCalibration2"),
        ("10.13.1", b"TRT-101301-EntropyCalibration2"),
        ("10.3", b"TRT-100300-EntropyCalibration2"),
    ],
)
def test_a_calibration_cache_gets_the_header_of_the_version_and_keeps_the_rest(version: str, header: bytes) -> None:
    changed = build.with_header(CACHE.encode(), version)
    assert changed.split(b"\n") == [header, *CACHE.encode().split(b"\n")[1:]]


@pytest.mark.parametrize(
    ("changes", "version", "expected"),
    [
        ({}, (8, 5), ("model.onnx", False)),
        ({}, (10, 11), ("model.onnx", False)),
        ({}, (10, 12), ("model.typed_onnx", False)),
        ({"typed_onnx": None}, (10, 12), ("model.onnx", False)),
        ({"dla_core": 0}, (8, 5), ("model.plain_onnx", True)),
        ({"dla_core": 0}, (10, 7), ("model.plain_onnx", True)),
        ({"dla_core": 0}, (11, 4), ("model.typed_onnx", False)),
        ({"dla_core": 0, "precision": "fp16"}, (8, 5), ("model.onnx", False)),
        ({"dla_core": 0, "precision": "fp16"}, (10, 13), ("model.typed_onnx", False)),
    ],
)
def test_the_file_is_chosen_by_version_precision_and_dla(
    changes: dict[str, Any], version: tuple[int, int], expected: tuple[str, bool]
) -> None:
    assert build.choose_source(job(**changes), version) == expected


@pytest.mark.parametrize("missing", ["plain_onnx", "calibration"])
def test_int8_on_a_dla_without_calibration_says_what_to_do(missing: str) -> None:
    with pytest.raises(BuildError, match=r"INT8 on the DLA of TensorRT 8\.5 needs .* calibration cache: export"):
        build.choose_source(job(dla_core=0, **{missing: None}), (8, 5))


@pytest.mark.parametrize("version", [(10, 12), (10, 13)])
def test_int8_on_a_dla_is_refused_where_networks_are_typed_and_no_dla_is_driven(version: tuple[int, int]) -> None:
    with pytest.raises(BuildError, match=r"TensorRT 10\.1\d runs no INT8 on a DLA"):
        build.choose_source(job(dla_core=0), version)


HERE = {"tensorrt": "10.3.0", "compute_capability": "8.7", "dla_core": None}


@pytest.mark.parametrize(
    "built",
    [
        None,
        {},
        {"tensorrt": "10.3.0", "compute_capability": "8.7", "machine": platform.machine(), "dla_core": None},
        {"tensorrt": "10.3.0", "gpu": "another", "seconds": 5},
    ],
)
def test_an_engine_fits_where_nothing_that_is_known_differs(built: dict[str, Any] | None) -> None:
    build.check_fit(built, HERE)


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ({"tensorrt": "8.5.2"}, "tensorrt 8.5.2, here 10.3.0"),
        ({"compute_capability": "7.2"}, "compute_capability 7.2, here 8.7"),
        ({"machine": "m68k"}, f"machine m68k, here {platform.machine()}"),
        ({"dla_core": 1}, "dla_core 1, here None"),
        ({"dla_core": 0}, "dla_core 0, here None"),
        ({"tensorrt": "8.5.2", "dla_core": 0}, "tensorrt 8.5.2, here 10.3.0; dla_core 0, here None"),
    ],
)
def test_what_differs_is_named(built: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError) as caught:
        build.check_fit(built, HERE)
    assert str(caught.value) == f"{MISFIT}: {said}"

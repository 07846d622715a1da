"""trtexec's flags for each version, and what it prints and writes, of real logs and of damaged files."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgekit.ondevice import build, trtexec
from edgekit.ondevice.tensorrt_api import BuildError, Order
from edgekit.targets import kits
from tests.doubles import plant
from tests.targets.test_build_sh import FILES, GREETINGS, Kit
from tests.targets.test_kits import CONTRACT

LIMITS = {"warmup_s": 0.25, "min_queries": 50, "min_s": 3.4, "max_s": 60.0}


@pytest.mark.parametrize(
    ("number", "version"),
    [(8502, (8, 5, 2)), (8601, (8, 6, 1)), (100300, (10, 3, 0)), (101300, (10, 13, 0)), (110401, (11, 4, 1))],
)
def test_the_version_is_that_of_the_greeting(tmp_path: Path, number: int, version: tuple[int, int, int]) -> None:
    assert trtexec.version(str(plant.trtexec(tmp_path, number))) == version


@pytest.mark.parametrize("text", ["exit 0", "echo '&&&& RUNNING TensorRT.trtexec # trtexec'", "echo [TensorRT v85]"])
def test_a_program_that_does_not_say_its_version_is_refused(tmp_path: Path, text: str) -> None:
    program = plant.script(tmp_path, "trtexec", text)
    with pytest.raises(BuildError, match="trtexec does not say its version"):
        trtexec.version(str(program))


def test_the_program_is_the_named_one_else_on_path_else_where_jetpack_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, jetpack, on_path = [tmp_path / name for name in ("named", "jetpack", "path")]
    for folder in (named, jetpack, on_path):
        folder.mkdir()
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setattr(trtexec, "_PLACES", (str(jetpack / "trtexec"),))
    assert trtexec.find() is None
    there = plant.script(jetpack, "trtexec", "")
    assert trtexec.find() == str(there)
    first = plant.script(on_path, "trtexec", "")
    assert trtexec.find() == str(first)
    chosen = plant.script(named, "my-trtexec", "")
    assert trtexec.find(str(chosen)) == str(chosen)
    assert trtexec.find(str(named / "none")) is None  # and no other one instead
    chosen.chmod(0o644)
    assert trtexec.find(str(chosen)) is None


WEAK = {"fp32": ["--noTF32"], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}
TYPED = {"fp32": ["--stronglyTyped", "--noTF32"], "fp16": ["--stronglyTyped"], "int8": ["--stronglyTyped"]}
NONE: dict[str, list[str]] = {precision: [] for precision in WEAK}
BY_VERSION = [
    ((8, 5), WEAK), ((8, 6), WEAK), ((10, 3), WEAK), ((10, 11), WEAK), ((10, 12), TYPED), ((10, 13), TYPED),
    ((11, 0), NONE), ((11, 4), NONE),
]  # fmt: skip


@pytest.mark.parametrize(("version", "flags"), BY_VERSION)
def test_the_command_of_each_version_and_precision(version: tuple[int, int], flags: dict[str, list[str]]) -> None:
    only = "--buildOnly" if version == (8, 5) else "--skipInference"
    for precision in flags:
        assert trtexec.build_flags(version, Order(precision)) == flags[precision]
        command = trtexec.build_command("trtexec", version, "m.onnx", "m.engine", Order(precision))
        first = ["trtexec", "--onnx=m.onnx", "--saveEngine=m.engine", only, "--profilingVerbosity=detailed"]
        assert command == [*first, *flags[precision]]


def test_workspace_and_dla_are_flags_and_a_dla_needs_to_be_told_where_layers_run() -> None:
    order = Order("int8", dla_core=1, workspace_mb=512)
    expected = ["--memPoolSize=workspace:512", "--useDLACore=1", "--allowGPUFallback"]
    assert trtexec.build_flags((10, 3), order) == ["--int8", "--fp16", *expected]
    assert "--verbose" in trtexec.build_command("trtexec", (10, 3), "m.onnx", "m.engine", order)
    assert "--verbose" not in trtexec.build_command("trtexec", (10, 3), "m.onnx", "m.engine", Order("int8"))


@pytest.mark.parametrize("number", GREETINGS.values())
def test_they_are_the_flags_of_the_kits_build_sh(tmp_path: Path, number: int) -> None:
    """The same engine comes from the kit and from here."""
    kit = Kit(tmp_path / "kit", tmp_path / "tools")
    for folder in (kit.folder, kit.tools):
        folder.mkdir()
    for name in FILES:
        (kit.folder / f"model.{name}.onnx").write_text(name)
    kits.write_tensorrt(kits.Kit(kit.folder, [], CONTRACT))
    program = kit.install(number)
    assert kit.build().returncode == 0
    version = trtexec.version(str(program))[:2]
    for precision, (source, saved, *flags) in zip(("fp32", "fp16", "int8"), kit.calls(), strict=True):
        job = {"precision": precision, "onnx": f"model.{precision}.onnx"}
        job |= {"typed_onnx": "model.int8.typed.onnx"} if precision == "int8" else {}
        onnx, _ = build.choose_source(job, version)
        command = trtexec.build_command("trtexec", version, onnx, f"model.{precision}.engine.part", Order(precision))
        assert set(command[1:]) == {source, saved, *flags}
        assert len(command[1:]) == len([source, saved, *flags])


@pytest.mark.parametrize(
    ("version", "graph", "plain"),
    [
        ((8, 5), ["--useSpinWait", "--exposeDMA", "--useCudaGraph"], ["--useSpinWait", "--exposeDMA"]),
        ((10, 3), ["--useSpinWait", "--exposeDMA", "--useCudaGraph"], ["--useSpinWait", "--exposeDMA"]),
        ((10, 13), ["--useSpinWait", "--exposeDMA", "--useCudaGraph"], ["--useSpinWait", "--exposeDMA"]),
        ((11, 0), ["--includeDataTransfers"], ["--includeDataTransfers", "--noCudaGraph"]),
        ((11, 4), ["--includeDataTransfers"], ["--includeDataTransfers", "--noCudaGraph"]),
    ],
)
def test_measuring_means_the_same_by_every_versions_defaults(
    version: tuple[int, int], graph: list[str], plain: list[str]
) -> None:
    limits = ["--warmUp=250", "--duration=3", "--iterations=50"]
    assert trtexec.measure_flags(version, LIMITS, True) == [*limits, *graph]
    assert trtexec.measure_flags(version, LIMITS, False) == [*limits, *plain]


def test_a_run_shorter_than_a_second_lasts_a_second() -> None:
    assert "--duration=1" in trtexec.measure_flags((10, 3), {**LIMITS, "min_s": 0.0}, True)


TIMES = [
    {"startEnqMs": 0, "endEnqMs": 0, "startH2dMs": 0, "endH2dMs": 0, "startComputeMs": 0, "endComputeMs": 0,
     "startD2hMs": 0, "endD2hMs": 0, "h2dMs": 0.0625, "computeMs": compute, "d2hMs": 0.03125, "latencyMs": latency}
    for latency, compute in ((1.5, 1.25), (1.75, 1.5))
]  # fmt: skip
# NVIDIA/TensorRT issue 3842, and one of a version that does not give medians.
PROFILE = [
    {"count": 2400},
    {"name": "Reformatting CopyNode for Input Tensor 0 to conv1", "timeMs": 24.5, "averageMs": 0.0102,
     "medianMs": 0.0101, "percentage": 9.9},
    {"name": "conv1 + relu", "timeMs": 223.0, "averageMs": 0.0929, "percentage": 90.1},
]  # fmt: skip
OUTPUT = [
    {"name": "other", "dimensions": "1", "values": [9.0]},
    {"name": "scores", "dimensions": "1x3", "values": [0.25, -1, 3.5]},
]
Read = Callable[[str], Any]
READERS: list[tuple[Read, Any, Any]] = [
    (trtexec.read_times, TIMES, ([1_500_000, 1_750_000], [1_250_000, 1_500_000])),
    (
        trtexec.read_profile,
        PROFILE,
        [("Reformatting CopyNode for Input Tensor 0 to conv1", 0.0101), ("conv1 + relu", 0.0929)],
    ),
    (lambda path: trtexec.read_output(path, "scores"), OUTPUT, [0.25, -1.0, 3.5]),
]
each_reader = pytest.mark.parametrize(
    ("read", "content", "expected"), READERS, ids=["read_times", "read_profile", "read_output"]
)


@each_reader
def test_what_trtexec_writes_is_read(tmp_path: Path, read: Read, content: Any, expected: Any) -> None:
    (tmp_path / "file.json").write_text(json.dumps(content))
    assert read(str(tmp_path / "file.json")) == expected


@each_reader
def test_a_file_that_is_cut_off_anywhere_is_an_error(tmp_path: Path, read: Read, content: Any, expected: Any) -> None:
    text = json.dumps(content)
    for end in range(0, len(text), 7):
        (tmp_path / "file.json").write_text(text[:end])
        with pytest.raises(BuildError, match=r"file\.json"):
            read(str(tmp_path / "file.json"))
    with pytest.raises(BuildError, match=r"trtexec wrote no none\.json"):
        read(str(tmp_path / "none.json"))


WRONG_TIMES: list[Any] = [[], {}, [1], ["latencyMs"], [[]], [{"latencyMs": 1}], [{"computeMs": 1}], [{"latencyMs":
    None, "computeMs": 1}], [{"latencyMs": 1, "computeMs": []}], [{"latencyMs": 10**400, "computeMs": 1}],
    [{"latencyMs": 1, "computeMs": "x"}]]  # fmt: skip
WRONG_PROFILES: list[Any] = [{}, None, [1], ["a name"], [["name"]], [{"name": "a"}], [{"name": "a", "medianMs": []}],
    [{"name": "a", "medianMs": 10**400}], [{"name": "a", "averageMs": "x"}]]  # fmt: skip
WRONG_OUTPUTS: list[Any] = [[], {}, [1], ["name"], [{}], [{"name": "scores"}], [{"name": "scores", "values": 1}],
    [{"name": "scores", "values": [None]}], [{"name": "scores", "values": [10**400]}],
    [{"name": "scores", "values": "x"}], [{"name": "other", "values": [1]}]]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "content"),
    [(READERS[n][0], wrong) for n, all_ in enumerate((WRONG_TIMES, WRONG_PROFILES, WRONG_OUTPUTS)) for wrong in all_],
)
def test_anything_else_is_an_error(tmp_path: Path, read: Read, content: Any) -> None:
    (tmp_path / "file.json").write_text(json.dumps(content))
    with pytest.raises(BuildError, match=r"file\.json"):
        read(str(tmp_path / "file.json"))


WORDS = st.sampled_from(["latencyMs", "computeMs", "name", "scores", "values", "medianMs", "averageMs"])
SCALARS = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
@example(content=b"[" * 100_000)
@example(content=b'[{"name": "scores", "values": [' + b"9" * 5000 + b"]}]")
def test_nothing_in_a_file_raises_anything_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    for read, _, _ in READERS:
        with contextlib.suppress(BuildError):
            read(str(tmp_path / "file.json"))


# NVIDIA-AI-IOT/jetson_dla_tutorial, README.md, with the warnings of its issue 3; TensorRT 8.
TUTORIAL = """\
[03/31/2022-14:34:53] [W] [TRT] Layer '/model.24/Constant_1_output_0' (CONSTANT): Unsupported on DLA. Switching this \
layer's device type to GPU.
[03/31/2022-14:34:53] [W] [TRT] Layer '(Unnamed Layer* 277) [Shuffle]' (SHUFFLE): Unsupported on DLA. Switching this \
layer's device type to GPU.
[03/31/2022-14:34:54] [I] [TRT] ---------- Layers Running on DLA ----------
[03/31/2022-14:34:54] [I] [TRT] [DlaLayer] {ForeignNode[Conv_0]}
[03/31/2022-14:34:54] [I] [TRT] [DlaLayer] {ForeignNode[Relu_10...Conv_11]}
[03/31/2022-14:34:54] [I] [TRT] ---------- Layers Running on GPU ----------
[03/31/2022-14:34:54] [I] [TRT] [GpuLayer] SHUFFLE: Reshape_2 + (Unnamed Layer* 7) [Shuffle]
[03/31/2022-14:34:54] [I] [TRT] [GpuLayer] PLUGIN_V2: InstanceNormalization_5
[03/31/2022-14:34:55] [I] [TRT] [MemUsageChange] Init cuBLAS/cuBLASLt: CPU +0, GPU +0, now: CPU 1, GPU 2 (MiB)
"""
# ultralytics/ultralytics issues 23488 and 18012: TensorRT 8.5, by the logger of its Python API.
PYTHON_8_5 = """\
[01/29/2026-15:42:39] [TRT] [W] /model.23/Slice_1: DLA only supports slicing 4 dimensional tensors.
[01/29/2026-15:42:39] [TRT] [W] Layer '/model.23/Slice_1' (SLICE): Unsupported on DLA. Switching this layer's device \
type to GPU.
[12/04/2024-11:57:45] [TRT] [W] Validation failed for DLA layer: /model.10/m/m.0/attn/Reshape. Switching to GPU \
fallback.
[01/29/2026-15:42:45] [TRT] [I] [GpuLayer] MYELIN: {ForeignNode[/model.23/GatherElements]}
[01/29/2026-15:42:45] [TRT] [I] [GpuLayer] CONSTANT: /model.23/Gather_1_output_0 + (Unnamed Layer* 15) [Shuffle]
"""
# TensorRT 10.3.0.30 on AGX Orin with --verbose, as a user of trtexec noted it; without --verbose it says none of it.
VERBOSE_10_3 = """\
[W] [TRT] Layer '/Flatten' (SHUFFLE): Unsupported on DLA. Switching this layer's device type to GPU.
[V] [TRT] Number of DLA node candidates offloaded : 2 out of 2
[V] [TRT] {ForeignNode[/conv1/Conv.../layer4/layer4.2/relu_2/Relu]} successfully offloaded to DLA.
[V] [TRT] {ForeignNode[/fc/Gemm + (Unnamed Layer* 125) [ElementWise]]} successfully offloaded to DLA.
[V] [TRT] [GpuLayer] REDUCE: /avgpool/GlobalAveragePool
[V] [TRT] [GpuLayer] SHUFFLE: reshape_after_/fc/Gemm
"""
# jkjung-avt/tensorrt_demos issue 200: TensorRT 7.
TENSORRT_7 = """\
[09/30/2020-13:12:43] [I] [TRT] --------------- Layers running on DLA:
[09/30/2020-13:12:43] [I] [TRT] {Tanh_3,Mul_4,Conv_5}, {Tanh_8,Mul_9,Conv_10,Conv_15}, {Tanh_202,Mul_203},
[09/30/2020-13:12:43] [I] [TRT] --------------- Layers running on GPU:
[09/30/2020-13:12:43] [I] [TRT] Conv_0, 2253[Constant], (Unnamed Layer* 692) [Constant] + (Unnamed Layer* 693) \
[Shuffle],
[09/30/2020-13:12:44] [I] [TRT] Detected 1 inputs and 2 output network tensors.
"""
# NVIDIA/TensorRT issue 2318: a network of which nothing runs on a DLA; the names of the last line are shortened.
NOTHING = """\
 [W] [TRT] Default DLA is enabled but layer Embedding matrix is not supported on DLA, falling back to GPU.
 [W] [TRT] Default DLA is enabled but layer Gather in embedding is not supported on DLA, falling back to GPU.
 [W] [TRT] setDefaultDeviceType was called but no layer in the network can run on DLA.
 [I] [TRT]
 [I] [TRT] --------------- Layers running on DLA:
 [I] [TRT]
 [I] [TRT] --------------- Layers running on GPU:
 [I] [TRT] Embedding matrix, Gather in embedding,
"""
# lewes6369/TensorRT-Yolov3 issue 86: TensorRT 5.
TENSORRT_5 = """\
WARNING: layer84-route: Concatenation on DLA requires at least two inputs.
WARNING: Default DLA is enabled but layer layer84-route is not running on DLA, falling back to GPU.
"""
# NVIDIA/TensorRT, samples/sampleCudla/README.md.
SAMPLE_CUDLA = """\
[I] [TRT] --------------- Layers running on DLA:
[I] [TRT] [DlaLayer] {ForeignNode[(Unnamed Layer* 0) [ElementWise]]},
[I] [TRT] --------------- Layers running on GPU:
[I] [TRT]
"""
# NVIDIA/TensorRT issue 3143: what --dumpProfile prints is no placement.
PROFILE_LINES = """\
[07/06/2023-17:19:08] [I]                               Layer   Time (ms)   Avg. Time (ms)   Time %
[07/06/2023-17:19:08] [I]  {ForeignNode[Conv_0...Concat_198]}        3.38           0.0085      0.1
"""


@pytest.mark.parametrize(
    ("log", "dla", "gpu", "refused"),
    [
        (
            TUTORIAL,
            ["{ForeignNode[Conv_0]}", "{ForeignNode[Relu_10...Conv_11]}"],
            ["Reshape_2 + (Unnamed Layer* 7) [Shuffle]", "InstanceNormalization_5"],
            ["/model.24/Constant_1_output_0", "(Unnamed Layer* 277) [Shuffle]"],
        ),
        (
            PYTHON_8_5,
            [],
            ["{ForeignNode[/model.23/GatherElements]}", "/model.23/Gather_1_output_0 + (Unnamed Layer* 15) [Shuffle]"],
            ["/model.23/Slice_1", "/model.10/m/m.0/attn/Reshape"],
        ),
        (
            VERBOSE_10_3,
            [
                "{ForeignNode[/conv1/Conv.../layer4/layer4.2/relu_2/Relu]}",
                "{ForeignNode[/fc/Gemm + (Unnamed Layer* 125) [ElementWise]]}",
            ],
            ["/avgpool/GlobalAveragePool", "reshape_after_/fc/Gemm"],
            ["/Flatten"],
        ),
        (
            TENSORRT_7,
            ["Tanh_3,Mul_4,Conv_5", "Tanh_8,Mul_9,Conv_10,Conv_15", "Tanh_202,Mul_203"],
            ["Conv_0", "2253[Constant]", "(Unnamed Layer* 692) [Constant] + (Unnamed Layer* 693) [Shuffle]"],
            [],
        ),
        (
            NOTHING,
            [],
            ["Embedding matrix", "Gather in embedding"],
            ["Embedding matrix", "Gather in embedding"],
        ),
        (TENSORRT_5, [], [], ["layer84-route"]),
        (SAMPLE_CUDLA, ["{ForeignNode[(Unnamed Layer* 0) [ElementWise]]}"], [], []),
        (PROFILE_LINES, [], [], []),
        ("", [], [], []),
    ],
    ids=["8", "8.5 by Python", "10.3", "7", "7, nothing", "5", "sample", "a profile", "empty"],
)
def test_placement_is_read_from_logs(log: str, dla: list[str], gpu: list[str], refused: list[str]) -> None:
    assert trtexec.placement(log.splitlines()) == {"dla": dla, "gpu": gpu, "refused": refused}


def test_the_lists_count_where_it_also_says_what_was_offloaded() -> None:
    lines = ["{ForeignNode[a...b]} successfully offloaded to DLA.", "[DlaLayer] a", "[DlaLayer] b"]
    assert trtexec.placement(lines)["dla"] == ["a", "b"]


def test_an_older_list_that_is_empty_is_not_the_next_heading() -> None:
    lines = ["--- Layers running on DLA:", "--- Layers running on GPU:", "a, b"]
    assert trtexec.placement(lines) == {"dla": [], "gpu": ["a", "b"], "refused": []}


def test_placement_is_the_same_by_the_bare_messages_of_the_python_api() -> None:
    bare = [line.partition("[TRT] ")[2] for line in TUTORIAL.splitlines()]
    assert trtexec.placement(bare) == trtexec.placement(TUTORIAL.splitlines())


def test_of_what_is_verbose_only_the_placement_is_kept() -> None:
    log = VERBOSE_10_3 + "[V] [TRT] Tactic: 0x1 Time: 0.01\n[I] Engine built in 1 sec.\n"
    kept = trtexec.worth_keeping(log)
    assert kept == [log.splitlines()[0], *log.splitlines()[2:6], "[I] Engine built in 1 sec."]
    assert trtexec.placement(kept) == trtexec.placement(log.splitlines())


# NVIDIA/TensorRT, samples/common/sampleDevice.cpp prints it; the log of issue 4106.
DEVICE = """\
[08/27/2024-10:00:00] [I] === Device Information ===
[08/27/2024-10:00:00] [I] Selected Device: Orin
[08/27/2024-10:00:00] [I] Compute Capability: 8.7
[08/27/2024-10:00:00] [I] SMs: 16
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (DEVICE, {"gpu": "Orin", "compute_capability": "8.7"}),
        ("[I] Compute Capability: 11.0\n", {"compute_capability": "11.0"}),
        ("[I] Selected Device: NVIDIA RTX 3060 Ti  \n", {"gpu": "NVIDIA RTX 3060 Ti"}),
        ("[I] Compute Capability: 123.45\n[I] Selected Device: " + "x" * 101, {}),
        ("", {}),
    ],
)
def test_the_device_is_read(output: str, expected: dict[str, str]) -> None:
    assert trtexec.device(output) == expected


ERRORS = [f"[06/07/2022-19:05:53] [E] Error[{n}]: {n} failed" for n in range(5)]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (["[I] one", *ERRORS, "&&&& FAILED"], "[E] Error[0]: 0 failed; [E] Error[1]: 1 failed; [E] Error[2]: 2 failed"),
        (["one", "", "two", "  three  "], "two; three"),
        (["  ", ""], "it said nothing"),
    ],
)
def test_a_failure_is_told_by_its_errors_else_by_its_last_lines(output: list[str], said: str) -> None:
    assert trtexec.failure("\n".join(output)) == said


def test_a_run_takes_both_outputs_and_no_input(tmp_path: Path) -> None:
    program = plant.script(tmp_path, "p", "echo out; echo err >&2; cat; printf '\\377'; exit 3")
    done = trtexec.run([str(program)])
    assert (done.returncode, done.stdout) == (3, "out\nerr\n\ufffd")
    code = f"from edgekit.ondevice import trtexec; print(ascii(trtexec.run([{str(program)!r}]).stdout))"
    again = subprocess.run([sys.executable, "-c", code], input="typed", cwd=plant.ROOT, capture_output=True, text=True)
    assert again.stdout == ascii(done.stdout) + "\n"

"""What benchmark_model prints: lines of real runs, cut off, contradictory, hostile.

The texts are those that runs of TensorFlow Lite's and of LiteRT's program show in public issues and documentation
(google-ai-edge/LiteRT issue 75 and the README of its tools; mlcommons/mobile_app_open issue 1134). None was run here.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import config
from edgekit.bench import program
from edgekit.errors import DataError, EdgekitError, UsageError
from edgekit.records import Device

TFLITE = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/ssd.tflite]
INFO: Use xnnpack: [1]
INFO: Loaded model /data/local/tmp/ssd.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 delegate kernels.
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 592.232ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=633430

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=605745 curr=618849 min=568228 max=722188 avg=602943 std=27690

INFO: Inference timings in us: Init: 592232, First inference: 633430, Warmup (avg): 633430, Inference (avg): 602943
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual.
INFO: Memory footprint delta from the start of the tool (MB): init=133.086 overall=149.531
"""  # noqa: E501
OLD = """STARTING!
Loaded model mobilenet.tflite
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
"""
LITERT = """INFO: [litert/runtime/accelerators/auto_registration.cc:148] CPU accelerator registered.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 1 out of 1 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 3.27774
INFO: Initialized session in 4.478ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1055 first=1033 curr=473 min=443 max=1033 avg=465.319 std=18 p5=459 median=463 p95=478

INFO: Running benchmark for at least 1000 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478

INFO: [./litert/tools/benchmark_litert_model.h:81] 
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:82] Model initialization: 4.48 ms
INFO: [./litert/tools/benchmark_litert_model.h:84] Warmup (first):       1.03 ms
INFO: [./litert/tools/benchmark_litert_model.h:86] Warmup (avg):         0.47 ms (1055 runs)
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      0.46 ms (2112 runs)
INFO: [./litert/tools/benchmark_litert_model.h:92] Inference (min):      0.44 ms
INFO: [./litert/tools/benchmark_litert_model.h:94] Inference (max):      0.98 ms
INFO: [./litert/tools/benchmark_litert_model.h:96] Inference (std):      0.01
"""
FULL = "VERBOSE: Replacing 66 out of 66 node(s) with delegate (LITERT_CL) node, yielding 1 partitions for subgraph 0.\n"
PART = "VERBOSE: Replacing 60 out of 66 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions.\n"
REST = "VERBOSE: Replacing 6 out of 9 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions.\n"
WHOLE = "INFO: Replacing 66 out of 66 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.\n"
ANDROID = "INFO: Replacing 31 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions.\n"
COMPLETELY = "INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.\n"
THOUGH = "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
NOTHING = "VERBOSE: Replacing 0 out of 31 node(s) with delegate (TfLiteQnnDelegate) node, yielding 0 partitions.\n"
USAGE = "ERROR: usage: ./b <flags>\nFlags:\n" + "".join(
    f"\t--{name}=0   \tint32\toptional\twords\n"
    for name in ("graph", "num_runs", "num_threads", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs",
                 "use_gpu", "use_xnnpack")
)  # fmt: skip
PHONE = Device("phone", "android", transport="adb", runtime="litert", api="benchmark-model", threads=4)
SUITE = config.load_suite("standard")


def test_tensorflow_lites_program_is_read() -> None:
    found = program.parse_output(TFLITE)
    assert (found.runs, found.mean_ms, found.min_ms, found.max_ms) == (50, 602.943, 568.228, 722.188)
    assert (found.std_ms, found.first_ms, found.cold_ms, found.init_ms) == (27.69, 605.745, 633.43, 592.232)
    assert (found.median_ms, found.p95_ms, found.delegation, found.delegates) == (None, None, "partial", ())


def test_an_older_one_without_levels_is_read() -> None:
    found = program.parse_output(OLD)
    assert (found.mean_ms, found.warmup_ms, found.delegation) == (2950.34, 3512.39, "unknown")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_litert_s_program_is_read_and_its_own_median_is_kept(end: str) -> None:
    found = program.parse_output(LITERT.replace("\n", end))
    times = found.mean_ms, found.median_ms, found.p5_ms, found.p95_ms
    assert (found.runs, times) == (2112, pytest.approx((0.464545, 0.462, 0.46, 0.478)))
    assert (found.init_ms, found.cold_ms, found.warmup_ms) == (4.48, 1.03, 0.47)
    assert (found.delegation, found.delegates[0].nodes, found.delegates[0].of) == ("full", 1, 1)


@pytest.mark.parametrize(
    ("lines", "state"),
    [(FULL, "full"), (PART, "partial"), (PART + REST, "partial"), (COMPLETELY, "full"), (ANDROID, "unknown"),
     (ANDROID + COMPLETELY, "full"), ("", "unknown"), (ANDROID + REST, "unknown"), (20 * REST + PART, "partial")],
)  # fmt: skip
def test_what_ran_on_the_gpu_is_what_the_log_says_and_no_more(lines: str, state: str) -> None:
    assert program.parse_output(lines + OLD, "gpu").delegation == state


@pytest.mark.parametrize("kind", ["gpu", "npu"])
@pytest.mark.parametrize(
    "lines",
    [THOUGH, NOTHING, "GPU acceleration is unsupported on this platform.\n", REST, WHOLE,
     COMPLETELY.replace("GPU", "XNNPACK")],
)  # fmt: skip
def test_figures_of_the_cpu_are_not_taken_for_an_accelerators(lines: str, kind: str) -> None:
    with pytest.raises(EdgekitError, match=f"nothing of this model ran on the {kind.upper()}"):
        program.parse_output(lines + OLD, kind)


def test_a_flag_that_was_left_out_is_an_error() -> None:
    with pytest.raises(EdgekitError, match="does not know --use_npu=true"):
        program.parse_output("WARN: Unconsumed cmdline flags: --use_npu=true\n" + OLD)


@pytest.mark.parametrize("text", [TFLITE, OLD, LITERT], ids=["tflite", "old", "litert"])
def test_output_that_ends_early_is_an_error_until_its_last_line(text: str) -> None:
    last = max(text.find("Inference timings in us"), text.find("Inference (avg):"))
    for cut in range(0, last + 1, 7):
        with pytest.raises(DataError, match="is implausible"):
            program.parse_output(text[:cut])


@pytest.mark.parametrize(
    ("old", "new"),
    [("Inference (avg): 602943", "Inference (avg): 302943"), ("min=568228", "min=768228"), ("count=50", "count=0"),
     ("avg=602943", "avg=nan"), ("avg=602943", "avg=6e99"), ("std=27690\n", "std=27690 p5=7 median=3 p95=1\n"),
     ("count=50 first", "cnt=50 first"), ("Inference timings", "Inference times"), ("min=568228", "min=0")],
)  # fmt: skip
def test_output_that_contradicts_itself_is_an_error(old: str, new: str) -> None:
    assert old in TFLITE
    with pytest.raises(DataError, match="is implausible"):
        program.parse_output(TFLITE.replace(old, new))


def test_a_measurement_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(DataError):
        program.parse_output(TFLITE + TFLITE)


lines_of_it = st.sampled_from([*TFLITE.splitlines(), *LITERT.splitlines(), FULL.strip(), THOUGH.strip()])


@given(st.lists(st.one_of(lines_of_it, st.text(max_size=80)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_lines_in_any_order_give_figures_or_one_kind_of_error(lines: list[str]) -> None:
    message, found = "", None
    try:
        found = program.parse_output("\n".join(lines), "gpu")
    except EdgekitError as error:
        message = error.message
    assert message.isprintable()
    assert found is None or (found.runs > 0 and 0 < found.min_ms <= found.max_ms < 1e9)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_nothing_else_is_taken_for_a_list_of_flags(text: str) -> None:
    with pytest.raises(DataError) as caught:
        program.parse_flags(text)
    assert caught.value.message.isprintable()


def test_only_flags_that_the_program_has_are_given_to_it() -> None:
    known = program.parse_flags(USAGE)
    given = program.program_flags(PHONE, SUITE, known, "model.tflite")
    assert given[:3] == ("--graph=model.tflite", "--num_threads=4", f"--num_runs={SUITE.min_queries}")
    assert given[-1] == "--use_xnnpack=true"
    litert = known - {"use_xnnpack"} | {"use_npu"}
    assert not [flag for flag in program.program_flags(PHONE, SUITE, litert, "m") if "use_" in flag]
    gpu = Device("p", "android", transport="adb", runtime="litert", api="benchmark-model", accelerator="gpu")
    assert program.program_flags(gpu, SUITE, known, "m")[-1] == "--use_gpu=true"
    npu = Device("p", "android", transport="adb", runtime="litert", api="benchmark-model", accelerator="npu")
    assert program.program_flags(npu, SUITE, litert, "m")[-1] == "--use_npu=true"
    with pytest.raises(UsageError, match="has no --use_npu"):
        program.program_flags(npu, SUITE, known, "m")
    plain = Device("p", "android", transport="adb", runtime="litert", api="benchmark-model", xnnpack=False)
    with pytest.raises(UsageError, match="has no --use_xnnpack"):
        program.program_flags(plain, SUITE, litert, "m")

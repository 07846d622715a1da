"""Which operator LiteRT's profiler speaks of; and its real profiler."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgekit.ondevice import litert_layers, litert_profile
from edgekit.ondevice.litert_layers import name_events
from edgekit.ondevice.runner import open_runner
from tests import flat

pytestmark = pytest.mark.xdist_group("litert")
FILE = [
    ("QUANTIZE", "q"), ("PAD", "unnamed"), ("CONV_2D", "a.0"), ("LOGISTIC", "sigmoid"), ("MUL", "mul"),
    ("DEPTHWISE_CONV_2D", "a.1"), ("ADD", "add"), ("MEAN", "pool"), ("FULLY_CONNECTED", "fc"), ("DEQUANTIZE", "scores"),
]  # fmt: skip
CONV, DEPTHWISE, LINEAR = "Convolution (NHWC, QC8) IGEMM", "Convolution (NHWC, QC8) DWConv", "Fully Connected (NC) GEMM"
BY_XNNPACK = ["Convert (NC)", CONV, "Sigmoid (NC)", "Multiply (ND)", DEPTHWISE, "Add (ND)", "Mean (ND) Reduce", LINEAR]


def xnnpack(*tags: str) -> list[tuple[str, int, int]]:
    return [(tag, litert_profile.DELEGATE_PROFILED, number) for number, tag in enumerate(tags)]


def test_xnnpack_s_operators_are_the_file_s_in_its_order() -> None:
    assert name_events(xnnpack(*BY_XNNPACK), FILE) == [
        "q/QUANTIZE", "a.0/CONV_2D", "sigmoid/LOGISTIC", "mul/MUL", "a.1/DEPTHWISE_CONV_2D", "add/ADD", "pool/MEAN",
        "fc/FULLY_CONNECTED",
    ]  # fmt: skip


def test_what_xnnpack_adds_keeps_its_own_name_and_moves_nothing() -> None:
    tags = ["Invalid Unary Op", CONV, "Copy (NC, X8)", DEPTHWISE, "Clamp (NC)", LINEAR]
    assert name_events(xnnpack(*tags), FILE) == [
        "Invalid Unary Op", "a.0/CONV_2D", "Copy (NC, X8)", "a.1/DEPTHWISE_CONV_2D", "Clamp (NC)", "fc/FULLY_CONNECTED"
    ]  # fmt: skip


def test_a_convolution_of_one_pixel_may_be_a_product_of_matrices() -> None:
    assert name_events(xnnpack(LINEAR, DEPTHWISE, LINEAR), FILE)[0] == "a.0/CONV_2D"


@pytest.mark.parametrize(
    "tags",
    [
        (DEPTHWISE, CONV, LINEAR),  # in another order
        (CONV, LINEAR, LINEAR),
        (CONV, DEPTHWISE),  # one is missing
        (CONV, DEPTHWISE, LINEAR, LINEAR),  # one too many
    ],
)
def test_where_weighted_operators_do_not_agree_no_name_is_given(tags: tuple[str, ...]) -> None:
    with pytest.raises(RuntimeError):
        name_events(xnnpack(*tags), FILE)


def test_operators_of_litert_s_own_come_with_their_place() -> None:
    own = [(kind, litert_profile.OPERATOR, place) for place, (kind, _) in enumerate(FILE)]
    assert name_events(own, FILE) == [
        "q/QUANTIZE", "a.0/PAD", *(f"{name}/{kind}" for kind, name in FILE[2:])
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="operator 3 of the profile is not a CONV_2D"):
        name_events([("CONV_2D", litert_profile.OPERATOR, 3)], FILE)


def test_a_part_of_xnnpack_and_a_part_of_litert_s_own() -> None:
    events = [
        *xnnpack("Convert (NC)", CONV),
        *((kind, litert_profile.OPERATOR, n) for n, (kind, _) in enumerate(FILE) if n > 2),
    ]
    assert name_events(events, FILE)[:3] == ["q/QUANTIZE", "a.0/CONV_2D", "sigmoid/LOGISTIC"]


def operators(path: Path) -> list[str]:
    import ai_edge_litert.interpreter as litert

    plain = litert.Interpreter(
        str(path), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    return [node["op_name"] for node in plain._get_ops_details()]


@pytest.mark.parametrize("xnnpack_on", [True, False])
@pytest.mark.parametrize("inner", ["float32", "int8"])
def test_the_real_profiler_tells_of_every_weighted_operator(tmp_path: Path, inner: str, xnnpack_on: bool) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite(inner))
    runner = open_runner("litert", str(path), 1, {"xnnpack": xnnpack_on})
    image = np.zeros((1, flat.SIZE, flat.SIZE, 3), np.float32)
    answer = runner.infer(image)
    found = runner.layer_times([image], 7)
    info = runner.info()
    assert info["layers_by"] == litert_layers.METHOD
    assert info["layers_run_ms"] > 0
    kinds = [name.rpartition("/")[2] for name, _ in found]
    weighted = [kind for kind in operators(path) if kind in ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D")]
    assert weighted
    assert [kind for kind in kinds if kind in weighted] == weighted
    if not xnnpack_on:
        assert kinds == operators(path)
    assert all(ms >= 0 for _, ms in found)
    np.testing.assert_array_equal(runner.infer(image), answer)
    runner.close()


FROM_A_ZIP = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from ondevice.runner import open_runner
runner = open_runner("litert", sys.argv[2], 1)
found = runner.layer_times([np.zeros((1, {size}, {size}, 3), np.float32)], 3)
print(len(found), runner.info().get("no_layers"))
"""


def test_it_works_from_the_zip_file_that_travels_to_devices(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite())
    with zipfile.ZipFile(tmp_path / "ondevice.zip", "w") as packed:
        for path in Path(litert_layers.__file__).parent.glob("*.py"):
            packed.write(path, f"ondevice/{path.name}")
    command = [
        sys.executable,
        "-c",
        FROM_A_ZIP.format(size=flat.SIZE),
        tmp_path / "ondevice.zip",
        tmp_path / "model.tflite",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    number, why_not = done.stdout.split(maxsplit=1)
    assert (int(number) > 0, why_not.strip()) == (True, "None")


def test_a_profiler_that_fails_leaves_the_model_alive_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite())
    monkeypatch.setattr(litert_layers, "_CODE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    runner = open_runner("litert", str(tmp_path / "model.tflite"), 1)
    image = np.zeros((1, flat.SIZE, flat.SIZE, 3), np.float32)
    assert runner.layer_times([image], 3) == []
    assert "failed (-11)" in runner.info()["no_layers"]
    assert runner.infer(image).shape


def test_a_library_without_the_api_says_so(tmp_path: Path) -> None:
    request = {"library": "libm.so.6", "model": "", "threads": 1, "xnnpack": True, "count": 1}
    with pytest.raises(RuntimeError, match=r"LiteRT's profiler failed.*LiteRtCreateEnvironment"):
        litert_layers._ask(request, [np.zeros(1, np.float32)])


def test_a_package_without_the_library_has_no_profiler(tmp_path: Path) -> None:
    class Other:
        """Of this module: no libLiteRt.so lies beside it."""

    assert sys.modules[Other.__module__].__file__
    with pytest.raises(RuntimeError, match=r"ondevice has no profiler; ai-edge-litert 2\.3 has"):
        litert_layers.layer_times("model.tflite", Other(), [], {})


def test_runs_that_differ_are_not_averaged() -> None:
    runs = [[["Add (ND)", 8, 0, 3]], [["Multiply (ND)", 8, 0, 3]]]
    with pytest.raises(RuntimeError, match="reports different operators in each run"):
        litert_layers._medians(json.loads(json.dumps(runs)), [])

"""Which operators leave a delegate: rule by rule, and against the delegates that can be had here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgekit.ondevice.runner import open_runner
from edgekit.targets import delegates, read_tflite
from edgekit.targets.contents import Contents, OpInfo, TensorInfo
from edgekit.targets.delegates import DELEGATES, Verdict
from tests import flat

pytestmark = pytest.mark.xdist_group("litert")
FILES = [("float32",) * 3, ("int8", "float32", "float32"), ("int8", "int8", "int8"), ("int8", "uint8", "uint8"),
         ("int8", "uint8", "float32")]  # fmt: skip


def tensor(dtype: str = "float32", shape: tuple[int, ...] = (1, 4, 4, 8), **more: Any) -> TensorInfo:
    return TensorInfo("t", shape, dtype, **more)


def op(kind: str, *inputs: TensorInfo, to: str = "float32", **options: Any) -> OpInfo:
    return OpInfo(0, kind, inputs or (tensor(to),), (tensor(to),), options=options)


def constant(*values: int, shape: tuple[int, ...] | None = None) -> TensorInfo:
    return tensor("int32", shape or (len(values),), constant=True, nbytes=4 * max(1, len(values)), values=values)


def read(kind: tuple[str, str, str], folder: Path) -> tuple[Path, dict[str, Verdict]]:
    path = folder / "model.tflite"
    path.write_bytes(flat.tflite(*kind))
    return path, {v.delegate: v for v in delegates.verdicts(read_tflite.read(path))}


@pytest.mark.parametrize("kind", FILES, ids="-".join)
def test_xnnpack_takes_what_is_expected(tmp_path: Path, kind: tuple[str, str, str]) -> None:
    path, expected = read(kind, tmp_path)
    runner = open_runner("litert", str(path), 1)
    info = runner.info()
    runner.close()
    verdict = expected["xnnpack"]
    assert (info["ops"], info["delegated_ops"], info["partitions"]) == (verdict.ops, verdict.stays, verdict.parts)


def test_an_int8_file_with_float_borders_loses_them_on_an_npu(tmp_path: Path) -> None:
    verdict = read(("int8", "float32", "float32"), tmp_path)[1]["int8-npu"]
    why = "float32 at the boundary of the 8-bit part"
    assert (verdict.stays, verdict.ops, verdict.parts) == (3, 5, 1)
    assert verdict.leaving == (("QUANTIZE", why, 1), ("DEQUANTIZE", why, 1))
    assert read(("int8", "int8", "int8"), tmp_path)[1]["int8-npu"].leaving == ()


def test_a_float_file_leaves_an_npu_whole_and_stays_on_a_gpu(tmp_path: Path) -> None:
    expected = read(("float32",) * 3, tmp_path)[1]
    assert (expected["int8-npu"].stays, expected["edge-tpu"].stays) == (0, 0)
    assert expected["gpu"] == Verdict("gpu", 3, 3, 1, ())


def test_an_operator_that_nobody_takes_leaves_them_all(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite(normalized=True))
    leaving = {v.delegate: v.leaving for v in delegates.verdicts(read_tflite.read(path))}
    assert leaving["gpu"] == (("L2_NORMALIZATION", "the delegate has no such operator", 1),)
    assert leaving["xnnpack"] == (("L2_NORMALIZATION", "not in its list of operators for floats", 1),)


def test_equal_reasons_are_counted_and_parts_too() -> None:
    ops = [op("ADD"), op("UNIQUE"), op("ADD"), op("UNIQUE"), op("UNIQUE")]
    verdict = delegates.verdicts(Contents("LiteRT", {}, (), (), tuple(ops), ()))[0]
    assert verdict == Verdict("gpu", 2, 5, 2, (("UNIQUE", "the delegate has no such operator", 3),))


SLICE = op("STRIDED_SLICE", tensor(), constant(0, 0), constant(4, 4), constant(1, 1))
# One operator that stays, one change that makes it leave, and why.
RULES = [
    ("gpu", op("RELU"), {"kind": "UNIQUE"}, "no such operator"),
    (
        "gpu",
        op("ADD", tensor("int8"), tensor("int8"), to="int8"),
        {"outputs": (tensor("int16"),)},
        "int16 is not supported: it computes",
    ),
    (
        "gpu",
        op("CONV_2D", FusedActivationFunction="TANH"),
        {"options": {"FusedActivationFunction": "SIGN_BIT"}},
        "SIGN",
    ),
    ("gpu", op("SOFTMAX", Beta=1.0), {"options": {"Beta": 0.5}}, "beta"),
    ("gpu", op("SLICE"), {"inputs": (tensor(shape=(1, 4)),)}, "2 dimensions"),
    ("gpu", op("MEAN", tensor(), constant(1, 2)), {"inputs": (tensor(), tensor("int32", (2,)))}, "axes"),
    ("gpu", op("PAD", tensor(), constant(shape=(4, 2))), {"inputs": (tensor(), constant(shape=(2, 2)))}, "padding"),
    ("gpu", op("MUL", tensor(), tensor(shape=(1, 1, 8))), {"inputs": (tensor(), tensor(shape=(2, 3)))}, "broadcast"),
    (
        "gpu",
        op("ADD", tensor(), tensor(shape=(8,))),
        {"inputs": (tensor(shape=(2, 2, 2)), tensor(shape=(2, 2)))},
        "broad",
    ),
    (
        "xnnpack",
        op("HARD_SWISH"),
        {"inputs": (tensor("int8"),), "outputs": (tensor("int8"),)},
        "list of operators for 8 bits",
    ),
    ("xnnpack", op("RELU"), {"kind": "PADV2"}, "list of operators for floats"),
    ("xnnpack", op("ADD", FusedActivationFunction="RELU6"), {"options": {"FusedActivationFunction": "TANH"}}, "fused"),
    ("xnnpack", op("SOFTMAX"), {"options": {"Beta": 2.0}}, "beta"),
    ("xnnpack", op("CONCATENATION", tensor(), tensor()), {"inputs": (tensor(),) * 6}, "2 to 5"),
    ("xnnpack", op("QUANTIZE", tensor(), to="int8"), {"inputs": (tensor("uint8"),)}, "between int8 and uint8"),
    ("xnnpack", SLICE, {"inputs": (*SLICE.inputs[:3], constant(1, 2))}, "strides"),
    ("gpu", op("RESHAPE"), {"outputs": (tensor(shape=(1, 2, 2, 2, 2)),)}, "more than 4 dimensions"),
    ("xnnpack", op("ADD"), {"inputs": (tensor("int64"),)}, "int64 is not supported"),
    ("int8-npu", op("ADD", to="int8"), {"inputs": (tensor("float32"),)}, "float32 activations"),
    ("int8-npu", op("ADD", to="int8"), {"inputs": (tensor("int16"),)}, "int16 activations .some NPUs support 16x8"),
    ("int8-npu", op("ADD", to="int8"), {"inputs": (tensor("int8", (-1, 8)),)}, "dynamic dimension"),
    ("int8-npu", op("QUANTIZE", to="int8"), {"inputs": (tensor(),)}, "at the boundary"),
    ("edge-tpu", op("ADD", to="int8"), {"kind": "HARD_SWISH"}, "not in its list of operators"),
    ("edge-tpu", op("MAX_POOL_2D", to="int8"), {"options": {"FusedActivationFunction": "RELU"}}, "fused RELU"),
    ("edge-tpu", op("ADD", to="int8"), {"inputs": (tensor("int8", (2, 4, 4, 8)),)}, "other than the last three"),
]


@pytest.mark.parametrize(("delegate", "stays", "change", "why"), RULES, ids=[f"{r[0]}-{r[3]}" for r in RULES])
def test_a_rule_lets_one_operator_leave(delegate: str, stays: OpInfo, change: dict[str, Any], why: str) -> None:
    leaves = DELEGATES[delegate].rejects
    assert leaves(stays) == ""
    assert why.replace(".", "(") in leaves(dataclasses.replace(stays, **change))


def test_every_delegate_names_its_source() -> None:
    assert all(row.source and row.rejects.__doc__ for row in DELEGATES.values())

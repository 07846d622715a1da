"""Times and errors joined on the names of the network: every rule once."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgekit.analysis import layers
from edgekit.errors import DataError
from edgekit.measurements import LayerCost, LayerFigures

COSTS = [
    LayerCost("stem.0", "conv 3x3", "stem.0", macs=100, tensors=("stem.0", "stem.2")),
    LayerCost("maxpool", "maxpool2d", "stem.0", tensors=("maxpool",)),
    LayerCost("body.0.conv1", "conv 3x3", "body.0.conv1", macs=200, tensors=("body.0.conv1", "body.0.relu")),
    LayerCost("body.0.conv2", "conv 1x1", "body.0.conv2", macs=50, tensors=("body.0.conv2",)),
    LayerCost("add", "add", "body.0.conv2", tensors=("add", "body.0.relu:2")),
    LayerCost("fc", "linear", "fc", macs=10, tensors=("fc",)),
]
LITERT = [
    ("Copy (NC, X8)", 1.0), ("stem.2/CONV_2D", 4.0), ("maxpool/MAX_POOL_2D", 1.0), ("body.0.relu/CONV_2D", 2.0),
    ("body.0.conv2/CONV_2D", 1.0), ("body.0.relu:2/ADD", 0.5), ("fc/FULLY_CONNECTED", 0.5),
]  # fmt: skip
ONNX = [
    ("stem.0/Clip", 4.0), ("stem.0/MaxPool", 1.0), ("body.0.conv1", 2.0), ("body.0.conv2/Add", 1.5), ("fc", 0.5),
    ("Transpose", 1.0),
]  # fmt: skip
ENGINE = [
    ("Reformatting CopyNode for Input Tensor 0 to stem.0 + stem.0/Clip", 1.0),
    ("stem.0.weight_dequantize + stem.0 + stem.0/Clip", 4.0),
    ("body.0.conv1 + body.0.conv1/Relu", 2.0),
    ("hardtanh_1_quantize", 1.0),
]


def debug(effects: dict[str, float]) -> dict[str, Any]:
    """What quant debug writes, the worst layer first."""
    agreement = {"sqnr_db": 40.0, "cosine": 0.99}
    rows = [
        {"name": name, "kind": "conv 3x3", "position": position, "alone": {**agreement, "sqnr_db": 50.0 - position},
         "accumulated": {**agreement, "sqnr_db": 30.0 - position, "cosine": 0.9 - position / 100},
         "effect": {"logits": {**agreement, "sqnr_db": db}}}
        for position, (name, db) in enumerate(effects.items())
    ]  # fmt: skip
    return {"layers": rows[::-1]}


def of(rows: list[LayerFigures], field: str) -> dict[str, Any]:
    return {row.name: getattr(row, field) for row in rows}


def test_an_operator_of_litert_is_of_the_layer_whose_tensor_it_writes_or_follows() -> None:
    assert of(layers.figures(LITERT, COSTS), "ms") == {
        "stem.0": 4.0, "stem.0/maxpool2d": 1.0, "body.0.conv1": 2.0, "body.0.conv2": 1.0, "body.0.conv2/add": 0.5,
        "fc": 0.5, "(other)": 1.0,
    }  # fmt: skip


def test_a_node_of_onnx_is_of_the_layer_that_it_is_called_after() -> None:
    assert of(layers.figures(ONNX, COSTS), "ms") == {
        "stem.0": 4.0, "stem.0/maxpool": 1.0, "body.0.conv1": 2.0, "body.0.conv2": None, "body.0.conv2/add": 1.5,
        "fc": 0.5, "(other)": 1.0,
    }  # fmt: skip


def test_a_module_without_a_layer_in_it_has_a_row_of_its_own_in_its_place() -> None:
    norm = LayerCost("body.1.norm", "layernorm", "body.0.conv2", tensors=("body.1.norm",))
    rows = layers.figures([("fc", 1.0), ("body.1.norm", 2.0), ("stem.0", 3.0)], [*COSTS[:5], norm, COSTS[5]])
    assert [row.name for row in rows][-2:] == ["body.1.norm/layernorm", "fc"]
    assert [row.ms for row in layers.by_block(rows)] == [3.0, None, 2.0, 1.0]


def test_fused_nodes_of_an_engine_are_of_the_first_layer_that_they_name() -> None:
    spent = of(layers.figures(ENGINE, COSTS), "ms")
    assert spent == {
        "stem.0": 5.0, "body.0.conv1": 2.0, "body.0.conv2": None, "fc": None, "(other)": 1.0
    }  # fmt: skip


@pytest.mark.parametrize("times", [LITERT, ONNX, ENGINE])
def test_no_time_is_lost_and_percentages_add_up(times: list[tuple[str, float]]) -> None:
    rows = layers.figures(times, COSTS)
    for row_set in (rows, layers.by_block(rows)):
        assert sum(row.ms or 0 for row in row_set) == pytest.approx(sum(ms for _, ms in times))
        assert sum(row.percent or 0 for row in row_set) == pytest.approx(100)


def test_layers_come_in_the_order_of_the_network_with_their_work_and_kind() -> None:
    rows = layers.figures(LITERT[::-1], COSTS)
    assert [row.name for row in rows][:3] == ["stem.0", "stem.0/maxpool2d", "body.0.conv1"]
    assert [(row.kind, row.macs) for row in rows if row.macs] == [
        ("conv 3x3", 100), ("conv 3x3", 200), ("conv 1x1", 50), ("linear", 10)
    ]  # fmt: skip


def test_errors_are_joined_and_need_no_times() -> None:
    found = debug({"stem.0": 30.0, "body.0.conv1": 40.0})
    for rows in (layers.figures(LITERT, COSTS, found), layers.figures((), (), found)):
        assert of(rows, "effect_db")["body.0.conv1"] == 40.0
        assert of(rows, "alone_db")["body.0.conv1"] == 49.0
        assert of(rows, "accumulated_db")["body.0.conv1"] == 29.0
        assert of(rows, "cosine")["body.0.conv1"] == 0.89
    assert [row.name for row in layers.figures((), (), found)] == ["stem.0", "body.0.conv1"]


def test_a_name_that_is_no_layer_of_the_errors_is_called_other() -> None:
    rows = layers.figures([("stem.0", 1.0), ("elsewhere.3", 1.0)], (), debug({"stem.0": 30.0}))
    assert of(rows, "ms") == {"stem.0": 1.0, "(other)": 1.0}


def test_without_a_network_the_names_are_those_of_the_times() -> None:
    assert [row.name for row in layers.figures([("a.1 + a.1/Relu", 1.0), ("?", 1.0)])] == ["a.1", "(other)"]


@pytest.mark.parametrize("broken", [{}, {"layers": [{}]}, {"layers": 3}, {"layers": [{"position": "x"}]}])
def test_figures_that_edgekit_did_not_write_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not written by edgekit"):
        layers.figures((), (), broken)


def test_the_share_of_the_error_is_of_noise_power() -> None:
    rows = layers.figures((), (), debug({"a.0": 20.0, "b.0": 30.0}))
    shares = layers.error_shares(rows)
    assert shares == [pytest.approx(100 * 0.01 / 0.011), pytest.approx(100 * 0.001 / 0.011)]
    assert layers.noise_db(rows) == pytest.approx(-10 * math.log10(0.011))
    assert layers.error_shares(layers.figures(ONNX, COSTS)) == [None] * 7


def test_a_block_adds_up_and_ends_with_its_last_layer() -> None:
    found = debug({"stem.0": 30.0, "body.0.conv1": 20.0, "body.0.conv2": 20.0})
    blocks = {row.name: row for row in layers.by_block(layers.figures(LITERT, COSTS, found))}
    body = blocks["body.0"]
    assert (body.kind, body.ms, body.percent, body.macs) == ("2 layers", 3.5, 35.0, 250)
    assert (body.alone_db, body.accumulated_db, body.cosine) == (48.0, 28.0, 0.88)
    assert body.effect_db == pytest.approx(20 - 10 * math.log10(2))
    assert list(blocks) == ["stem.0", "body.0", "fc", "(other)"]


def test_the_verdict_names_the_slowest_and_the_most_wrong() -> None:
    one = layers.figures(LITERT, COSTS, debug({"stem.0": 20.0, "fc": 40.0}))
    assert layers.verdict(one) == "stem.0 costs 40 % of the time and 99 % of the error"
    two = layers.figures(LITERT, COSTS, debug({"stem.0": 40.0, "fc": 20.0}))
    assert layers.verdict(two) == (
        "stem.0 costs 40 % of the time and makes 1 % of the error; fc makes 99 % of the error in 5 % of the time"
    )
    assert layers.verdict(layers.figures(ONNX, COSTS)) == "stem.0 costs 40 % of the time"
    assert layers.verdict(layers.figures((), (), debug({"fc": 20.0}))) == "fc makes 100 % of the error"
    assert layers.verdict([]) == ""


def test_time_of_no_layer_is_said_where_it_is_much() -> None:
    def told(other: float) -> str:
        return layers.verdict(layers.figures([("stem.0", 10.0 - other), ("Copy (NC, X8)", other)], COSTS))

    assert told(3.0) == "stem.0 costs 70 % of the time; 30 % of the time is of no layer"
    assert told(2.0) == "stem.0 costs 80 % of the time"


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("layer1.0.relu:2/ADD", "layer1.0"),
        ("features.2.0.block.1.fc1/Mul", "features.2"),
        ("encoder.layers.encoder_layer_11.mlp.0", "encoder.layers.encoder_layer_11"),
        ("heads.head", "heads.head"),
        ("Copy (NC, X8)", "(other)"),
    ],
)
def test_a_block_reaches_to_the_first_number(layer: str, block: str) -> None:
    assert layers.block_of(layer) == block

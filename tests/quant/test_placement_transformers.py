"""Which tensors of transformers and of unlisted operators hold integers, and what stays in floating point."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.quant import costs, placement
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, Placement
from tests.nets import observe, plain, random_images, table_of
from tests.quant.transformers import NETWORKS


def placed(name: str) -> tuple[fx.GraphModule, Placement, Placement, int]:
    """A folded network, its placements for TensorRT and LiteRT, and its image size."""
    network, size = NETWORKS[name]()
    folded = fold(network, size)
    table = observe(folded, random_images(8, size))
    schemes = (TENSORRT_SCHEME, LITERT_SCHEME)
    return folded, *(placement.place(folded, table, scheme) for scheme in schemes), size


def test_every_linear_and_every_product_of_a_vision_transformer_is_in_int8() -> None:
    folded, tensorrt, litert, _ = placed("vision")
    assert litert.int8_layers == set(placement.layers(folded))
    assert set(placement.layers(folded)) - tensorrt.int8_layers == {"conv_proj"}  # three channels
    assert tensorrt.int8_products == litert.int8_products == {"matmul", "matmul_1", "matmul_2", "matmul_3"}


def test_a_product_reads_both_sides_rounded_and_softmax_writes_as_it_is() -> None:
    _, tensorrt, _, _ = placed("vision")
    assert {
        ("transpose_1", "matmul"),
        ("transpose_4", "matmul"),
        ("softmax", "matmul_1"),
        ("transpose_3", "matmul_1"),
    } <= tensorrt.reads
    assert not any(reader.startswith(("softmax", "layers.0.ln", "layers.0.mlp.1")) for _, reader in tensorrt.reads)
    assert "add_1" not in tensorrt.integers


def test_additions_between_layer_norms_stay_float_in_litert() -> None:
    _, _, litert, _ = placed("vision")
    assert {"add", "add_1", "add_4", "ln", "softmax", "layers.0.mlp.1"} <= litert.float_operators
    assert not {"add", "add_1", "add_4"} & set(litert.integers)
    assert {"layers.0.ln_1", "layers.0.self_attention.qkv", "softmax", "matmul", "layers.0.mlp.0"} <= set(
        litert.integers
    )


def test_what_moves_values_keeps_the_grid_that_they_are_on() -> None:
    _, tensorrt, litert, _ = placed("vision")
    whole = litert.grids["layers.0.self_attention.qkv"]
    assert all(litert.grids[name] == whole for name in ("getitem", "unflatten", "transpose_1", "transpose_4"))
    assert tensorrt.grids["transpose_1"] != tensorrt.grids["transpose_3"]  # query and value have their own


def test_odd_operators_are_counted_and_named() -> None:
    folded, tensorrt, litert, size = placed("odd")
    for found, multiplying in ((tensorrt, ("stem.0 (conv 3x3)",)), (litert, ())):
        left = costs.left_float(folded, found, size)
        assert left.multiplying == multiplying
        assert (left.macs > 0) == bool(multiplying)
        assert left.macs < 0.5
        assert {"groupnorm", "prelu", "layernorm", "softmax", "gelu"} <= set(left.others)
    lost = costs.left_float(folded, litert, size, ["stem.0"])
    assert lost.multiplying == ("stem.0 (conv 3x3)",)
    text = str(costs.left_float(folded, tensorrt, size))
    assert "% of the multiplications in floating point: stem.0 (conv 3x3)" in text


def test_a_listed_network_leaves_nothing_in_litert() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    folded = fold(network.eval())
    left = costs.left_float(folded, placement.place(folded, observe(folded, random_images(4, 8)), LITERT_SCHEME), 8)
    assert (left.macs, left.multiplying, left.others) == (0.0, (), {})


class Masked(nn.Module):
    """A mask of minus infinity between two products, and a matrix of weights that is no layer."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)
        self.weight = nn.Parameter(torch.eye(8))
        self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (self.conv(x).flatten(2).transpose(1, 2)) @ self.weight
        return self.head((torch.softmax(x @ x.transpose(1, 2) + self.mask, -1) @ x).mean(1))


def test_tensors_that_a_mask_makes_infinite_have_no_range_and_stay_float() -> None:
    folded = fx.symbolic_trace(Masked().eval())
    images = random_images(4, 16)
    table = observe(folded, images)
    assert "add" not in table.ranges
    found = placement.place(folded, table, LITERT_SCHEME)
    assert "add" in found.float_operators
    assert found.int8_products == {"matmul_1", "matmul_2"}
    assert "matmul" in found.float_operators  # of a constant
    assert plain(folded, table).layers.keys() == {"conv", "head"}


def test_a_layer_whose_input_has_no_range_stays_float() -> None:
    folded = fx.symbolic_trace(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)))
    found = placement.place(folded, table_of(**{"image": (-1.0, 1.0)}), TENSORRT_SCHEME)
    assert found.int8_layers == {"0"}
    with pytest.raises(KeyError):
        found.grids["0"]

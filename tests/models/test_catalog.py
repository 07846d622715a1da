"""Rows of classifiers that the table does not list, computed from the networks of torchvision and timm."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import MissingError, UsageError
from edgekit.models import build, catalog, structure, zoo
from edgekit.records import Preprocess

TORCHVISION = ["shufflenet_v2_x1_0", "squeezenet1_1", "regnet_y_400mf", "googlenet"]
TIMM = ["timm/mobilenetv4_conv_small", "timm/levit_128s", "timm/resnetv2_50", "timm/deit_tiny_patch16_224"]
each = pytest.mark.parametrize("arch", [*TORCHVISION, *TIMM])


def test_the_table_comes_first() -> None:
    assert zoo.row("resnet18") is zoo.MODELS["resnet18"]


@each
def test_the_network_is_built_and_gives_one_row_per_image(arch: str) -> None:
    row = zoo.row(arch)
    model = structure.without_values(lambda: build.build(arch, 7))
    with torch.device("meta"):
        assert model(torch.zeros(2, 3, row.preprocess.image_size, row.preprocess.image_size)).shape == (2, 7)
    head = build.head_of(model, arch)
    assert isinstance(head, nn.Linear | nn.Conv2d)
    assert head.get_parameter("weight").shape[0] == 7


@each
def test_every_parameter_is_in_one_stage_or_a_head(arch: str) -> None:
    model = structure.without_values(lambda: build.build(arch, 7))
    stages, heads = build.stage_of(model, arch), zoo.row(arch).heads
    assert {n for n, _ in model.named_parameters() if not n.startswith(heads)} == stages.keys()
    assert set(stages.values()) == set(range(len(zoo.row(arch).stages)))
    inside = [id(p) for stage in build.stage_modules(model, arch) for m in stage for p in m.parameters()]
    assert len(inside) == len(set(inside))
    loose = {n for n, p in model.named_parameters() if n in stages and id(p) not in inside}
    assert loose <= {"cls_token", "pos_embed"}


@pytest.mark.parametrize(
    ("arch", "head", "twins", "aux", "simple"),
    [
        ("shufflenet_v2_x1_0", "fc", (), "", True),
        ("squeezenet1_1", "classifier.1", (), "", False),
        ("googlenet", "fc", (), "aux1 aux2", True),
        ("timm/mobilenetv4_conv_small", "classifier", (), "", True),
        ("timm/levit_128s", "head.linear", ("head_dist.linear",), "", False),
        ("timm/resnetv2_50", "head.fc", (), "", False),
    ],
)
def test_heads(arch: str, head: str, twins: tuple[str, ...], aux: str, simple: bool) -> None:
    row = zoo.row(arch)
    assert (row.head, row.twins, row.aux, row.simple) == (head, twins, aux, simple)


@pytest.mark.parametrize(
    "arch", ["timm/mobilenetv4_conv_small", "timm/mobilevit_xxs", "timm/vit_base_patch16_clip_224"]
)
def test_timms_preprocessing_is_that_of_its_own_transform(arch: str) -> None:
    import timm
    from timm.data import create_transform, resolve_data_config

    config = timm.get_pretrained_cfg(arch.removeprefix("timm/")).to_dict()
    steps: list[Any] = create_transform(**resolve_data_config({}, pretrained_cfg=config)).transforms
    ours = catalog._timm_facts(arch)[0]
    assert (steps[0].size, steps[0].interpolation.value) == (ours.resize_size, ours.resample)
    assert steps[1].size == (ours.image_size, ours.image_size)
    assert torch.allclose(steps[3].mean, torch.tensor(ours.mean))
    assert torch.allclose(steps[3].std, torch.tensor(ours.std))


def test_torchvisions_preprocessing_is_that_of_its_best_weights() -> None:
    assert zoo.row("shufflenet_v2_x1_0").preprocess == Preprocess(224, 256)
    assert zoo.row("maxvit_t").preprocess == Preprocess(224, 224, "bicubic")
    assert zoo.row("wide_resnet50_2").preprocess.resize_size == 232
    assert zoo.row("googlenet").preprocess.mean == (0.5,) * 3  # what its pretrained weights convert to


def test_a_letterbox_and_a_squash_are_kept() -> None:
    squash = catalog._timm_facts("timm/convnext_tiny.in12k_ft_in1k_384")[0]
    assert (squash.resize, squash.image_size, squash.resize_size) == ("squash", 384, 384)
    letterbox = catalog._timm_facts("timm/deepseek_vit_412m")[0]
    assert (letterbox.resize, letterbox.image_size, letterbox.background) == ("letterbox", 546, "#808080")


def test_a_squash_of_the_central_part_is_said() -> None:
    preprocess, more = catalog._timm_facts("timm/dm_nfnet_f0")
    assert (preprocess.resize, preprocess.image_size) == ("squash", 192)
    assert "central 90 %" in more["note"]


@pytest.mark.parametrize(
    ("arch", "hint"),
    [
        ("timm/mobilenetv4_conv_smal", "timm/mobilenetv4_conv_small"),
        ("shufflenet_v2_x1", "shufflenet_v2_x1_0"),
        ("mobilenetv4_conv_small", "timm/mobilenetv4_conv_small"),
        ("timm/hf-hub:someone/model", "edgekit models"),
        ("timm/../x", "edgekit models"),
        ("timm/", "edgekit models"),
    ],
)
def test_an_unknown_name_gives_similar_ones(arch: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        zoo.row(arch)
    assert hint in caught.value.hint


def test_weights_of_timm_may_be_named() -> None:
    row = zoo.row("timm/mobilenetv4_conv_small.e1200_r224_in1k")
    assert row.weights == "timm/mobilenetv4_conv_small.e1200_r224_in1k"
    with pytest.raises(UsageError, match="no weights 'other'") as caught:
        zoo.row("timm/mobilenetv4_conv_small.other")
    assert "timm/mobilenetv4_conv_small.e2400_r224_in1k" in caught.value.hint


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingError, match="needs the package 'timm'"):
        zoo.row("timm/not_looked_at_before")


@pytest.mark.parametrize(("arch", "size", "other"), [("maxvit_t", 225, 224), ("timm/levit_128s", 40, 32)])
def test_a_size_that_the_network_does_not_take_is_an_error_with_the_nearest(arch: str, size: int, other: int) -> None:
    with pytest.raises(UsageError, match=f"does not take images of {size} px") as caught:
        zoo.preprocess_for(arch, size)
    assert caught.value.hint == f"use --image-size {other}"


@pytest.mark.parametrize("arch", ["shufflenet_v2_x1_0", "timm/deit_tiny_patch16_224", "timm/vit_small_patch14_dinov2"])
def test_other_sizes_are_taken_where_the_network_can(arch: str) -> None:
    assert zoo.preprocess_for(arch, 112).image_size == 112
    model = structure.without_values(lambda: build.build(arch, 3, 112))
    assert model(torch.zeros(1, 3, 112, 112, device="meta")).shape == (1, 3)


def test_the_share_of_the_crop_stays_at_other_sizes() -> None:
    native = zoo.row("timm/mobilenetv4_conv_small").preprocess
    assert native.resize_size == math.floor(224 / 0.875)
    assert zoo.preprocess_for("timm/mobilenetv4_conv_small", 112).resize_size == 128


@pytest.mark.parametrize("arch", ["googlenet", "timm/levit_128s"])
def test_a_hidden_layer_needs_one_linear_head(arch: str) -> None:
    if zoo.row(arch).simple:
        assert isinstance(build.head_of(build.build(arch, 3, hidden=4), arch), nn.Sequential)
        return
    with pytest.raises(UsageError, match="cannot get a hidden one"):
        build.build(arch, 3, hidden=4)

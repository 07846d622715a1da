"""The table of networks: every row is complete, and what it says is what the network is."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekit.errors import UsageError
from edgekit.models import build, zoo
from edgekit.models.model_row import resolve

each_arch = pytest.mark.parametrize("arch", zoo.MODELS)


@cache
def on_meta(arch: str) -> nn.Module:
    """The network of 1000 classes without memory for its weights."""
    with torch.device("meta"):
        return build.build(arch, 1000).eval()


def parameters(arch: str) -> dict[str, nn.Parameter]:
    return dict(on_meta(arch).named_parameters())


def heads(arch: str) -> list[nn.Module]:
    aux = zoo.row(arch).aux
    return [build.head_of(on_meta(arch), arch), *([on_meta(arch).get_submodule(aux)] if aux else [])]


@each_arch
def test_stages_and_heads_hold_every_parameter_exactly_once(arch: str) -> None:
    modules = [module for stage in build.stage_modules(on_meta(arch), arch) for module in stage]
    held = [id(parameter) for module in (*modules, *heads(arch)) for parameter in module.parameters()]
    loose = {name for name, parameter in parameters(arch).items() if id(parameter) not in held}
    assert len(held) == len(set(held))
    assert loose == ({"class_token", "encoder.pos_embedding"} if arch == "vit_b_16" else set())


@each_arch
def test_every_parameter_outside_the_heads_has_the_stage_of_its_module(arch: str) -> None:
    stages, modules = build.stage_of(on_meta(arch), arch), build.stage_modules(on_meta(arch), arch)
    in_heads = {id(parameter) for head in heads(arch) for parameter in head.parameters()}
    assert stages.keys() == {name for name, parameter in parameters(arch).items() if id(parameter) not in in_heads}
    assert 4 <= len(modules) <= 5
    for number, stage in enumerate(modules):
        inside = {id(parameter) for module in stage for parameter in module.parameters()}
        assert inside
        assert {stages[name] for name, parameter in parameters(arch).items() if id(parameter) in inside} == {number}


def test_what_belongs_to_no_module_is_in_the_first_stage() -> None:
    stages = build.stage_of(on_meta("vit_b_16"), "vit_b_16")
    assert (stages["class_token"], stages["encoder.pos_embedding"], stages["encoder.ln.weight"]) == (0, 0, 3)


@each_arch
def test_parameters_macs_and_resolutions_are_those_of_the_network(arch: str) -> None:
    row, model = zoo.row(arch), on_meta(arch)
    sides: list[int] = []
    handles = [
        stage[0].register_forward_pre_hook(lambda _, x: sides.append(x[0].shape[2]))
        for stage in build.stage_modules(model, arch)
    ]
    with torch.device("meta"), FlopCounterMode(display=False) as flops:
        model(torch.zeros(1, 3, row.preprocess.image_size, row.preprocess.image_size))
    for handle in handles:
        handle.remove()
    counted = sum(p.numel() for n, p in parameters(arch).items() if not row.aux or not n.startswith(row.aux + "."))
    assert row.parameters_m == round(counted / 1e6, 2)
    assert row.macs_g == round(flops.get_total_flops() / 2e9, 3)
    if arch != "vit_b_16":  # it keeps its resolution
        assert sides == sorted(sides, reverse=True)
        assert len(set(sides)) >= len(sides) - 1


@each_arch
def test_the_head_is_a_linear_layer_and_a_hidden_layer_comes_under_the_same_name(arch: str) -> None:
    head = build.head_of(on_meta(arch), arch)
    assert isinstance(head, nn.Linear)
    assert head.out_features == 1000
    with torch.device("meta"):
        hidden = build.head_of(build.build(arch, 7, hidden=5), arch)
    assert [type(layer).__name__ for layer in hidden] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (hidden[0].in_features, hidden[0].out_features, hidden[3].out_features) == (head.in_features, 5, 7)


@each_arch
def test_the_native_preprocessing_is_what_the_weights_were_evaluated_with(arch: str) -> None:
    source = resolve(zoo.row(arch).weights)
    if not isinstance(source, type):
        pytest.skip("its weights are not torchvision's")
    theirs, ours = source.IMAGENET1K_V1.transforms(), zoo.row(arch).preprocess
    assert (ours.image_size, ours.resize_size) == (theirs.crop_size[0], theirs.resize_size[0])
    assert ours.resample == theirs.interpolation.value
    if arch != "inception_v3":  # see the next test
        assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))


def test_inception_is_fed_what_its_transform_would_make() -> None:
    from torchvision.models import Inception3, Inception_V3_Weights

    ours, theirs = zoo.row("inception_v3").preprocess, Inception_V3_Weights.IMAGENET1K_V1.transforms()
    pixels = torch.rand(1, 3, 4, 4)
    normalized = (pixels - torch.tensor(theirs.mean)[:, None, None]) / torch.tensor(theirs.std)[:, None, None]
    wanted = Inception3._transform_input(type("", (), {"transform_input": True})(), normalized)
    got = (pixels - torch.tensor(ours.mean)[:, None, None]) / torch.tensor(ours.std)[:, None, None]
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "efficientnet_lite1", "densenet121"])
def test_one_step_of_training_reaches_the_whole_network(arch: str) -> None:
    torch.manual_seed(0)
    model = build.build(arch, 3, 64).train()
    nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.grad.any() for parameter in build.head_of(model, arch).parameters())
    first = [parameter for module in build.stage_modules(model, arch)[0] for parameter in module.parameters()]
    assert all(parameter.grad.any() for parameter in first if parameter.ndim > 1)


def test_inception_trains_both_heads_at_its_least_size() -> None:
    torch.manual_seed(0)
    model = build.build("inception_v3", 3).train()
    answer = model(torch.randn(2, 3, 75, 75))
    (answer.logits.sum() + answer.aux_logits.pow(2).sum()).backward()
    assert answer.logits.shape == answer.aux_logits.shape == (2, 3)
    for head in (model.fc, model.AuxLogits.fc, model.AuxLogits.conv1.conv):
        assert head.weight.grad.isfinite().all()
        assert head.weight.grad.any()


def test_inceptions_auxiliary_head_pools_like_torchvisions_at_the_native_size() -> None:
    from torchvision.models.inception import InceptionAux

    aux = build.build("inception_v3", 3).AuxLogits.eval()
    features = torch.randn(1, 768, 17, 17)
    assert torch.equal(aux(features), InceptionAux.forward(aux, features))


@pytest.mark.parametrize("size", [32, 64])
def test_a_vision_transformer_is_built_for_its_image_size(size: int) -> None:
    with torch.device("meta"):
        model = build.build("vit_b_16", 2, size).eval()
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 2)


@each_arch
def test_the_least_size_works(arch: str) -> None:
    size = zoo.row(arch).least_size
    assert zoo.preprocess_for(arch, size).image_size == size
    with torch.device("meta"):
        assert build.build(arch, 2, size).eval()(torch.zeros(1, 3, size, size)).shape == (1, 2)


def test_an_unknown_model_lists_the_known() -> None:
    with pytest.raises(UsageError, match="resnet81") as caught:
        build.build("resnet81", 2)
    assert "did you mean 'resnet18'" in caught.value.hint


@pytest.mark.parametrize(("size", "resize"), [(None, 256), (224, 256), (64, 73), (32, 37), (448, 512)])
def test_the_resize_keeps_its_ratio_to_the_crop(size: int | None, resize: int) -> None:
    preprocess = zoo.preprocess_for("resnet18", size)
    assert (preprocess.image_size, preprocess.resize_size) == (size or 224, resize)


@pytest.mark.parametrize("size", [0, 16, 31, 1025, -1])
def test_an_image_size_that_no_network_takes_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="image size"):
        zoo.preprocess_for("resnet18", size)


@pytest.mark.parametrize(
    ("arch", "size", "nearest"),
    [("inception_v3", 64, 75), ("vit_b_16", 100, 96), ("vit_b_16", 16, 32), ("vgg16", 512, 448)],
)
def test_an_image_size_that_this_network_does_not_take_names_the_nearest(arch: str, size: int, nearest: int) -> None:
    with pytest.raises(UsageError, match=f"{arch} takes image sizes") as caught:
        zoo.preprocess_for(arch, size)
    assert caught.value.hint == f"use --image-size {nearest}"
    assert zoo.preprocess_for(arch, nearest).image_size == nearest

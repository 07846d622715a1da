"""The rules of `edgekit.export.fold`."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from edgekit.convert.fold import fold
from edgekit.errors import EdgekitError
from edgekit.models import build, program
from edgekit.quant.naming import tensor_names
from tests.nets import random_images, relative_error, settle


class ReadTwice(nn.Module):
    """The convolution's output is read by its batch norm and by an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.bn(y) + y


def targets(model: nn.Module) -> list[str]:
    return targets_of(fold(model))


def targets_of(folded: fx.GraphModule) -> list[str]:
    return list(tensor_names(folded.graph).values())


def kinds(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in fold(model).modules()}


def equal(model: nn.Module, size: int = 16) -> bool:
    """Whether folding keeps the outputs of a settled network."""
    torch.manual_seed(0)
    images = random_images(4, size)
    settle(model, images)
    with torch.inference_mode():
        return relative_error(fold(model, size)(images).numpy(), model(images).numpy()) < 1e-4


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
def test_rule_1_conv_and_batch_norm_become_one_conv_with_a_bias(bias: bool, groups: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=groups, bias=bias), nn.BatchNorm2d(6), nn.ReLU())
    assert equal(model)
    assert targets(model) == ["image", "0", "2"]
    assert fold(model).get_submodule("0").bias is not None


def test_rule_1_a_conv_that_something_else_reads_is_not_folded() -> None:
    assert equal(ReadTwice())
    assert targets(ReadTwice()) == ["image", "conv", "bn", "add"]


def test_rule_4_a_batch_norm_without_a_conv_before_it_becomes_a_depthwise_conv() -> None:
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    assert equal(model)
    assert targets(model) == ["image", "0", "1", "2"]
    norm = fold(model).get_submodule("1")
    assert (type(norm), norm.groups, norm.kernel_size) == (nn.Conv2d, 3, (1, 1))


def pooled(places: int) -> nn.Module:
    """An adaptive pool as in VGG."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(places), nn.Flatten(), nn.Linear(4 * places**2, 5)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 8, 10, 13])
def test_rule_5_an_uneven_pool_goes_into_the_linear_layer(side: int) -> None:
    assert equal(pooled(7), side)
    folded = fold(pooled(7), side)
    assert targets_of(folded) == ["image", "0", "2", "3"]
    assert folded.get_submodule("3").weight.shape == (5, 4 * side**2)


def test_rule_5_an_even_pool_stays() -> None:
    assert equal(pooled(7), 14)
    folded = fold(pooled(7), 14)
    assert targets_of(folded) == ["image", "0", "1", "2", "3"]


def test_rule_5_the_mean_of_everything_needs_no_image_size() -> None:
    assert targets_of(fold(pooled(1))) == ["image", "0", "1", "2", "3"]
    with pytest.raises(EdgekitError, match="depends on the image size"):
        fold(pooled(7))


def test_rule_5_an_uneven_pool_that_no_linear_layer_reads_is_refused() -> None:
    with pytest.raises(EdgekitError, match="must be read by one linear layer"):
        fold(nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Conv2d(3, 1, 1), nn.Flatten()), 8)


def test_rule_2_silu_becomes_two_operations() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU())
    assert equal(model)
    assert targets(model) == ["image", "0", "sigmoid", "mul"]


@pytest.mark.parametrize("nothing", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.Identity(), StochasticDepth(0.5, "row")])
def test_rule_3_what_does_nothing_in_inference_vanishes(nothing: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nothing, nn.ReLU())
    assert equal(model)
    assert targets(model) == ["image", "0", "2"]


# One of each family; the others differ in widths and depths only (benchmarks/models.py tries all).
@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_lite0", "densenet121"]
)
def test_a_network_of_each_family_folds_to_the_same_function(arch: str) -> None:
    model = build.build(arch, 4, 32)
    assert equal(model, 32)
    assert not kinds(model) & {"BatchNorm2d", "SiLU", "Dropout", "StochasticDepth", "Identity"}


def test_the_model_itself_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model)
    assert model.training
    assert [type(module).__name__ for module in model] == ["Conv2d", "BatchNorm2d", "SiLU"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_forward_with_branches_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(EdgekitError, match="cannot be traced"):
        fold(Branching())


class Methods(nn.Module):
    """Sizes that torch.fx would read at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.conv(x))
        batch, channels, height, width = y.shape
        return self.head(y.view(batch, channels, height * width).mean(2))


def test_a_network_that_reads_shapes_gets_the_graph_of_torch_export() -> None:
    folded = fold(Methods(), 16)
    assert targets_of(folded) == ["image", "conv", "reshape", "mean", "head"]
    assert not [node for node in folded.graph.nodes if node.op == "call_method"]
    assert equal(Methods(), 16)


class Flat(nn.Module):
    """BatchNorm1d between two Linear layers that ReLU separates, as `order` says."""

    def __init__(self, order: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.order, self.one, self.two = order, nn.Linear(3, 6), nn.Linear(6, 2)
        self.norm = nn.BatchNorm1d(6)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x.flatten(2).transpose(1, 2))
        steps = {"n": lambda t: self.norm(t.flatten(0, 1)).reshape_as(t), "r": torch.relu, "m": lambda t: t.mean(1)}
        for step in self.order:
            y = self.norm(y) if step == "n" and y.ndim == 2 else steps[step](y)
        return self.two(y)


@pytest.mark.parametrize(
    ("order", "operations"),
    [("nrm", ["relu", "mean"]), ("mrn", ["mean", "relu"]), ("mrnr", ["mean", "relu", "mul", "add", "relu:2"])],
)
def test_rule_7_a_flat_batch_norm_goes_into_a_linear_layer(order: str, operations: list[str]) -> None:
    assert equal(Flat(order))
    folded = fold(Flat(order), 16)
    found = [name for name in targets_of(folded) if not name.startswith(("reshape", "permute", "image"))]
    assert [name.removesuffix("_1") for name in found] == ["one", *operations, "two"]


def test_a_layer_that_is_called_twice_is_folded_for_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.conv(self.one(self.conv(x))))

    assert equal(Twice())


def test_a_traced_program_is_taken_as_it_is_and_for_its_image_size_only() -> None:
    graph = program.trace(Methods(), 16)
    assert targets_of(fold(graph, 16)) == ["image", "conv", "reshape", "mean", "head"]
    with pytest.raises(EdgekitError, match="images of 16 px and cannot take 32 px"):
        fold(graph, 32)

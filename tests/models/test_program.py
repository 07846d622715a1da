"""The plain graph computes what the network does; a document gives the same graph back, and is not trusted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.convert.fold import fold
from edgekit.errors import DataError, EdgekitError
from edgekit.models import program
from tests.nets import random_images, relative_error

SIZE = 16


class Layer(nn.Module):
    """A convolution, `function` of its (N, 8, 8, 8) features, and a head."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.function = nn.Conv2d(3, 8, 2, 2), function
        width = function(torch.ones(2, 8, 8, 8)).flatten(1).shape[1]
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.function(self.stem(x)).flatten(1))


def targets(graph: fx.GraphModule) -> list[str]:
    """Name of each module that is called, and of each function."""
    return [
        str(node.target) if node.op == "call_module" else str(getattr(node.target, "__name__", node.target))
        for node in graph.graph.nodes
        if node.op.startswith("call")
    ]


def difference(graph: nn.Module, model: nn.Module, size: int = SIZE) -> float:
    """The largest over batches of several sizes."""
    with torch.inference_mode():
        batches = [random_images(count, size) for count in (1, 2, 3)]
        return max(relative_error(graph(images).numpy(), model(images).numpy()) for images in batches)


def written(graph: fx.GraphModule) -> dict[str, Any]:
    """The document after a journey through JSON."""
    return json.loads(json.dumps(program.to_document(graph)))


def changed_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, :2] += 1
    y[:, 3] = 0
    return y


def tokens(x: torch.Tensor) -> torch.Tensor:
    """(N, 64, 8)."""
    return x.flatten(2).transpose(1, 2)


def with_token(x: torch.Tensor) -> torch.Tensor:
    token = torch.arange(8.0).reshape(1, 1, 8)
    return torch.cat([token.expand(x.shape[0], -1, -1), tokens(x)], 1) + torch.arange(65.0)[:, None]


def windows(x: torch.Tensor) -> torch.Tensor:
    """Windows of 4 x 4 joined with the batch."""
    b, c, h, w = x.shape
    parts = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 16)
    parts = parts.softmax(-1)
    return parts.view(b, h // 4, w // 4, c, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def heads(x: torch.Tensor) -> torch.Tensor:
    """Attention of two heads of the tokens to themselves."""
    y = tokens(x).repeat(1, 1, 3)
    query, key, value = y.reshape(x.shape[0], 64, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape[0], 64, 8)


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "mish": F.mish,
    "gelu of tanh": lambda x: F.gelu(x, approximate="tanh"),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp min": lambda x: x.clamp_min(0.1),
    "relu6 in place": lambda x: F.relu6(x, inplace=True),
    "arithmetic": lambda x: (1 - x) / (x * x + 2).sqrt() - x.pow(3),
    "alpha": lambda x: torch.add(x, x.abs(), alpha=0.5),
    "glu": lambda x: F.glu(x, 1),
    "variance": lambda x: x.var(1, keepdim=True) + x.std((2, 3), keepdim=True, correction=0),
    "norm": lambda x: F.normalize(x, dim=1),
    "mean": lambda x: x.mean((2, 3)),
    "mean of channels": lambda x: x.mean(1, keepdim=True),
    "largest": lambda x: x.amax((2, 3), keepdim=True),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, 4),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)),
    "group norm": lambda x: F.group_norm(x, 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0),
    "bilinear": lambda x: F.interpolate(x, (5, 7), mode="bilinear"),
    "shuffle": lambda x: F.channel_shuffle(F.pixel_unshuffle(x, 2), 4),
    "split": lambda x: torch.cat(x.split([3, 4, 1], 1)[::-1], 1),
    "chunk": lambda x: x.chunk(2, 2)[1] * x.chunk(2, 2)[0],
    "every other": lambda x: torch.cat([x[:, :, 0::2], x[:, :, 1::2]], -1),
    "stack": lambda x: torch.stack([x, x + 1], 2).flatten(1, 2),
    "roll": lambda x: x.roll((2, -3), (2, 3)),
    "pad": lambda x: F.pad(x, (1, 0, 2, 1)),
    "pad with a value": lambda x: F.pad(x, (1, 1, 1, 1), value=-2.0),
    "crop": lambda x: F.pad(x, (-1, 0, 2, -1)),
    "index": lambda x: x[:, torch.tensor([3, 1, 1])],
    "mask": lambda x: torch.where(torch.ones(8, 8).tril().bool(), x, -1.0),
    "einsum": lambda x: torch.einsum("nchw, ndhw -> ndc", x, x),
    "token": with_token,
    "windows": windows,
    "attention": heads,
    "changes in place": changed_in_place,
    "conv1d": lambda x: F.conv1d(x.mean((2, 3))[:, None], torch.ones(1, 1, 3), padding=1),
    "frequencies": lambda x: x + torch.sin(torch.arange(8.0) / 3).cumsum(0),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "decomposed": lambda x: torch.addcmul(x, x, x, value=0.5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_operator_computes_what_it_did_and_comes_back_from_a_document(name: str) -> None:
    model = Layer(FUNCTIONS[name]).eval()
    graph = program.trace(model, SIZE)
    assert difference(graph, model) <= 1e-5
    assert {node.op for node in graph.graph.nodes} <= {
        "placeholder",
        "get_attr",
        "call_module",
        "call_function",
        "output",
    }
    again = program.from_document(written(graph), graph.state_dict())
    images = random_images(2, SIZE)
    assert torch.equal(again(images), graph(images))
    assert program.to_document(again) == program.to_document(graph)


class Block(nn.Module):
    """Layers under names of their own; the activation is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.code = nn.Conv2d(4, 4, 1)  # a name that every graph has as well
        self.act, self.drop, self.head = nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        y = y + self.act(self.code(y))
        return self.head(self.drop(self.act(y)).mean((2, 3)))


def test_layers_keep_their_names() -> None:
    graph = program.trace(Block(), SIZE)
    assert targets(graph) == [
        *("features.0", "features.1", "features.2", "code_", "act", "add", "act", "mean", "flatten", "head")
    ]
    assert {"features.0.weight", "features.1.running_var", "head.bias"} <= graph.state_dict().keys()


class Named(nn.Module):
    """Convolutions with names that torch takes and Python does not."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in names:
            self.add_module(name, nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
        self.register_buffer("sc-äle", torch.rand(1, 3, 1, 1))
        self.add_module("head-1", nn.Linear(3, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *layers, head = self.children()
        for layer in (*layers, layers[0]):
            x = layer(x)
        return head((x * self._buffers["sc-äle"]).mean((2, 3)))


def test_any_name_of_a_module_comes_back_from_a_document() -> None:
    plain = ["0", "1", "block1-0", "-x", "x-", "x y"]
    strange = ["é", "ü", "_", "__x", "a:b", "a/b", "graph", "deep" * 300]
    model = Named(plain + strange).eval()
    graph = program.trace(model, SIZE)
    assert {f"{name}.0" for name in plain} < set(targets(graph))
    back = program.from_document(written(graph), graph.state_dict())
    images = random_images(2, SIZE)
    with torch.inference_mode():
        assert torch.equal(back(images), graph(images))
    assert difference(fold(back, SIZE), model) < 1e-5


def test_the_network_itself_is_left_alone() -> None:
    model = Block().half().train()
    before = copy.deepcopy(model.state_dict())
    program.trace(model, SIZE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_class_token_becomes_part_of_the_positions() -> None:
    graph = program.trace(Layer(with_token), SIZE)
    assert targets(graph).count("add") == 1


def test_queries_are_cut_out_of_a_layer_before_they_are_split_into_heads() -> None:
    """No tensor has more than four dimensions."""
    graph = program.trace(Layer(heads), SIZE)
    assert max(len(node.meta["shape"]) for node in graph.graph.nodes if "shape" in node.meta) == 4


def test_what_depends_on_the_weights_alone_is_computed() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = F.batch_norm(self.weight.reshape(1, 4, -1), None, None, training=True).reshape_as(self.weight)
            return F.conv2d(x, weight, self.bias)

    model = nn.Sequential(Standardized(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)).eval()
    graph = program.trace(model, SIZE)
    assert targets(graph) == ["0", "flatten", "2"]
    assert type(graph.get_submodule("0")) is nn.Conv2d
    assert difference(graph, model) <= 1e-5


class Branches(nn.Module):
    """A convolution and the identity, which `reparameterize` sums."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.conv: nn.Module | None = nn.Conv2d(3, 3, 1)
        self.sum, self.wrong = nn.Conv2d(3, 3, 1), wrong

    def reparameterize(self) -> None:
        state = self.conv.state_dict()
        state["weight"] = state["weight"] + (1 + self.wrong) * torch.eye(3)[:, :, None, None]
        self.sum.load_state_dict(state)
        self.conv = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sum(x) if self.conv is None else self.conv(x) + x


@pytest.mark.parametrize(("wrong", "expected"), [(0.0, ["0.sum"]), (0.5, ["0.conv", "add"])])
def test_branches_are_summed_by_the_networks_own_method_if_it_is_right(wrong: float, expected: list[str]) -> None:
    model = nn.Sequential(Branches(wrong), nn.Flatten(), nn.Linear(3 * SIZE**2, 2)).eval()
    graph = program.trace(model, SIZE)
    assert targets(graph) == [*expected, "flatten", "2"]
    assert difference(graph, model) <= 1e-5


class Loop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Loop(), r"torch.export cannot take this network: .*line \d+: return x.flatten"),
        (Layer(lambda x: x.sort(1)[0]), "the operator sort"),
        (Layer(lambda x: x - x.mean(0)), "mean: it mixes the images of a batch"),
        (Layer(lambda x: x * x.shape[0]), "number of images in a batch"),
        (nn.Conv2d(3, 4, 1), r"not \(N, classes\)"),
    ],
)
def test_what_cannot_be_traced_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(EdgekitError, match=message):
        program.trace(model, SIZE)


def test_a_network_with_two_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x.flatten(1), x.mean((2, 3))

    with pytest.raises(EdgekitError, match="returns 2 tensors instead of its logits"):
        program.trace(Two(), SIZE)


@pytest.fixture(scope="module")
def good() -> fx.GraphModule:
    return program.trace(Block(), SIZE)


def edit(document: dict[str, Any], *path: Any, to: Any) -> None:
    """Set one value inside a document."""
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = to


HOSTILE: dict[str, tuple[Any, ...]] = {
    "format": ("format", 2),
    "size": ("image_size", 10**9),
    "no nodes": ("nodes", []),
    "function": ("nodes", 6, "target", "system"),
    "function of torch": ("nodes", 6, "target", "load"),
    "operation": ("nodes", 6, "op", "call_method"),
    "module": ("modules", "head", "kind", "Module"),
    "options": ("modules", "head", "options", {"in_features": 4}),
    "width": ("modules", "head", "options", "in_features", 2**40),
    "huge width": ("modules", "head", "options", "in_features", 2**31 - 1),
    "text": ("modules", "features.0", "options", "padding", "__import__('os')"),
    "code in a name": ("nodes", 6, "name", "x = 1; import os"),
    "node of later": ("nodes", 1, "args", [{"node": "head"}]),
    "node of nowhere": ("nodes", 1, "args", [{"node": "nothing"}]),
    "argument": ("nodes", 1, "args", [{"eval": "1"}]),
    "nested": ("nodes", 1, "args", [[[[[[[[1]]]]]]]]),
    "module path": ("nodes", 1, "target", "features.9"),
    "too many inputs": ("nodes", 1, {"name": "again", "op": "placeholder"}),
    "kind": ("modules", []),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_document_is_a_data_error(good: fx.GraphModule, case: str) -> None:
    document = written(good)
    *path, value = HOSTILE[case]
    edit(document, *path, to=value)
    with pytest.raises(DataError, match="not a program of edgekit"):
        program.from_document(document, good.state_dict())


@pytest.mark.parametrize("path", ["__class__", "features.__dict__", "forward", "training", "a'b", 'a\\"b', "", "x..y"])
def test_names_of_attributes_are_no_names_of_modules(good: fx.GraphModule, path: str) -> None:
    document = json.loads(json.dumps(written(good)).replace('"head"', json.dumps(path)))
    with pytest.raises(DataError, match="not a program of edgekit"):
        program.from_document(document, good.state_dict())


def test_a_tensor_larger_than_memory_is_refused_before_it_is_made(good: fx.GraphModule) -> None:
    document = written(good)
    entry = {"name": "big", "op": "call_function", "target": "pad"}
    entry["args"] = [{"node": document["nodes"][1]["name"]}, [0, 10**6, 0, 10**6], "constant", 0.0]
    document["nodes"].insert(2, entry)
    with pytest.raises(DataError, match="big is not a tensor, or too large"):
        program.from_document(document, good.state_dict())


@pytest.mark.parametrize("change", ["missing", "more", "shape", "type"])
def test_tensors_that_do_not_fit_are_a_data_error(good: fx.GraphModule, change: str) -> None:
    state = dict(good.state_dict())
    if change == "missing":
        del state["head.bias"]
    elif change == "more":
        state["other"] = torch.zeros(1)
    else:
        state["head.bias"] = torch.zeros(3) if change == "shape" else torch.zeros(2, dtype=torch.int64)
    with pytest.raises(DataError, match=r"head\.bias|other"):
        program.from_document(written(good), state)

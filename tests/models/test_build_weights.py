"""First weights: what is loaded, what stays random, and files that are refused safely."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision.models._api import WeightsEnum

from edgekit.errors import DataError, EdgekitError, MissingError
from edgekit.models import build, checkpoints, weights_file, zoo
from edgekit.models.model_row import resolve


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("arch", zoo.MODELS)
def test_every_row_names_real_weights(arch: str) -> None:
    source = resolve(zoo.row(arch).weights)
    assert callable(source)
    assert not isinstance(source, type) or issubclass(source, WeightsEnum)


def test_none_leaves_the_random_start() -> None:
    model = build.build("resnet18", 3)
    before = model.conv1.weight.clone()
    build.load_weights(model, "resnet18", "none")
    assert torch.equal(model.conv1.weight, before)


def test_without_a_network_the_error_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(MissingError, match="resnet18 could not be downloaded") as caught:
        build.load_weights(build.build("resnet18", 3), "resnet18", "pretrained")
    assert all(way in caught.value.hint for way in ("efficientnet_lite0", "--weights FILE", "--weights none"))


def saved(folder: Path, arch: str, classes: int, **extra: object) -> tuple[str, dict[str, torch.Tensor]]:
    state = build.build(arch, classes).state_dict()
    torch.save({**state, **extra}, folder / "weights.pt")
    return str(folder / "weights.pt"), state


def test_a_state_dict_file_is_loaded(tmp_path: Path) -> None:
    path, state = saved(tmp_path, "resnet18", 3)
    model = build.build("resnet18", 3)
    build.load_weights(model, "resnet18", path)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_safetensors_file_is_loaded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = build.build("resnet18", 3).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    model = build.build("resnet18", 3)
    build.load_weights(model, "resnet18", str(tmp_path / "weights.safetensors"))
    assert torch.equal(model.fc.weight, state["fc.weight"])


def test_a_head_of_other_classes_stays_random_and_the_rest_is_loaded(tmp_path: Path) -> None:
    path, state = saved(tmp_path, "resnet18", 1000)
    model = build.build("resnet18", 3)
    head = model.fc.weight.clone()
    build.load_weights(model, "resnet18", path)
    assert torch.equal(model.conv1.weight, state["conv1.weight"])
    assert torch.equal(model.fc.weight, head)


@pytest.mark.parametrize("other", ["resnet50", "mobilenet_v2", "efficientnet_lite0"])
def test_weights_of_another_architecture_are_refused(other: str, tmp_path: Path) -> None:
    path, _ = saved(tmp_path, other, 3)
    with pytest.raises(DataError, match="do not fit resnet18"):
        build.load_weights(build.build("resnet18", 3), "resnet18", path)


def test_a_file_that_does_not_exist_says_what_weights_takes() -> None:
    with pytest.raises(MissingError, match="no weights file 'pretrianed'") as caught:
        build.load_weights(build.build("resnet18", 3), "resnet18", "pretrianed")
    assert "pretrained, none" in caught.value.hint


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_weights_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no weights file"):
        build.load_weights(build.build("resnet18", 3), "resnet18", str(path))


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(3), {"fc.weight": "text"}])
def test_a_torch_file_that_holds_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(EdgekitError) as caught:
        build.load_weights(build.build("resnet18", 3), "resnet18", str(tmp_path / "weights.pt"))
    assert isinstance(caught.value, DataError)


@pytest.mark.parametrize(
    "save",
    [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))],
    ids=["torch", "pickle"],
)
def test_a_pickle_with_code_is_refused_and_never_run(save: Any, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    save({"conv1.weight": Bomb(trace)}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="no weights file"):
        build.load_weights(build.build("resnet18", 3), "resnet18", str(tmp_path / "weights.pt"))
    assert not trace.exists()


class Wrapped(torch.nn.Module):
    """A network inside of another module, as Lightning and DataParallel have it, beside one of the trainer's own."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.criterion = inner, torch.nn.Linear(2, 2)


def of_averaged(model: torch.nn.Module) -> dict[str, Any]:
    return torch.optim.swa_utils.AveragedModel(model).state_dict()


def with_prefix(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda m: with_prefix(m.state_dict(), "module."), "without the prefix 'module.'"),
        (lambda m: with_prefix(m.state_dict(), "_orig_mod."), "without '_orig_mod.'"),
        (
            lambda m: with_prefix(m.state_dict(), "module._orig_mod."),
            "without the prefix 'module.', without '_orig_mod.'",
        ),
        (lambda m: {"model": m.state_dict(), "epoch": 3}, "the entry 'model'"),
        (
            lambda m: {"model": m.state_dict(), "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}},
            "the entry 'model'",
        ),
        (lambda m: {"model_state_dict": m.state_dict(), "loss": 0.5}, "the entry 'model_state_dict'"),
        (lambda m: {"state_dict": m.state_dict(), "epoch": 3}, ""),
        (
            lambda m: {"state_dict": Wrapped(m).state_dict(), "pytorch-lightning_version": "2.5"},
            "without the prefix 'model.', without 2 other tensors (criterion.weight, criterion.bias)",
        ),
        (
            lambda m: {"model": with_prefix(m.state_dict(), "worse."), "model_ema": of_averaged(m), "epoch": 3},
            "the entry 'model_ema', not 'model' beside it, without the prefix 'module.', "
            "without 1 other tensors (n_averaged)",
        ),
        (
            lambda m: {"state_dict_ema": m.state_dict(), "state_dict": {"x": torch.zeros(1)}},
            "the entry 'state_dict_ema', not 'state_dict' beside it",
        ),
        (lambda m: {"checkpoint": {"state_dict": m.state_dict()}, "step": 9}, "the entry 'checkpoint' > 'state_dict'"),
        (lambda m: {"my own": m.state_dict(), "step": 9, "optimizer": {"lr": 0.1}}, "the entry 'my own'"),
        (lambda m: m, "a module that was saved whole"),
        (lambda m: {"model": m, "epoch": 3}, "the entry 'model', a module that was saved whole"),
    ],
)
def test_a_checkpoint_of_a_trainer_is_unwrapped_and_said(
    wrap: Callable[[torch.nn.Module], Any], said: str, tmp_path: Path
) -> None:
    source, model = build.build("resnet18", 5), build.build("resnet18", 3)
    torch.save(wrap(source), tmp_path / "last.ckpt")
    notes: list[str] = []
    build.load_weights(model, "resnet18", str(tmp_path / "last.ckpt"), notes.append)
    assert notes == ([f"weights of last.ckpt: {said}"] if said else [])
    expected = source.state_dict()
    for name, value in model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, expected[name]), name


def test_weights_of_another_network_are_told_by_their_names(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, "mobilenet_v2", 3)
    with pytest.raises(DataError) as caught:
        build.load_weights(build.build("resnet18", 3), "resnet18", path)
    assert caught.value.message == (
        "these weights do not fit resnet18: 100 of its tensors are missing (conv1.weight, bn1.weight and 98 more) and "
        "314 of the file are unknown (features.0.0.weight, features.0.1.weight and 312 more)"
    )
    assert "--model" in caught.value.hint


def test_no_message_holds_codes_that_color_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    for read in (weights_file.read, checkpoints.load):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "weights.pt")
        assert "\x1b" not in caught.value.message
        assert "\n" not in caught.value.message
    assert weights_file.first_line(ValueError("\x1b[1mone\x1b[0m\ntwo")) == "one"


def test_under_a_hidden_layer_the_backbone_is_loaded(tmp_path: Path) -> None:
    path, state = saved(tmp_path, "resnet18", 3)
    model = build.build("resnet18", 3, hidden=8)
    build.load_weights(model, "resnet18", path)
    assert torch.equal(model.conv1.weight, state["conv1.weight"])


def test_both_heads_of_other_classes_stay_random(tmp_path: Path) -> None:
    path, state = saved(tmp_path, "inception_v3", 11)
    model = build.build("inception_v3", 3)
    build.load_weights(model, "inception_v3", path)
    assert torch.equal(model.AuxLogits.conv0.conv.weight, state["AuxLogits.conv0.conv.weight"])
    assert (model.fc.out_features, model.AuxLogits.fc.out_features) == (3, 3)


class Positions(torch.nn.Module):
    """The position embeddings of a vision transformer for `side` by `side` patches, and a head."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.heads, self.encoder = torch.nn.Module(), torch.nn.Module()
        self.heads.head = torch.nn.Linear(4, 2)
        self.encoder.pos_embedding = torch.nn.Parameter(torch.randn(1, side**2 + 1, 4))


def test_position_embeddings_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    source, target = Positions(3), Positions(5)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    build.load_weights(target, "vit_b_16", str(tmp_path / "weights.pt"))
    grid = source.encoder.pos_embedding[0, 1:].reshape(3, 3, 4)
    larger = target.encoder.pos_embedding[0, 1:].reshape(5, 5, 4)
    assert torch.equal(target.encoder.pos_embedding[0, 0], source.encoder.pos_embedding[0, 0])
    assert torch.allclose(larger[::4, ::4], grid[::2, ::2], atol=1e-6)  # the corners stay


def test_positions_that_are_no_square_are_refused(tmp_path: Path) -> None:
    state = {**Positions(3).state_dict(), "encoder.pos_embedding": torch.zeros(1, 8, 4)}
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="do not fit vit_b_16"):
        build.load_weights(Positions(5), "vit_b_16", str(tmp_path / "weights.pt"))

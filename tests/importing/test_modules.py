"""Networks made by code of the user's: copied and described, their own left as they were."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import DataError, EdgekitError, MissingError, UsageError
from edgekit.importing import modules, network


class Net(nn.Module):
    """A small classifier; `answer` changes what it returns."""

    def __init__(self, classes: int = 3, answer: Any = None) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, classes)
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        scores = self.head(self.features(x).flatten(1))
        return scores if self.answer is None else self.answer(scores)


def test_a_module_in_memory_stays_as_it_is() -> None:
    net = Net().half().train()
    net.head.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = modules.from_memory(net)
    assert net.training
    assert {p.dtype for p in net.parameters()} == {torch.float16}
    assert (net.head.weight.requires_grad, net.head.bias.requires_grad) == (False, True)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert (found.arch, found.program, str(found.source)) == ("Net", True, "module in memory")
    assert found.source.notes == ("8 of 9 tensors of Net are float16; they are converted to float32",)
    assert not found.model.training
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    assert network.checked(found, 32).classes == 3


def test_wrappers_are_taken_off_and_said() -> None:
    found = modules.from_memory(nn.DataParallel(Net()))
    assert type(found.model) is Net
    assert found.source.notes == ("the network inside of DataParallel is taken",)
    assert modules.from_memory(Net(), "resnet18").arch == "resnet18-imported"
    assert modules.from_memory(Net(), "my net/2").arch == "my-net-2"


class Output:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s: (s, s), "returns tuple, not one tensor"),
        (lambda s: s[0], r"returns \(3,\) for images"),
        (lambda s: s * torch.nan, "NaN or infinite"),
        (lambda s: s - s.mean(0), "depends on the other images"),
        (lambda s: s @ torch.zeros(7, 7), "Net fails on images"),
    ],
)
def test_what_is_no_classifier_is_said(answer: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        network.checked(modules.from_memory(Net(answer=answer)), 32)


def test_logits_of_an_output_of_transformers_are_taken() -> None:
    found = network.checked(modules.from_memory(Net(answer=Output)), 32)
    assert found.classes == 3
    assert found.source.notes == ("the entry 'logits' of its Output is taken",)
    assert found.model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


FACTORY = """
from torch import nn
from helper_of_mine import WIDTH

def build(num_classes=2):
    head = nn.Linear(WIDTH, num_classes)
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

def nothing():
    return 3

def broken():
    raise RuntimeError("no luck")

def leaves():
    raise SystemExit(1)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "factory_of_mine.py").write_text(FACTORY)
    (tmp_path / "helper_of_mine.py").write_text("WIDTH = 8\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("where", ["factory_of_mine.py", "factory_of_mine"])
def test_a_factory_is_called_and_filled(where: str, code: Path) -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    torch.save({"model": source.state_dict()}, code / "w.pth")
    path = list(sys.path)
    found = modules.from_factory(f"{where}:build", code / "w.pth", ("a", "b", "c"))
    assert sys.path == path
    assert torch.equal(found.model.state_dict()["3.weight"], source.state_dict()["3.weight"])
    assert (found.program, found.source.file, len(found.source.sha256)) == (True, "w.pth", 64)
    assert found.source.notes == ("weights of w.pth: the entry 'model'",)
    with pytest.raises(DataError, match=r"3\.weight is \(3, 8\) in the file and \(2, 8\) in the network"):
        modules.from_factory(f"{where}:build", code / "w.pth", ("a", "b"))
    bare = modules.from_factory(f"{where}:build", None)
    assert bare.source.notes == (f"no --weights: the weights are those that {where}:build() gave the network",)


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("factory_of_mine.py:build_it", MissingError, "has no function 'build_it'"),
        ("nowhere.py:build", MissingError, "there is no file 'nowhere.py'"),
        ("no.such.package:build", DataError, "importing no.such.package failed: ModuleNotFoundError"),
        ("factory_of_mine.py:nothing", DataError, r"returned int, not a torch\.nn\.Module"),
        ("factory_of_mine.py:broken", DataError, r"failed: RuntimeError: no luck, factory_of_mine\.py line 13"),
        ("factory_of_mine.py:leaves", DataError, "failed: SystemExit: 1"),
    ],
)
def test_code_that_fails_is_one_error(target: str, kind: type[EdgekitError], message: str, code: Path) -> None:
    with pytest.raises(kind, match=message):
        modules.from_factory(target, None)


def test_a_pickled_module_is_run_only_if_it_is_trusted(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "whole.pt")
    torch.save({"ema": Net(4), "model": Net(5)}, tmp_path / "both.pt")
    found = modules.from_pickle(tmp_path / "whole.pt")
    assert isinstance(found, Net)
    averaged, other = modules.from_pickle(tmp_path / "both.pt"), modules.from_pickle(tmp_path / "both.pt", "model")
    assert isinstance(averaged, Net)
    assert isinstance(other, Net)
    assert (averaged.head.out_features, other.head.out_features) == (4, 5)
    with pytest.raises(UsageError, match="has no entry 'net' with a module"):
        modules.from_pickle(tmp_path / "both.pt", "net")
    (tmp_path / "broken.pt").write_bytes(b"\x80\x04cno_such_module\nNet\n.")
    with pytest.raises(DataError, match=r"broken\.pt cannot be unpickled"):
        modules.from_pickle(tmp_path / "broken.pt")

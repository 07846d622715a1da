"""Weights of timm without a network connection: from a cache of Hugging Face, from files, or an error that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgekit.errors import DataError, UsageError
from edgekit.models import build, pretrained, zoo
from edgekit.training.options import TrainOptions

ARCH = "timm/test_vit"
PAGE = "timm/test_vit.r160_in1k"
LOAD = """
import json, sys, torch
from edgekit.errors import EdgekitError
from edgekit.models import build
model = build.build(sys.argv[1], 3)
head = build.head_of(model, sys.argv[1]).weight.sum().item()
try:
    build.load_weights(model, sys.argv[1], "pretrained")
except EdgekitError as error:
    print(json.dumps([type(error).__name__, error.message, error.hint]))
else:
    print(json.dumps([model.cls_token.sum().item(), build.head_of(model, sys.argv[1]).weight.sum().item() == head]))
"""


def loaded(home: Path, arch: str = ARCH, **environment: str) -> list[object]:
    """What `build.load_weights` does in a process of its own, since huggingface_hub reads its settings on import."""
    values = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, arch], env=values, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def weights(classes: int = 1000, arch: str = ARCH) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return {name: value.contiguous() for name, value in build.build(arch, classes).state_dict().items()}


def cache(home: Path, page: str = PAGE) -> dict[str, torch.Tensor]:
    """Make the cache that huggingface_hub would leave after a download."""
    folder = home / "hub" / f"models--{page.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    state = weights()
    save_file(state, snapshot / "model.safetensors")
    return state


def test_weights_in_the_cache_are_loaded_and_a_head_of_other_classes_stays_random(tmp_path: Path) -> None:
    state = cache(tmp_path)
    total, same_head = loaded(tmp_path)
    assert total == pytest.approx(state["cls_token"].sum().item(), abs=1e-6)
    assert same_head


def test_without_cache_and_network_the_error_names_the_ways_out(tmp_path: Path) -> None:
    kind, message, hint = loaded(tmp_path)
    assert kind == "MissingError"
    assert str(tmp_path / "hub") in str(message)
    for way in (f"hf download {PAGE}", "--weights FILE", "--weights none"):
        assert way in str(hint)


def test_a_file_from_the_page_is_loaded(tmp_path: Path) -> None:
    state = weights()
    save_file(state, tmp_path / "model.safetensors")
    model = build.build(ARCH, 3)
    build.load_weights(model, ARCH, str(tmp_path / "model.safetensors"))
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("head."))


def test_positions_are_interpolated_to_another_image_size(tmp_path: Path) -> None:
    state = weights()
    save_file(state, tmp_path / "model.safetensors")
    model = build.build(ARCH, 3, 96)
    assert model.get_parameter("pos_embed").shape != state["pos_embed"].shape
    build.load_weights(model, ARCH, str(tmp_path / "model.safetensors"), image_size=96)
    assert torch.equal(model.get_parameter("cls_token"), state["cls_token"])
    spread = model.get_parameter("pos_embed").std()
    assert torch.isclose(spread, state["pos_embed"].std(), rtol=0.5)


def test_weights_of_another_network_of_timm_are_refused(tmp_path: Path) -> None:
    torch.save(weights(3, "timm/test_resnet"), tmp_path / "weights.pth")
    with pytest.raises(DataError, match="do not fit timm/test_vit"):
        build.load_weights(build.build(ARCH, 3), ARCH, str(tmp_path / "weights.pth"))


def test_what_fits_is_not_touched(tmp_path: Path) -> None:
    state = weights(3)
    assert pretrained.fitted(zoo.row(ARCH), state, state) is state


def test_where_there_are_no_pretrained_weights_it_is_said_before_any_work() -> None:
    import timm

    lacking = next(name for name in timm.list_models("resnet*") if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(UsageError, match="there are no pretrained weights of timm/") as caught:
        TrainOptions(f"timm/{lacking}")
    assert "--weights none" in caught.value.hint
    assert TrainOptions(f"timm/{lacking}", weights="none").start == "none"

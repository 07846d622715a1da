"""Weights that are kept: the same come back, and never those of something else."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import DataError, EdgekitError
from edgekit.quant import cache
from edgekit.quantization import LayerWeights, Range

MADE_BY = {"recipe": {"name": "r", "steps": ["bias"]}, "parent": "the checkpoint"}
LAYERS = {
    "features.0.0": LayerWeights(np.full((2, 3, 1, 1), -0.25, np.float32), np.array([1, np.pi], np.float32)),
    "a|b": LayerWeights(np.array([[0.5, -1]], np.float32), None, np.array([0.5], np.float32)),
    "head": LayerWeights(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), np.ones(2, np.float32)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with `LAYERS`."""
    path = tmp_path / "weights.npz"
    cache.save(path, cache.Weights(LAYERS), MADE_BY)
    return path


def test_what_was_kept_comes_back_to_the_bit_and_in_order(path: Path) -> None:
    kept = cache.load(path, MADE_BY)
    assert kept is not None
    assert kept.rewritten == {}
    assert list(kept.layers) == list(LAYERS)
    for name, layer in LAYERS.items():
        for part in ("weight", "bias", "scales"):
            before, after = getattr(layer, part), getattr(kept.layers[name], part)
            assert (before is None) == (after is None)
            if before is not None:
                assert (after.dtype, after.shape, after.tobytes()) == (before.dtype, before.shape, before.tobytes())


def test_ranges_and_steps_come_back(tmp_path: Path) -> None:
    ranges = {"a|b": Range(-0.1, 1 / 3), "image": Range(0.0, 0.0)}
    other = {"a|b": Range(-0.2, 0.5)}
    cache.save(
        tmp_path / "weights.npz",
        cache.Weights(LAYERS, ranges=ranges, steps=("ranges", "bias"), symmetric=other),
        MADE_BY,
    )
    kept = cache.load(tmp_path / "weights.npz", MADE_BY)
    assert kept is not None
    assert (kept.ranges, kept.steps, kept.symmetric) == (ranges, ("ranges", "bias"), other)


def test_the_order_of_what_it_was_made_by_does_not_matter(path: Path) -> None:
    assert cache.load(path, dict(reversed(MADE_BY.items()))) is not None


@pytest.mark.parametrize("other", [{}, {**MADE_BY, "parent": "another"}, {**MADE_BY, "more": None}])
def test_what_was_made_by_something_else_is_not_taken(path: Path, other: dict) -> None:
    assert cache.load(path, other) is None


def test_a_file_of_an_older_form_is_decided_again(tmp_path: Path) -> None:
    head = json.dumps({"made_by": MADE_BY, "arrays": ["head|weight"]})
    np.savez(tmp_path / "weights.npz", made_by=np.array(head), **{"head|weight": np.ones((2, 2), np.float32)})
    assert cache.load(tmp_path / "weights.npz", MADE_BY) is None


def test_nothing_kept_is_nothing(tmp_path: Path) -> None:
    assert cache.load(tmp_path / "none.npz", MADE_BY) is None


def test_a_second_model_replaces_the_first(path: Path) -> None:
    cache.save(path, cache.Weights({"head": LAYERS["head"]}), {"recipe": "s"})
    assert cache.load(path, MADE_BY) is None
    assert list(cache.load(path, {"recipe": "s"}).layers) == ["head"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def one_array() -> bytes:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def with_byte(content: bytes, place: int, value: int) -> bytes:
    return content[:place] + bytes([value]) + content[place + 1 :]


def damages(whole: bytes) -> dict[str, bytes]:
    """Files that are none, by what is wrong with them."""
    return {
        "empty": b"",
        "text": b"not a file of arrays",
        "cut": whole[: len(whole) // 2],
        "cut early": whole[:30],
        "turned": whole[:400] + bytes(255 - b for b in whole[400:440]) + whole[440:],
        "a method of compression that is none": with_byte(whole, whole.find(b"PK\1\2") + 10, 7),
        "one array": one_array(),
        "pickled": pickle.dumps({"made_by": "x"}),
    }


@pytest.mark.parametrize("kind", damages(b""))
def test_a_damaged_file_is_refused_and_says_what_to_do(path: Path, kind: str) -> None:
    path.write_bytes(damages(path.read_bytes())[kind])
    with pytest.raises(DataError, match="damaged") as caught:
        cache.load(path, MADE_BY)
    assert "keep it elsewhere" in caught.value.hint
    assert str(path) in caught.value.message


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")])
def test_other_errors_are_not_called_damage(path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    if isinstance(error, MemoryError):
        monkeypatch.setattr(np, "load", fail)
    else:
        monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(EdgekitError) as caught:
        cache.load(path, MADE_BY)
    assert not isinstance(caught.value, DataError)
    assert "damaged" not in caught.value.message


def test_an_array_of_objects_is_refused_unopened(tmp_path: Path) -> None:
    ran: list[int] = []
    Bomb.ran = ran
    objects = np.empty(1, object)
    objects[0] = Bomb()
    path = tmp_path / "weights.npz"
    head = json.dumps(
        {"form": cache._FORM, "made_by": MADE_BY, "arrays": ["layers|a|weight"], "ranges": {}, "steps": []}
    )
    np.savez(path, made_by=np.array(head), **{"layers|a|weight": objects})
    with pytest.raises(DataError, match="damaged"):
        cache.load(path, MADE_BY)
    assert not ran


class Bomb:
    """Says that it was unpickled."""

    ran: list[int]

    def __reduce__(self) -> tuple:
        return explode, ()


def explode() -> None:
    Bomb.ran.append(1)


def test_a_name_that_is_damaged_in_the_index_is_no_layer_without_a_bias(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(with_byte(whole, whole.rfind(b"head|bias"), ord("b")))
    with pytest.raises(DataError, match="damaged"):
        cache.load(path, MADE_BY)


def test_a_file_of_other_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, something=np.ones(3))
    with pytest.raises(DataError, match="damaged"):
        cache.load(path, MADE_BY)

"""Files that cannot be read for another reason than their content: nobody is told that they are damaged."""

from __future__ import annotations

import builtins
import errno
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import files
from edgekit.archive import entry
from edgekit.bench import replies, results
from edgekit.data import dataset, images
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, raise_if_not_damage
from edgekit.evaluation import evaluate
from edgekit.models import checkpoints, weights_file
from edgekit.quant import cache
from edgekit.targets import read_onnx, read_tflite
from edgekit.training import resume

PATH = Path("folder/file")
READERS: dict[str, Callable[[Path], Any]] = {
    "JSON": files.load_json,
    "checkpoint": checkpoints.load,
    "weights": weights_file.read,
    "state of a training": resume.read,
    "kept quantization": lambda path: cache.load(path, {}),
    "ONNX": read_onnx.read,
    "LiteRT": read_tflite.read,
    "raw values of a result": results.read_raw,
    "reply of a device": lambda path: replies.read(path.parent, "board", 1),
    "result": lambda path: entry.read(path, entry.About(path.parents[1], "run", "tiny", "", 0)),
    "image": images.load_image,
}


def failing(monkeypatch: pytest.MonkeyPatch, file: Path, error: Exception) -> None:
    """Let every attempt to open `file` end with `error`."""

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *arguments: Any, **more: Any) -> Any:
            if not isinstance(path, int) and Path(path) == file:
                raise error
            return real(path, *arguments, **more)

        return opened

    for owner in (builtins, io, Path):
        monkeypatch.setattr(owner, "open", wrap(owner.open))  # type: ignore[attr-defined]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bench" / "result.json"
    path.parent.mkdir()
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("code", "says"), [(errno.EACCES, "no permission"), (errno.EIO, "Input/output error")], ids=["permission", "disk"]
)
def test_a_file_that_may_not_be_read_is_not_called_damaged(
    name: str, code: int, says: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, file, OSError(code, "Input/output error", str(file)))
    with pytest.raises(StorageError) as caught:
        READERS[name](file)
    assert says in caught.value.message
    assert "damaged" not in caught.value.message
    assert "remove" not in caught.value.hint


@pytest.mark.parametrize("name", sorted(set(READERS) - {"image", "state of a training"}))
@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")], ids=repr)
def test_a_file_for_which_memory_is_too_short_is_not_called_damaged(
    name: str, error: Exception, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, file, error)
    with pytest.raises(EdgekitError, match="out of memory while reading") as caught:
        READERS[name](file)
    assert type(caught.value) is EdgekitError
    assert "remove" not in caught.value.hint


@pytest.mark.parametrize("name", sorted(set(READERS) - {"state of a training"}))
def test_a_file_that_is_damaged_is_still_called_so(name: str, file: Path) -> None:
    with pytest.raises(DataError):
        READERS[name](file)


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")], ids=repr)
def test_an_evaluation_that_cannot_be_read_is_not_called_damaged(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / evaluate.RAW_FILE)
    keys = {"checkpoint_sha256": "a", "temperature": 1.0, "dropout": {}, "splits": {}}
    document = {"schema": 1, "raw_sha256": files.sha256_file(tmp_path / evaluate.RAW_FILE), **keys}
    (tmp_path / evaluate.FILE).write_text(json.dumps(document))

    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(EdgekitError) as caught:
        evaluate.load(tmp_path, "a")
    assert not isinstance(caught.value, DataError)
    assert "damaged" not in caught.value.message


def test_a_state_for_which_memory_is_too_short_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")

    monkeypatch.setattr("torch.load", load)
    with pytest.raises(EdgekitError, match="out of memory while reading") as caught:
        resume.load(b"x")
    assert not isinstance(caught.value, DataError)


def test_an_image_without_permission_is_listed_with_its_reason(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, file, PermissionError(errno.EACCES, "Permission denied", str(file)))
    with pytest.raises(DataError) as caught:
        dataset.read_image(file.parent, file.name, lambda image: None)
    assert caught.value.message == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no header"),
        EOFError(),
        OSError("image file is truncated"),
        OSError(errno.EINVAL, "Invalid argument"),  # seeking before the beginning
        RuntimeError("PytorchStreamReader failed reading zip archive"),
        RuntimeError("you tried to allocate 99999999999999 bytes: can't allocate memory"),
    ],
    ids=repr,
)
def test_errors_by_the_content_of_a_file_are_left_to_the_reader(error: Exception) -> None:
    raise_if_not_damage(error, PATH)


def test_an_array_that_no_file_holds_is_damage() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    raise_if_not_damage(caught.value, PATH)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (PermissionError(13, "Permission denied"), StorageError, "no permission: failed while reading folder/file"),
        (FileNotFoundError(2, "No such file"), MissingError, "folder/file does not exist"),
        (MemoryError(), EdgekitError, "out of memory while reading folder/file"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 64"), EdgekitError, "out of memory"),
        (RuntimeError("std::bad_alloc"), EdgekitError, "out of memory"),
        (DataError("too large"), DataError, "too large"),
    ],
    ids=repr,
)
def test_errors_for_another_reason_say_it(error: Exception, kind: type[EdgekitError], says: str) -> None:
    with pytest.raises(EdgekitError, match=says) as caught:
        raise_if_not_damage(error, PATH)
    assert type(caught.value) is kind

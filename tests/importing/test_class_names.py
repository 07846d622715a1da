"""Names of classes in files as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import DataError, MissingError, UsageError
from edgekit.importing import class_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "cat\ndog\n"),
        ("labels.txt", "\ufeffcat\r\ndog\r\n\r\n"),
        ("labels.txt", "cat\ndog"),
        ("labels.json", '["cat", "dog"]'),
        ("labels.json", '{"1": "dog", "0": "cat"}'),
        ("labels.json", '{"dog": 1, "cat": 0}'),
        ("config.json", '{"model_type": "resnet", "id2label": {"0": "cat", "1": "dog"}}'),
    ],
)
def test_labels_are_read_from_a_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert class_names.read(tmp_path / name) == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", b"", "is empty"),
        ("labels.txt", b"cat\n\ndog\n", "line 2 .* is empty"),
        ("labels.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("labels.txt", b"cat\nCat\n", "differ only in case"),
        ("labels.json", b"{", "is not valid JSON"),
        ("labels.json", b'{"0": "cat", "2": "dog"}', "neither a list of names"),
        ("labels.json", b"[1, 2]", "neither a list of names"),
    ],
)
def test_a_file_without_usable_labels_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        class_names.read(tmp_path / name)


def test_a_list_is_taken_as_it_is() -> None:
    assert class_names.read(["b", "a"]) == ("b", "a")
    with pytest.raises(UsageError, match="must be names, not 1"):
        class_names.read([1, 2])  # type: ignore[list-item]
    with pytest.raises(MissingError, match="there is no file"):
        class_names.read("nowhere.txt")


def test_imagenet_has_a_thousand_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = class_names.read("imagenet")
    assert (len(names), names[0], names[999]) == (1000, "tench", "toilet tissue")


def test_the_number_of_labels_is_that_of_the_outputs() -> None:
    with pytest.raises(DataError, match=r"2 labels \(a \.\.\. b\) for 3 classes: fc has 3"):
        class_names.check_count(("a", "b"), 3, "fc has 3")
    assert "imagenet" in class_names.missing(1000, "x.pth").hint
    assert "imagenet" not in class_names.missing(10, "x.pth").hint

"""Reading ONNX files that others wrote: damage, external data, versions, modes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.errors import DataError, MissingError
from edgekit.importing import onnx_file
from tests.importing.onnx_nets import Net, classifier


def external(folder: Path, location: str = "weights.bin") -> Path:
    """A model whose tensors lie beside it."""
    path = folder / "model.onnx"
    onnx.save_model(classifier().model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if location != "weights.bin":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = location
        path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_into_the_model(tmp_path: Path) -> None:
    model = onnx_file.read(external(tmp_path))
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in classifier().model().graph.initializer}
    (tmp_path / "weights.bin").unlink()
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), expected[tensor.name])
    onnx.checker.check_model(model)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(MissingError, match=r"has its weights in 'weights.bin', which is not beside it"):
        onnx_file.read(path)


def test_external_data_that_is_cut_off(tmp_path: Path) -> None:
    path = external(tmp_path)
    os.truncate(tmp_path / "weights.bin", 100)
    with pytest.raises(DataError, match=r"weights.bin is cut off: model.onnx needs .* bytes of it, and it has 100"):
        onnx_file.read(path)


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "/etc/passwd", "", "..\\secret", "C:\\secret"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").mkdir()
    with pytest.raises(DataError, match="outside its own folder"):
        onnx_file.read(external(folder, location))


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = external(tmp_path / "model")
    (tmp_path / "model" / "weights.bin").rename(tmp_path / "secret")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="outside its own folder"):
        onnx_file.read(path)


def test_external_data_of_a_constant_node_is_checked_too(tmp_path: Path) -> None:
    net = Net().conv()
    value = onnx.numpy_helper.from_array(np.float32([1]), "v")
    net.add("Constant", inputs=[""], value=value)
    model = net.model()
    tensor = model.graph.node[-1].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match="outside its own folder"):
        onnx_file.read(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged, or not an ONNX file"):
        onnx_file.read(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = classifier().save(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(DataError, match="is damaged, or not an ONNX file"):
        onnx_file.read(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.onnx"):
        with pytest.raises(MissingError, match="there is no file"):
            onnx_file.read(path)


def test_a_file_over_2_gb(tmp_path: Path) -> None:
    path = classifier().save(tmp_path)
    os.truncate(path, 2**31)  # sparse
    with pytest.raises(DataError, match="over 2 GB"):
        onnx_file.read(path)


@pytest.mark.parametrize(
    ("opset", "message"), [(6, "edgekit reads 7 to"), (99, "newer than this version of onnx knows")]
)
def test_opsets_that_are_too_old_or_too_new(tmp_path: Path, opset: int, message: str) -> None:
    model = classifier().model()
    model.opset_import[0].version = opset
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=message):
        onnx_file.read(tmp_path / "m.onnx")


def test_training_mode(tmp_path: Path) -> None:
    net = Net().conv()
    net.add("BatchNormalization", *(np.ones(8, np.float32) for _ in range(4)), outputs=3, training_mode=1, name="bn")
    with pytest.raises(DataError, match=r"exported in training mode: BatchNormalization \(bn\)") as caught:
        onnx_file.read(net.head().save(tmp_path))
    assert "model.eval()" in caught.value.hint
    net = Net().conv().add("Dropout", np.float32(0.5), np.array(True)).head()
    with pytest.raises(DataError, match="exported in training mode: Dropout"):
        onnx_file.read(net.save(tmp_path))


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    net = Net().conv().add("Activate", domain="local").head()
    model = net.model()
    relu = onnx.helper.make_node("Relu", ["x"], ["y"])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(onnx.helper.make_function("local", "Activate", ["x"], ["y"], [relu], opsets))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    read = onnx_file.read(tmp_path / "m.onnx")
    assert onnx_file.custom_operators(read) == {}
    assert "Relu" in [node.op_type for node in read.graph.node]

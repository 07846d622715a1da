"""ONNX classifiers of others: what is taken for what, and that torch computes what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgekit.errors import DataError, EdgekitError, ParityError, UsageError
from edgekit.importing import onnx_graph, onnx_model, onnx_operators
from edgekit.importing.onnx_graph import Call, Value
from edgekit.models.onnx_module import OnnxModule
from tests.importing.onnx_nets import SIZE, Net, classifier

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
NCHW = (1, 3, 1, 1)


def pixels(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, SIZE, SIZE, 3))


def answers(network: onnx_model.OnnxNetwork, images: np.ndarray) -> np.ndarray:
    """Logits for images as the contract prepares them: (pixel / 255 - mean) / std, NCHW."""
    mean, std = (np.reshape(v, NCHW) for v in (network.mean or (0.0,) * 3, network.std or (1.0,) * 3))
    normalized = (images.transpose(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        return network.model(torch.from_numpy(normalized.astype(np.float32))).numpy()


def in_the_file(path: Path, feed: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: feed})[0]


def test_a_plain_classifier(tmp_path: Path) -> None:
    network = onnx_model.read(classifier().save(tmp_path))
    assert (network.size, network.classes, network.mean) == (SIZE, 5, None)
    assert network.difference < 1e-5
    assert not network.problem
    assert dict(network.model.named_modules()).keys() >= {"stem", "fc"}  # the names of the weights
    assert network.model(torch.zeros(7, 3, SIZE, SIZE)).shape == (7, 5)
    assert "no normalization is inside the file" in network.notes[0]


@pytest.mark.parametrize("batch", [1, 8])
def test_a_fixed_batch_becomes_any(tmp_path: Path, batch: int) -> None:
    net = Net(shape=(batch, 3, SIZE, SIZE)).conv().add("Relu").add("GlobalAveragePool")
    net.add("Reshape", np.int64([batch, 8])).add("Gemm", net.weights(8, 5))
    path = net.save(tmp_path)
    network = onnx_model.read(path)
    images = np.random.default_rng(2).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)
    assert not network.problem
    for count in (1, 3, batch):
        got = network.model(torch.from_numpy(images[:count])).numpy()
        np.testing.assert_allclose(got, in_the_file(path, images)[:count], atol=1e-5)


@pytest.mark.parametrize("shape", [[1, 8], [1, -1], [-1, 8], [0, -1]])
def test_every_way_to_flatten_one_image(tmp_path: Path, shape: list[int]) -> None:
    net = Net(shape=(1, 3, SIZE, SIZE)).conv().add("GlobalAveragePool").add("Reshape", np.int64(shape))
    network = onnx_model.read(net.add("Gemm", net.weights(8, 5)).save(tmp_path))
    assert not network.problem
    assert network.model(torch.zeros(4, 3, SIZE, SIZE)).shape == (4, 5)


def test_a_batch_that_is_only_said_to_be_open(tmp_path: Path) -> None:
    net = Net().conv().add("GlobalAveragePool").add("Reshape", np.int64([1, 8]))
    network = onnx_model.read(net.add("Gemm", net.weights(8, 5)).save(tmp_path))
    assert not network.problem
    assert network.model(torch.zeros(4, 3, SIZE, SIZE)).shape == (4, 5)
    assert "computes one image alone" in network.notes[0]


def test_index_arithmetic_for_an_open_batch(tmp_path: Path) -> None:
    net = Net().conv()
    features = net.at
    net.add("Shape").add("Gather", np.int64([0]), axis=0)
    net.add("Concat", np.int64([8, -1]), axis=0)
    net.add("Reshape", inputs=[features, net.at]).add("ReduceMean", axes=[2], keepdims=0)
    network = onnx_model.read(net.add("Gemm", net.weights(8, 5)).save(tmp_path))
    assert not network.problem
    assert isinstance(network.model, torch.fx.GraphModule)
    assert [n.op for n in network.model.graph.nodes].count("call_function") == 2  # reshape, mean
    assert network.model(torch.zeros(4, 3, SIZE, SIZE)).shape == (4, 5)


# Both ends.


@pytest.mark.parametrize("how", ["sub-div", "mul-add", "div255", "batch norm"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "int64"])
def test_normalization_moves_into_the_contract(tmp_path: Path, how: str, layout: str, kind: str) -> None:
    side = NCHW if layout == "NCHW" else (1, 1, 1, 3)
    net = Net(kind=kind, shape=("N", 3, SIZE, SIZE) if layout == "NCHW" else ("N", SIZE, SIZE, 3))
    if kind != "float32":
        net.add("Cast", to=1)
    if how == "batch norm" and layout == "NHWC":
        net.add("Transpose", perm=[0, 3, 1, 2])
    if how == "sub-div":
        net.add("Sub", 255 * MEAN.reshape(side)).add("Div", 255 * STD.reshape(side))
    elif how == "mul-add":
        net.add("Mul", (1 / (255 * STD)).reshape(side)).add("Add", (-MEAN / STD).reshape(side))
    elif how == "div255":
        net.add("Div", np.float32(255)).add("Sub", MEAN.reshape(side)).add("Div", STD.reshape(side))
    else:
        net.add("BatchNormalization", 1 / STD, np.zeros(3, np.float32), 255 * MEAN, np.full(3, 255**2, np.float32),
                epsilon=0.0)  # fmt: skip
    if layout == "NHWC" and how != "batch norm":
        net.add("Transpose", perm=[0, 3, 1, 2])
    path = net.conv().add("Relu").head().save(tmp_path)
    network = onnx_model.read(path)
    assert network.mean == pytest.approx(MEAN, abs=1e-4)
    assert network.std == pytest.approx(STD, abs=1e-4)
    images = pixels()
    feed = (images if layout == "NHWC" else images.transpose(0, 3, 1, 2)).astype(kind)
    np.testing.assert_allclose(answers(network, images), in_the_file(path, feed), rtol=1e-4, atol=1e-5)
    assert not network.problem
    assert isinstance(network.model, torch.fx.GraphModule)
    assert not [n for n in network.model.graph.nodes if n.op == "get_attr"]  # nothing of it is left inside
    assert any("moves into the preprocessing" in note for note in network.notes)


@pytest.mark.parametrize(
    ("factor", "shift", "mean", "std"),
    [
        (1 / 127.5, -1.0, 0.5, 0.5),  # 0 to 255 becomes -1 to 1
        (2.0, -1.0, 0.5, 0.5),  # 0 to 1 becomes -1 to 1
        (1 / 255, 0.0, 0.0, 1.0),
        (1.0, -0.5, 0.5, 1.0),
        (1.0, -123.675, 0.485, 1 / 255),  # Caffe
    ],
)
def test_the_range_of_float_pixels_follows_from_the_arithmetic(
    tmp_path: Path, factor: float, shift: float, mean: float, std: float
) -> None:
    net = Net().add("Mul", np.float32(factor)).add("Add", np.full(NCHW, shift, np.float32))
    network = onnx_model.read(net.conv().head().save(tmp_path))
    assert network.mean == pytest.approx((mean,) * 3, abs=1e-4)
    assert network.std == pytest.approx((std,) * 3, abs=1e-4)


def test_arithmetic_that_is_no_normalization_stays(tmp_path: Path) -> None:
    net = Net().add("Mul", np.float32(0.5)).add("Add", np.full(NCHW, 3, np.float32))
    path = net.conv().head().save(tmp_path)
    network = onnx_model.read(path)
    assert network.mean is None
    images = np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    assert not network.problem
    np.testing.assert_allclose(network.model(torch.from_numpy(images)).numpy(), in_the_file(path, images), atol=1e-5)


@pytest.mark.parametrize("kind", ["uint8", "int32", "int8"])
def test_integer_pixels_without_normalization_are_taken_as_they_are(tmp_path: Path, kind: str) -> None:
    path = Net(kind=kind).add("Cast", to=1).conv().head().save(tmp_path)
    network = onnx_model.read(path)
    low = 128 if kind == "int8" else 0
    assert network.mean == pytest.approx((low / 255,) * 3)
    assert network.std == pytest.approx((1 / 255,) * 3)
    images = pixels()
    feed = (images.transpose(0, 3, 1, 2) - low).astype(kind)
    np.testing.assert_allclose(answers(network, images), in_the_file(path, feed), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_left_out(tmp_path: Path, end: str) -> None:
    net = classifier()
    logits = net.at
    path = net.add(end, axis=1).save(tmp_path)
    network = onnx_model.read(path)
    images = np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    (tmp_path / "b").mkdir()
    expected = in_the_file(net.save(tmp_path / "b", logits), images)
    assert not network.problem
    np.testing.assert_allclose(network.model(torch.from_numpy(images)).numpy(), expected, atol=1e-5)
    assert f"its {end} at the end is left out" in " ".join(network.notes)


def test_a_softmax_in_the_middle_stays(tmp_path: Path) -> None:
    net = Net().conv().add("Softmax", axis=1).head()
    assert not any("left out" in note for note in onnx_model.read(net.save(tmp_path)).notes)


def test_a_sigmoid_at_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sigmoid: each class is a question of its own"):
        onnx_model.read(classifier().add("Sigmoid").save(tmp_path))


def test_scores_with_further_dimensions_of_one(tmp_path: Path) -> None:
    net = Net().conv().conv(8, 5, 1, "head", pads=[0] * 4).add("GlobalAveragePool").add("Softmax", axis=1)
    network = onnx_model.read(net.save(tmp_path))
    assert network.classes == 5
    assert not network.problem
    assert network.model(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 5)


def several() -> tuple[Net, list[str]]:
    net = Net().conv()
    features = net.at
    net.head()
    first = net.at
    net.add("Softmax", axis=1)
    probabilities = net.at
    net.at = features
    net.add("GlobalAveragePool").add("Flatten").add("Gemm", net.weights(8, 7))
    return net, [first, probabilities, net.at, features]


def test_of_logits_and_their_softmax_the_logits_are_taken(tmp_path: Path) -> None:
    net, (logits, probabilities, _, features) = several()
    network = onnx_model.read(net.save(tmp_path, probabilities, features, logits))
    assert network.classes == 5
    assert f"the output {logits!r} is taken; not taken: {probabilities}, {features}" in network.notes


def test_several_outputs_are_listed_or_chosen(tmp_path: Path) -> None:
    net, names = several()
    path = net.save(tmp_path, *names)
    with pytest.raises(UsageError, match="several outputs that may be the scores") as caught:
        onnx_model.read(path)
    assert f"{names[2]} (1, 7)" in caught.value.hint
    assert onnx_model.read(path, output=names[2]).classes == 7
    assert onnx_model.read(path, classes=7).classes == 7
    with pytest.raises(UsageError, match="has no output 'scores'"):
        onnx_model.read(path, output="scores")
    with pytest.raises(DataError, match="does not hold one row of scores"):
        onnx_model.read(path, output=names[3])


def test_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="looks like a detector or a segmentation network"):
        onnx_model.read(Net().conv().save(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ("N", 3, SIZE)}, "not images"),
        ({"shape": ("N", 1, SIZE, SIZE)}, "grey images"),
        ({"shape": ("N", 3, SIZE, 2 * SIZE)}, "edgekit feeds squares"),
        ({"shape": ("N", 4), "kind": "int64"}, "token ids of a text model"),
        ({"kind": "string"}, "images of type"),
    ],
)
def test_inputs_that_are_no_square_rgb_images(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        onnx_model.read(classifier(**options).save(tmp_path))


def test_any_size_must_be_chosen_and_a_fixed_one_kept(tmp_path: Path) -> None:
    path = classifier(shape=("N", 3, "H", "W")).save(tmp_path)
    with pytest.raises(UsageError, match="the size must be chosen"):
        onnx_model.read(path)
    assert onnx_model.read(path, size=48).size == 48
    with pytest.raises(UsageError, match="takes images of 32 x 32 pixels, not 48 x 48"):
        onnx_model.read(classifier().save(tmp_path), size=48)


def test_one_score_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one number for each image"):
        onnx_model.read(Net().conv().head(classes=1).save(tmp_path))


# What cannot be turned.


def kept_as_it_is(network: onnx_model.OnnxNetwork) -> onnx.ModelProto:
    """The file of a network that could not be turned, which has the ends that edgekit's files have."""
    assert isinstance(network.model, OnnxModule)
    proto = onnx.load_from_string(network.model.file)
    onnx.checker.check_model(proto, full_check=True)
    assert ([v.name for v in proto.graph.input], [v.name for v in proto.graph.output]) == (["image"], ["scores"])
    assert "kept as it is" in network.notes[-1]
    return proto


def test_operators_without_a_rule_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    net = Net().conv().add("CumSum", np.int64(1), name="first").add("CumSum", np.int64(1)).head()
    path = net.save(tmp_path)
    network = onnx_model.read(path)
    assert network.problem == "operator CumSum (2); the first is CumSum (first)"
    kept_as_it_is(network)
    images = np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(network.model(torch.from_numpy(images)).numpy(), in_the_file(path, images), atol=1e-5)


def test_the_ends_of_a_file_that_is_kept(tmp_path: Path) -> None:
    net = Net(kind="uint8", shape=(1, SIZE, SIZE, 3)).add("Cast", to=1)
    net.add("Sub", 255 * MEAN.reshape(1, 1, 1, 3)).add("Div", 255 * STD.reshape(1, 1, 1, 3))
    net.add("Transpose", perm=[0, 3, 1, 2]).conv().add("CumSum", np.int64(1)).head()
    logits = net.at
    net.add("Softmax", axis=1)
    network = onnx_model.read(net.save(tmp_path))
    proto = kept_as_it_is(network)
    assert [node.op_type for node in proto.graph.node][:2] == ["Identity", "Conv"]
    assert "Softmax" not in [node.op_type for node in proto.graph.node]
    assert network.mean == pytest.approx(MEAN, abs=1e-5)
    (tmp_path / "b").mkdir()
    images = pixels()
    path = net.save(tmp_path / "b", logits)
    expected = np.concatenate([in_the_file(path, images[k : k + 1].astype(np.uint8)) for k in range(2)])
    np.testing.assert_allclose(answers(network, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["0", "3.1", "constant_0", "image", "forward", "training.conv", "", "a b/c"])
def test_every_name_of_a_layer_has_a_free_one(name: str) -> None:
    builder = onnx_graph.Builder()
    found = [builder._free(name) for _ in range(3)]
    assert len({*found}) == 3
    for path in found:
        builder.root_add(path, torch.nn.Identity())
        assert not path[0].isdigit()
        assert not path.startswith("constant_")
    assert [type(builder.root.get_submodule(path)) for path in found] == [torch.nn.Identity] * 3


def test_layers_that_are_numbered_are_read(tmp_path: Path) -> None:
    """As torch exports an nn.Sequential."""
    net = Net()
    net.add("Conv", net.constant(net.weights(8, 3, 3, 3), "0.weight"), pads=[1, 1, 1, 1]).add("Relu")
    net.add("GlobalAveragePool").add("Flatten").add("Gemm", net.weights(8, 5))
    network = onnx_model.read(net.save(tmp_path))
    assert network.classes == 5
    assert network.model.get_submodule("layer_0").weight.shape == (8, 3, 3, 3)


def test_names_that_edgekit_gives_are_free_inside(tmp_path: Path) -> None:
    net = Net().conv()
    net.nodes[-1].output[0] = "scores"
    net.at = "scores"
    kept_as_it_is(onnx_model.read(net.add("CumSum", np.int64(1)).head().save(tmp_path)))


def test_integers_are_fed_to_a_file_that_has_no_cast(tmp_path: Path) -> None:
    net = Net(kind="uint8").add("DequantizeLinear", np.float32(1 / 255), np.uint8(0)).conv().head()
    path = net.save(tmp_path)
    network = onnx_model.read(path)
    kept_as_it_is(network)
    images = pixels()
    expected = in_the_file(path, images.transpose(0, 3, 1, 2).astype(np.uint8))
    np.testing.assert_allclose(answers(network, images), expected, rtol=1e-4, atol=1e-4)


def test_a_quantized_network_is_kept_and_not_quantized_again(tmp_path: Path) -> None:
    net = Net().add("QuantizeLinear", np.float32(0.05), np.uint8(128))
    net.add("DequantizeLinear", np.float32(0.05), np.uint8(128)).conv().head()
    network = onnx_model.read(net.save(tmp_path))
    assert "quantized already" in network.problem
    kept_as_it_is(network)


def test_what_is_kept_must_take_one_image(tmp_path: Path) -> None:
    net = Net(shape=(4, 3, SIZE, SIZE)).conv().add("CumSum", np.int64(1)).head()
    with pytest.raises(DataError, match="takes 4 images at a time; edgekit's devices feed one"):
        onnx_model.read(net.save(tmp_path))


def test_mixing_the_images_of_a_batch_is_noticed(tmp_path: Path) -> None:
    net = classifier()
    scores = net.at
    net.add("ReduceMean", axes=[0], keepdims=1).add("Sub", inputs=[scores, net.at])
    network = onnx_model.read(net.save(tmp_path))
    assert "mixes the images of a batch" in network.problem


def test_a_wrong_rule_is_found_and_its_node_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(call: Call) -> Value:
        return call.graph.module("wrong", torch.nn.LeakyReLU(0.5), call.traced())

    monkeypatch.setitem(onnx_operators.OPERATORS, "Relu", leaky)
    with pytest.raises(
        ParityError, match=r"disagrees with ONNX Runtime by .*first node that differs is Relu \(relu1\)"
    ):
        onnx_model.read(classifier().save(tmp_path))


def test_custom_operators_are_named(tmp_path: Path) -> None:
    net = Net().conv().add("Fancy", domain="acme").head()
    with pytest.raises(DataError, match=r"custom operators, which ONNX Runtime does not have: acme.Fancy \(1\)"):
        onnx_model.read(net.save(tmp_path))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    net = classifier(kind="float16")
    net.constants = {k: v.astype(np.float16) for k, v in net.constants.items()}
    network = onnx_model.read(net.save(tmp_path))
    assert not network.problem
    assert next(network.model.parameters()).dtype == torch.float32
    assert "float16 weights are widened" in " ".join(network.notes)


def test_no_error_but_ours_for_random_damage(tmp_path: Path) -> None:
    content, random = bytearray(classifier().model().SerializeToString()), np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            onnx_model.read(path)
        except EdgekitError:
            continue

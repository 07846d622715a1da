"""Real Chromium measures real models, and what it sends is what LiteRT answers here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.bench import session
from edgekit.convert import fold
from edgekit.measurements import BenchmarkResult
from edgekit.records import Preprocess
from edgekit.stats import proportions
from edgekit.web.access import Access
from edgekit.web.visits import Offer
from tests import nets
from tests.web import chromium
from tests.web.webstand import LABELS, Stand, artifact, needs_litertjs, offer, standing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    needs_litertjs,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium here: apt install chromium"),
]
SIZE, PATIENCE_S = 32, 120


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Offer:
    """A network that takes normalized values, the same in INT8, and one that takes the bytes themselves."""
    pytest.importorskip("litert_torch")
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    images = nets.random_images(32, SIZE)
    folded = fold.fold(nets.settle(nets.tiny(len(LABELS)), images), SIZE)
    nets.emit_tflite(folded, SIZE, folder, images)
    take_bytes(folder / "model.int8.tflite", folder / "model.uint8.tflite")
    kinds = {"fp32": ("fp32", "float32"), "int8": ("int8", "float32"), "uint8": ("int8", "uint8")}
    models = tuple(
        (artifact(path, precision, taken), path)
        for path, (precision, taken) in ((folder / f"model.{name}.tflite", kind) for name, kind in kinds.items())
    )
    pixels = nets.photographs(20, Preprocess(SIZE, SIZE))
    return offer(folder, models, pixels, temperature=1.5)


def take_bytes(source: Path, target: Path) -> None:
    """The INT8 network with an input of uint8: its first operator then changes the scale instead of rounding."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.float32([1 / 64]), np.int64([116])
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))


@dataclass(frozen=True)
class Seen:
    """What one visit left."""

    stand: Stand
    browser: chromium.Chromium

    def result(self, file: str, mode: str) -> BenchmarkResult:
        (found,) = (r for r in self.stand.kept if (r.artifact.file, r.environment.mode) == (file, mode))
        return found


def visit(served: Offer, folder: Path, query: str, host: str = "127.0.0.1") -> Seen:
    """Let Chromium open the link until the page has sent everything."""
    with standing(served, Access(names=(chromium.ELSEWHERE,))) as stand:
        origin = f"http://{host}:{stand.port}"
        with chromium.visiting(f"{origin}/?{query}#{stand.token}", folder / "browser") as browser:
            assert stand.over.wait(PATIENCE_S), (browser.complaints, stand.said, stand.progress[-3:])
    assert browser.asked_by(origin) == {origin}
    assert browser.complaints == []
    return Seen(stand, browser)


def check_logits(result: BenchmarkResult, served: Offer) -> None:
    """Equal to those of LiteRT here: in INT8 but for one step of the output."""
    path = next(path for artifact, path in served.models if artifact == result.artifact)
    pixels = np.load(served.samples.pixels)
    here = session.infer_here(result.artifact, path, pixels, served.samples.preprocess)
    assert np.ptp(here, axis=0).min() > 0.1  # the images differ, so that equality says something
    if result.artifact.precision == "fp32":
        np.testing.assert_allclose(result.logits, here, rtol=1e-5, atol=1e-5 * np.abs(here).max())
    else:
        step = np.diff(np.unique(here)).min()
        assert np.abs(result.logits - here).max() < 1.01 * step
        assert nets.cosine(result.logits, here) > 0.995
    assert proportions.agreement(result.logits, here) >= 0.9


def test_an_isolated_page_measures_with_one_thread_and_with_several(served: Offer, tmp_path: Path) -> None:
    seen = visit(served, tmp_path, "auto=1&modes=wasm,threads")
    assert len(seen.stand.kept) == 6, seen.stand.said
    for result in seen.stand.kept:
        check_logits(result, served)
        said = result.environment.table()
        assert (said["isolated"], said["secure"], said["was_hidden"]) == (True, True, False)
        assert said["clock_step_ns"] < 100_000
        assert len(result.latencies_ns) >= served.suite.min_queries
        assert (result.source, result.environment.threads > 1) == ("host", said["mode"] == "threads")
    whole = {r.artifact.file: r.environment.fully_accelerated for r in seen.stand.kept}
    assert whole == {"model.fp32.tflite": True, "model.int8.tflite": True, "model.uint8.tflite": False}
    assert seen.result("model.fp32.tflite", "wasm").environment.build == "relaxed SIMD"
    assert seen.result("model.fp32.tflite", "threads").environment.build == "threaded"
    assert "web:Linux, Headless Chrome" in seen.result("model.int8.tflite", "threads").device


def test_a_page_that_is_not_secure_has_one_thread_and_a_coarse_clock(served: Offer, tmp_path: Path) -> None:
    """In the build for browsers without relaxed SIMD, such as Safari."""
    seen = visit(served, tmp_path, "auto=1&compat=1&modes=wasm,threads,webgpu", chromium.ELSEWHERE)
    assert len(seen.stand.kept) == 3
    assert [line.partition(": ")[2] for line in seen.stand.said] == [
        "cannot run in the mode threads",
        "cannot run in the mode webgpu",
    ]
    for result in seen.stand.kept:
        check_logits(result, served)
        said = result.environment.table()
        assert (said["isolated"], said["secure"], said["threads"], said["build"]) == (False, False, 1, "compat")
        # However fast they are, most stretches have some ticks of the clock, and no latency is 0.
        assert said["clock_step_ns"] >= 50_000
        assert np.median(result.latencies_ns[:8]) * said["timed_together"] > 4 * said["clock_step_ns"]
        assert min(result.latencies_ns) > 0
    assert max(result.environment.timed_together for result in seen.stand.kept) > 1


def test_the_camera_is_classified_and_the_desktop_sees_it(served: Offer, tmp_path: Path) -> None:
    with standing(served) as stand:
        url = f"http://127.0.0.1:{stand.port}/?auto=camera#{stand.token}"
        with chromium.visiting(url, tmp_path / "browser") as browser:
            for _ in range(10 * PATIENCE_S):
                if len(stand.progress) >= 2 or stand.over.wait(0.1):
                    break
    name, _, _, text = stand.progress[1]
    assert name.startswith("web:Linux")
    assert text.startswith(tuple(f"camera: {label} " for label in LABELS))
    assert browser.complaints == []
    assert stand.kept == []

"""Kits: files beside the models of an export, for each runtime."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit.files import sha256_file
from edgekit.records import Artifact, Device
from edgekit.targets.contract import Contract

_LITERT_README = """LiteRT models made by edgekit: {arch}

{models}

image   (1, {size}, {size}, 3), RGB. From a picture:
{picture}
        Then
{inputs}
{scores}
        Integers have a scale and a zero point in the file.
{batches}
The signature serving_default has these names. Each file holds its labels and TFLite metadata: unzip -l FILE.
Run them with LiteRT (ai-edge-litert; com.google.ai.edge.litert on Android) or tflite-runtime 2.14.
The run's report has the measurements, each with the device that it was made on.
"""
_ONNX_README = """ONNX models made by edgekit: {arch}

{models}

image   float32 (1, 3, {size}, {size}), RGB, channels first (NCHW). From a picture:
{picture}
{scores}

labels.txt has one class a line. preprocess.json has the numbers of the steps above, manifest.json also the temperature
and the SHA-256 of every model. Each ONNX file holds all of it too: its doc string for readers, its metadata
(edgekit.labels, edgekit.preprocess, edgekit.temperature) for programs.
{build}
Example, to run and to copy from (numpy, Pillow, {needs}):

    python3 infer.py photo.jpg
    python3 infer.py --check          compare the files with manifest.json
{runtime}"""
_BUILD = """
Engines are built on the board that runs them, with its own TensorRT (8.5 or newer):

    ./build.sh                        every precision: model.fp32.engine, model.fp16.engine, model.int8.engine
    ./build.sh int8                   one of them

build.sh, and infer.py with engine.py, are tested with doubles of TensorRT and CUDA, not verified on hardware.
"""
_UNBUILDABLE = """
NOTE: {why}.
"""
_PLAIN_ONNX = """
ONNX Runtime opens each of these files as it is, in a default InferenceSession, and the answers are right; but INT8 on
x86 CPUs without VNNI (AVX2 only) needs the session option session.x64quantprecision = 1, as infer.py sets it: without
it, sums of 8-bit products saturate there, and some answers become wrong. Other CPUs ignore the option.
"""
_NOT_OPTIMIZED = """
In ONNX Runtime, open {files} without its optimizer, as infer.py does
(graph_optimization_level = ORT_DISABLE_ALL): it rounds weights that must stay in floating point (--parity strict),
and some answers become wrong.
"""
_USES = {
    "fp32": "reference; largest",
    "fp16": "half the size, float compute: for GPU delegates",
    "int8": "int8 weights and activations: for CPUs and NPUs",
    "w8": "int8 weights, float compute: a quarter of the size, for models that lose too much in int8",
    "16x8": "int8 weights, int16 activations: for NPUs that support it; slow on CPUs",
}
_ONNX_USES = {
    "fp32": "reference; largest",
    "fp16": "half the size, float16 inside",
    "int8": "int8 weights and activations (Q/DQ)",
}
_INPUTS = {
    "uint8": "uint8: the pixels unchanged; the file does step {last} itself",
    "int8": "int8: the pixels minus 128; the file does step {last} itself",
    "float32": "float32: {step}",
}
# The oldest TensorRT that builds the files.
LEAST_TENSORRT = (8, 5)
_WIDTH = 116


@dataclass(frozen=True)
class Kit:
    """A folder of model files that is to be completed."""

    folder: Path
    artifacts: list[Artifact]
    contract: Contract
    device: Device | None = None


def why_unbuildable(device: Device | None) -> str:
    """Return why no engine can be built on a device; "" if one can, or it is not known."""
    if device is None or not device.newest_tensorrt:
        return ""
    if tuple(int(part) for part in device.newest_tensorrt.split(".")[:2]) >= LEAST_TENSORRT:
        return ""
    return (
        f"no engine can be built on {device.name}: the newest TensorRT for it is {device.newest_tensorrt}, and these "
        f"files need {'.'.join(map(str, LEAST_TENSORRT))} or newer"
    )


def purpose_of(artifact_details: dict[str, object]) -> str:
    """Return for what a file is, besides its contract, as a sentence; "" where nothing is special."""
    made_for = f"For {artifact_details['for']}." if "for" in artifact_details else ""
    plain = "In ONNX Runtime, open it with ORT_DISABLE_ALL: its optimizer makes some answers wrong."
    return " ".join(filter(None, (made_for, plain if "host_runtime" in artifact_details else "")))


def write_onnxruntime(kit: Kit) -> None:
    """Add README.txt, and infer.py, an example."""
    _write_onnx(kit, "", "onnxruntime")


def write_tensorrt(kit: Kit) -> None:
    """Add SHA256SUMS, README.txt, infer.py, engine.py, and build.sh for boards that edgekit does not reach over ssh.

    Engines run only on the kind of device that built them, so they are built there.
    """
    script = kit.folder / "build.sh"
    shutil.copyfile(Path(__file__).with_name("build.sh"), script)
    script.chmod(0o755)
    shutil.copyfile(Path(__file__).with_name("engine.py"), kit.folder / "engine.py")
    files = sorted(kit.folder.glob("*.onnx"))
    sums = "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)
    (kit.folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    why = why_unbuildable(kit.device)
    build = _UNBUILDABLE.format(why=textwrap.fill(why, _WIDTH)) if why else _BUILD
    _write_onnx(kit, build, "and TensorRT on the board, or onnxruntime")


def _write_onnx(kit: Kit, build: str, needs: str) -> None:
    script = kit.folder / "infer.py"
    shutil.copyfile(Path(__file__).with_name("infer.py"), script)
    script.chmod(0o755)
    plain = [a.file for a in kit.artifacts if "host_runtime" in a.details]
    uses = [
        (a.file, f"{_ONNX_USES[a.precision]}{', for ' + str(a.details['for']) if 'for' in a.details else ''}")
        for a in kit.artifacts
    ]
    text = _ONNX_README.format(
        arch=_title(kit.contract),
        models=_models(uses),
        size=kit.contract.preprocess.image_size,
        picture=_numbered(kit.contract.steps()),
        scores=_scores(kit.contract),
        build=build,
        needs=needs,
        runtime=_NOT_OPTIMIZED.format(files=", ".join(plain)) if plain else _PLAIN_ONNX,
    )
    (kit.folder / "README.txt").write_text(text, encoding="utf-8")


def write_litert(kit: Kit) -> None:
    """Add README.txt, which describes inputs and outputs."""
    *picture, step = kit.contract.steps()
    by_input = {a.input: [b.file for b in kit.artifacts if b.input == a.input] for a in kit.artifacts}
    inputs = [
        _INPUTS[kind].format(last=len(picture) + 1, step=step) + (f" ({', '.join(files)})" if len(by_input) > 1 else "")
        for kind, files in by_input.items()
    ]
    single = [a.file for a in kit.artifacts if a.details.get("batch") == 1]
    batches = (
        f"        One image at a time: {', '.join(single)} cannot be resized to a larger batch.\n" if single else ""
    )
    text = _LITERT_README.format(
        arch=_title(kit.contract),
        models=_models([(a.file, _USES[a.precision]) for a in kit.artifacts]),
        size=kit.contract.preprocess.image_size,
        picture=_numbered(picture),
        inputs="\n".join(
            textwrap.fill(line, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 11) for line in inputs
        ),
        scores=_scores(kit.contract),
        batches=batches,
    )
    (kit.folder / "README.txt").write_text(text, encoding="utf-8")


def _title(contract: Contract) -> str:
    return f"{contract.arch}, {len(contract.labels)} classes"


def _models(uses: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{file:24}{use}" for file, use in uses)


def _numbered(steps: Iterable[str]) -> str:
    return "\n".join(
        textwrap.fill(step, _WIDTH, initial_indent=f"        {n}. ", subsequent_indent=" " * 11)
        for n, step in enumerate(steps, 1)
    )


def _scores(contract: Contract) -> str:
    name, _, text = contract.scores().partition(": ")
    return textwrap.fill(text, _WIDTH, initial_indent=f"{name}  ", subsequent_indent=" " * 8)

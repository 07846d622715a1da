"""Export of the folded torch graph to FP32 LiteRT (``.tflite``) with an NHWC input."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import fx

from edgekit import files
from edgekit.errors import ParityError, missing_package

PARITY = 1e-3  # largest difference from torch, relative to the largest logit


def export(folded: fx.GraphModule, image_size: int, path: Path) -> None:
    """Convert a graph, and check the file against torch. Input float32 (1, image_size, image_size, 3), one output.

    Raises:
        MissingError: litert-torch is not installed. ParityError: the file disagrees with torch.
    """
    with quiet():
        try:
            import litert_torch
        except ImportError:
            raise missing_package("litert-torch", "writing .tflite files", "litert") from None
        example = torch.zeros(1, image_size, image_size, 3)
        model = litert_torch.convert(litert_torch.to_channel_last_io(folded, args=[0]).eval(), (example,))
        content = model.model_content()  # its own writer maps the file into memory and crashes on a full disk
    files.save_bytes(path, content)
    check_parity(folded, path, image_size)


def check_parity(folded: fx.GraphModule, path: Path, image_size: int) -> float:
    """Compare a file with torch on one seeded random image; return the largest relative difference.

    Raises:
        ParityError: the difference is above `PARITY`.
    """
    image = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = folded(image).numpy()
    tensors = run_all(path, image.numpy())
    difference = float(np.abs(tensors["scores"] - expected).max() / (np.abs(expected).max() + 1e-12))
    if not difference <= PARITY:
        raise ParityError(f"{path.name} disagrees with torch by {difference:.2g} (relative), allowed {PARITY}")
    return difference


def run_all(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return every float tensor by name, for one image, float32 (1, 3, H, W); the output is also named ``scores``."""
    with quiet():
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            str(path),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images.transpose(0, 2, 3, 1))
    interpreter.invoke()
    tensors = {}
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] == np.float32:
            with contextlib.suppress(ValueError):  # temporaries have no data
                tensors[detail["name"]] = interpreter.get_tensor(detail["index"])
    return {**tensors, "scores": interpreter.get_tensor(interpreter.get_output_details()[0]["index"])}


def plain_scores(path: Path, values: np.ndarray) -> np.ndarray:
    """Return the scores of one input, float32 (1, classes), with LiteRT's own kernels instead of XNNPACK's."""
    with quiet():
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
        interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(source["index"], values.reshape(source["shape"]))
    interpreter.invoke()
    scores, (scale, zero) = interpreter.get_tensor(target["index"]).astype(np.float32), target["quantization"]
    return np.asarray((scores - zero) * scale if scale else scores, np.float32)


def takes_batches(path: Path) -> bool:
    """Return whether the interpreter can be resized to two images, and then answers each as it does alone."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path), num_threads=1)
        taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        shape = [int(side) for side in taken["shape"]]
        random = np.random.default_rng(0)
        values: np.ndarray = random.standard_normal((2, *shape[1:]), np.float32)
        if taken["dtype"] != np.float32:
            values = random.integers(np.iinfo(taken["dtype"]).min, np.iinfo(taken["dtype"]).max, values.shape)

        def answers(images: np.ndarray) -> np.ndarray:
            interpreter.resize_tensor_input(taken["index"], images.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(taken["index"], images.astype(taken["dtype"]))
            interpreter.invoke()
            return np.asarray(interpreter.get_tensor(given["index"]), np.float64)

        alone = np.concatenate([answers(image[None]) for image in values])
        try:
            together = answers(values)
        except (RuntimeError, ValueError):
            return False
    return together.shape == alone.shape and bool(np.abs(together - alone).max() <= 0.01 * np.abs(alone).max())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the converter's output, also that from C++."""
    sys.stdout.flush()
    sys.stderr.flush()
    level = logging.root.manager.disable
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            logging.disable(logging.WARNING)
            unread = io.StringIO()  # for streams of Python that are not the descriptors 1 and 2
            with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
                warnings.simplefilter("ignore")
                yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            logging.disable(level)
            for number, original in zip((1, 2), saved):
                os.dup2(original, number)
                os.close(original)

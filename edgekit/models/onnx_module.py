"""A network that is kept as an ONNX file, because torch cannot hold it: it runs in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit.errors import EdgekitError
from edgekit.labels import visible


class OnnxModule(nn.Module):
    """A classifier in ONNX Runtime: normalized float32 (N, 3, S, S) to logits (N, classes), on the CPU.

    Attributes:
        problem: why it is not a network of torch. one_by_one: the file takes one image at a time.
    """

    content: torch.Tensor

    def __init__(self, content: bytes | torch.Tensor, problem: str, one_by_one: bool) -> None:
        """
        Args:
            content: an ONNX file, with the input ``image`` and the output ``scores``.
        """
        super().__init__()
        held = content if isinstance(content, torch.Tensor) else torch.frombuffer(bytearray(content), dtype=torch.uint8)
        self.register_buffer("content", held)
        self.problem, self.one_by_one = problem, one_by_one
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def __deepcopy__(self, memo: Any) -> OnnxModule:
        return OnnxModule(self.content, self.problem, self.one_by_one).eval()

    @property
    def file(self) -> bytes:
        """The ONNX file."""
        return self.content.cpu().numpy().tobytes()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.add_session_config_entry("session.x64quantprecision", "1")  # else CPUs without VNNI saturate
            self._session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])
        batches = images.split(1) if self.one_by_one else (images,)
        rows = [
            self._session.run(["scores"], {"image": batch.float().cpu().contiguous().numpy()})[0] for batch in batches
        ]
        return torch.cat([torch.from_numpy(row) for row in rows])

    def refuse(self, what: str) -> EdgekitError:
        """Return the error for something that needs a network of torch."""
        return EdgekitError(
            f"{what} needs the network in torch, and this run keeps its ONNX file as it is: {visible(self.problem)}",
            "export it in fp32 or fp16 for a target that takes ONNX (jetson, desktop): --precision fp32,fp16",
        )


def for_one_image(content: bytes) -> bytes:
    """Return an ONNX file whose input and output have a batch of 1."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return bytes(model.SerializeToString())

"""PyTorch, a desktop baseline: on CUDA if there is a GPU, else on the CPU; `info` tells which."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np
import torch

from .runner import Runner


class TorchRunner(Runner):
    """Runs an exported program (``.pt2``) eagerly; on CUDA, each query waits for the device."""

    how = ""

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = torch.export.load(path).module().to(self.device)

    def infer(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = self.model(torch.from_numpy(image).to(self.device))[0].cpu().numpy()
        return scores

    def info(self) -> Dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if on_gpu else "cpu"
        return {"runtime": "torch", "version": torch.__version__ + self.how, "processor": name}


class CompiledRunner(TorchRunner):
    """Compiles the program with inductor and frozen weights; the first query compiles, which may take minutes."""

    how = " compiled"

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        import torch._inductor.config as inductor

        inductor.freezing = True
        self.model = torch.compile(self.model, dynamic=False)


class HalfRunner(TorchRunner):
    """Runs the program in float16, on a GPU only; image and scores are float32.

    Not verified on hardware.
    """

    how = " float16"

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        """
        Raises:
            RuntimeError: there is no GPU.
        """
        super().__init__(path, threads, options)
        if self.device.type != "cuda":
            raise RuntimeError("float16 needs a CUDA GPU, and there is none")

    def infer(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            scores: np.ndarray = self.model(torch.from_numpy(image).to(self.device))[0].float().cpu().numpy()
        return scores

"""PyTorch, for the desktop baseline: CUDA where there is a GPU, else the CPU, and it says which."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np
import torch

from .runner import Runner


class TorchRunner(Runner):
    """An exported program (``.pt2``) run eagerly; a CUDA run waits for the device every time."""

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = torch.export.load(path).module().to(self.device)

    def infer(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = self.model(torch.from_numpy(image).to(self.device))[0].cpu().numpy()
        return scores

    def info(self) -> Dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if on_gpu else "cpu"
        return {"runtime": "torch", "version": torch.__version__, "processor": name}

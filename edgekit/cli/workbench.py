"""What the exports of one run share, each made once and only when needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import store
from edgekit.cli import show
from edgekit.config import from_table
from edgekit.data import calibration, dataset, images
from edgekit.errors import DataError
from edgekit.records import CalibrationRecipe, CalibrationTable, Checkpoint, DatasetIndex

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

SCHEMA = 1  # of calibration/<recipe>.json
_BATCH = 16


class Workbench:
    """The intermediate models of a run. Files are kept in ``export/common`` and used again."""

    def __init__(self, run: store.Run, recipe: CalibrationRecipe) -> None:
        self.run = run
        self.recipe = recipe

    @cached_property
    def trained(self) -> tuple[Checkpoint, nn.Module]:
        """The checkpoint, checked against run.json, and its network."""
        from edgekit.train import checkpoints

        checkpoint, model = checkpoints.load(self.run.path / "checkpoint.pt")
        if checkpoint.sha256 != self.run.weights_sha256:
            raise DataError(f"{checkpoint.path} is not the one that this run trained", "restore it, or train again")
        return checkpoint, model

    @property
    def checkpoint(self) -> Checkpoint:
        return self.trained[0]

    @cached_property
    def data(self) -> DatasetIndex:
        return dataset.load_index(self.run.path / "data.json")

    @cached_property
    def folded(self) -> fx.GraphModule:
        from edgekit.export import fold

        return fold.fold(self.trained[1])

    @cached_property
    def onnx(self) -> Path:
        """FP32 ONNX, batch 1; model.fp32.dynamic.onnx lies beside it."""
        dynamic = self._common("model.fp32.dynamic.onnx")

        def make(path: Path) -> None:
            from edgekit.export import onnx

            with show.working("exporting ONNX"):
                onnx.export(self.folded, self.checkpoint.preprocess.image_size, self.checkpoint.sha256, path, dynamic)

        return self._kept("model.fp32.onnx", make)

    @cached_property
    def tflite(self) -> Path:
        """FP32 LiteRT."""

        def make(path: Path) -> None:
            from edgekit.export import tflite

            with show.working("converting to LiteRT"):
                tflite.export(self.folded, self.checkpoint.preprocess.image_size, path)

        return self._kept("model.fp32.tflite", make)

    @cached_property
    def baseline(self) -> Path:
        """The network as trained, as a torch program: the desktop baseline."""

        def make(path: Path) -> None:
            import torch

            size = self.checkpoint.preprocess.image_size
            program = torch.export.export(self.trained[1], (torch.zeros(1, 3, size, size),))
            with store.writing(path) as temporary, open(temporary, "wb") as file:
                torch.export.save(program, file)

        return self._kept("baseline.pt2", make)

    @cached_property
    def table(self) -> CalibrationTable:
        """The one calibration, from the train split; read from the run if it is there already."""
        chosen = calibration.choose(self.data.split("train"), self.recipe)
        path = self.run.path / "calibration" / f"{self.recipe.name}.json"
        made_by = {"recipe": dataclasses.asdict(self.recipe), "samples": chosen.fingerprint}
        if path.is_file():
            kept = store.load_document(path, SCHEMA, "made_by", "table")
            table = from_table(kept["table"], CalibrationTable, str(path))
            if kept["made_by"] == made_by and table.parent == self.checkpoint.sha256:
                show.note(f"calibration: {path} (made before, used again)")
                return table
        from edgekit.quant import calibrate

        paths = dataset.check_unchanged(self.data, chosen.samples)
        with show.bar("calibrating") as update:
            batches = self._batches(paths, update)
            table = calibrate.calibrate(self.folded, batches, self.recipe, chosen, self.checkpoint.sha256)
        store.save_json(path, {"schema": SCHEMA, "made_by": made_by, "table": table})
        show.note(f"calibration: {len(chosen.samples)} images, {len(table.ranges)} tensors, {self.recipe.observer}")
        return table

    @cached_property
    def onnx_names(self) -> dict[str, str]:
        """ONNX tensor name -> name in the table."""
        from edgekit.export import onnx

        return self._match(onnx.run_all(self.onnx, self._probe.numpy()))

    @cached_property
    def tflite_names(self) -> dict[str, str]:
        """LiteRT tensor name -> name in the table."""
        from edgekit.export import tflite

        return self._match(tflite.run_all(self.tflite, self._probe.numpy()))

    @cached_property
    def _probe(self) -> torch.Tensor:
        """One random image; its tensors tell which name is which."""
        import torch

        size = self.checkpoint.preprocess.image_size
        return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))

    def _match(self, tensors: dict[str, np.ndarray]) -> dict[str, str]:
        from edgekit.quant import calibrate, match

        return match.match_by_value(calibrate.run_all(self.folded, self._probe), tensors)

    def _batches(self, paths: list[Path], update: Callable[[int, int], None]) -> Iterator[torch.Tensor]:
        """Normalized batches; only one is in memory at a time."""
        import torch

        from edgekit.train.finetune import normalize

        for start in range(0, len(paths), _BATCH):
            pixels = images.load_pixels(paths[start : start + _BATCH], self.checkpoint.preprocess)
            yield normalize(torch.from_numpy(pixels), self.checkpoint.preprocess).contiguous()
            update(start + len(pixels), len(paths))

    def _common(self, name: str) -> Path:
        return self.run.path / "export" / "common" / name

    def _kept(self, name: str, make: Callable[[Path], Any]) -> Path:
        """``export/common/name``, made unless it is there, whole, and from this checkpoint."""
        path = self._common(name)
        sidecar = path.with_name(path.name + ".json")
        if path.is_file() and sidecar.is_file():
            known = store.load_json(sidecar)
            if known == {"parent": self.checkpoint.sha256, "sha256": store.sha256_file(path)}:
                return path
        make(path)
        store.save_json(sidecar, {"parent": self.checkpoint.sha256, "sha256": store.sha256_file(path)})
        return path

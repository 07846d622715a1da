"""``edgekit export --max-drop``: what the search of `edgekit.quant.search` tries, made and measured."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import config, files, progress
from edgekit.api.emitters import EMITTERS, Emitted
from edgekit.api.intermediates import Intermediates
from edgekit.data import dataset, images
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, QuantizedModel
from edgekit.records import Artifact
from edgekit.targets import base

if TYPE_CHECKING:
    import numpy as np

    from edgekit.quant.search import Drop, Trial


# From cheap to dear: seconds of calibration, then of recovery.
RECIPES = ("relative", "default")
MOST_FLOAT_LAYERS = 12
_RANKED_ON = 32  # images
_BATCH = 8


class Search:
    """Trials of one run for one target, judged on the val split in the runtime that is here."""

    def __init__(self, bench: Intermediates, resolved: base.Resolved, recipes: tuple[str, ...]) -> None:
        self.bench, self.resolved, self.recipes = bench, resolved, recipes
        self.val = bench.data.split("val")
        self.benches: dict[str, Intermediates] = {}

    def run(self, budget: float) -> tuple[Intermediates, Trial, bool]:
        """The workbench whose files are to be written, its trial, and whether it keeps the budget.

        Where none keeps it, the trial with the least bound is returned.
        """
        from edgekit.quant import search

        search.check_budget(budget, len(self.val))
        progress.note(f"{self.resolved.name}: at most {budget:g} points of top-1, on {len(self.val)} val images")
        trials = []
        for trial in search.search(self.recipes, budget, self.measure, self.ranked, MOST_FLOAT_LAYERS):
            trials.append(trial)
            progress.note(f"  {described(trial)}")
        best = min(trials, key=lambda trial: trial.drop.at_most)
        bench = self.benches[best.recipe]
        vars(bench)["quantized"] = self.mixed(bench, best.float_layers)
        return bench, best, best.drop.at_most <= budget

    def measure(self, recipe: str, float_layers: tuple[str, ...]) -> Trial:
        """Make the INT8 file and judge it."""
        from edgekit.quant.search import Trial

        start = time.monotonic()
        bench = self._bench(recipe)
        whole = bench.quantized
        vars(bench)["quantized"] = self.mixed(bench, float_layers)
        try:
            with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
                emitted = EMITTERS[self.resolved.target.suffix, "int8"](bench, Path(scratch), self.resolved)
                drop = self._judge(Path(scratch), emitted[0])
        finally:
            vars(bench)["quantized"] = whole
        return Trial(recipe, float_layers, drop, time.monotonic() - start)

    def mixed(self, bench: Intermediates, float_layers: tuple[str, ...]) -> QuantizedModel:
        """The quantized model of a workbench with some layers in floating point."""
        from edgekit.quant import placement

        trained = {**placement.trained(bench.folded), **bench.quantized.rewritten}
        layers = {n: trained[n] if n in float_layers else layer for n, layer in bench.quantized.layers.items()}
        return dataclasses.replace(bench.quantized, layers=layers)

    def ranked(self, recipe: str) -> list[str]:
        """The layers by what quantizing each alone does to the answers."""
        from edgekit.quant import debug

        bench = self._bench(recipe)
        native = LITERT_SCHEME if self.resolved.target.runtime == "litert" else TENSORRT_SCHEME
        with progress.bar("ranking layers by sensitivity") as update:
            batches = bench.calibration_images(_RANKED_ON).split(_BATCH)
            found = debug.inspect(bench.folded, bench.quantized, native, batches, update, tensors=False)
        last = list(bench.quantized.layers)[-1]
        whole = self.bench.border.output != "float32"  # then the scores come out of it as integers
        return [layer.name for layer in found.layers if layer.int8 and not (whole and layer.name == last)]

    def _bench(self, recipe: str) -> Intermediates:
        if recipe not in self.benches:
            same = self.bench
            self.benches[recipe] = Intermediates(
                same.run, config.load_recipe(recipe), same.symmetric, same.calibration_data, same.border
            )
        return self.benches[recipe]

    def _judge(self, folder: Path, emitted: Emitted) -> Drop:
        """The drop of a file against the network as trained."""
        import numpy as np

        from edgekit.bench import session
        from edgekit.quant.search import paired_drop

        path, parent = folder / emitted.file, self.bench.checkpoint.sha256
        target, expected = self.resolved.target, np.array([sample.label for sample in self.val])
        artifact = Artifact(
            f"search/{path.name}",
            "search",
            "int8",
            target.runtime,
            target.layout,
            files.sha256_file(path),
            parent,
            emitted.details,
            emitted.input,
        )
        logits = session.infer_here(artifact, path, self._pixels(), self.bench.checkpoint.preprocess)
        return paired_drop(self._before(), logits.argmax(1), expected)

    def _pixels(self) -> np.ndarray:
        if not hasattr(self, "_kept_pixels"):
            paths = dataset.check_unchanged(self.bench.data, self.val)
            self._kept_pixels = images.load_pixels(paths, self.bench.checkpoint.preprocess)
        return self._kept_pixels

    def _before(self) -> np.ndarray:
        """The answers of the network as trained."""
        if not hasattr(self, "_kept_before"):
            import numpy as np

            from edgekit.models.build import predict_logits

            checkpoint, network = self.bench.trained
            parts = np.array_split(self._pixels(), max(1, len(self.val) // 32))
            answers = [predict_logits(network, part, checkpoint.preprocess).argmax(1).numpy() for part in parts]
            self._kept_before = np.concatenate(answers)
        return self._kept_before


def described(trial: Trial) -> str:
    """A trial in one line."""
    drop, layers = trial.drop, trial.float_layers
    kept = f", {len(layers)} in floating point (last: {layers[-1]})" if layers else ""
    return (
        f"{trial.recipe}{kept}: drop {drop.points:+.2f} points, at most {drop.at_most:.2f} (95 %), "
        f"same answer {drop.agreement:.1f} %, {trial.seconds:.0f} s"
    )

"""Search for the cheapest INT8 model within an accuracy budget (``export --max-drop``), measured in a local runtime.

`edgekit.quant.search` decides what to try; this module makes and measures it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import config, files, progress
from edgekit.api.emitters import EMITTERS, Emitted
from edgekit.api.intermediates import MOST_UNLABELLED, Intermediates
from edgekit.data import images, location
from edgekit.errors import MissingError
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationRecipe, QuantizedModel
from edgekit.records import Artifact
from edgekit.targets import base

if TYPE_CHECKING:
    import numpy as np

    from edgekit.quant.search import Drop, Trial


# From cheap to expensive: seconds of calibration, then of recovery.
RECIPES = ("relative", "default")
MOST_FLOAT_LAYERS = 12
_RANKING_IMAGES = 32
_BATCH = 8


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        intermediates: of the recipe whose model was chosen.
        quantized: the chosen model; some of its layers may be in floating point.
        within_budget: whether its drop is shown to stay within the budget. If no model's is, the one with the
            lowest bound was chosen.
    """

    intermediates: Intermediates
    quantized: QuantizedModel
    trial: Trial
    within_budget: bool


class Search:
    """Trials of one run for one target, judged on the val split in the runtime of this machine."""

    def __init__(self, intermediates: Intermediates, resolved: base.Resolved, recipes: tuple[str, ...]) -> None:
        self.intermediates, self.resolved, self.recipes = intermediates, resolved, recipes
        self._paths, self._labels = _judges(intermediates)
        self.by_recipe: dict[str, Intermediates] = {}

    def run(self, budget: float) -> Found:
        """Try models until one keeps `budget`, in points of top-1.

        Raises:
            UsageError: there are too few images to show that a model keeps the budget.
        """
        from edgekit.quant import search

        count = len(self._paths)
        if self._labels is not None:
            search.check_budget(budget, count)
            what = f"points of top-1, on {count} val images"
        else:
            search.check_budget(budget, count, "images without labels", _more_unlabelled)
            what = f"% other answers than the trained network, on {count} images without labels"
        progress.note(f"{self.resolved.name}: at most {budget:g} {what}")
        trials = []
        for trial in search.search(self.recipes, budget, self.measure, self.ranked, MOST_FLOAT_LAYERS):
            trials.append(trial)
            progress.note(f"  {described(trial)}")
        best = min(trials, key=lambda trial: trial.drop.at_most)
        intermediates = self._of_recipe(best.recipe)
        quantized = self.mixed(intermediates, best.float_layers)
        return Found(intermediates, quantized, best, best.drop.at_most <= budget)

    def measure(self, recipe: str, float_layers: tuple[str, ...]) -> Trial:
        """Write the INT8 file of a recipe with some layers in floating point, and measure its drop."""
        from edgekit.quant.search import Trial

        start = time.monotonic()
        intermediates = self._of_recipe(recipe)
        quantized = self.mixed(intermediates, float_layers)
        with files.scratch() as scratch:
            emit = EMITTERS[self.resolved.target.suffix, "int8"]
            emitted = emit(intermediates, scratch, self.resolved, quantized)
            drop = self._measure_drop(scratch, emitted[0])
        return Trial(recipe, float_layers, drop, time.monotonic() - start)

    def mixed(self, intermediates: Intermediates, float_layers: tuple[str, ...]) -> QuantizedModel:
        """Return the quantized model with some layers in floating point."""
        from edgekit.quant import placement

        whole = intermediates.quantized
        if not float_layers:
            return whole
        exact = {**placement.trained_weights(intermediates.folded), **whole.rewritten}
        layers = {n: exact[n] if n in float_layers else layer for n, layer in whole.layers.items()}
        return placement.with_changes(intermediates.folded, whole, layers)

    def ranked(self, recipe: str) -> list[str]:
        """Return the INT8 layers, those first whose quantization alone changes the answers most."""
        from edgekit.quant import debug

        intermediates = self._of_recipe(recipe)
        native = LITERT_SCHEME if self.resolved.target.runtime == "litert" else TENSORRT_SCHEME
        with progress.bar("ranking layers by sensitivity") as update:
            batches = intermediates.calibration_images(_RANKING_IMAGES).split(_BATCH)
            found = debug.inspect(intermediates.folded, intermediates.quantized, native, batches, update, tensors=False)
        last = list(intermediates.quantized.layers)[-1]
        needs_last = self.intermediates.border.output != "float32"  # it writes the integers that are asked for
        return [layer.name for layer in found.layers if layer.int8 and not (needs_last and layer.name == last)]

    def _of_recipe(self, recipe: str) -> Intermediates:
        if recipe not in self.by_recipe:
            given = self.intermediates
            self.by_recipe[recipe] = Intermediates(
                given.run, config.load_recipe(recipe), given.symmetric, given.calibration_data, given.border
            )
        return self.by_recipe[recipe]

    def _measure_drop(self, folder: Path, emitted: Emitted) -> Drop:
        """Return the drop of a file against the trained network."""

        from edgekit.bench import session
        from edgekit.quant.search import paired_drop
        from edgekit.stats.proportions import answers

        path, checkpoint = folder / emitted.file, self.intermediates.checkpoint
        target = self.resolved.target
        artifact = Artifact(
            name=f"search/{path.name}",
            target="search",
            precision="int8",
            runtime=target.runtime,
            layout=target.layout,
            sha256=files.sha256_file(path),
            parent=checkpoint.sha256,
            details=emitted.details,
            input=emitted.input,
        )
        logits = session.infer_here(artifact, path, self._pixels, checkpoint.preprocess)
        return paired_drop(self._trained_answers, answers(logits), self._labels)

    @cached_property
    def _pixels(self) -> np.ndarray:
        """The images to judge by, uint8 (N, image_size, image_size, 3)."""
        return images.load_pixels(self._paths, self.intermediates.checkpoint.preprocess)

    @cached_property
    def _trained_answers(self) -> np.ndarray:
        """Class indices that the trained network gives (N,)."""
        import numpy as np

        from edgekit.models.build import predict_logits
        from edgekit.stats.proportions import answers

        checkpoint, network = self.intermediates.trained
        parts = np.array_split(self._pixels, max(1, len(self._paths) // 32))
        return answers(np.concatenate([predict_logits(network, p, checkpoint.preprocess).numpy() for p in parts]))


def _judges(intermediates: Intermediates) -> tuple[list[Path], np.ndarray | None]:
    """Return the images that models are judged by, and their labels: val; or images without labels, and None.

    Raises:
        MissingError: a run that was imported has neither.
    """
    import numpy as np

    run = intermediates.run
    if run.info.source is not None and run.info.data is None:
        return intermediates.unlabelled, None
    samples = intermediates.data.split("val")
    if not samples:
        raise MissingError(
            f"--max-drop is judged on a val split, and the images of {run.name} are all for the test",
            "import it with --data DIR, where DIR has val/<class>/<image> and test/<class>/<image>",
        )
    found = location.take(run, samples, "--max-drop", intermediates.data)
    return [found.root / sample.path for sample in found.samples], np.array([s.label for s in found.samples])


def described(trial: Trial) -> str:
    """Return a trial in one line."""
    drop, layers = trial.drop, trial.float_layers
    kept = f", {len(layers)} in floating point (last: {layers[-1]})" if layers else ""
    lost = (
        f"drop {drop.points:+.2f} points, at most {drop.at_most:.2f} (95 %), same answer {drop.agreement:.1f} %"
        if drop.labelled
        else f"other answer {drop.points:.2f} %, at most {drop.at_most:.2f} % (95 %)"
    )
    wrong = f"; {drop.no_answer} answers are NaN or infinite" if drop.no_answer else ""
    return f"{trial.recipe}{kept}: {lost}, {trial.seconds:.0f} s{wrong}"


def _more_unlabelled(needed: int) -> str:
    """Return the end of a hint about the number of images without labels, which the calibration takes some of."""
    if needed > MOST_UNLABELLED:
        return ""
    return f", or --calibration-data with {CalibrationRecipe('default').samples + needed} images"

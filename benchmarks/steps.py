"""Leave out one step of the recipe `default` at a time, and see what INT8 loses by it, in simulation.

    python -m benchmarks.steps FOLDER [--best]       # of `benchmarks.fidelity make`: ImageNet weights, photographs
    python -m benchmarks.steps RUN [--best]          # a run of edgekit: its test images
    python -m benchmarks.steps FOLDER --picture      # where the error was, and where it went: docs/int8-error.png

Merges a row for each network into ``results/steps.json``: what the steps leave, for TensorRT's grids and LiteRT's, and
seconds. ``without`` has the steps that `default` keeps there; one that it drops changes nothing. ``--best`` adds the
recipe `best`. The picture is of 32 evaluation images: the error of the scores when one tensor alone is rounded, before
the steps `equalize` and `ranges` (the ranges of the observer) and after them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from benchmarks import fidelity
from edgekit import config, files
from edgekit.convert import fold
from edgekit.quant import calibrate, debug, placement, recover, simulate
from edgekit.quantization import (
    LITERT_SCHEME,
    TENSORRT_SCHEME,
    CalibrationSet,
    CalibrationTable,
    QuantizedModel,
    QuantScheme,
)
from edgekit.reporting import svg

RESULTS = Path(__file__).parent / "results" / "steps.json"
PICTURE = Path(__file__).parents[1] / "docs" / "int8-error.png"
SCHEMES = {"tensorrt": TENSORRT_SCHEME, "litert": LITERT_SCHEME}
CALIBRATION, SHOWN = 256, 32  # images
_BATCH = 16


@dataclass(frozen=True)
class Study:
    """A float network, and normalized float32 images (N, 3, H, W) to calibrate and to evaluate it on."""

    name: str
    folded: fx.GraphModule
    calibration: torch.Tensor
    evaluation: torch.Tensor

    def table(self) -> CalibrationTable:
        """Return the calibration table of `default`."""
        recipe, shown = config.load_recipe("default"), CalibrationSet((), self.name)
        return calibrate.calibrate(self.folded, self.calibration.split(_BATCH), recipe, shown, self.name)

    def recovered(self, table: CalibrationTable, steps: tuple[str, ...]) -> QuantizedModel:
        """Return the quantized model after some of the steps of `default`."""
        recipe = replace(config.load_recipe("default"), steps=steps)
        scheme = QuantScheme(symmetric=False, everywhere=True)
        return recover.recover(self.folded, table, recipe, scheme, self.calibration)


def open_study(folder: Path) -> Study:
    """Open a folder of `fidelity`, or a run."""
    if (folder / "evaluation.npy").is_file():
        name = fidelity.made(folder)["network"]
        crops = [torch.from_numpy(np.load(folder / f"{kind}.npy")) for kind in ("calibration", "evaluation")]
        return Study(name, fold.fold(fidelity.network(name), fidelity.SIZE), crops[0][:CALIBRATION], crops[1])
    import edgekit
    from edgekit.api.intermediates import Intermediates
    from edgekit.data import images
    from edgekit.models.build import normalize

    made = Intermediates(edgekit.open_run(folder.name, runs_dir=folder.parent), config.load_recipe("default"))
    paths = [Path(made.data.root) / sample.path for sample in made.data.split("test")]
    preprocess = made.checkpoint.preprocess
    shown = normalize(torch.from_numpy(images.load_pixels(paths, preprocess)), preprocess).contiguous()
    name = f"{made.run.info.arch}, {Path(made.data.root).name}, {preprocess.image_size} px"
    return Study(name, made.folded, made.calibration_images(CALIBRATION), shown)


@torch.inference_mode()
def scores(run: Any, images: torch.Tensor) -> np.ndarray:
    """Return the scores of a network, float32 (N, classes)."""
    return torch.cat([torch.as_tensor(run(chunk)) for chunk in images.split(_BATCH)]).numpy()


def judged(study: Study, model: QuantizedModel, exact: np.ndarray) -> dict[str, Any]:
    """Return the fidelity of a model in each runtime's simulation; `activations_snr_db` is with exact weights."""
    network, found = placement.with_weights(study.folded, model.rewritten), {}
    for name, scheme in SCHEMES.items():
        rounded = simulate.Simulation(network, model.placement(scheme).rounded)
        alone = fidelity.compare(scores(rounded.run, study.evaluation), exact)
        whole = simulate.simulation(network, model, scheme)
        found[name] = fidelity.compare(scores(whole.run, study.evaluation), exact)
        found[name]["activations_snr_db"] = alone["snr_db"]
    return {**found, "steps": model.steps}


def ablate(study: Study, best: bool) -> None:
    """Judge `default`, it without each of the steps that it keeps, no step at all, and perhaps `best`."""
    exact, all_steps = scores(study.folded, study.evaluation), config.load_recipe("default").steps
    table = study.table()

    def row(steps: tuple[str, ...], name: str) -> QuantizedModel:
        start = time.monotonic()
        model = study.recovered(table, steps)
        record(study, name, judged(study, model, exact) | {"seconds": round(time.monotonic() - start)})
        return model

    whole = row(all_steps, "default")
    if best:
        start, steps = time.monotonic(), config.load_recipe("best").distillation
        trained = recover.distilled(study.folded, whole, study.calibration, steps)
        record(study, "best", judged(study, trained, exact) | {"seconds": round(time.monotonic() - start)})
    row((), "no steps")
    for step in whole.steps:
        row(tuple(each for each in all_steps if each != step), f"without {step}")


def record(study: Study, name: str, row: dict[str, Any]) -> None:
    """Print a row, and merge it into the record."""
    cells = [f"{r['agreement']:5.1f} % {r['snr_db']:6.2f} dB {r['kl']:.4f}" for r in (row[s] for s in SCHEMES)]
    print(f"{study.name:28} {name:20} {' / '.join(cells)} {row['steps']}", flush=True)
    kept = files.load_json(RESULTS) if RESULTS.is_file() else {}
    network = kept.get(study.name, {"images": len(study.evaluation), "rows": {}})
    files.save_json(RESULTS, {**kept, study.name: {**network, "rows": {**network["rows"], name: row}}})


def picture(study: Study) -> None:
    """Draw the error that each rounded tensor makes, before the ranges were chosen by the scores and after."""
    table, shown = study.table(), study.evaluation[:SHOWN].split(8)
    before = study.recovered(table, ())
    after = study.recovered(table, ("equalize", "ranges"))
    with svg.drawing(9.0, 5.2, "black") as figure:
        for number, (name, scheme) in enumerate(SCHEMES.items(), 1):
            axes = figure.add_subplot(2, 1, number)
            for model, label, color in ((before, "before", svg.YELLOW), (after, "after", svg.BLUE)):
                found = debug.inspect(study.folded, model, scheme, shown)
                noise = {t.name: 100 * 10 ** (-t.effect.logits.sqnr_db / 10) for t in found.tensors}
                order = [tensor for tensor in model.placement(scheme).rounded if tensor in noise]
                places = np.arange(len(order)) + (0.2 if model is after else -0.2)
                axes.bar(places, [noise[tensor] for tensor in order], width=0.4, color=color, label=label)
                most = sorted(order, key=lambda tensor: noise[tensor])[-3:] if model is before else []
                for tensor in most:
                    axes.annotate(tensor, (order.index(tensor), noise[tensor]), fontsize=7, ha="left", va="bottom")
            axes.set_title(f"{study.name}, grids of {'TensorRT' if name == 'tensorrt' else 'LiteRT'}")
            axes.set_ylabel("error of the scores, % of their power")
            axes.set_xlabel("rounded tensors, from the image to the scores")
            axes.legend()
        files.save_bytes(PICTURE, svg.to_png(figure))


def main() -> None:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    study = open_study(options.folder)
    if options.picture:
        picture(study)
    else:
        ablate(study, options.best)


if __name__ == "__main__":
    main()

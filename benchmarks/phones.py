"""Compare LiteRT files of trained networks with those of peers: size, accuracy, latency on this machine.

    python -m benchmarks.phones make FOLDER RUN... [--size PX]
    python -m benchmarks.phones judge FOLDER [NAME...]
    python -m benchmarks.phones measure FOLDER [NAME...]

``make`` copies each run (a folder that ``edgekit train`` wrote) into FOLDER, exports it in every precision, and writes
the input of the peers to FOLDER/NAME: program.pt2 (the trained network), model.fp32.onnx, calibration.npy (the images
that edgekit calibrates with) and preprocess.json; and the test split, which no quantizer sees: pixels.npy and
labels.npy. ``--size 224`` makes NAME-224 with the same weights for larger images, for latency only: it is calibrated
with 32 images, by minmax, and has no test split. peers/README.md has the commands of the peers.

``judge`` measures top-1 on the test split, ``measure`` latency in turns in one process, one thread (`alternate`), on an
idle machine. Both process the folders NAME of FOLDER whose files are not in results/phones.json yet (``--again``: all),
print a table, and merge it into the record.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import alternate
from edgekit import runs
from edgekit.files import load_json, save_json, sha256_file
from edgekit.ondevice.environment import busy_share, environment
from edgekit.stats import proportions

RESULT = Path(__file__).parent / "results" / "phones.json"
FORMS = ("fp32", "fp16", "int8", "w8", "16x8")
FLOAT_FORMS = ("fp32", "int8")  # also with a float input
BASELINE = "edgekit.fp32"
OURS = ("edgekit.int8", "edgekit.int8.int8")  # bytes to float, the default; int8 to int8, as the peers' files
INTEGERS = ("--input", "int8", "--output", "int8")
LARGE_RECIPE = 'description = "latency only"\nsamples = 32\nseed = 0\nobserver = "minmax"\n'


def make(folder: Path, source: Path, size: int | None) -> None:
    """Export a copy of a run and write the input of the peers and of `judge`."""
    from edgekit.api.intermediates import Intermediates
    from edgekit.data import dataset, images

    name = source.name if size is None else f"{source.name}-{size}"
    run = folder / "runs" / name
    if not run.is_dir():
        shutil.copytree(source, run, ignore=shutil.ignore_patterns("export", "bench", "calibration"))
        if size is not None:
            enlarge(run, size)
    recipe = folder / "runs" / "large.toml"
    recipe.write_text(LARGE_RECIPE)
    options = [] if size is None else ["--recipe", str(recipe)]
    export(run, "android", FORMS, options)
    export(run, "rpi", FLOAT_FORMS, [*options, "--input", "float"])
    export(run, "ios", ("int8",), [*options, *INTEGERS])
    made = folder / name
    made.mkdir(exist_ok=True)
    for form in FORMS:
        shutil.copyfile(run / "export" / "android" / f"model.{form}.tflite", made / f"edgekit.{form}.tflite")
    for form in FLOAT_FORMS:
        shutil.copyfile(run / "export" / "rpi" / f"model.{form}.tflite", made / f"edgekit.{form}.float.tflite")
    shutil.copyfile(run / "export" / "ios" / "model.int8.tflite", made / "edgekit.int8.int8.tflite")
    bench = Intermediates(runs.open_run(run.parent, name))
    shutil.copyfile(bench.onnx, made / "model.fp32.onnx")
    bench.save_baseline(made / "program.pt2")
    np.save(made / "calibration.npy", bench.calibration_images(256 if size is None else 32).numpy())
    save_json(made / "preprocess.json", bench.checkpoint.preprocess)
    if size is None:
        samples = bench.data.split("test")
        paths = dataset.check_unchanged(bench.data, samples)
        images.save_pixels(paths, bench.checkpoint.preprocess, made / "pixels.npy")
        np.save(made / "labels.npy", np.array([sample.label for sample in samples]))


def enlarge(run: Path, size: int) -> None:
    """Change the image size of a copied run's network."""
    from edgekit.models import checkpoints

    checkpoint, model = checkpoints.load(run / "checkpoint.pt")
    preprocess = dataclasses.replace(checkpoint.preprocess, image_size=size, resize_size=size * 8 // 7)
    saved = checkpoints.save(
        run / "checkpoint.pt", model, checkpoint.arch, checkpoint.labels, preprocess, checkpoint.hidden
    )
    meta = {**load_json(run / "run.json"), "checkpoint_sha256": saved.sha256}
    save_json(run / "run.json", {**meta, "preprocess": preprocess})


def export(run: Path, target: str, forms: tuple[str, ...], options: list[str]) -> None:
    """Run ``edgekit export`` unless all files exist."""
    if all((run / "export" / target / f"model.{form}.tflite").is_file() for form in forms):
        return
    asked = [word for form in forms for word in ("-p", form)]
    command = [sys.executable, "-m", "edgekit", "export", run.name, "--runs-dir", str(run.parent), "-t", target]
    subprocess.run([*command, *asked, *options], check=True)


def answers(path: Path, pixels: np.ndarray, preprocess: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the logits (N, classes) for uint8 (N, H, W, 3) in edgekit's runner, and the share that XNNPACK runs.

    A peer's file takes normalized values in the layout of its input; the runner quantizes them.
    """
    from edgekit.ondevice.preprocess import prepare
    from edgekit.ondevice.run_tflite import TfliteRunner

    runner = TfliteRunner(str(path), 2)
    shape, kind = runner.model.input["shape"], runner.model.input["dtype"]
    taken = "float32" if is_peer(path.name) else np.dtype(kind).name
    job = {**preprocess, "layout": "NCHW" if shape[1] == 3 else "NHWC", "input": taken}
    logits = np.stack([runner.infer(prepare(image, job)) for image in pixels])
    info = runner.info()
    runner.close()
    return logits, {name: info[name] for name in ("ops", "delegated_ops", "partitions") if name in info}


def judge(made: Path) -> dict[str, dict[str, Any]]:
    """Return one row per file: top-1 on the test split with its 95 % interval, agreement with FP32, McNemar's p."""
    pixels, labels = np.load(made / "pixels.npy"), np.load(made / "labels.npy")
    preprocess = json.loads((made / "preprocess.json").read_text())
    expected, rows = None, {}
    for name, path in files(made).items():
        logits, covered = answers(path, pixels, preprocess)
        chosen = logits.argmax(1)
        expected = chosen if expected is None else expected  # the first is BASELINE
        correct = int((chosen == labels).sum())
        rows[name] = {
            "top1": round(100 * correct / len(labels), 2),
            "interval": [round(100 * value, 2) for value in proportions.wilson(correct, len(labels))],
            "agreement": round(100 * float((chosen == expected).mean()), 2),
            "p": round(proportions.mcnemar(chosen == labels, expected == labels), 4),
            **covered,
            **identity(path),
        }
    return rows


def measure(made: Path, blocks: int) -> dict[str, dict[str, Any]]:
    """Return one row per file: medians in ms, ratios to FP32 and, for INT8, to each peer.

    Raw values are written to latency.npz.
    """
    paths = files(made)
    times = alternate.measure(paths, blocks)
    np.savez_compressed(made / "latency.npz", **{name: found.ns for name, found in times.items()})
    rows: dict[str, dict[str, Any]] = {}
    for name, found in times.items():
        rows[name] = {"queries": found.queries, **identity(paths[name])}
        for clock in alternate.CLOCKS:
            rows[name][f"{clock}_ms"] = round(found.median_ms(clock), 4)
            rows[name][f"{clock}_to_fp32"] = alternate.ratio(found, times[BASELINE], clock)
            if name in OURS:
                peers = {n: t for n, t in times.items() if is_peer(n) and not n.endswith(".fp32")}
                rows[name][f"{clock}_to_peers"] = {n: alternate.ratio(found, t, clock) for n, t in peers.items()}
    return rows


def is_peer(name: str) -> bool:
    """Return whether a file is from a peer."""
    return not name.startswith("edgekit.")


def files(made: Path) -> dict[str, Path]:
    """Return the model files of a network by name: edgekit's first, beginning with FP32."""
    ours = [f"edgekit.{form}" for form in FORMS] + [f"edgekit.{form}.float" for form in FLOAT_FORMS] + [OURS[1]]
    peers = sorted(path.name.removesuffix(".tflite") for path in made.glob("*_ptq.*.tflite"))
    return {name: made / f"{name}.tflite" for name in (*ours, *peers)}


def identity(path: Path) -> dict[str, Any]:
    """Return the size and the hash of a file."""
    return {"mb": round(path.stat().st_size / 1e6, 3), "sha256": sha256_file(path)}


def load() -> dict[str, int]:
    """Return the ticks of all cores since boot: total, idle, and stolen by other virtual machines of the host."""
    ticks = [int(value) for value in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]
    return {"all": sum(ticks[:8]), "idle": ticks[3] + ticks[4], "steal": ticks[7]}


def loaded(made: Path, blocks: int) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the rows of `measure`, and the other load on the machine during it."""
    busy, before, own = busy_share(1.0), load(), sum(os.times()[:2])
    rows = measure(made, blocks)
    after, own = load(), sum(os.times()[:2]) - own
    total = after["all"] - before["all"]
    used = total - (after["idle"] - before["idle"]) - own * os.sysconf("SC_CLK_TCK")
    return rows, {
        "busy_before": busy,
        "busy_others": round(max(0.0, used) / total, 3),
        "steal": round((after["steal"] - before["steal"]) / total, 4),
        "loadavg": [round(value, 2) for value in os.getloadavg()],
        "blocks": blocks,
    }


def show_accuracy(name: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print the rows of `judge`."""
    print(f"\n{name:36} {'MB':>7} {'top-1 %':>8} {'95 %':>13} {'agree %':>8} {'p':>7}  delegated")
    for file, row in rows.items():
        low, high = row["interval"]
        where = f"{row.get('delegated_ops', '?')}/{row.get('ops', '?')} in {row.get('partitions', '?')}"
        figures = f"{row['top1']:8.2f} {low:6.1f}-{high:<6.1f} {row['agreement']:8.2f} {row['p']:7.4f}"
        print(f"{file:36} {row['mb']:7.2f} {figures}  {where}", flush=True)


def show_latency(name: str, rows: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """Print the rows of `measure`."""
    print(
        f"\n{name}: other processes took {about['busy_others']:.0%} of the machine, {about['steal']:.1%} was stolen",
        end=", ",
    )
    print(f"load {about['loadavg'][0]}")
    print(f"{'':36} {'MB':>7} {'wall ms':>9} {'to FP32':>22} {'CPU ms':>9} {'to FP32':>22} {'queries':>8}")
    for file, row in rows.items():
        wall, cpu = (_span(row[f"{clock}_to_fp32"]) for clock in alternate.CLOCKS)
        figures = f"{row['wall_ms']:9.3f} {wall:>22} {row['cpu_ms']:9.3f} {cpu:>22}"
        print(f"{file:36} {row['mb']:7.2f} {figures} {row['queries']:8}", flush=True)
    for ours in OURS:
        for file in rows[ours]["wall_to_peers"]:
            wall, cpu = (_span(rows[ours][f"{clock}_to_peers"][file]) for clock in alternate.CLOCKS)
            print(f"  {ours:18} to {file:28} wall {wall}  CPU {cpu}", flush=True)


def _span(found: dict[str, float]) -> str:
    return f"{found['ratio']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def kept(result: Path) -> dict[str, Any]:
    """Return the record; empty if there is none."""
    return json.loads(result.read_text()) if result.is_file() else {}


def is_known(rows: dict[str, dict[str, Any]], made: Path) -> bool:
    """Return whether `rows` belong to the files in the folder."""
    return {n: row["sha256"] for n, row in rows.items()} == {n: sha256_file(p) for n, p in files(made).items()}


def merge(result: Path, name: str, values: dict[str, Any]) -> None:
    """Merge the values of one network into the record."""
    record = kept(result)
    networks = record.get("networks", {})
    networks[name] = {**networks.get(name, {}), **values}
    packages = ("ai-edge-litert", "litert-torch", "ai-edge-quantizer", "torch", "numpy")
    about = {"environment": environment(), "versions": {package: version(package) for package in packages}}
    save_json(result, {**about, "threads": 1, "networks": dict(sorted(networks.items()))})


def work(verb: str, options: argparse.Namespace) -> None:
    """Run `judge` or `measure` on the folders, and record each network as soon as it is done."""
    names = options.names or sorted(path.parent.name for path in options.folder.glob("*/preprocess.json"))
    for name in names:
        made, known = options.folder / name, kept(options.result).get("networks", {}).get(name, {})
        part = "accuracy" if verb == "judge" else "latency"
        if not options.again and part in known and is_known(known[part], made):
            print(f"{name}: already in {options.result.name}")
        elif verb == "measure":
            rows, about = loaded(made, options.blocks)
            peers = {p.stem: json.loads(p.read_text()) for p in sorted(made.glob("*_ptq.*.json"))}
            size = json.loads((made / "preprocess.json").read_text())["image_size"]
            merge(options.result, name, {"image_size": size, "latency": rows, "machine": about, "peers": peers})
            show_latency(name, rows, about)
        elif (made / "pixels.npy").is_file():
            rows = judge(made)
            merge(options.result, name, {"accuracy": rows})
            show_accuracy(name, rows)


def main() -> None:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make", help="export runs and write the input of the peers")
    maker.add_argument("folder", type=Path)
    maker.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    maker.add_argument("--size", type=int, help="another image size, for latency only")
    for verb, text in (("judge", "top-1 on the test split"), ("measure", "latency, in turns")):
        reader = verbs.add_parser(verb, help=text)
        reader.add_argument("folder", type=Path)
        reader.add_argument("names", nargs="*", metavar="NAME")
        reader.add_argument("--again", action="store_true", help="repeat networks that are in the record")
        reader.add_argument("--result", type=Path, default=RESULT)
        reader.add_argument("--blocks", type=int, default=alternate.BLOCKS)
    options = parser.parse_args()
    if options.verb == "make":
        for run in options.runs:
            make(options.folder, run, options.size)
    else:
        work(options.verb, options)


if __name__ == "__main__":
    main()

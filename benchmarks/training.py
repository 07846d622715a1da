"""Training speed: against a plain loop, with and without cached features, and of the parts that read images.

    python benchmarks/training.py                     images/s of three networks at 128 px
    python benchmarks/training.py --head DATA         epochs of --strategy head, with and without the cache
    python benchmarks/training.py --reading           images/s of decoding val, and of epochs with workers
    python benchmarks/training.py --gpu               images/s when losses are read in every step, and later

The plain loop is written like torchvision's reference script (references/classification/train.py):
ImageFolder, RandomResizedCrop and flips on PIL images, normalized float32 tensors, SGD, no layout or
allocator setting. edgekit's side does a little more for each image (colour jitter, AdamW). Each
measurement is a process of its own; the two sides take turns, and the ratio is of their medians.
``--reading`` and ``--gpu`` alternate both sides in one process. Writes benchmarks/results/training.json,
head.json, reading.json and workers.json, or gpu.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ARCHS = ("resnet18", "mobilenet_v2", "efficientnet_b0")
SIZE, BATCH, STEPS, ROUNDS = 128, 32, 12, 2
TURNS = 11


def photographs(folder: Path, count: int = 512) -> None:
    """Write JPEG crops of 256 px of scikit-image's photographs: two classes in each split."""
    import numpy as np
    from PIL import Image
    from skimage import data

    rng, sources = np.random.default_rng(0), [data.chelsea(), data.coffee(), data.astronaut()]
    for number in range(count):
        pixels = sources[number % 3]
        top, left = (int(rng.integers(0, length - 256)) for length in pixels.shape[:2])
        split = "val" if number % 32 == 0 else "test" if number % 32 == 1 else "train"
        path = folder / split / str(number // 2 % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[top : top + 256, left : left + 256]).save(path, quality=90)


def plain(arch: str, folder: str) -> float:
    """Return images per second of the reference loop."""
    import torch
    import torchvision
    from torchvision.transforms import v2

    steps = [
        v2.RandomResizedCrop(SIZE),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
        v2.ToDtype(torch.float, scale=True),
    ]
    normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = torchvision.datasets.ImageFolder(f"{folder}/train", v2.Compose([*steps, normalize, v2.ToPureTensor()]))
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, drop_last=True)
    model = torchvision.models.get_model(arch, num_classes=2).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def batches():
        while True:
            yield from loader

    for step, (image, target) in enumerate(batches()):
        if step == 2:  # the first ones warm up
            started = time.perf_counter()
        if step == 2 + STEPS:
            break
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return STEPS * BATCH / (time.perf_counter() - started)


def edgekit(arch: str, folder: str) -> tuple[float, str]:
    """Return images per second of edgekit's loop, and the precision that it chose."""
    import dataclasses

    import torch

    from edgekit.data import dataset
    from edgekit.training import plan
    from edgekit.training.distributed import Team
    from edgekit.training.loop import Training
    from edgekit.training.options import TrainOptions

    team = Team(0, 1, torch.device("cpu"))
    wanted = TrainOptions(arch, "full", batch_size=BATCH, image_size=SIZE, weights="none", imbalance="none")
    chosen, why = plan.choose_precision(wanted, 2, plan.WORTH_MEASURING, team)
    training = Training(dataset.index(Path(folder)), dataclasses.replace(chosen, lr=0.01), team, lambda *_: None)
    training.learner.begin(1)
    done = 0
    for epoch in range(1, 100):
        for whole, (inputs, labels, _) in training.batches.epoch(epoch):
            if done == 2:
                started = time.perf_counter()
            if done == 2 + STEPS:
                return STEPS * BATCH / (time.perf_counter() - started), why
            training.learner.step(inputs, labels, whole, 1.0)
            done += whole == BATCH
    raise AssertionError("too few images")


def side(name: str, *arguments: str) -> dict[str, object]:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loops() -> None:
    """Measure both loops in turns."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        photographs(Path(name))
        os.environ["EDGEKIT_CACHE"] = str(Path(name) / "cache")
        for arch in ARCHS:
            found = [(side("--plain", arch, name), side("--edgekit", arch, name)) for _ in range(ROUNDS)]
            theirs, ours = ([float(pair[n]["images_per_s"]) for pair in found] for n in (0, 1))  # type: ignore[arg-type]
            ratio = statistics.median(ours) / statistics.median(theirs)
            rows[arch] = {"plain": theirs, "edgekit": ours, "ratio": round(ratio, 3), "chosen": found[0][1]["why"]}
            print(
                f"{arch}: plain {statistics.median(theirs):.1f}, edgekit {statistics.median(ours):.1f} images/s, "
                f"ratio {ratio:.2f} ({found[0][1]['why']})",
                flush=True,
            )
    save("training.json", {"image_size": SIZE, "batch_size": BATCH, "steps": STEPS, "images_per_s": rows})


def head(data: str) -> None:
    """Train the same head on cached features, and with the backbone in every step, in turns."""
    common = ["--model", "efficientnet_lite0", "--strategy", "head", "--image-size", str(SIZE), "--epochs", "12"]
    rows: dict[str, list[dict[str, float]]] = {"cached": [], "backbone each time": []}
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "EDGEKIT_CACHE": f"{name}/cache", "EDGEKIT_RUNS_DIR": f"{name}/runs"}
        for seed in range(ROUNDS):
            for side_, more in (("cached", []), ("backbone each time", ["--no-cache-features", "--amp", "off"])):
                run = f"{side_.split()[0]}-{seed}"
                started = time.perf_counter()
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "edgekit",
                        "train",
                        data,
                        *common,
                        *more,
                        "--seed",
                        str(seed),
                        "--name",
                        run,
                    ],
                    env=environment,
                    check=True,
                    capture_output=True,
                )
                whole = time.perf_counter() - started
                meta = json.loads((Path(name) / "runs" / run / "run.json").read_text())
                judged = json.loads((Path(name) / "runs" / run / "evaluation.json").read_text())
                seconds = statistics.median(e["seconds"] for e in meta["history"][1:])
                top1 = judged["splits"]["test"]["scores"]["top1"]
                rows[side_].append(
                    {"epoch_s": seconds, "whole_s": whole, "val_top1": meta["val_top1"], "test_top1": top1}
                )
                print(side_, rows[side_][-1], flush=True)
    cached, each = (statistics.median(r["epoch_s"] for r in rows[side_]) for side_ in rows)
    print(f"an epoch: {cached:.3f} s cached, {each:.2f} s with the backbone each time: {each / cached:.0f} times")
    save("head.json", {"image_size": SIZE, "epochs": 12, "runs": rows, "ratio": round(each / cached, 1)})


def reading() -> None:
    """Decode val on one thread and on all cores; read epochs with new workers and with kept ones."""
    import torch

    from edgekit.data import dataset
    from edgekit.data.images import load_batches, load_pixels
    from edgekit.records import Preprocess
    from edgekit.training.batches import Batches
    from edgekit.training.distributed import Team
    from edgekit.training.options import TrainOptions

    with tempfile.TemporaryDirectory() as name:
        photographs(Path(name))
        os.environ["EDGEKIT_CACHE"] = str(Path(name) / "cache")
        data = dataset.index(Path(name))
        preprocess = Preprocess(SIZE, SIZE)
        paths = [data.root / sample.path for sample in data.split("train")]
        options = TrainOptions(ARCHS[0], "full", batch_size=BATCH, image_size=SIZE, weights="none", workers=2)
        batches = Batches(data, preprocess, options, Team(0, 1, torch.device("cpu")))

        def one_thread() -> None:
            for start in range(0, len(paths), BATCH):
                load_pixels(paths[start : start + BATCH], preprocess)

        def all_cores() -> None:
            for _ in load_batches(paths, preprocess, BATCH):
                pass

        def epoch() -> None:
            for _ in batches.epoch(1):
                pass

        def new_workers() -> None:
            batches.close()
            epoch()

        compare("reading.json", len(paths), {"one thread": one_thread, "all cores": all_cores})
        compare("workers.json", len(paths), {"new workers": new_workers, "kept workers": epoch})
        batches.close()


def gpu() -> None:
    """Train with losses that are read in every step, and every `READ_EVERY` steps."""
    import torch

    from edgekit.data import dataset
    from edgekit.training import loop
    from edgekit.training.distributed import Team
    from edgekit.training.options import TrainOptions
    from edgekit.training.resume import TrainingProgress

    class Silent:
        def step(self, *_: object) -> None: ...

    with tempfile.TemporaryDirectory() as name:
        photographs(Path(name))
        os.environ["EDGEKIT_CACHE"] = str(Path(name) / "cache")
        options = TrainOptions(
            *(ARCHS[0], "full"),
            batch_size=BATCH,
            image_size=SIZE,
            weights="none",
            imbalance="none",
            amp="bf16",
            lr=0.01,
        )
        team = Team(0, 1, torch.device("cuda", 0))
        training = loop.Training(dataset.index(Path(name)), options, team, lambda *_: None)
        every = loop.READ_EVERY

        def train(steps: int) -> None:
            loop.READ_EVERY = steps
            loop._train_epoch(training, TrainingProgress(), Silent(), loop.Stop(), Path(name) / "state")
            torch.cuda.synchronize()

        count = len(training.batches.images)
        compare("gpu.json", count, {"every step": lambda: train(1), f"every {every} steps": lambda: train(every)})


def compare(name: str, images: int, sides: dict[str, Callable[[], None]]) -> None:
    """Run the sides in turns and save images/s of each, and the median ratio of the second to the first."""
    rates: dict[str, list[float]] = {side_: [] for side_ in sides}
    for turn in range(1 + TURNS):
        for side_, work in sides.items():
            started = time.perf_counter()
            work()
            if turn:  # the first one warms up
                rates[side_].append(round(images / (time.perf_counter() - started), 1))
    # Of each turn by itself: other work on the machine comes and goes.
    ratio = statistics.median(second / first for first, second in zip(*rates.values()))
    print(", ".join(f"{s} {statistics.median(r):.0f} images/s" for s, r in rates.items()), f"ratio {ratio:.2f}")
    save(name, {"image_size": SIZE, "batch_size": BATCH, "images_per_s": rates, "ratio": round(ratio, 3)})


def save(name: str, content: dict[str, object]) -> None:
    """Write a record with the machine that it was measured on."""
    from edgekit.training.plan import cpu_name

    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps({"machine": machine, **content}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        print(json.dumps({"images_per_s": plain(*sys.argv[2:4])}))
    elif sys.argv[1:2] == ["--edgekit"]:
        speed, why = edgekit(*sys.argv[2:4])
        print(json.dumps({"images_per_s": speed, "why": why}))
    elif sys.argv[1:2] == ["--head"]:
        head(sys.argv[2])
    elif sys.argv[1:2] == ["--reading"]:
        reading()
    elif sys.argv[1:2] == ["--gpu"]:
        gpu()
    else:
        loops()

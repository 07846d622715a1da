"""The parts of the page: the table of figures, layers, distributions, commands."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest
import typer

from edgekit.cli.app import app
from edgekit.errors import DataError
from edgekit.measurements import Latency, LayerFigures, Quantile, Roofline
from edgekit.report import distributions, environment, figures, layers, reproduce, trained
from edgekit.report.material import Material
from edgekit.report.table import Rows, Table, compact, length
from edgekit.train.options import TrainOptions
from tests.bench.results import BASELINE_ROW, artifact, result, row
from tests.report.evaluations import evaluation
from tests.report.made import run

# Figures ------------------------------------------------------------------------------------------


def cells(**changes: Any) -> dict[str, str]:
    return dict(zip(figures.COLUMNS, figures.cells(7, row(**changes)), strict=True))


def latency(ms: float | None = 3.0, **more: Any) -> Latency:
    quantiles = (Quantile(50, ms, ms and 2.9, ms and 3.1, ms and 3.2), Quantile(99, None, None, None, None))
    return Latency(700, 0, quantiles, "order statistics of the effective sample", 0.4, **more)


def test_every_figure_stands_with_its_interval() -> None:
    found = cells(latency=latency(images_per_s=400.0, images_per_s_low=390.0, images_per_s_high=410.0), drop=1.5,
                  drop_low=0.5, drop_high=2.5, p_value=0.01, speedup_low=3.8, speedup_high=4.2, speedup_best=2.0,
                  roofline=Roofline(1, 1, 1.2, "memory", 0.4, "a page"))  # fmt: skip
    assert found["p50 ms (95 %)"] == "3.00 (2.90-3.10)"
    assert found["drop (95 %)"] == "+1.5* (+0.5 to +2.5)"
    assert found["x base (95 %)"] == "4.00 (3.80-4.20), best 2.00"
    assert found["images/s"] == "400 (390-410)"
    assert found["roofline %"] == "40 (memory)"


@pytest.mark.parametrize(
    ("changes", "column", "says"),
    [
        ({"p99_ms": None}, "p99 ms (95 %)", "insufficient samples"),
        ({"latency": latency(None), "p50_ms": None}, "p50 ms (95 %)", "insufficient samples"),
        ({"source": "emulated"}, "p50 ms (95 %)", "emulated"),
        ({"source": "emulated", "latency": latency(images_per_s=9.0)}, "images/s", "-"),
        ({"busy": True}, "p50 ms (95 %)", "3.00!"),
        ({"busy": True}, "x base (95 %)", "-"),
        ({"stand_in": True}, "x base (95 %)", "-"),
        ({"latency": latency(flags=("drift",))}, "p50 ms (95 %)", "3.00 (2.90-3.10)†"),
    ],
)
def test_what_the_samples_do_not_carry_is_said_in_words(changes: dict[str, Any], column: str, says: str) -> None:
    assert cells(**changes)[column] == says


def test_rows_stand_below_their_device_and_keep_the_picture_s_numbers() -> None:
    rows = [BASELINE_ROW, row(device="phone", threads=4), row(), row(device="phone", threads=4, target="ios")]
    table = figures.table(rows)
    assert [group.title for group in table.groups] == ["local, 1 thread", "phone, 4 threads"]
    numbers = table.columns.index("#")
    assert [[c[numbers] for c in group.cells] for group in table.groups] == [["1", "3"], ["2", "4"]]
    assert "mJ" not in table.columns  # nothing to say
    assert any("flag" in line for line in figures.notes([BASELINE_ROW, row(latency=latency(flags=("a flag",)))]))


def test_a_column_without_figures_is_left_out() -> None:
    table = Table("", ("a", "b", "c"), (Rows("", (("x", "-", "1"), ("y", "", "-"))),))
    assert compact(table).columns == ("a", "c")
    assert list(compact(table).rows) == [("x", "1"), ("y", "-")]


def test_a_bar_is_as_long_as_its_share_of_the_longest() -> None:
    table = Table("", ("a", "b"), (Rows("", (("x", "5.0"), ("y", "20.0"), ("z", "-"))),), bars="b")
    assert [length(table, cell) for _, cell in table.rows] == [25.0, 100.0, 0.0]


# Layers -------------------------------------------------------------------------------------------

FOUND = [
    LayerFigures("features.1.conv", "Conv2d", 1.0, 20.0, 2_000_000, 30.0, 20.0, 12.0, 0.99),
    LayerFigures("features.1.act", "ReLU", 2.0, 40.0),
    LayerFigures("features.2.conv", "Conv2d", 2.0, 40.0, 1_000_000, 40.0, 25.0, 33.0, 0.999),
]


def test_blocks_have_the_sum_of_their_times_and_their_share_of_the_error() -> None:
    table = layers.table("m on d", FOUND)
    assert table.columns == ("block", *layers.COLUMNS[1:])
    assert [row[:8] for row in table.rows] == [
        ("features.1", "2 layers", "3.000", "60.0", "2.00", "30.0", "20.0", "12.0"),
        ("features.2", "1 layer", "2.000", "40.0", "1.00", "40.0", "25.0", "33.0"),
    ]
    # 10^-1.2 of 10^-1.2 + 10^-3.3
    assert [row[-1] for row in table.rows] == ["99.2", "0.8"]
    assert table.notes[0] == "features.1 costs 60 % of the time and 99 % of the error."
    assert [row[0] for row in layers.every("m", FOUND).rows] == ["features.1.act", "features.2.conv", "features.1.conv"]


def test_errors_alone_are_layers_too() -> None:
    table = layers.every("m", [LayerFigures("a.1.x", "Conv2d", None, None, None, 30.0, 30.0, 1e9, 0.9)])
    assert dict(zip(table.columns, next(table.rows)))["effect dB"] == "exact"
    assert "ms" not in table.columns


# Distributions ------------------------------------------------------------------------------------


def test_distributions_leave_emulators_out_and_stay_small() -> None:
    many = [result(device="a", latencies_ns=tuple(range(10**6, 10**6 + 9000)))] * 9
    emulated = result(device="emu", source="emulated")
    drawn = distributions.ecdf([*many, emulated])
    assert "emu" not in drawn
    assert len(drawn) < 80_000
    assert distributions.crowded(many)
    assert not distributions.crowded(many[:8])
    assert distributions.ecdf([emulated]) == ""
    line = next(distributions.percentiles(many).rows)
    assert line[2:5] == ("9000", "1.00", "1.00")
    assert line[-1] == "1.0"


def test_equal_sizes_are_one_bar_and_one_bar_is_no_picture() -> None:
    rows = [BASELINE_ROW, row(), row(artifact="ios/model.int8.tflite"), row(artifact="a/b.int8.tflite", size_mb=2.0)]
    assert [(name, size) for name, size, _ in distributions.sizes(rows)] == [
        ("baseline/pytorch", 8.9), ("android/model.int8.tflite and 1 more", 2.4), ("a/b.int8.tflite", 2.0)
    ]  # fmt: skip
    assert distributions.bars([BASELINE_ROW], "size") == ""
    assert distributions.energies([row(gross_mj=2.0, device="a"), row(gross_mj=1.0, device="b"), row()]) == [
        ("android/model.int8.tflite on b", 1.0, "int8"), ("android/model.int8.tflite on a", 2.0, "int8")
    ]  # fmt: skip


# How to reproduce ---------------------------------------------------------------------------------


def command(name: str) -> typer.core.TyperCommand:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def test_the_training_command_is_one_that_the_program_takes() -> None:
    options = dataclasses.asdict(TrainOptions("mobilenet_v2", lr=0.003, flip=False, freeze_bn=True))
    text = reproduce.training("my run", {"options": options, "data": {"root": "/my data; rm -rf /"}})
    words = shlex.split(text)
    assert words[:5] == ["edgekit", "train", "/my data; rm -rf /", "--name", "my run"]
    with command("train").make_context("train", words[2:]) as context:
        assert context.params["lr"] == 0.003
        assert (context.params["flip"], context.params["freeze_bn"], context.params["model"]) == (
            False, True, "mobilenet_v2"
        )  # fmt: skip


def test_export_and_benchmark_commands_are_ones_that_the_program_takes() -> None:
    of = artifact("android/model.int8.tflite", "int8", "litert", details={"recipe": "default"})
    base = result()
    there = result(of, device="pixel-8", environment={**base.environment, "suite": "quick", "threads": 4})
    browser = result(of, device="web:Linux, Chrome", environment={**base.environment, "suite": "quick"})
    (_, found, served) = reproduce.recipes("digits", [base, there, browser])
    for text in (*found.commands, *served.commands):
        words = shlex.split(text)
        command(words[1]).make_context(words[1], words[2:]).close()
    assert found.commands == (
        "edgekit export digits --target android --precision int8 --recipe default",
        "edgekit benchmark digits --device pixel-8 --suite quick --threads 4",
    )
    assert reproduce.recipes("digits", [base])[0].commands == ("edgekit benchmark digits --device local --threads 1",)


def test_every_file_leads_back_to_its_calibration() -> None:
    details = {"recipe": "default", "observer": "mse", "steps": ["bias"], "calibration_sha256": "c" * 64}
    of = artifact("a/b.int8.tflite", "int8", "litert", details=details)
    (line,) = environment.hashes([result(of), result(of, device="b")]).rows
    assert line == ("a/b.int8.tflite", "a" * 64, "calibration default (mse); bias", "c" * 64)


def test_a_browser_that_does_not_tell_has_dashes() -> None:
    base = result()
    silent = {k: v for k, v in base.environment.items() if k not in ("busy_before", "peak_rss_mb", "cpu")}
    table = environment.machines([base, result(device="web:x", environment=silent)])
    assert len(list(table.rows)) == 2
    assert next(table.rows)[3] == "a CPU"


# Training and test --------------------------------------------------------------------------------


def test_of_many_classes_the_worst_are_shown_and_where_the_rest_is() -> None:
    judged = evaluation([f"class {n}" for n in range(150)], right=0.6)
    table = trained.classes(judged)
    found = list(table.rows)
    assert len(found) == 50 + 2
    scores = [float(r[6]) for r in found[:50]]
    assert scores == sorted(scores)
    assert "--format classes" in table.notes[0]
    assert len(list(trained.classes(evaluation()).rows)) == 3 + 2
    counts = {"train": list(range(150)), "val": [1] * 150, "test": [2] * 150}
    small = trained.counts([f"class {n}" for n in range(150)], counts)
    assert next(small.rows) == ("class 0", "0", "1", "2", "3")
    assert len(list(small.rows)) == 50


def test_a_run_of_an_older_edgekit_has_dashes_for_what_it_lacks() -> None:
    assert next(trained.epochs(run().meta["history"]).rows)[4:6] == ("-", "-")


def test_a_damaged_run_is_named() -> None:
    with pytest.raises(DataError, match=r"run\.json is damaged: history: best missing"):
        Material(run(history=[{k: v for k, v in run().meta["history"][0].items() if k != "best"}]))

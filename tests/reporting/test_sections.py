"""The parts of the page: the table of figures, layers, distributions, commands."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest
import typer

from edgekit.cli.app import app
from edgekit.errors import DataError
from edgekit.measurements import Latency, LayerFigures, Quantile, Roofline, Summary
from edgekit.records import Preprocess
from edgekit.reporting import charts, figures, html, layers, markdown, privacy, provenance, trained
from edgekit.reporting.material import Material
from edgekit.reporting.tables import Rows, Table, bar_percent, compact
from edgekit.runs import RunInfo, Source
from edgekit.training.options import TrainOptions
from tests.bench.results import BASELINE_ROW, artifact, flag, result, row
from tests.reporting.evaluations import evaluation
from tests.reporting.made import run

# Figures ------------------------------------------------------------------------------------------


def cells(**changes: Any) -> dict[str, str]:
    return dict(zip(figures.COLUMNS, figures.cells(7, row(**changes)), strict=True))


def latency(ms: float | None = 3.0, flags: tuple[str, ...] = (), **more: Any) -> Latency:
    quantiles = (Quantile(50, ms, ms and 2.9, ms and 3.1, ms and 3.2), Quantile(99, None, None, None, None))
    return Latency(700, 0, quantiles, "order statistics of the effective sample", 0.4, tuple(map(flag, flags)), **more)


def test_every_figure_stands_with_its_interval() -> None:
    found = cells(latency=latency(images_per_s=400.0, images_per_s_low=390.0, images_per_s_high=410.0), drop=1.5,
                  drop_low=0.5, drop_high=2.5, p_value=0.01, speedup_low=3.8, speedup_high=4.2, speedup_best=2.0,
                  roofline=Roofline(1, 1, 1.2, "memory", 0.4, "a page"))  # fmt: skip
    assert found["p50 ms (95 %)"] == "3.00 (2.90-3.10)"
    assert found["drop (95 %)"] == "+1.5* (+0.5 to +2.5)"
    assert found["x base (95 %)"] == "4.00 (3.80-4.20)"


def more(*rows: Summary) -> dict[str, str]:
    table = figures.more([BASELINE_ROW, *rows])
    return dict(zip(table.columns, list(table.rows)[1], strict=True))


def test_what_the_table_has_no_room_for_is_in_a_second_one() -> None:
    measured = latency(images_per_s=400.0, images_per_s_low=390.0, images_per_s_high=410.0)
    limit = Roofline(1, 1, 1.2, "memory", 0.4, "a page")
    fastest = dataclasses.replace(BASELINE_ROW, artifact="baseline/onnxruntime", p50_ms=6.0)
    found = more(row(latency=measured, roofline=limit, speedup_best=2.0), fastest)
    assert found["images/s"] == "400 (390-410)"
    assert found["roofline %"] == "40 (memory)"
    assert found["x fastest baseline"] == "2.00 (ONNX Runtime)"
    assert found["agree %"] == "98.5"
    assert more(row(roofline=limit, busy=True))["roofline %"] == "40! (memory)"
    beyond = figures.more([BASELINE_ROW, row(roofline=dataclasses.replace(limit, reached=1.3))])
    assert list(beyond.rows)[1][-1] == "> limit (memory)"
    assert any("caches hold" in note for note in beyond.notes)


def test_a_stand_in_has_neither_a_limit_nor_a_speed_up_nor_throughput_on_a_device() -> None:
    other = row(stand_in=True, roofline=Roofline(1, 1, 1.2, "memory", 0.4, "a page"), speedup_best=2.0)
    table = figures.more([BASELINE_ROW, other])
    assert table.columns == ("model", "#", "device", "agree %")
    assert list(table.rows)[1][2] == "local (stand-in)"
    assert not any("roofline" in note for note in table.notes)


def test_p90_and_p99_are_the_estimates_that_gates_and_terminal_have_or_nothing() -> None:
    quantiles = (
        Quantile(50, 3.0, 2.9, 3.1, None),
        Quantile(90, 3.1, 3.0, 3.2, 3.3),
        Quantile(99, 4.0, 3.9, None, None),
    )
    measured = dataclasses.replace(latency(), quantiles=quantiles)
    found = cells(latency=measured, p90_ms=3.3, p99_ms=None)
    assert (found["p90 ms (95 %)"], found["p99 ms (95 %)"]) == ("3.30 (3.00-3.20)", "insufficient samples")
    assert any("99 % confidence; in brackets" in note for note in figures.notes([BASELINE_ROW, row()]))


def test_the_speed_names_what_it_is_over() -> None:
    fastest = dataclasses.replace(BASELINE_ROW, artifact="baseline/onnxruntime", p50_ms=6.0)
    known = row(speedup=25.24, speedup_best=17.67)
    rows = [BASELINE_ROW, fastest, known]
    assert figures.speedup_text(known, rows) == "25.2 x PyTorch; 17.7 x the fastest baseline (ONNX Runtime)"
    assert figures.speedup_text(known, rows[:1]) == "25.2 x PyTorch, the fastest baseline"
    assert figures.speedup_text(dataclasses.replace(known, speedup_doubtful=True), []) == "25.2! x PyTorch"
    assert figures.speedup_text(dataclasses.replace(known, stand_in=True), rows) == ""


def test_flags_of_dependence_are_one_line_and_others_stay() -> None:
    says = "autocorrelated (0.40 at lag 1): 700 queries tell as much of the median as 99 independent ones"
    rows = [BASELINE_ROW, *(row(artifact=f"a/{n}.tflite", latency=latency(flags=(says,))) for n in range(5))]
    lines = [n for n in figures.notes([*rows, row(latency=latency(flags=(says, "drifts")))]) if n.startswith("†")]
    assert lines[0] == "† android/model.int8.tflite on local: drifts"
    assert lines[1].endswith("a/0.tflite on local, a/1.tflite on local, a/2.tflite on local and 3 more")
    assert len(lines) == 2


def test_notes_are_only_of_what_is_in_the_table() -> None:
    text = "; ".join(figures.notes([BASELINE_ROW, row()]))
    assert "agree" not in text
    assert "on: device" not in text
    assert "* significant: p <" not in text
    assert "* significant: p <" in "; ".join(figures.notes([BASELINE_ROW, row(p_value=0.01)]))


@pytest.mark.parametrize(
    ("changes", "column", "says"),
    [
        ({"p99_ms": None}, "p99 ms (95 %)", "insufficient samples"),
        ({"latency": latency(None), "p50_ms": None}, "p50 ms (95 %)", "insufficient samples"),
        ({"source": "emulated"}, "p50 ms (95 %)", "emulated"),
        ({"busy": True}, "p50 ms (95 %)", "3.00!"),
        ({"busy": True}, "x base (95 %)", "4.00!"),
        ({"speedup_doubtful": True, "speedup_low": 3.0, "speedup_high": 5.0}, "x base (95 %)", "4.00! (3.00-5.00)"),
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
    assert [bar_percent(table, cell) for _, cell in table.rows] == [25.0, 100.0, 0.0]


# Layers -------------------------------------------------------------------------------------------

FOUND = [
    LayerFigures("features.1.conv", "Conv2d", 1.0, 20.0, 2_000_000, 30.0, 20.0, 12.0, 0.99),
    LayerFigures("features.1.act", "ReLU", 2.0, 40.0),
    LayerFigures("features.2.conv", "Conv2d", 2.0, 40.0, 1_000_000, 40.0, 25.0, 33.0, 0.999),
]


def test_blocks_have_the_sum_of_their_times_and_their_share_of_the_error() -> None:
    table = layers.block_table("m on d", FOUND)
    assert table.columns == ("block", *layers.COLUMNS[1:])
    assert [row[:8] for row in table.rows] == [
        ("features.1", "2 layers", "3.000", "60.0", "2.00", "30.0", "20.0", "12.0"),
        ("features.2", "1 layer", "2.000", "40.0", "1.00", "40.0", "25.0", "33.0"),
    ]
    # 10^-1.2 of 10^-1.2 + 10^-3.3
    assert [row[-1] for row in table.rows] == ["99.2", "0.8"]
    assert table.notes[0] == "features.1 costs 60 % of the time and 99 % of the error."
    assert [row[0] for row in layers.layer_table("m", FOUND).rows] == [
        "features.1.act",
        "features.2.conv",
        "features.1.conv",
    ]


def test_errors_alone_are_layers_too() -> None:
    table = layers.layer_table("m", [LayerFigures("a.1.x", "Conv2d", None, None, None, 30.0, 30.0, 1e9, 0.9)])
    assert dict(zip(table.columns, next(table.rows)))["effect dB"] == "exact"
    assert "ms" not in table.columns


# Distributions ------------------------------------------------------------------------------------


def test_distributions_leave_emulators_out_and_stay_small() -> None:
    many = [result(device="a", latencies_ns=tuple(range(10**6, 10**6 + 9000)))] * 9
    emulated = result(device="emu", source="emulated")
    drawn = charts.ecdf([*many, emulated])
    assert "emu" not in drawn
    assert len(drawn) < 80_000
    assert "show the precision only" in charts.ecdf_text(many, ())
    assert "Marks: p50" not in charts.ecdf_text(many, ())
    assert "Marks: p50" in charts.ecdf_text(many[:8], ())
    assert charts.ecdf([emulated]) == ""
    line = next(charts.percentiles(many).rows)
    assert line[2:5] == ("9000", "1.00", "1.00")
    assert line[-1] == "1.0"


def test_stand_ins_are_not_drawn_and_do_not_crowd() -> None:
    results = [result(artifact(f"a/{n}.onnx", "int8", "tensorrt"), device="a") for n in range(9)]
    rows = [
        row(artifact=r.artifact.name, device="a", ran_in="tensorrt 1.0", stand_in=n < 2) for n, r in enumerate(results)
    ]
    assert len(charts.drawn(results, rows)) == 7
    assert charts.ecdf_text(results, rows).endswith("Stand-ins are not drawn.")
    picture = charts.ecdf(results, rows)
    assert ("a/1.onnx" in picture, "a/2.onnx" in picture) == (False, True)


def test_the_colour_of_a_curve_is_that_of_its_precision() -> None:
    from edgekit.reporting.charts import COLORS

    picture = charts.ecdf([result(artifact(f"a/{n}.tflite", "int8", "litert")) for n in range(3)])
    assert COLORS["int8"] in picture
    assert not any(COLORS[other] in picture for other in ("fp32", "fp16", "w8", "16x8"))
    assert picture.count("stroke-dasharray") >= 2


def test_the_table_of_distributions_has_the_estimates() -> None:
    few = result(latencies_ns=tuple(range(10**6, 10**6 + 128)))
    judged = dataclasses.replace(BASELINE_ROW, ran_in="torch 1.0", p90_ms=7.0, p99_ms=None)
    line = dict(zip(charts.COLUMNS, next(charts.percentiles([few], [judged]).rows), strict=True))
    assert (line["p90"], line["p95"], line["p99"]) == ("7.00", "-", "-")


def test_equal_sizes_are_one_bar_and_one_bar_is_no_picture() -> None:
    rows = [BASELINE_ROW, row(), row(artifact="ios/model.int8.tflite"), row(artifact="a/b.int8.tflite", size_mb=2.0)]
    assert [(bar.name, bar.value) for bar in charts.sizes(rows)] == [
        ("baseline/pytorch", 8.9), ("android/model.int8.tflite and 1 more", 2.4), ("a/b.int8.tflite", 2.0)
    ]  # fmt: skip
    assert charts.size_chart([BASELINE_ROW]) == ""
    assert charts.energies([row(gross_mj=2.0, device="a"), row(gross_mj=1.0, device="b"), row()]) == [
        charts.Bar("android/model.int8.tflite on b", 1.0, "int8"),
        charts.Bar("android/model.int8.tflite on a", 2.0, "int8"),
    ]  # fmt: skip


# How to reproduce ---------------------------------------------------------------------------------


def command(name: str) -> typer.core.TyperCommand:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def test_the_training_command_is_one_that_the_program_takes() -> None:
    options = dataclasses.asdict(TrainOptions("mobilenet_v2", lr=0.003, flip=False, freeze_bn=True))
    text = provenance.training("my run", {"options": options, "data": {"root": "/my data; rm -rf /"}})
    words = shlex.split(text)
    assert words[:5] == ["edgekit", "train", "/my data; rm -rf /", "--name", "my run"]
    with command("train").make_context("train", words[2:]) as context:
        assert context.params["lr"] == 0.003
        assert (context.params["flip"], context.params["freeze_bn"], context.params["model"]) == (
            False, True, "mobilenet_v2"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Source("state dict", "best.pth"), "best.pth --name mine --labels labels.txt --arch resnet18"),
        (
            Source("state dict for mynet.py:build", "best.pth", program=True),
            "mynet.py:build --weights best.pth --name mine --labels labels.txt",
        ),
        (Source("factory", "mynet.py:build", program=True), "mynet.py:build --name mine --labels labels.txt"),
        (
            Source("module that was pickled whole", "whole.pt", program=True),
            "whole.pt --name mine --labels labels.txt --trust",
        ),
        (Source("ONNX network", "model.onnx", program=True), "model.onnx --name mine --labels labels.txt"),
        (
            Source("ONNX network", "model.onnx", program=True, output="head 2"),
            "model.onnx --name mine --labels labels.txt --output 'head 2'",
        ),
        (
            Source("state dict", "best.pth", entry="model_ema"),
            "best.pth --name mine --labels labels.txt --arch resnet18 --entry model_ema",
        ),
    ],
)
def test_the_import_command_is_one_that_the_program_takes(source: Source, expected: str) -> None:
    info = RunInfo(
        arch="resnet18", source=source, preprocess=Preprocess(224, 256, background="#000000"), calibration_data="photos"
    )
    text = provenance.training("mine", info.plain())
    assert text.startswith(f"edgekit import {expected} --image-size 224 --resize-size 256 ")
    assert text.endswith(" --calibration-data photos")
    with command("import").make_context("import", shlex.split(text)[2:]) as context:
        assert context.params["background"] == "#000000"


def test_export_and_benchmark_commands_are_ones_that_the_program_takes() -> None:
    of = artifact("android/model.int8.tflite", "int8", "litert", input="uint8", details={"recipe": "default"})
    base = result()
    there = result(of, device="pixel-8", environment=base.environment.with_values(suite="quick", threads=4))
    browser = result(of, device="web:Linux, Chrome", environment=base.environment.with_values(suite="quick"))
    (_, found, served) = provenance.recipes("digits", [base, there, browser])
    for text in (*found.commands, *served.commands):
        words = shlex.split(text)
        command(words[1]).make_context(words[1], words[2:]).close()
    assert found.commands == (
        "edgekit export digits --target android --precision int8 --recipe default",
        "edgekit benchmark digits --device pixel-8 --suite quick --threads 4",
    )
    assert provenance.recipes("digits", [base])[0].commands == ("edgekit benchmark digits --device local --threads 1",)


def test_the_commands_have_what_is_known_of_the_export_and_say_what_is_not() -> None:
    base = result()
    of = artifact("ios/model.int8.tflite", "int8", "litert", input="float32",
                  details={"recipe": "own.toml", "output": "int8", "float_layers": ["a.1"]})  # fmt: skip
    openvino = result(artifact("baseline/openvino", runtime="openvino"))
    found = provenance.recipes("digits", [base, openvino, result(of)])
    assert found[1].commands == ("edgekit benchmark digits --device local --baseline openvino --threads 1",)
    assert found[2].commands[0] == (
        "edgekit export digits --target ios --precision int8 --recipe own.toml --input float --output int8"
    )
    for p in found:
        for text in p.commands:
            words = shlex.split(text)
            command(words[1]).make_context(words[1], words[2:]).close()
    assert found[2].unknown.startswith("not recorded: --parity, --calibration-data, --max-drop")
    assert found[0].unknown == ""
    assert [line.split()[1] for line in provenance.commands(found)] == ["export", "benchmark", "benchmark"]


def test_where_the_data_lies_is_not_told() -> None:
    made = Material(run(data={"root": "/home/someone/cats", "fingerprint": "f" * 64}))
    assert provenance.lineage(privacy.public(made))[0] == ("data", f"cats, fingerprint {'f' * 64}")
    for text in (html.page(made), markdown.document(made)):
        assert "someone" not in text
        assert "cats" in text


def test_every_file_leads_back_to_its_calibration() -> None:
    details = {"recipe": "default", "observer": "mse", "steps": ["bias"], "calibration_sha256": "c" * 64}
    of = artifact("a/b.int8.tflite", "int8", "litert", details=details)
    (line,) = provenance.hashes([result(of), result(of, device="b")]).rows
    assert line == ("a/b.int8.tflite", "a" * 64, "calibration default (mse); bias", "c" * 64)


def test_a_browser_that_does_not_tell_has_dashes() -> None:
    base = result()
    silent = dataclasses.replace(base.environment, busy_before=None, peak_rss_mb=None, cpu=None)
    table = provenance.machines([base, result(device="web:x", environment=silent)])
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
    assert next(trained.epochs(run().info.plain()["history"]).rows)[4:6] == ("-", "-")


def test_a_damaged_run_is_named() -> None:
    with pytest.raises(DataError, match=r"run\.json is damaged: history: best missing"):
        Material(run(history=[{k: v for k, v in run().info.plain()["history"][0].items() if k != "best"}]))

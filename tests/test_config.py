"""Data files: every shipped one loads, and a wrong one is named with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import config
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.measurements import Suite
from edgekit.quantization import CalibrationRecipe, CalibrationTable, Range
from edgekit.records import Device, Preprocess
from edgekit.targets.base import FAMILIES


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", config.names("devices"))
def test_each_shipped_device_loads_and_belongs_to_a_family(name: str) -> None:
    device = config.load_device(name)
    assert device.name == name
    assert FAMILIES[device.family].runtime == device.runtime
    assert set(device.precisions) <= set(FAMILIES[device.family].precisions)
    assert device.description
    assert device.threads >= 1


@pytest.mark.parametrize("name", config.names("calibration"))
def test_each_shipped_recipe_loads_and_names_a_known_observer(name: str) -> None:
    from edgekit.quant.observers import MEASURED, OBSERVERS

    recipe = config.load_recipe(name)
    assert recipe.observer in (*OBSERVERS, MEASURED)
    assert recipe.description


@pytest.mark.parametrize("name", config.names("benchmarks/suites"))
def test_each_shipped_suite_loads_and_can_end(name: str) -> None:
    suite = config.load_suite(name)
    assert 0 < suite.min_s < suite.max_s < 3600
    assert suite.min_queries >= 64


def test_the_defaults_of_the_command_line_are_shipped() -> None:
    assert "local" in [device.name for device in config.load_devices()]
    assert {"default"} <= set(config.names("calibration"))
    assert {"standard"} <= set(config.names("benchmarks/suites"))


def test_an_unknown_key_names_the_file_the_nearest_and_the_known_keys(tmp_path: Path) -> None:
    path = written(tmp_path, 'family = "rpi"\nthread = 4\n')
    with pytest.raises(DataError, match="unknown key 'thread'") as caught:
        config.load_device(str(path))
    assert str(path) in caught.value.message
    assert "did you mean 'threads'?" in caught.value.hint
    assert "memory_bandwidth_gb_s" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('threads = "4"', "threads must be int, got '4'"),
        ("threads = 1.0", "threads must be int, got 1.0"),
        ("threads = true", "threads must be int, got True"),
        ("memory_gb = true", "memory_gb must be float"),
        ("precisions = [8]", "precisions[0] must be str, got 8"),
        ('precisions = "int8"', "precisions must be array, got 'int8'"),
        ("verified = 1", "verified must be bool, got 1"),
        ("note = {a = 1}", "note must be str"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_file_the_key_and_the_type(tmp_path: Path, line: str, says: str) -> None:
    path = written(tmp_path, f'family = "rpi"\n{line}\n')
    with pytest.raises(DataError) as caught:
        config.load_toml(path, Device)
    assert caught.value.message.startswith(f"{path}: {says}")


def test_a_missing_key_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'family'") as caught:
        config.load_toml(written(tmp_path, "threads = 2"), Device)
    assert "known keys: name, family" in caught.value.hint


@pytest.mark.parametrize("threads", [0, 1025, 99999999])
def test_a_number_of_threads_that_crashes_runtimes_is_refused(tmp_path: Path, threads: int) -> None:
    with pytest.raises(DataError, match="device 'mine': threads must be 1 to 1024"):
        config.load_toml(written(tmp_path, f'family = "rpi"\nthreads = {threads}\n'), Device)


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a=" + "[" * 100_000)
    with pytest.raises(DataError, match=r"mine\.toml is not a file of settings: its values are nested too deeply"):
        config.load_device(str(path))


@pytest.mark.parametrize("text", ["family =", "a = 1\na = 2", b"\xff\xfe", b"a = '\x00'"])
def test_what_is_not_toml_is_an_error_that_names_the_file(tmp_path: Path, text: str | bytes) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match="is not valid TOML") as caught:
        config.load_toml(path, Device)
    assert str(path) in caught.value.message


def test_the_name_is_the_file_s_own(tmp_path: Path) -> None:
    path = written(tmp_path, 'family = "rpi"')
    assert config.load_device(str(path)).name == "mine"
    # A name becomes a folder of the run: one out of a file could leave it.
    with pytest.raises(DataError, match="'mine'"):
        config.load_device(str(written(tmp_path, 'family = "rpi"\nname = "../.."')))


def test_arrays_become_tuples_and_integers_floats(tmp_path: Path) -> None:
    device = config.load_toml(written(tmp_path, 'family = "rpi"\nmemory_gb = 8\nprecisions = ["int8"]'), Device)
    assert (device.memory_gb, device.precisions) == (8.0, ("int8",))
    assert isinstance(device.memory_gb, float)


@pytest.mark.parametrize(
    ("load", "known"),
    [
        (config.load_device, "jetson-orin-nano"),
        (config.load_recipe, "default"),
        (config.load_suite, "standard"),
    ],
)
@pytest.mark.parametrize("name", ["nope", "nope.toml", "../devices/local", "", "DEFAULT"])
def test_an_unknown_name_lists_the_known_ones(load: object, known: str, name: str) -> None:
    with pytest.raises(MissingError if name.endswith(".toml") else UsageError) as caught:
        load(name)  # type: ignore[operator]
    assert known in caught.value.hint


@pytest.mark.parametrize(("load", "record"), [(config.load_recipe, CalibrationRecipe), (config.load_suite, Suite)])
def test_a_file_of_the_users_own_is_taken_by_its_path(tmp_path: Path, load: object, record: type) -> None:
    assert load(str(written(tmp_path, ""))) == record("mine")  # type: ignore[operator]


def test_records_within_records_are_built_and_named_in_errors() -> None:
    table = {"ranges": {"a": {"low": -1, "high": 2}}, "observer": "mse", "recipe": "r", "samples": "", "parent": ""}
    assert config.from_table(table, CalibrationTable, "f").ranges == {"a": Range(-1.0, 2.0)}
    table["ranges"] = {"a": {"low": "x", "high": 2}}
    with pytest.raises(DataError, match=r"f: ranges\.a\.low must be float, got 'x'"):
        config.from_table(table, CalibrationTable, "f")


def test_from_table_gives_back_what_json_made_of_a_record() -> None:
    import dataclasses
    import json

    preprocess = Preprocess(224, 256, "bicubic")
    assert config.from_table(json.loads(json.dumps(dataclasses.asdict(preprocess))), Preprocess, "f") == preprocess


def test_devices_of_the_current_folder_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text('family = "rpi"\n')
    (tmp_path / "devices" / "local.toml").write_text('family = "rpi"\n')  # hidden by the packaged one
    found = [device.name for device in config.load_devices()]
    assert found.count("mine") == found.count("local") == 1
    assert found == sorted(found)

"""Target names: families, devices, and device files of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import config
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.records import PRECISIONS
from edgekit.targets import base, kits
from tests.targets.test_kits import CONTRACT


def device_file(folder: Path, **values: object) -> str:
    """A device file of the user's."""
    path = folder / "my-board.toml"
    path.write_text("".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in values.items()))
    return str(path)


@pytest.mark.parametrize("family", base.FAMILIES)
def test_a_family_resolves_to_its_target_without_a_device(family: str) -> None:
    resolved = base.resolve(family)
    assert (resolved.name, resolved.device) == (family, None)
    assert family in resolved.target.families


@pytest.mark.parametrize("name", config.names("devices"))
def test_every_device_of_the_package_resolves_to_its_family(name: str) -> None:
    resolved = base.resolve(name)
    assert resolved.name == name
    assert resolved.target is base.FAMILIES[resolved.device.family]


def test_a_device_file_of_the_users_resolves(tmp_path: Path) -> None:
    resolved = base.resolve(device_file(tmp_path, family="rpi", threads=3))
    assert (resolved.name, resolved.family, resolved.device.threads) == ("my-board", "rpi", 3)


@pytest.mark.parametrize("name", ["jetsom", "", "jetson-orin-nono", "missing.toml"])
def test_an_unknown_target_lists_the_known(name: str) -> None:
    with pytest.raises(MissingError if name.endswith(".toml") else UsageError) as caught:
        base.resolve(name)
    assert "jetson-orin-nano" in caught.value.hint


@pytest.mark.parametrize("name", ["common", "android", "jetson", "desktop", "pixel-8", "local", "a b", "é", "-x"])
def test_a_device_file_whose_folder_would_be_another_s_is_refused(tmp_path: Path, name: str) -> None:
    path = Path(device_file(tmp_path, family="rpi")).rename(tmp_path / f"{name}.toml")
    with pytest.raises(UsageError, match="a device") as caught:
        base.resolve(str(path))
    assert repr(name) in caught.value.message
    assert "rename" in caught.value.hint


def test_a_device_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toaster") as caught:
        base.resolve(device_file(tmp_path, family="toaster"))
    assert "jetson" in caught.value.hint


def test_an_unknown_key_in_a_device_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="thraeds"):
        base.resolve(device_file(tmp_path, family="rpi", thraeds=3))


@pytest.mark.parametrize("target", base.TARGETS.values(), ids=list(base.TARGETS))
def test_by_default_every_precision_of_the_target_is_built(target: base.Target) -> None:
    resolved = base.Resolved("x", target.families[0], target, None)
    assert base.precisions(resolved, ()) == tuple(p for p in PRECISIONS if p in target.precisions)


def test_wanted_precisions_come_once_and_in_order() -> None:
    assert base.precisions(base.resolve("jetson"), ("int8", "fp32", "int8")) == ("fp32", "int8")


def test_a_precision_that_the_target_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="desktop does not run fp16") as caught:
        base.precisions(base.resolve("desktop"), ("fp16",))
    assert "fp32, int8" in caught.value.hint


def test_a_precision_that_the_device_lacks_is_refused_with_its_note(tmp_path: Path) -> None:
    resolved = base.resolve(device_file(tmp_path, family="jetson", precisions=["fp32", "fp16"], note="no INT8 units"))
    assert base.precisions(resolved, ()) == ("fp32", "fp16")
    with pytest.raises(UsageError, match="no INT8 units"):
        base.precisions(resolved, ("int8",))


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(UsageError, match="int4") as caught:
        base.precisions(base.resolve("jetson"), ("int4",))
    assert "int8" in caught.value.hint


@pytest.mark.parametrize("family", base.FAMILIES)
def test_every_target_has_a_function_that_finishes_its_folder(family: str, tmp_path: Path) -> None:
    base.package(base.resolve(family))(kits.Kit(tmp_path, [], CONTRACT))
    assert (tmp_path / "README.txt").is_file()
    assert all(path.stat().st_size or path.name == "SHA256SUMS" for path in tmp_path.iterdir())

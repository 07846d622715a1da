"""The commands ``release``: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli.app import run
from tests.release.folders import kits


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with releases in public, keys in keys, and kits of two models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_KEYS", "keys")
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    assert run(["release", "init", "public", "--no-passphrase"]) == 0
    for number in (1, 2):
        kits(Path(), number, ("android-litert", "ios-litert"))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run a command, and return what it prints."""
    capsys.readouterr()
    assert run(["release", *arguments]) == status
    found = capsys.readouterr()
    return found.out if status == 0 else found.err


def test_the_road_of_a_release(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "add", "public", "kit1/android-litert", "kit1/ios-litert")
    assert shown.split("\n")[1].split() == ["beta", "r2", "100", "%"]
    said(capsys, "promote", "public", "beta", "stable")
    said(capsys, "add", "public", "kit2/android-litert", "--channel", "stable", "--rollout", "12.5")
    channels = json.loads(said(capsys, "status", "public", "--json"))["channels"]
    assert channels["stable"] == {"release": "r4", "previous": "r2", "rollout": 1250}
    shown = json.loads(said(capsys, "rollout", "public", "stable", "50", "--json"))
    assert shown["release"] == "r4"
    assert shown["channels"]["stable"]["rollout"] == 5000
    assert "stable   r2       100 %" in said(capsys, "back", "public", "stable")
    assert said(capsys, "recall", "public", "r2") == "r2 is recalled; changed: beta, stable\n"
    shown = said(capsys, "status", "public")
    assert "recalled: r2" in shown
    assert "android-litert, ios-litert" in shown
    assert "files" in said(capsys, "verify", "public")
    assert json.loads(said(capsys, "verify", "public", "--json"))["root"] == 1


def test_keys_are_made_apart_and_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {path.name.partition("-")[0] for path in (folder / "keys").glob("*.pem")}
    assert names == {"root", "targets", "online"}
    assert len(list((folder / "keys").glob("root-*.pem"))) == 3
    assert "keys/online-" in said(capsys, "rotate", "public", "online")
    assert json.loads(said(capsys, "verify", "public", "--json"))["root"] == 2
    error = said(capsys, "rotate", "public", "root", status=2)
    assert "say which of the root's keys is replaced" in error
    assert "targets is good until" in said(capsys, "refresh", "public", "--role", "targets")


def test_ci_refreshes_with_a_key_from_the_environment(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEKIT_KEYS")
    error = said(capsys, "refresh", "public", status=4)
    assert "EDGEKIT_KEY_ONLINE" in error
    key = next((folder / "keys").glob("online-*.pem")).read_text()
    monkeypatch.setenv("EDGEKIT_KEY_ONLINE", key)
    shown = said(capsys, "refresh", "public")
    assert "online is good until" in shown
    assert key not in shown


def test_encrypted_keys_need_their_passphrase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    error = said(capsys, "init", "public", "--keys", "keys", status=2)
    assert "no terminal to ask on" in error
    assert "--no-passphrase" in error
    assert not (tmp_path / "public").exists()
    monkeypatch.setenv("EDGEKIT_KEY_PASSPHRASE", "secret words")
    said(capsys, "init", "public", "--keys", "keys")
    assert all(b"ENCRYPTED" in path.read_bytes() for path in (tmp_path / "keys").glob("*.pem"))
    said(capsys, "refresh", "public", "--keys", "keys")
    monkeypatch.setenv("EDGEKIT_KEY_PASSPHRASE", "wrong")
    assert "passphrase" in said(capsys, "refresh", "public", "--keys", "keys", status=2)
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE")
    assert "no terminal to ask on" in said(capsys, "refresh", "public", "--keys", "keys", status=2)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["add", "public", "nowhere"], 2, "say for which apps"),
        (["add", "public", "keys"], 4, "is no kit"),
        (["add", "public", "kit1/android-litert", "--to", "ios"], 2, "leave out --to"),
        (["add", "public", "nowhere", "--to", "ios"], 4, "nowhere"),
        (["add", "public", "kit1/android-litert", "--channel", "a b"], 2, "no name of a channel"),
        (["add", "public", "kit1/android-litert", "kit2/android-litert"], 2, "two kits for android-litert"),
        (["add", "public", "kit1/android-litert", "--rollout", "101"], 2, "0 to 100 percent"),
        (["add", "elsewhere", "kit1/android-litert"], 4, "elsewhere has no releases"),
        (["promote", "public", "r9", "stable"], 2, "no release 'r9'"),
        (["rollout", "public", "stable", "5"], 2, "no channel 'stable'"),
        (["back", "public", "stable"], 2, "no channel 'stable'"),
        (["recall", "public", "r9"], 2, "no release 'r9'"),
        (["refresh", "public", "--role", "king"], 2, "no role 'king'"),
        (["init", "public", "--keys", "other"], 3, "releases already"),
        (["init", "new/models", "--keys", "new/models/keys"], 2, "would be published"),
        (["status", "http://127.0.0.1:9"], 4, "cannot be reached"),
        (["refresh", "http://127.0.0.1:9"], 2, "a website, which edgekit only reads"),
        (["status", "file:///tmp"], 2, "give its path alone"),
        (["status", "nothing://x"], 2, "no URL"),
        (["unlock", "public"], 2, "its lock ends with the publisher"),
    ],
)
def test_what_cannot_be_done_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    before = {path: path.read_bytes() for path in (folder / "public").rglob("*") if path.is_file()}
    error = said(capsys, *arguments, status=status)
    assert message in error
    assert "hint: " in error
    assert before == {path: path.read_bytes() for path in (folder / "public").rglob("*") if path.is_file()}

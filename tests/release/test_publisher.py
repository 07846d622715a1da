"""The publisher: channels and rollouts, keys, and folders that somebody else has changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import DataError, MissingError, UsageError
from edgekit.release import metadata
from edgekit.release.metadata import Channel, Content
from edgekit.release.publisher import Releases
from edgekit.release.verify import trusted_root, verify
from tests.release.attacks import canonical, latest, sealed
from tests.release.folders import MODEL, Publisher, kits, write_kit


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def channels(publisher: Publisher) -> dict[str, Channel]:
    return dict(publisher.releases.status().content.channels)


def test_a_channel_takes_what_is_added(publisher: Publisher) -> None:
    assert channels(publisher) == {"stable": Channel("r2", "", 10_000)}
    assert publisher.add(2, percent=25) == "r3"
    assert channels(publisher)["stable"] == Channel("r3", "r2", 2500)
    publisher.releases.rollout("stable", 60)
    assert channels(publisher)["stable"] == Channel("r3", "r2", 6000)


def test_while_a_release_is_rolled_out_the_others_keep_the_one_before_it(publisher: Publisher) -> None:
    publisher.add(2, percent=25)
    assert publisher.add(3, percent=1) == "r4"
    assert channels(publisher)["stable"] == Channel("r4", "r2", 100)


def test_promoting_what_a_channel_has_changes_its_share_alone(publisher: Publisher) -> None:
    publisher.add(2)
    assert publisher.releases.promote("r3", "stable", 5) == "r3"
    assert channels(publisher)["stable"] == Channel("r3", "r2", 500)


def test_a_release_goes_from_channel_to_channel(publisher: Publisher) -> None:
    publisher.add(2, "beta")
    assert publisher.releases.promote("beta", "stable", 0.01) == "r3"
    assert channels(publisher) == {"beta": Channel("r3"), "stable": Channel("r3", "r2", 1)}


def test_back_is_newer_metadata_for_an_older_release(publisher: Publisher) -> None:
    publisher.add(2)
    before = publisher.releases.status().roles
    assert publisher.releases.back("stable") == "r2"
    assert channels(publisher)["stable"] == Channel("r2")
    assert all(now.version > then.version for now, then in zip(publisher.releases.status().roles[1:], before[1:]))
    with pytest.raises(MissingError, match="no release before r2"):
        publisher.releases.back("stable")


def test_only_releases_that_channels_name_are_described(publisher: Publisher) -> None:
    for number in (2, 3, 4):
        publisher.add(number)
    assert set(publisher.releases.status().content.releases) == {"r4", "r5"}
    size = len(latest(publisher.folder, "targets")[0])
    for number in (5, 6):
        publisher.add(number)
    assert abs(len(latest(publisher.folder, "targets")[0]) - size) < 10


def test_an_old_release_comes_back_by_its_id(publisher: Publisher) -> None:
    old = publisher.releases.status().content.releases["r2"]
    for number in (2, 3, 4):
        publisher.add(number)
    assert publisher.releases.promote("r2", "stable") == "r2"
    assert publisher.releases.status().content.releases["r2"] == old
    verify(publisher.folder)


def test_an_old_release_that_another_key_signed_does_not(publisher: Publisher) -> None:
    for number in (2, 3):
        publisher.add(number)
    publisher.releases.rotate("targets", publisher.keys)
    with pytest.raises(DataError, match="not signed by the keys"):
        publisher.releases.promote("r2", "stable")
    assert channels(publisher)["stable"].release == "r4"


@pytest.mark.parametrize("name", ["r99", "x", "", "r", "r-1", "../1", "r2.targets", "stable", "r\u0663"])
def test_a_release_that_is_none(publisher: Publisher, name: str) -> None:
    with pytest.raises(UsageError, match="no release"):
        publisher.releases.promote(name if name != "stable" else "beta", "stable")
    with pytest.raises(UsageError, match="no release"):
        publisher.releases.recall(name)


def test_a_recalled_release_is_nowhere(publisher: Publisher) -> None:
    publisher.add(2)
    publisher.releases.promote("r3", "beta")
    assert set(publisher.releases.recall("r3")) == {"stable", "beta"}
    content = publisher.releases.status().content
    assert content.recalled == ("r3",)
    assert content.channels == {"stable": Channel("r2"), "beta": Channel("r3")}  # beta had nothing before
    with pytest.raises(UsageError, match="was recalled"):
        publisher.releases.promote("r3", "stable")
    name = publisher.add(3)
    assert channels(publisher)["stable"] == Channel(name, "r2")


def test_a_recalled_release_is_no_way_back(publisher: Publisher) -> None:
    publisher.add(2)
    assert publisher.releases.recall("r2") == ()
    assert channels(publisher)["stable"] == Channel("r3")
    with pytest.raises(MissingError):
        publisher.releases.back("stable")


def test_the_only_release_can_be_recalled(publisher: Publisher) -> None:
    assert publisher.releases.recall("r2") == ("stable",)
    assert publisher.add(2) == "r4"
    assert channels(publisher)["stable"] == Channel("r4")  # nobody is left on r2


@pytest.mark.parametrize("percent", [-1, 100.01, float("nan"), 0.001, float("inf")])
def test_a_share_that_is_none(publisher: Publisher, percent: float) -> None:
    with pytest.raises(UsageError, match="0 to 100"):
        publisher.releases.rollout("stable", percent)


@pytest.mark.parametrize("channel", ["", "a b", "../x", ".x", "x" * 65, "\u00e9", "a\n"])
def test_a_channel_that_is_none(publisher: Publisher, channel: str) -> None:
    with pytest.raises(UsageError, match="no name of a channel"):
        publisher.releases.promote("r2", channel)


def test_the_same_file_lies_there_once(publisher: Publisher) -> None:
    before = {path.name for path in publisher.folder.rglob("*") if path.is_file()}
    publisher.add(2)
    new = {path.name.partition(".")[2] for path in publisher.folder.rglob("*") if path.name not in before}
    assert MODEL in new
    assert "probes.rgb" not in new
    assert len(list(publisher.folder.glob("targets/*/*.probes.rgb"))) == 1


def test_nothing_of_the_keys_is_in_the_folder(publisher: Publisher) -> None:
    text = b"".join(path.read_bytes() for path in publisher.folder.rglob("*") if path.is_file())
    assert b"PRIVATE" not in text
    assert all((path.stat().st_mode & 0o077) == 0 for path in publisher.keys.glob("*.pem"))
    assert (publisher.keys.stat().st_mode & 0o077) == 0


# Kits.


def test_a_file_that_was_changed_is_not_published(publisher: Publisher, tmp_path: Path) -> None:
    for name in (MODEL, "labels.txt", "preprocess.json", "golden/golden.tsv"):
        folder = write_kit(tmp_path / name.replace("/", "-"), "android-litert", 7)
        (folder / name).write_bytes(b"{}")
        with pytest.raises(DataError, match="was changed"):
            publisher.releases.add([folder], "stable")
        (folder / name).unlink()
        with pytest.raises(DataError, match="was changed, or is missing"):
            publisher.releases.add([folder], "stable")
    assert channels(publisher)["stable"].release == "r2"


def test_kits_that_are_none(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no kit"):
        publisher.releases.add([tmp_path], "stable")
    with pytest.raises(UsageError, match="name a kit"):
        publisher.releases.add([], "stable")
    one, two = (write_kit(tmp_path / name, "cpp-litert", 7) for name in ("one", "two"))
    with pytest.raises(UsageError, match="two kits for cpp-litert"):
        publisher.releases.add([one, two], "stable")
    with pytest.raises(UsageError, match="no version of an app"):
        publisher.releases.add([one], "stable", app=-1)


def test_a_file_outside_the_kit_is_not_published(publisher: Publisher, tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "kit", "cpp-litert", 7)
    (tmp_path / "secret").write_bytes(b"secret")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["golden/../../secret"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError):
        publisher.releases.add([folder], "stable")


def test_a_release_needs_the_newest_contract_of_its_kits(publisher: Publisher) -> None:
    made = kits(publisher.scratch, 8, ("android-litert",), contract=2) + kits(publisher.scratch, 8, ("cpp-litert",))
    name = publisher.releases.add(list(made), "stable", app=12)
    release = publisher.releases.status().content.releases[name]
    assert (release.contract, release.app) == (2, 12)


# Keys.


def test_a_role_without_its_key_is_told(publisher: Publisher) -> None:
    with pytest.raises(MissingError, match=r"needs the key of the role targets \(targets-[0-9a-f]{8}\.pem\)"):
        Releases(publisher.folder).rollout("stable", 5)
    for path in list(publisher.keys.glob("root-*.pem"))[:2]:
        path.unlink()
    with pytest.raises(MissingError, match="needs 2 keys of the role root"):
        publisher.releases.rotate("online", publisher.keys)
    assert publisher.releases.status().roles[0].version == 1


def test_keys_may_lie_in_several_folders(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    for path in publisher.keys.glob("root-*.pem"):
        shutil.move(path, tmp_path / "stick")
    releases = Releases(publisher.folder, [publisher.keys, tmp_path / "stick"])
    assert (publisher.keys / releases.rotate("online", publisher.keys)).is_file()
    verify(publisher.folder, publisher.root)


def test_a_lost_key_of_the_root_is_replaced(publisher: Publisher) -> None:
    lost = next(publisher.keys.glob("root-*.pem"))
    lost.unlink()
    name = publisher.releases.rotate("root", publisher.keys, lost.stem.removeprefix("root-"))
    assert (publisher.keys / name).is_file()
    keyids = {keyid[:8] for keyid in publisher.releases.status().roles[0].keyids}
    assert len(keyids) == 3
    assert lost.stem.removeprefix("root-") not in keyids
    assert verify(publisher.folder, publisher.root).root == 2
    publisher.releases.rotate("online", publisher.keys)


@pytest.mark.parametrize("lost", ["", "zzz", "0123456789"])
def test_the_key_of_the_root_that_is_replaced_must_be_named(publisher: Publisher, lost: str) -> None:
    with pytest.raises(UsageError, match="which of the root's keys"):
        publisher.releases.rotate("root", publisher.keys, lost)


def test_a_key_file_that_is_another_key_is_told(publisher: Publisher) -> None:
    first, second = sorted(publisher.keys.glob("root-*.pem"))[:2]
    shutil.copy(next(publisher.keys.glob("targets-*.pem")), first)
    shutil.copy(first, second)
    with pytest.raises(DataError, match="another key than its name says"):
        publisher.releases.rotate("online", publisher.keys)


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_file_is_told(publisher: Publisher, content: bytes) -> None:
    next(publisher.keys.glob("online-*.pem")).write_bytes(content)
    with pytest.raises(DataError, match="no private key"):
        Releases(publisher.folder, [publisher.keys]).refresh()


def test_a_key_of_another_kind_is_told(publisher: Publisher) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    for key in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        next(publisher.keys.glob("online-*.pem")).write_bytes(content)
        with pytest.raises(DataError, match="another kind"):
            Releases(publisher.folder, [publisher.keys]).refresh()


# Time.


def test_what_expires_is_told_and_made_good(publisher: Publisher) -> None:
    assert not [role for role in publisher.releases.status().roles if role.expires_soon]
    publisher.clock.forward(11)
    assert [role.role for role in publisher.releases.status().roles if role.expires_soon] == ["timestamp"]
    snapshot = publisher.releases.status().roles[2].version
    publisher.releases.refresh()
    assert publisher.releases.status().roles[2].version == snapshot  # so that devices fetch the timestamp alone
    publisher.clock.forward(70)
    publisher.releases.refresh()
    assert publisher.releases.status().roles[2].version == snapshot + 1
    publisher.clock.forward(2000)  # everything has expired
    for role in ("root", "targets", "online"):
        publisher.releases.refresh(role)
    assert not [role for role in publisher.releases.status().roles if role.expires_soon]


# What somebody else did to the folder.


def test_an_older_copy_of_the_folder_is_noticed(publisher: Publisher, tmp_path: Path) -> None:
    shutil.copytree(publisher.folder, tmp_path / "old")
    publisher.add(2)
    shutil.rmtree(publisher.folder)
    shutil.copytree(tmp_path / "old", publisher.folder)
    with pytest.raises(DataError, match="older than what was published before"):
        publisher.releases.refresh()


def test_a_folder_of_somebody_else_is_noticed(publisher: Publisher, tmp_path: Path) -> None:
    other = Publisher(tmp_path, "other")
    shutil.rmtree(publisher.folder)
    shutil.copytree(other.folder, publisher.folder)
    with pytest.raises(DataError, match="not signed by the keys"):
        publisher.releases.status()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_damaged_metadata_is_told(publisher: Publisher, role: str, share: float) -> None:
    content, version = latest(publisher.folder, role)
    path = publisher.folder / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=f"metadata of {role} is damaged"):
        publisher.releases.status()
    path.unlink()
    with pytest.raises(MissingError):
        publisher.releases.status()


def test_metadata_of_another_signer_is_told(publisher: Publisher, tmp_path: Path) -> None:
    from securesystemslib.signer import CryptoSigner

    signed = json.loads((publisher.folder / "timestamp.json").read_bytes())["signed"]
    thief = sealed(canonical({**signed, "version": 50}), [CryptoSigner.generate_ecdsa()])
    (publisher.folder / "timestamp.json").write_bytes(thief)
    for change in (publisher.releases.status, publisher.releases.refresh, lambda: publisher.add(2)):
        with pytest.raises(DataError, match="not signed by the keys"):
            change()
    assert (publisher.folder / "timestamp.json").read_bytes() == thief


def test_files_of_a_publisher_that_was_killed_are_passed_over(publisher: Publisher) -> None:
    (publisher.folder / "3.targets.json").write_bytes(b"half")
    (publisher.folder / "4.targets.json").write_bytes(b"half")
    (publisher.folder / "3.snapshot.json").write_bytes(b"half")
    assert publisher.add(2) == "r5"
    verify(publisher.folder)


def test_metadata_has_one_form(publisher: Publisher) -> None:
    """The signed part last, in canonical form: what a client verifies are the bytes that it has."""
    for path in publisher.folder.glob("*.json"):
        content = path.read_bytes()
        head, signed = content.split(b',"signed":', 1)
        assert head.startswith(b'{"signatures":[{"keyid":"')
        assert canonical(json.loads(signed[:-1])).replace(b"\n", b"\\n") == signed[:-1]


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"schema": 2}, {"schema": 1, "channels": {"a": {"x": 1}}, "releases": {}, "recalled": []}],
)
def test_releases_of_another_form_are_told(document: object) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Content.of(document)


def test_the_content_survives_its_document(publisher: Publisher) -> None:
    content = replace(publisher.releases.status().content, recalled=("r1",))
    assert Content.of(json.loads(json.dumps(content.document()))) == content
    assert metadata.place_of("0123456789abcdef/a.b", "f" * 64) == f"targets/0123456789abcdef/{'f' * 64}.a.b"


# Verified as a device does.


def test_the_newest_root_is_reached_from_the_first(publisher: Publisher) -> None:
    assert trusted_root(publisher.folder) == publisher.root
    publisher.releases.rotate("online", publisher.keys)
    assert trusted_root(publisher.folder, publisher.root) == (publisher.folder / "2.root.json").read_bytes()


def test_a_changed_file_is_found(publisher: Publisher, tmp_path: Path) -> None:
    next(publisher.folder.glob(f"targets/*/*.{MODEL}")).write_bytes(b"x" * 60_000)
    with pytest.raises(DataError, match="refused by python-tuf"):
        verify(publisher.folder)
    with pytest.raises(MissingError, match="has no releases"):
        verify(tmp_path / "nowhere")
    with pytest.raises(DataError, match="refused by python-tuf"):
        verify(publisher.folder, Publisher(tmp_path, "other").root)


def test_expired_releases_are_refused(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.clock.forward(-15)
    publisher.releases.refresh()
    with pytest.raises(DataError, match="expired"):
        verify(publisher.folder)

"""The commands ``release init``, ``add``, ``promote``, ``rollout``, ``back``, ``recall`` and those for keys."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import progress
from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.release.metadata import Content
    from edgekit.release.publisher import Releases, Status

release_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)

Folder = Annotated[
    str, typer.Argument(help="Folder of the releases, or URL of an object store: s3://bucket/models.", metavar="FOLDER")
]
Channel = Annotated[str, typer.Argument(help="Such as stable or beta.", metavar="CHANNEL")]
KeyFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--keys",
        envvar="EDGEKIT_KEYS",
        help="Folder with key files; allowed several times. CI sets EDGEKIT_KEY_ONLINE to the content of one instead.",
        metavar="DIR",
        show_default=False,
    ),
]
Share = Annotated[
    float, typer.Option("--rollout", help="Percent of the channel's devices that take it; the others keep theirs.")
]


@release_app.command()
def init(
    folder: Folder,
    keys: KeyFolders = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase/--no-passphrase", help="Encrypt the key files; EDGEKIT_KEY_PASSPHRASE has it.")
    ] = True,
) -> None:
    """Make a release folder and its keys: three of the root, one of the targets, one that stays online.

    Two of the root's three keys sign when another key is replaced: keep all three offline, in different places. Whoever
    adds releases needs the keys of targets and online; a job that only refreshes needs online. No key goes into the
    release folder, into a kit or into a log.
    """
    ask = (lambda: _passphrase(confirm=True)) if passphrase else (lambda: "")
    names = _releases(folder, keys, ask).init()
    where = (keys or [Path()])[0]
    for name in names:
        use = {"root": "offline: replaces keys", "targets": "adds releases"}.get(name.partition("-")[0], "stays online")
        print(f"{where / name}: {use}")
    print(f"{folder}: next: edgekit release add {quote(folder)} KIT --channel beta --keys {quote(str(where))}")


@release_app.command()
def add(
    folder: Folder,
    sources: Annotated[list[str], typer.Argument(help="Kits of one model, or a run with --to.", metavar="KIT|RUN...")],
    channel: Annotated[str, typer.Option(help="Who takes it first, such as beta.", metavar="CHANNEL")] = "beta",
    to: Annotated[
        list[str] | None, typer.Option(help="For a run: kind of kit; allowed several times.", metavar="KIND")
    ] = None,
    app: Annotated[int, typer.Option(min=0, help="Least version of an app that may take it.", metavar="N")] = 0,
    rollout: Share = 100,
    keys: KeyFolders = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Publish kits as a release, for a channel.

    A kit is what `edgekit ship` writes; one release can have one for Android, one for iOS and so on. Files that are
    there already are not sent again.
    """
    from contextlib import ExitStack

    from edgekit.api.release import kits_of

    releases = _releases(folder, keys)
    with ExitStack() as stack:
        found = [each for source in sources for each in stack.enter_context(kits_of(source, to or (), runs_dir))]
        with progress.working(f"publishing to {folder}"):
            name = releases.add(list(found), channel, app, rollout)
    _say(releases, channel, name, json)


@release_app.command()
def promote(
    folder: Folder,
    release: Annotated[str, typer.Argument(help="Its id, or a channel that takes it.", metavar="ID|CHANNEL")],
    channel: Channel,
    rollout: Share = 100,
    keys: KeyFolders = None,
    json: Json = False,
) -> None:
    """Let a channel take a release of another.

    Such as `edgekit release promote FOLDER beta stable --rollout 5`, and every release that was ever added.
    """
    releases = _releases(folder, keys)
    _say(releases, channel, releases.promote(release, channel, rollout), json)


@release_app.command()
def rollout(
    folder: Folder,
    channel: Channel,
    percent: Annotated[float, typer.Argument(help="0 to 100.", metavar="PERCENT")],
    keys: KeyFolders = None,
    json: Json = False,
) -> None:
    """Change the share of the devices that take it.

    As the share grows, devices that have the release keep it. 0 takes it back from all.
    """
    releases = _releases(folder, keys)
    releases.rollout(channel, percent)
    _say(releases, channel, "", json)


@release_app.command()
def back(folder: Folder, channel: Channel, keys: KeyFolders = None, json: Json = False) -> None:
    """Let a channel take the release before again."""
    releases = _releases(folder, keys)
    _say(releases, channel, releases.back(channel), json)


@release_app.command()
def recall(
    folder: Folder,
    release: Annotated[str, typer.Argument(help="Its id.", metavar="ID")],
    keys: KeyFolders = None,
    json: Json = False,
) -> None:
    """Take a release back for ever.

    Every device leaves it at its next check, for the one before, or else for the model that its app came with.
    """
    releases = _releases(folder, keys)
    channels = releases.recall(release)
    if json:
        console.as_json({"recalled": release, "channels": channels})
        return
    print(f"{release} is recalled" + (f"; changed: {', '.join(channels)}" if channels else "; no channel took it"))


@release_app.command()
def refresh(
    folder: Folder,
    role: Annotated[
        str, typer.Option(help="online, every day by CI; targets or root, once a year.", metavar="ROLE")
    ] = "online",
    keys: KeyFolders = None,
) -> None:
    """Sign anew what would expire. Devices take nothing new after 14 days without it; the model in use stays."""
    until = _releases(folder, keys).refresh(role)
    print(f"{folder}: {role} is good until {until:%Y-%m-%d %H:%M} UTC")


@release_app.command()
def rotate(
    folder: Folder,
    role: Annotated[str, typer.Argument(help="online, targets or root.", metavar="ROLE")],
    new: Annotated[
        Path | None, typer.Option(help="Folder for the new key. Default: the first of --keys.", metavar="DIR")
    ] = None,
    key: Annotated[str, typer.Option(help="root: first digits of the id of the key to replace.", metavar="ID")] = "",
    keys: KeyFolders = None,
) -> None:
    """Replace a key that was lost or stolen. Needs two keys of the root; docs/releases.md tells what to do when."""
    if not keys:
        raise UsageError("two keys of the root must sign", "--keys DIR, once for each folder with one")
    name = _releases(folder, keys).rotate(role, new or keys[0], key)
    print(f"{(new or keys[0]) / name}: the new key of {role}; devices know it after their next check")


@release_app.command()
def status(folder: Folder, keys: KeyFolders = None, json: Json = False) -> None:
    """Show channels, releases, and what expires when. FOLDER may be the website, too."""
    found = _releases(folder, keys).status()
    if json:
        console.as_json(_document(found))
        return
    _show_channels(found.content)
    rows = [
        [name, f"{found.megabytes[name]:.1f}", ", ".join(release.kits), str(release.app), str(release.contract)]
        for name, release in found.content.releases.items()
    ]
    console.table(["release", "MB", "kits", "least app", "contract"], rows, prose=["kits"])
    roles = [
        [
            role.role,
            str(role.version),
            f"{role.expires:%Y-%m-%d %H:%M}",
            f"{role.needed} of {', '.join(keyid[:8] for keyid in role.keyids)}",
        ]
        for role in found.roles
    ]
    console.table(["role", "version", "expires (UTC)", "signed by"], roles)
    if found.content.recalled:
        print(f"recalled: {', '.join(found.content.recalled)}")
    for role in found.roles:
        if role.expires_soon:
            kind = role.role if role.role in ("root", "targets") else "online"
            progress.warn(f"{role.role} expires soon: edgekit release refresh {quote(folder)} --role {kind}")


@release_app.command()
def verify(
    folder: Annotated[str, typer.Argument(help="Folder, object store or website.", metavar="FOLDER|URL")],
    root: Annotated[
        Path | None, typer.Option(help="root.json that is trusted first. Default: the folder's first.", metavar="FILE")
    ] = None,
    json: Json = False,
) -> None:
    """Check every file, as a device does.

    The client is python-tuf's, which has nothing of edgekit in it.
    """
    from edgekit.release import verify as reading

    found = reading.verify(folder, None if root is None else root.read_bytes())
    if json:
        console.as_json({**dataclasses.asdict(found), "expires": found.expires.isoformat(), "content": None})
        return
    print(f"{found.files} files, {found.megabytes:.1f} MB: right; good until {found.expires:%Y-%m-%d %H:%M} UTC")


@release_app.command()
def unlock(folder: Folder) -> None:
    """Remove the lock that a killed publisher left in an object store."""
    _releases(folder, None).unlock()


def _releases(folder: str, keys: list[Path] | None, passphrase: Callable[[], str] | None = None) -> Releases:
    """Open a release folder; a passphrase is asked for on a terminal."""
    import os

    from edgekit.release.keys import PASSPHRASE
    from edgekit.release.publisher import Releases

    if passphrase is None and PASSPHRASE not in os.environ:
        passphrase = _passphrase
    return Releases(folder, keys or (), passphrase)


def _passphrase(confirm: bool = False) -> str:
    """Return the passphrase of the key files, from the environment or the terminal."""
    import os

    from edgekit.release.keys import PASSPHRASE

    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    if not sys.stdin.isatty():
        hint = f"set {PASSPHRASE}" + (", or --no-passphrase for keys that are not encrypted" if confirm else "")
        raise UsageError("the key files need a passphrase, and there is no terminal to ask on", hint)
    text: str = typer.prompt("Passphrase of the key files", hide_input=True, confirmation_prompt=confirm, err=True)
    return text


def _say(releases: Releases, channel: str, name: str, json: bool) -> None:
    """Print what a channel takes now."""
    content = releases.status().content
    if json:
        console.as_json(
            {"release": name or content.channels[channel].release, "channels": content.document()["channels"]}
        )
        return
    _show_channels(content)


def _show_channels(content: Content) -> None:
    rows = [
        [name, each.release, f"{each.rollout / 100:g} %", _others(each.rollout, each.previous)]
        for name, each in content.channels.items()
    ]
    console.table(["channel", "release", "devices", "the others"], rows)


def _others(share: int, previous: str) -> str:
    """Return what the devices take that are not in a rollout."""
    return "" if share == 10_000 else previous or "their app's own model"


def _document(found: Status) -> dict[str, Any]:
    """Return a status as values of JSON."""
    roles = [{**dataclasses.asdict(role), "expires": role.expires.isoformat()} for role in found.roles]
    return {"roles": roles, **found.content.document(), "megabytes": dict(found.megabytes)}

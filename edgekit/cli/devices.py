"""The commands ``devices``, ``devices probe`` and ``devices clean``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, files, progress
from edgekit.cli import console
from edgekit.cli.options import Json, Verbose
from edgekit.errors import UsageError
from edgekit.records import Device
from edgekit.targets import base

if TYPE_CHECKING:
    from edgekit.devices.probe import Probe


devices_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
Host = Annotated[str, typer.Argument(help="user@address, a Host of ~/.ssh/config, adb, or adb:SERIAL.", metavar="HOST")]
_UNKNOWN = "not found"


@devices_app.callback(invoke_without_command=True)
def devices(context: typer.Context, json: Json = False, verbose: Verbose = False) -> None:
    """List the devices that --target and --device take.

    Both take a .toml file too. A file devices/NAME.toml in the current folder is a device called NAME; docs/devices.md
    describes its keys.
    """
    if context.invoked_subcommand is not None:
        return
    known = config.load_devices()
    if json:
        console.as_json([{**dataclasses.asdict(d), "precisions": _precisions(d)} for d in known])
        return
    rows = [
        [
            device.name,
            "yes" if device.verified else "no",
            device.family,
            device.runtime,
            ", ".join(_precisions(device)),
            device.description,
        ]
        for device in known
    ]
    columns = ["device", "verified", "family", "runtime", "precisions", "description"]
    short = ["device", "verified", "description"]
    console.table(columns, rows, short=short, prose=["description"], verbose=verbose)
    progress.note("verified: no = not verified on hardware")


@devices_app.command()
def probe(
    host: Host,
    name: Annotated[
        str | None, typer.Option(help="Name under which to save the device, as devices/NAME.toml.", show_default=False)
    ] = None,
    python: Annotated[str, typer.Option(help="Python on the device that runs models.")] = "python3",
    json: Json = False,
) -> None:
    """Query a board over ssh or a phone over adb: module, versions, memory, temperatures, runtimes.

    ssh uses your own configuration (~/.ssh/config, agent, known_hosts) and never asks for a password.
    """
    path = None if name is None else _own_path(name)
    from edgekit.devices import adb
    from edgekit.devices import probe as probing

    if adb.is_phone(host):
        _probe_phone(host, path, python, json)
        return
    with progress.working(f"querying {host}"):
        found = probing.probe(host, python)
    if json:
        console.as_json(dataclasses.asdict(found))
    else:
        console.table(["", ""], [list(row) for row in _rows(found)])
    if path is not None:
        device = probing.profile(found, path.stem, files.now()[:10])
        device = dataclasses.replace(device, python="" if python == "python3" else python)
        _save(path, device)


def _probe_phone(handle: str, path: Path | None, python: str, json: bool) -> None:
    from edgekit.devices import android_probe

    with progress.working(f"querying {handle}"):
        found = android_probe.probe(handle, python)
    if json:
        console.as_json(android_probe.as_json(found))
    else:
        console.table(["", ""], [[label, _known(value)] for label, value in android_probe.rows(found)])
    if path is not None:
        device = android_probe.profile(found, path.stem, files.now()[:10])
        _save(path, device)
        if device.api == "benchmark-model":
            progress.note(
                "it has no Python with LiteRT, so benchmark_model measures, without accuracy; see docs/devices.md"
            )


def _save(path: Path, device: Device) -> None:
    from edgekit.devices import probe as probing

    path.parent.mkdir(exist_ok=True)
    files.save_output(path, probing.to_toml(device).encode())
    name = quote(path.stem)
    progress.note(f"device: {path}; next: edgekit export --target {name}, edgekit benchmark --device {name}")


@devices_app.command()
def clean(host: Host) -> None:
    """Remove edgekit's files from a board or a phone: models, images, and jobs that were interrupted."""
    from edgekit.devices import remote

    with progress.working(f"cleaning {host}"):
        megabytes = remote.clean(host)
    progress.note(f"removed {megabytes:.1f} MB from {host}")


def _own_path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{name!r} is not a valid device name", "use letters, digits, dots, dashes and underscores")
    if name in config.names("devices") or name in base.FAMILIES:
        raise UsageError(f"{name!r} is already a device or a family of devices", "choose another name")
    return Path("devices") / f"{name}.toml"


def _rows(found: Probe) -> list[tuple[str, str]]:
    temperatures = ", ".join(f"{zone} {value:.0f}" for zone, value in found.temperatures.items())
    runtimes = ", ".join(f"{package} {version}" for package, version in found.runtimes.items())
    clock = "{:.0f} ({:.0f} to {:.0f})".format(*found.gpu_mhz) if found.gpu_mhz else ""
    rows: list[tuple[str, Any]] = [
        ("host", found.host), ("module", found.model), ("machine", found.machine), ("cores", found.cores),
        ("memory, GB", found.memory_gb), ("free disk, GB", found.free_gb), ("L4T", found.l4t),
        ("JetPack", found.jetpack), ("CUDA", found.cuda), ("TensorRT", found.tensorrt),
        ("compute capability", found.compute_capability), ("DLA cores", found.dla_cores),
        ("power mode", found.power_mode), ("power modes", ", ".join(found.power_modes)),
        ("GPU clock, MHz", clock), ("temperatures, C", temperatures), ("Python", found.python),
        ("runtimes", runtimes),
    ]  # fmt: skip
    return [(label, _known(value)) for label, value in rows]


def _known(value: Any) -> str:
    return _UNKNOWN if value in ("", None) else str(value)


def _precisions(device: Device) -> tuple[str, ...]:
    return device.precisions or base.FAMILIES[device.family].precisions

"""Options that several commands share, and options made from the fields of a dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

Run = Annotated[
    str | None,
    typer.Argument(help="Name or path of a run. Default: the newest run.", show_default=False),
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDGEKIT_RUNS_DIR", help="Folder of the runs.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder or file that the run's images are in now, under any names. Default: that of the training.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of a table.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="All columns of the tables, and their meaning.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="CPU threads. Default: a thread per core, less those that other programs use.", show_default=False
    ),
]
Command = TypeVar("Command", bound=Callable[..., Any])


def options_of(record: type[Any], *without: str) -> Callable[[Command], Command]:
    """Add one option to a command for every field of a dataclass; the command takes them as ``**chosen``.

    Metadata of the fields: the option's ``help``, its ``known`` choices, and the ``panel`` that it is listed under.

    Args:
        without: fields for which the command has parameters of its own.
    """

    def decorate(command: Command) -> Command:
        own = [
            p
            for p in inspect.signature(command, eval_str=True).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        hints = typing.get_type_hints(record)
        made = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=_option(f, hints))
            for f in dataclasses.fields(record)
            if f.name not in without
        ]
        command.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (*own, *made)}
        return command

    return decorate


def _option(field: dataclasses.Field[Any], hints: dict[str, Any]) -> Any:
    known = ", ".join(field.metadata["known"])
    text = field.metadata["help"] + (f": {known}." if known else "")
    panel = field.metadata.get("panel")
    return Annotated[
        hints[field.name], typer.Option(help=text, show_default=field.default is not None, rich_help_panel=panel)
    ]


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, those without a heading last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and parameter.param_type_name == "option":
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        arguments = [p.get_help_record(ctx) for p in self.get_params(ctx) if p.param_type_name == "argument"]
        if records := [record for record in arguments if record]:
            with formatter.section("Arguments"):
                formatter.write_dl(records)
        for name in sorted(groups, key=lambda name: name == "Options"):
            with formatter.section(name):
                formatter.write_dl(groups[name])

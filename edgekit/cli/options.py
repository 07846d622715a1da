"""What several commands share: arguments, and opening a run."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

Run = Annotated[
    str | None,
    typer.Argument(help="A run's name or path. Default: the newest run.", show_default=False),
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDGEKIT_RUNS_DIR", help="The folder that holds the runs.")]
StrictGates = Annotated[
    bool, typer.Option("--strict-gates", help="Only what is shown to hold, with its 95 % interval, passes a gate.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
Command = TypeVar("Command", bound=Callable[..., Any])


def options_of(record: type[Any], *without: str) -> Callable[[Command], Command]:
    """Give a command, which takes ``**chosen``, one option for every field of a dataclass.

    The field's metadata are the option's ``help`` and its ``known`` choices.

    Args:
        without: fields that the command has arguments of its own for.
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
    return Annotated[hints[field.name], typer.Option(help=text, show_default=field.default is not None)]

"""``edgekit diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import labels, progress
from edgekit.cli import console, pairing, recall
from edgekit.cli.options import Json, RunsDir
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.bench.entries import Entry


def diff(
    before: Annotated[str, typer.Argument(help=recall.GRAMMAR, metavar="A", show_default=False)],
    after: Annotated[
        str | None, typer.Argument(help="The same. Default: what was measured last of A.", metavar="B")
    ] = None,
    device: recall.OnDevice = None,
    db: recall.Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare two measurements, or all of two runs: models, devices, precisions or versions.

    A and B are each a RUN, or RUN/ARTIFACT; either may end in @previous, @first or a date such as @2026-11-26 (the
    newest until then, UTC). Or an id that edgekit history prints. B alone missing: edgekit diff RUN compares the last
    measurement with the one before. The same artifact on the same device goes together; two artifacts are compared
    where both are named. Top-1 is compared image by image where the images are the same.
    """
    from edgekit.bench import difference
    from edgekit.cli.history import as_plain

    sources = recall.open_sources(runs_dir, [name for name in (before, after) if name], db)
    if after is None:
        named = recall.parse(before, runs_dir, sources)
        if named.id or named.when != "latest":
            after = named.text
        else:
            before, after = f"{before}@previous", before
    sides = [recall.resolve(name, runs_dir, sources, device) for name in (before, after)]
    paired = pairing.pairs(*(side.entries for side in sides))
    found = [(a, b) for a, b in paired if (a.sha256, a.run) != (b.sha256, b.run)]
    if not found:
        raise UsageError(
            f"{before} and {after} are the same measurement ({', '.join(sorted({b.id for _, b in paired})[:5])})",
            f"edgekit history {paired[0][1].run} lists others",
        )
    samples = [recall.with_samples(side.sources, side.entries) for side in sides]
    more = [entry for side in sides for entry in recall.others(side)]
    compared = [difference.compare(samples[0][a.sha256, a.run], samples[1][b.sha256, b.run], more) for a, b in found]
    for name, alone in zip((before, after), pairing.left_out(sides[0].entries, sides[1].entries, paired)):
        if alone:
            progress.note(f"only in {name}, and not compared: {alone}")
    if json:
        console.as_json([as_plain(one) for one in compared])
        return
    for number, one in enumerate(compared):
        if number:
            print()
        print(labels.printable(f"{_title(one.before)}\n -> {_title(one.after)}"))
        for sentence in difference.sentences(one):
            print(labels.printable(f"  {sentence}"))
    if any(one.p50 is not None and not one.p50.repeats for one in compared):
        progress.note(
            "a machine differs from one measurement to the next, of which two say nothing: with more of the same file "
            "the intervals have that in them; edgekit benchmark again"
        )


def _title(entry: Entry) -> str:
    when = entry.measured[:16].replace("T", " ")
    return f"{entry.id}  {entry.run}/{entry.artifact} on {entry.device} x{entry.threads}, {when}"

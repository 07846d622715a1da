"""Which measurements go together: in time, those of one artifact on one device; of two sides, what is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgekit.errors import MissingError

if TYPE_CHECKING:
    from edgekit.bench.entries import Entry

_MOST_NAMES = 12


def grouped(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The measurements of each artifact on each device, of each run, the oldest first.

    Of the same weights the number counts, which no clock can turn around; of others the time.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.run, entry.artifact, entry.device), []).append(entry)
    ordered = []
    for group in groups.values():
        last = {w: max(e.measured for e in group if e.weights_sha256 == w) for w in {e.weights_sha256 for e in group}}
        ordered.append(sorted(group, key=lambda e: (last[e.weights_sha256], e.weights_sha256, e.number, e.measured)))
    return sorted(ordered, key=lambda group: (group[0].run, group[0].artifact, group[0].device))


def at(group: list[Entry], when: str) -> Entry | None:
    """Of the measurements of one artifact on one device the one that is meant."""
    if when == "latest":
        return group[-1]
    if when == "previous":
        return group[-2] if len(group) > 1 else None
    if when == "first":
        return group[0]
    return next((entry for entry in reversed(group) if entry.measured[: len(when)] <= when), None)


def _by_name(entry: Entry) -> tuple[str, ...]:
    return (entry.artifact, entry.device)


def _by_target(entry: Entry) -> tuple[str, ...]:
    return (entry.artifact.partition("/")[0], entry.device)


def _by_device(entry: Entry) -> tuple[str, ...]:
    return (entry.device,)


def pairs(before: list[Entry], after: list[Entry]) -> list[tuple[Entry, Entry]]:
    """What is compared with what: the same artifact on the same device; else what is the only one of its target there,
    the only one there, the only one.

    Raises:
        MissingError: nothing of both goes together.
    """
    found: list[tuple[Entry, Entry]] = []
    for key in (_by_name, _by_target, _by_device, lambda entry: ()):
        if not found and (key is _by_name or all(len({key(e) for e in side}) == len(side) for side in (before, after))):
            known = {key(entry): entry for entry in before}
            found = [(known[key(entry)], entry) for entry in after if key(entry) in known]
    if not found:
        said = [names(sorted({f"{e.artifact} on {e.device}" for e in side})) for side in (before, after)]
        raise MissingError(
            f"nothing of both goes together; the first has {said[0]}; the second {said[1]}",
            "name one artifact of each: RUN/ARTIFACT, and --device where it was measured on several",
        )
    return found


def left_out(before: list[Entry], after: list[Entry], found: list[tuple[Entry, Entry]]) -> tuple[str, str]:
    """What only one side has, in short; "" where that is nothing."""
    compared = {id(entry) for pair in found for entry in pair}
    alone = [[e for e in side if id(e) not in compared] for side in (before, after)]
    first, second = (names(sorted(f"{e.artifact} on {e.device}" for e in side)) if side else "" for side in alone)
    return first, second


def names(of: Sequence[str]) -> str:
    """The first of many, and how many more there are."""
    more = f" and {len(of) - _MOST_NAMES} more" if len(of) > _MOST_NAMES else ""
    return (", ".join(of[:_MOST_NAMES]) + more) or "none yet"

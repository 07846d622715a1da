"""Scale of pixel values in files of more than 8 bits a channel, chosen from all images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.errors import DataError, UsageError
from edgekit.records import Content

# Highest values of 8, 10, 12, 14 and 16 bits; of floats.
FULL = {"integer": (255.0, 1023.0, 4095.0, 16383.0, 65535.0), "float": (1.0, 255.0)}
# Images whose values lie in so small a part of the scale look black; a larger share of them suggests two scales.
DARK, MOST_DARK = 1 / 16, 0.1
Range = tuple[float, float]


@dataclass(frozen=True)
class Reading:
    """Values that become black and white, and a sentence about it; None and "" for images of 8 bits a channel."""

    pixel_range: Range | None = None
    sentence: str = ""
    strange: str = ""


def reading(contents: Sequence[Content], wanted: Range | None = None) -> Reading:
    """Return the scale of the images that have more than 8 bits a channel.

    Args:
        wanted: the range that the user chose.
    Raises:
        DataError: the scale cannot be told; the message gives the readings that are possible.
    """
    deep = [content for content in contents if content.kind]
    if not deep:
        unused = "--pixel-range changes nothing: no image has more than 8 bits a channel"
        return Reading(wanted, unused if wanted else "")
    kinds = [kind for kind in FULL if any(content.kind == kind for content in deep)]
    parts = [[content for content in deep if content.kind == kind] for kind in kinds]
    held = " and ".join(_held(part) for part in parts)
    strange = sum(content.strange for content in deep)
    if wanted is not None:
        chosen: Range | None = wanted
    else:
        ranges = [_choose(part) for part in parts]
        if ranges == [(0.0, FULL["integer"][-1]), (0.0, FULL["float"][0])]:
            return Reading(None, f"{held}, each read at its full scale", _strange(strange))
        if len(set(ranges)) > 1:
            raise DataError(
                f"{held}: these have no scale in common",
                "convert them to 8 bits, or name the values that are black and white: --pixel-range LOW:HIGH",
            )
        chosen = ranges[0]
    assert chosen is not None
    sentence = f"{held}, read as {_number(chosen[0])} (black) to {_number(chosen[1])} (white)"
    return Reading(
        chosen, sentence if wanted else sentence + "; another scale: --pixel-range LOW:HIGH", _strange(strange)
    )


def _strange(count: int) -> str:
    return f"{_images(count)} with values that are no finite numbers, which are read as black or white" if count else ""


def _held(part: Sequence[Content]) -> str:
    low, high = min(c.low for c in part), max(c.high for c in part)
    return f"{_images(len(part))} of more than 8 bits with {part[0].kind} values from {_number(low)} to {_number(high)}"


def _choose(part: Sequence[Content]) -> Range:
    """Return the range of the images of one kind."""
    low, high = min(c.low for c in part), max(c.high for c in part)
    scales = FULL[part[0].kind]
    full = next((scale for scale in scales if high <= scale), None)
    own = (low, high)
    if low < 0:
        raise _unclear(part, "negative values", [own, (0.0, full or high)])
    if full is None:
        raise _unclear(part, f"values above {_number(scales[-1])}", [own, (0.0, high)])
    if high - low < DARK * full:
        raise _unclear(part, f"values in a small part of 0 to {_number(full)}", [own, (0.0, full)])
    dark = [c for c in part if c.high <= DARK * full]
    if len(dark) > MOST_DARK * len(part):
        less = max(c.high for c in dark)
        lesser = next(scale for scale in scales if less <= scale)
        why = f"{_images(len(dark))} with no value above {_number(less)}, which look black at the scale of the others"
        raise _unclear(part, why, [(0.0, full), (0.0, lesser)])
    return 0.0, full


def _unclear(part: Sequence[Content], why: str, ranges: Sequence[Range]) -> DataError:
    possible = " or ".join(f"--pixel-range {written(r)}" for r in dict.fromkeys(ranges) if r[0] < r[1])
    hint = f"choose the values that are black and white: {possible}" if possible else "convert the images to 8 bits"
    return DataError(f"{_held(part)}: the scale cannot be told, because there are {why}", hint)


def misread(content: Content, pixel_range: Range | None) -> str:
    """Return what is lost where an image is read with the range of a model; "" if nothing is."""
    if not content.kind:
        return ""
    scales = FULL[content.kind]
    low, high = pixel_range or (0.0, scales[-1] if content.kind == "integer" else scales[0])
    held = f"its {content.kind} values from {_number(content.low)} to {_number(content.high)}"
    trained = f"{_number(low)} to {_number(high)}, the scale of the model"
    if content.low < low or content.high > high:
        return f"{held} lie in part outside {trained}, and are clipped there"
    if content.high - low <= DARK * (high - low):
        return f"{held} look black at {trained}; convert it to that scale or to 8 bits"
    return ""


def parsed(text: str | None) -> Range | None:
    """Return the two numbers of ``LOW:HIGH``.

    Raises:
        UsageError: `text` is not of this form.
    """
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise UsageError(f"{text!r} is no pixel range", "the form is LOW:HIGH, such as --pixel-range 0:4095") from None


def written(pixel_range: Range) -> str:
    """Return a range as ``LOW:HIGH``, the form of ``--pixel-range``."""
    return ":".join(map(_exact, pixel_range))


def _exact(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"

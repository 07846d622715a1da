"""Errors: statuses, guesses, and what the operating system says in the user's words."""

from __future__ import annotations

import errno

import pytest

from edgekit import errors
from edgekit.errors import ExitStatus


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.EdgekitError, 5),
        (errors.UsageError, 2),
        (errors.DataError, 3),
        (errors.MissingError, 4),
        (errors.StorageError, 6),
        (errors.ParityError, 5),
    ],
)
def test_each_error_has_its_documented_status(kind: type[errors.EdgekitError], status: int) -> None:
    error = kind("what", "type this")
    assert (error.status, error.message, error.hint, str(error)) == (status, "what", "type this", "what")


def test_statuses_are_distinct_and_small() -> None:
    assert len({s.value for s in ExitStatus}) == len(ExitStatus)
    assert all(0 <= s <= 130 for s in ExitStatus)


def test_an_unknown_name_is_quoted_guessed_and_answered_with_the_known_ones() -> None:
    error = errors.unknown("model", "resnet_18", ["resnet18", "vgg"])
    assert error.message == "unknown model 'resnet_18'"
    assert error.hint == "did you mean 'resnet18'? known: resnet18, vgg"


def test_a_name_like_no_other_gets_no_guess() -> None:
    assert errors.unknown("model", "zzz", iter(["resnet18"])).hint == "known: resnet18"


def test_a_missing_package_names_the_command_that_brings_it() -> None:
    error = errors.missing_package("litert-torch", "the target android", "litert")
    assert "'litert-torch'" in error.message
    assert error.hint.startswith('pip install "litert-torch')


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_an_operating_system_error_says_what_was_done_and_to_which_file(code: int, says: str) -> None:
    import os

    error = errors.from_os_error(OSError(code, os.strerror(code), "runs/a"), "writing run.json")
    assert error.message == f"{says}: failed while writing run.json (runs/a)"


def test_an_error_without_a_number_keeps_its_text() -> None:
    assert errors.from_os_error(OSError("odd"), "working").message == "odd: failed while working"

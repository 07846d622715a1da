"""Class names: what is refused, and what is not."""

from __future__ import annotations

import pytest

from edgekit.errors import DataError
from edgekit.labels import check_label, check_labels, visible


@pytest.mark.parametrize("name", ["a", "crème brûlée", "犬", "a.b", ".x", "<script>alert(1)<", "x" * 100, "-"])
def test_printable_names_are_accepted_as_they_are(name: str) -> None:
    assert check_label(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "\u2003", "x" * 101, "a/b", "a\\b", "..", "..x", "a\nb", "a\x1b[31m", "\x7f", "\x85", "a\u202eb",
     "a\u2028b", "a\u200bb", "\udc80"],
)  # fmt: skip
def test_names_that_could_harm_a_file_system_or_a_terminal_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="cannot be used") as caught:
        check_label(name)
    assert caught.value.message.isprintable()
    assert "rename the folder" in caught.value.hint


@pytest.mark.parametrize(
    "pair",
    [("Cat", "cat"), ("STRASSE", "straße"), ("é", "e\u0301"), ("É", "e\u0301"), ("Σ", "ς")],
    ids=["case", "sharp s", "composed and not", "composed and case", "final sigma"],
)
def test_names_that_differ_only_in_case_or_composition_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"differ only in (case|their Unicode form)") as caught:
        check_labels(("other", *pair))
    assert all(repr(name) in caught.value.message for name in pair)
    assert "other" not in caught.value.message


def test_a_classifier_needs_two_classes() -> None:
    with pytest.raises(DataError, match="no classes"):
        check_labels(())
    with pytest.raises(DataError, match="only one class found: 'cat'"):
        check_labels(("cat",))
    check_labels(("cat", "dog"))


def test_one_bad_name_among_good_ones_is_found() -> None:
    with pytest.raises(DataError, match="cannot be used"):
        check_labels(("cat", "do\x00g"))


@pytest.mark.parametrize(
    "name", ["\u06a9\u062a\u0627\u0628\u200c\u062e\u0627\u0646\u0647", "क्\u200dष", "\U0001f469\u200d\U0001f52c"]
)
def test_joiners_of_scripts_that_are_spelled_with_them_are_accepted(name: str) -> None:
    assert check_label(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ca\u200dt", r"contains U\+200D \(ZERO WIDTH JOINER\)"),
        ("a\u200bb", r"U\+200B \(ZERO WIDTH SPACE\)"),
        ("a/b", "contains '/'"),
        ("..x", "begins with"),
        ("x" * 101, "has 101 characters"),
    ],
)
def test_the_reason_for_which_a_name_is_refused_is_told(name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        check_label(name)


@pytest.mark.parametrize(
    ("pair", "what"),
    [
        (("caf\u00e9", "cafe\u0301"), "their Unicode form"),
        (("cat", "cat "), "blanks"),
        (("a b", "a\u00a0b"), "blanks"),
        (("\u06a9\u062a", "\u06a9\u200c\u062a"), "characters that cannot be seen"),
        (("Cat", "cat"), "case"),
    ],
)
def test_names_that_look_alike_are_refused_with_their_difference(pair: tuple[str, str], what: str) -> None:
    with pytest.raises(DataError, match=f"differ only in {what}"):
        check_labels(pair)


def test_joiners_of_spelling_are_shown_as_they_are() -> None:
    persian = "\u06a9\u062a\u0627\u0628\u200c\u062e\u0627\u0646\u0647"
    assert visible(persian) == persian
    assert visible("a\u200cb\u200d\x1b") == "a\\u200cb\\u200d\\x1b"

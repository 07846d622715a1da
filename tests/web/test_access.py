"""Names of the server of edgekit serve."""

from __future__ import annotations

import pytest

from edgekit.errors import UsageError
from edgekit.web.access import Access, ascii_name


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("Desk.local", "desk.local"),
        ("büro.local", "xn--bro-hoa.local"),
        ("bu\u0308ro.local.", "xn--bro-hoa.local"),
        ("straße.example", "xn--strae-oqa.example"),
        ("büro.例え.jp", "xn--bro-hoa.xn--r8jz45g.jp"),
        ("my_pi", "my_pi"),
    ],
)
def test_names_become_what_browsers_send(given: str, sent: str) -> None:
    assert ascii_name(given) == sent
    assert Access(names=(ascii_name(given),)).is_own_name(f"{sent}:8000")


@pytest.mark.parametrize(
    "address",
    ["", ".", "a..b", "a b", "-a", "a-.b", "a/b", "a:1", "[::1]", "fe80::1", "1.2.3", "1.2.3.999", "x" * 64,
     "ü" * 63, "a@b", "\u200bx", "😀.local", "a\nb", "http://desk"],
)  # fmt: skip
def test_what_is_no_name_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no IPv4 address and no host name"):
        ascii_name(address)

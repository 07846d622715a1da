"""Access control of the server behind ``edgekit serve``: one token in the link, then a cookie for each browser."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from edgekit.errors import UsageError
from edgekit.web.visits import Visit


@dataclass
class Browser:
    """A browser that was admitted: its measurements, and a callback for its progress (done, total, text)."""

    visit: Visit
    update: Callable[[int, int, str], None]


class Refused(Exception):
    """A request that is refused, with the HTTP status and the reason that the browser gets."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class Access:
    """Admits browsers by the token of the link, and knows them by their cookies afterwards.

    Attributes:
        devices: number of browsers that the token admits.
        names: host names of the server, besides "localhost" and IP addresses. Requests to other names are refused,
            so that a page of another site cannot reach the server under its own name (DNS rebinding).
        token: secret part of the link. browsers: admitted browsers by cookie.
    """

    devices: int = 1
    names: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    browsers: dict[str, Browser] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, token: object, make_browser: Callable[[set[str]], Browser]) -> str:
        """Admit a browser and return its cookie.

        Args:
            make_browser: called with the device names that are taken.

        Raises:
            Refused: the token is wrong, or has admitted as many browsers as it may.
        """
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), self.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "this link belongs to another server: scan the QR code again")
        with self._lock:
            if len(self.browsers) >= self.devices:
                raise Refused(
                    HTTPStatus.FORBIDDEN,
                    "this link is used up: restart edgekit serve, with --devices N for more browsers",
                )
            cookie = secrets.token_urlsafe(32)
            self.browsers[cookie] = make_browser({each.visit.name for each in self.browsers.values()})
        return cookie

    def browser(self, cookie: str) -> Browser:
        """Return the browser with this cookie.

        Raises:
            Refused: there is none.
        """
        found = None
        with self._lock:
            for known, browser in self.browsers.items():  # all of them: the time must not tell which one fits
                if hmac.compare_digest(known.encode(), cookie.encode()):
                    found = browser
        if found is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "open the link that edgekit serve printed")
        return found

    def is_own_name(self, host: str) -> bool:
        """Return whether a Host header, with or without a port, names this server."""
        name = _host_name(host)
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name == "localhost" or name in self.names


def ascii_name(address: str) -> str:
    """Return an address or host name as browsers send it: lower case, other letters as Punycode (``xn--``).

    Raises:
        UsageError: it is no IPv4 address and no host name.
    """
    wrong = UsageError(
        f"{address!r} is no IPv4 address and no host name", "--address 192.168.1.5, or a name such as desk.local"
    )
    labels = unicodedata.normalize("NFC", address.lower()).removesuffix(".").split(".")
    found = []
    for label in labels:
        if not label or any(c not in "-_" and unicodedata.category(c)[0] not in "LMN" for c in label):
            raise wrong
        found.append(label if label.isascii() else f"xn--{label.encode('punycode').decode()}")
        if len(found[-1]) > 63 or found[-1][0] == "-" or found[-1][-1] == "-":
            raise wrong
    if labels[-1].isdecimal():  # browsers take it for an IPv4 address
        try:
            return str(ipaddress.IPv4Address(".".join(labels)))
        except ValueError:
            raise wrong from None
    return ".".join(found)


def is_loopback(host: str) -> bool:
    """Return whether a Host header names the browser's own machine, a secure origin without a certificate."""
    name = _host_name(host)
    return name in ("localhost", "::1") or name.startswith("127.")


def _host_name(host: str) -> str:
    """Return the host without its port; "" if it is not a valid host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

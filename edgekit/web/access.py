"""Who may speak to the server of ``edgekit serve``."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from edgekit.web.visits import Visit


@dataclass
class Guest:
    """A browser that was let in, and what hears its progress."""

    visit: Visit
    update: Callable[[int, int, str], None]


class Refused(Exception):
    """A request that is not answered, with the status and the reason that the browser gets."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass
class Door:
    """Who may come in: the token of the link admits `devices` browsers; each then has a cookie of its own.

    `names`: what the server may be called besides "localhost" and addresses in figures. A page of another site
    cannot make a browser speak to it under its own name (DNS rebinding).
    """

    devices: int = 1
    names: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    guests: dict[str, Guest] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, token: object, guest: Callable[[set[str]], Guest]) -> str:
        """The cookie of a new guest; `guest` makes it, given the names that are taken."""
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), self.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "this link is not of this server: scan the code again")
        with self._lock:
            if len(self.guests) >= self.devices:
                raise Refused(HTTPStatus.FORBIDDEN, "this link was used: start again, with --devices for more of them")
            key = secrets.token_urlsafe(32)
            self.guests[key] = guest({g.visit.name for g in self.guests.values()})
        return key

    def guest(self, key: str) -> Guest:
        """The guest with this cookie."""
        found = None
        with self._lock:
            for known, guest in self.guests.items():
                if hmac.compare_digest(known.encode(), key.encode()):
                    found = guest
        if found is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "this page needs the link that edgekit serve printed")
        return found

    def knows(self, host: str) -> bool:
        """Whether the server is called that, with or without a port."""
        name = _name(host)
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name == "localhost" or name in self.names


def is_of_this_machine(host: str) -> bool:
    """Whether a Host header names the machine that the browser runs on, which browsers trust without a certificate."""
    name = _name(host)
    return name in ("localhost", "::1") or name.startswith("127.")


def _name(host: str) -> str:
    """The host without its port; "" for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

"""Keys that sign releases: PEM files that lie apart from the releases, or environment variables.

All are ECDSA on P-256, which phones of every age, browsers and OpenSSL verify.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import files
from edgekit.errors import DataError, MissingError, UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

ROLES = ("root", "targets", "online")  # online: of the timestamp and the snapshot
ROOT_KEYS, ROOT_NEEDED = 3, 2
PASSPHRASE = "EDGEKIT_KEY_PASSPHRASE"  # noqa: S105  the name of a variable
_FORM = re.compile(rf"({'|'.join(ROLES)})-([0-9a-f]{{8}})\.pem")


def variable(role: str) -> str:
    """Return the environment variable that may hold a role's key, as the content of its PEM file."""
    return f"EDGEKIT_KEY_{role.upper()}"


class Keys:
    """The keys that are at hand.

    Args:
        folders: with files ``ROLE-<first 8 digits of the key's id>.pem``. passphrase: returns that of the files; it is
            asked once, when the first key is needed. None: that of the environment variable, or else none.
    """

    def __init__(self, folders: Sequence[Path] = (), passphrase: Callable[[], str] | None = None) -> None:
        self.folders = tuple(folders)
        self._ask, self._given = passphrase, None if passphrase else os.environ.get(PASSPHRASE)
        self._loaded: dict[Path | str, CryptoSigner] = {}

    def signers(self, role: str, keyids: Iterable[str]) -> list[CryptoSigner]:
        """Return the keys at hand of those that sign for a role."""
        made = []
        for keyid in keyids:
            paths = [folder / f"{role}-{keyid[:8]}.pem" for folder in self.folders]
            if found := [path for path in paths if path.is_file()]:
                made.append(self._load(found[0], found[0].read_bytes(), keyid))
            elif text := os.environ.get(variable(role)):
                signer = self._load(variable(role), text.encode(), "")
                made += [signer] if signer.public_key.keyid == keyid else []
        return made

    def needed(self, role: str, keyids: Sequence[str], count: int = 1) -> list[CryptoSigner]:
        """Return as many keys of a role as must sign.

        Raises:
            MissingError: fewer are at hand.
        """
        found = self.signers(role, keyids)
        if len(found) < count:
            names = " or ".join(f"{role}-{keyid[:8]}.pem" for keyid in keyids)
            words = f"{count} keys" if count > 1 else "the key"
            where = ", ".join(map(str, self.folders)) or "no folder of keys"
            raise MissingError(
                f"this needs {words} of the role {role} ({names}), and {where} has {len(found) or 'none'}",
                f"name their folder with --keys, or set {variable(role)}",
            )
        return found[:count]

    def create(self, role: str, folder: Path) -> CryptoSigner:
        """Write a new key into a folder, readable by its owner alone; encrypted as those that were read before it."""
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        is_plain = self._loaded and self._given is None
        private, secret = generate_private_key(SECP256R1()), None if is_plain else self._passphrase()
        how = BestAvailableEncryption(secret) if secret else NoEncryption()
        signer = _signer(private)
        with files.writing(folder / f"{role}-{signer.public_key.keyid[:8]}.pem", 0o600) as temporary:
            temporary.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        return signer

    def _passphrase(self) -> bytes | None:
        if self._given is None and self._ask is not None:
            self._given = self._ask()
        return self._given.encode() if self._given else None

    def _load(self, source: Path | str, content: bytes, keyid: str) -> CryptoSigner:
        """Return the key of a PEM file.

        Args:
            source: for the message of an error. keyid: that it must have; "" for any.
        """
        if source not in self._loaded:
            self._loaded[source] = _signer(_private(source, content, self._passphrase))
        signer = self._loaded[source]
        if keyid and signer.public_key.keyid != keyid:
            raise DataError(f"{source} is another key than its name says", "restore the file from a copy")
        return signer


def _private(source: Path | str, content: bytes, passphrase: Callable[[], bytes | None]) -> Any:
    """Return the private key of a PEM file.

    Raises:
        UsageError: the passphrase is missing or wrong. DataError: it is no key for P-256.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    secret = passphrase() if b"ENCRYPTED" in content else None
    try:
        key = load_pem_private_key(content, secret)
    except TypeError:
        raise UsageError(f"{source} needs its passphrase", f"set {PASSPHRASE}") from None
    except ValueError as error:
        if secret is not None:
            raise UsageError(f"the passphrase of {source} is wrong", f"set {PASSPHRASE}") from None
        raise DataError(f"{source} is no private key: {error}", "restore the file from a copy") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise DataError(f"{source} is a key of another kind than ECDSA on P-256", "edgekit release init makes keys")
    return key


def _signer(key: Any) -> CryptoSigner:
    from securesystemslib.signer import CryptoSigner

    return CryptoSigner(key)


def listed(folders: Iterable[Path]) -> list[str]:
    """Return the names of the key files in folders."""
    return sorted(path.name for folder in folders for path in folder.glob("*.pem") if _FORM.fullmatch(path.name))

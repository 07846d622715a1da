"""Self-signed certificate of ``edgekit serve --https``.

Browsers offer threads, WebGPU and the camera only on secure origins; plain HTTP in the local network is not one.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
import ssl
from pathlib import Path
from typing import Any

from edgekit import files
from edgekit.errors import missing_package

_DAYS, _DAYS_LEFT = 365, 7
_PRIVATE = 0o600


def context(address: str) -> tuple[ssl.SSLContext, str]:
    """Return a TLS context for `address` and localhost, and the SHA-256 fingerprint of its certificate.

    Key and certificate are kept in the cache, readable by the user only, until a week before they expire: the
    exception that a phone's user made for the certificate stays valid.

    Raises:
        MissingError: the package cryptography is not installed. StorageError: the file cannot be written.
    """
    folder = files.cache_dir("certificates")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', address)}.pem"
    if not _is_valid(path):
        pem = _create(address)
        with files.writing(path, _PRIVATE) as temporary:
            temporary.write_bytes(pem)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.minimum_version = ssl.TLSVersion.TLSv1_2
    secure.load_cert_chain(path)
    return secure, fingerprint(path.read_text(encoding="ascii"))


def fingerprint(pem: str) -> str:
    """Return the SHA-256 of a certificate in PEM text, as browsers show it."""
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE-----") :])
    return hashlib.sha256(der).digest().hex(":").upper()


def _is_valid(path: Path) -> bool:
    """Return whether the file holds a key and a certificate that is valid for another week."""
    if not path.is_file():
        return False
    x509 = _x509()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (ValueError, OSError):
        return False
    return bool(ends - datetime.datetime.now(datetime.timezone.utc) > datetime.timedelta(days=_DAYS_LEFT))


def _create(address: str) -> bytes:
    """Return a new key and its certificate as PEM."""
    x509 = _x509()
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "edgekit serve")])
    now = datetime.datetime.now(datetime.timezone.utc)
    alternatives = dict.fromkeys(["localhost", "127.0.0.1", address])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # for phones with a slow clock
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in alternatives]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(address: str) -> Any:
    x509 = _x509()
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _x509() -> Any:
    try:
        from cryptography import x509
    except ImportError:
        raise missing_package("cryptography", "--https", "https") from None
    return x509

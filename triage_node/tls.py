"""TLS for the page: certificate and key, what is wrong with them, and renewed ones without a restart.

TLS 1.2 with forward secrecy and authenticated encryption alone, and 1.3 (BCP 195, RFC 9325 sections 3.1.1 and 4.2).
No Strict-Transport-Security: it would hold for every port of this host, and beside the node other programs may be
served without TLS.
"""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from triage_node.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from triage_node.config import Settings

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all of this kind
SOON: Final = timedelta(days=14)
_PUBLIC: Final = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, which have been read and belong together."""

    certificate: Path
    key: Path
    names: tuple[str, ...]  # for which the certificate holds
    valid_from: datetime
    valid_to: datetime
    key_is_open: bool  # everybody on this machine may read the key
    state: tuple[tuple[int, int], ...]  # of the two files: when they were changed, and how long they are

    def warnings(self, now: datetime) -> list[str]:
        """What a browser or an auditor will not like, in words."""
        words = (
            [f"everybody on this machine may read the key {self.key}: chmod o= {self.key}"] if self.key_is_open else []
        )
        return [*self._dates(now), *words]

    def _dates(self, now: datetime) -> list[str]:
        if now < self.valid_from:
            return [f"the certificate {self.certificate} is valid only from {self.valid_from:%Y-%m-%d %H:%M} UTC on"]
        if now > self.valid_to:
            return [f"the certificate {self.certificate} has expired on {self.valid_to:%Y-%m-%d %H:%M} UTC: renew it"]
        if self.valid_to - now < SOON:
            return [f"the certificate {self.certificate} expires on {self.valid_to:%Y-%m-%d %H:%M} UTC: renew it"]
        return []


def pair(settings: Settings) -> Pair | None:
    """Certificate and key of the configuration; None where the page is served without TLS.

    Raises ConfigurationError with what is wrong with which of the two files.
    """
    rules = settings.web
    if not rules.enabled or not rules.certificate:
        return None
    certificate, key = (settings.folder / rules.certificate).resolve(), (settings.folder / rules.key).resolve()
    chain = _certificates(certificate)
    public = _private_key_of(key).public_key().public_bytes(*_PUBLIC)
    holders = [one.public_key().public_bytes(*_PUBLIC) == public for one in chain]
    if not holders[0]:
        if any(holders):
            raise ConfigurationError(
                f"web.certificate: in {certificate} the certificate of this key is number {holders.index(True) + 1}; it"
                " must be the first, followed by those that lead to its authority"
            )
        raise ConfigurationError(f"web.key: {key} is not the key of the certificate in {certificate}")
    found = Pair(
        certificate=certificate,
        key=key,
        names=_names(chain[0]),
        valid_from=chain[0].not_valid_before_utc,
        valid_to=chain[0].not_valid_after_utc,
        key_is_open=bool(key.stat().st_mode & stat.S_IROTH),
        state=_state(certificate, key),
    )
    _load(_empty_context(), found)
    return found


def context(found: Pair) -> ssl.SSLContext:
    """What the server speaks TLS with. Raises ConfigurationError."""
    made = _empty_context()
    _load(made, found)
    return made


def renewed(settings: Settings, made: ssl.SSLContext, before: Pair) -> Pair:
    """Take up files that were changed: connections from now on get the new certificate, those that are open stay.

    Raises ConfigurationError when the changed files cannot be used; then the old ones stay in use.
    """
    try:
        changed = _state(before.certificate, before.key) != before.state
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from error
    if not changed:
        return before
    found = pair(settings)
    assert found is not None
    _load(made, found)
    return found


def _empty_context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(CIPHERS)
    made.set_alpn_protocols(["http/1.1"])
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return made


def _load(made: ssl.SSLContext, found: Pair) -> None:
    try:
        # without the last argument a key with a passphrase would ask for it on the terminal
        made.load_cert_chain(found.certificate, found.key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"web.certificate: {found.certificate} with {found.key} cannot be used for TLS: {error}"
        ) from error


def _certificates(path: Path) -> list[x509.Certificate]:
    data = _read("web.certificate", path)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        if b"PRIVATE KEY-----" in data:
            raise ConfigurationError(f"web.certificate: {path} holds a private key: are certificate and key exchanged?")
        raise ConfigurationError(f"web.certificate: {path} is not a certificate in PEM{_remedy(data, path, 'x509')}")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ConfigurationError(f"web.certificate: {path} cannot be read as certificates: {error}") from error


def _private_key_of(path: Path) -> PrivateKeyTypes:
    data = _read("web.key", path)
    if b"PRIVATE KEY-----" not in data:
        if b"-----BEGIN CERTIFICATE-----" in data:
            raise ConfigurationError(f"web.key: {path} holds a certificate: are certificate and key exchanged?")
        raise ConfigurationError(f"web.key: {path} is not a private key in PEM{_remedy(data, path, 'pkey')}")
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise ConfigurationError(
            f"web.key: {path} has a passphrase, which nobody could type when the node starts: `openssl pkey -in {path}"
            " -out FILE` writes it without; let nobody but the node's user read that file"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"web.key: {path} cannot be read as a private key: {error}") from error


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{key}: cannot read {path}: {error.strerror}") from error


def _remedy(data: bytes, path: Path, command: str) -> str:
    """What to do about a file that begins like DER (a SEQUENCE with a long length, X.690)."""
    return f": `openssl {command} -inform der -in {path} -out FILE` makes one" if data[:2] == b"\x30\x82" else ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _state(*paths: Path) -> tuple[tuple[int, int], ...]:
    return tuple((found.st_mtime_ns, found.st_size) for found in (path.stat() for path in paths))


def now() -> datetime:
    """The time with which certificates are compared."""
    return datetime.now(UTC)

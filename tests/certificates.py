"""Certificates and keys of the tests' own, as a hospital's authority would make them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

Key = ec.EllipticCurvePrivateKey


def key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(one: Key, passphrase: bytes | None = None) -> bytes:
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return one.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def certificate(
    of: Key, *names: str, days: float = 30, since_days: float = -1, signed_by: Key | None = None
) -> x509.Certificate:
    """Self-signed unless `signed_by` another key; valid from `since_days` to `days` from now."""
    now, subject = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "triage-node test")])
    alternatives: list[x509.GeneralName] = []
    for name in names or ("localhost", "127.0.0.1"):
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(of.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=since_days))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signed_by or of, hashes.SHA256())
    )


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def der(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.DER)


def write_pair(folder: Path, *names: str, days: float = 30) -> tuple[Path, Path]:
    """page.pem and page.key in a folder; their paths."""
    own = key()
    files = folder / "page.pem", folder / "page.key"
    files[0].write_bytes(pem(certificate(own, *names, days=days)))
    files[1].write_bytes(key_pem(own))
    files[1].chmod(0o600)
    return files

"""Passwords are kept as argon2id hashes alone (RFC 9106, section 4: the second recommended option, 64 MiB)."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORTEST: Final = 12
LONGEST: Final = 1024
"""In characters; nobody types more, and hashing takes time by the length."""


def hashed(password: str) -> str:
    """The hash with its parameters and its salt, for `web.users.password_hash`."""
    return PasswordHasher().hash(password)


def fault(password: str) -> str | None:
    """Why a new password is not taken, in words, or None."""
    if len(password) < SHORTEST:
        return f"a password has {SHORTEST} characters or more; words that do not belong together are easy to keep"
    if len(password) > LONGEST:
        return f"a password has at most {LONGEST} characters"
    if len(set(password)) < SHORTEST // 3:
        return "the password repeats the same few characters"
    return None


def mark(password_hash: str) -> str:
    """A short name of a hash, so that a session knows that its password was changed."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:16]


class Passwords:
    """Names and hashes of the users that have a password."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        self._hasher = PasswordHasher()
        self._nobodys: str | None = None

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def right(self, name: str, password: str) -> bool:
        """Whether this is the user's password; takes as long for a name that nobody has."""
        expected = self._hashes.get(name)
        try:
            return self._hasher.verify(expected or self._of_nobody(), password[:LONGEST]) and expected is not None
        except (VerificationError, InvalidHashError):
            return False

    def _of_nobody(self) -> str:
        if self._nobodys is None:
            some = next(iter(self._hashes.values()), None)
            hasher = self._hasher if some is None else PasswordHasher.from_parameters(extract_parameters(some))
            self._nobodys = hasher.hash(secrets.token_urlsafe())
        return self._nobodys

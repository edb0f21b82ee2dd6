"""What a session is, and when it ends. Pure but for the random token.

The browser keeps the token in a cookie, the journal its sha256: who reads the journal cannot take a session over, who
has the cookie can be put out at any time. A log-in always makes a new token, so that nobody can plant one before.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Final

from triage_node import passwords

if TYPE_CHECKING:
    from triage_node.config import UserSection, WebSection
    from triage_node.journal.sessions import SessionRow

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# `used_at` is written at most this often.
TO_THE_MINUTE_S: Final = 60.0


def cookie_name(rules: WebSection) -> str:
    """With TLS a name that browsers take from this host alone and by TLS alone (RFC 6265bis section 4.1.3.2)."""
    return "__Host-session" if rules.certificate else "session"


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def digest_of(token: str | None) -> str | None:
    """Under which the journal knows the session of this cookie; None for what can be no token."""
    if token is None or not _TOKEN.fullmatch(token):
        return None
    return hashlib.sha256(token.encode()).hexdigest()


def ending(row: SessionRow, user: UserSection | None, rules: WebSection, now: float) -> str | None:
    """Why the session is over, or None while it lasts; `user` is whom the configuration has under its name now."""
    if row.ended_at is not None:
        return row.ending or "ended"
    if user is None or not user.password_hash:
        return "the user is not in the configuration any more"
    if row.password_mark != passwords.mark(user.password_hash):
        return "the password was changed"
    if now - row.begun_at >= rules.longest_h * 3600:
        return f"{rules.longest_h:g} h have passed since the log-in"
    if now - row.used_at >= rules.idle_min * 60:
        return f"not used for {rules.idle_min:g} min"
    return None


def due(row: SessionRow, now: float) -> bool:
    """Whether a use of the session is to be written down."""
    return now - row.used_at >= TO_THE_MINUTE_S

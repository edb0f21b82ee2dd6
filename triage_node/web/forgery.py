"""Whether a writing request comes from the node's own page, and not from another one in the same browser.

Two walls, each of which would do by itself: what the browser says of where the request was made (Sec-Fetch-Site, or
Origin where a browser does not send that), and a token that only a page of this origin can read (cookie `csrf`) and
send along (header `X-CSRF-Token`, or the field `csrf` of a form). The token of a session follows from the session, so
that nobody can plant one; without sessions it is the cookie's own random value.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.datastructures import Headers

COOKIE: Final = "csrf"
HEADER: Final = "x-csrf-token"
_RANDOM: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Forged(Exception):
    """The request may come from another page; the text says why."""


def new_token() -> str:
    """256 random bits as text for a cookie."""
    return secrets.token_urlsafe(32)


def well_formed(token: str | None) -> bool:
    """Whether this can be a token of ours."""
    return token is not None and _RANDOM.fullmatch(token) is not None


def token_of(session_token: str) -> str:
    """The token of a session; it tells nothing of the session's own."""
    return hmac.new(session_token.encode(), b"triage-node csrf", hashlib.sha256).hexdigest()


def same(given: str | None, expected: str | None) -> bool:
    """Compare in constant time; what is missing equals nothing."""
    return bool(given and expected) and hmac.compare_digest(str(given).encode(), str(expected).encode())


def check_origin(headers: Headers) -> bool:
    """Whether a browser says that the request comes from this origin; False where nothing is said. Raises Forged.

    Sec-Fetch-Site cannot be set by a page (Fetch Metadata, section 2.4); Origin is compared with Host, since a proxy
    may have ended TLS and with it the scheme.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Forged(f"the request was made by another page (Sec-Fetch-Site: {site[:20]})")
        return True
    origin = headers.get("origin")
    if origin is not None:
        if origin.partition("://")[2].lower() != headers.get("host", "").lower():
            raise Forged("the request was made by a page elsewhere (its Origin is not this host)")
        return True
    return False

"""Which role may do what, and which address asks for which right: two tables, and nothing that is in neither.

Every address needs a user, but those of PUBLIC. What reads needs READ. What writes needs the right of its row in
WRITING, and where it has none, an administrator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Role(StrEnum):
    """What a user is to this node; spelled as in the configuration."""

    READER = "reader"
    ADMINISTRATOR = "administrator"


class Right(StrEnum):
    """What somebody may do; the value is for people: "you may not VALUE"."""

    READ = "look at the list and its studies"
    CLAIM = "claim a study, release it, finish reading it"
    MARK_OTHERS = "mark what somebody else has claimed"
    CALL_OFF = "call off what nobody reads yet"
    OTHERS_SUBSCRIPTIONS = "use what somebody else has subscribed to"
    REQUEUE = "send results again"
    DESTINATIONS = "see how the destinations are"
    ADMINISTER = "change anything else"


_READER: Final = frozenset({Right.READ, Right.CLAIM})
RIGHTS: Final[Mapping[Role, frozenset[Right]]] = MappingProxyType(
    {Role.READER: _READER, Role.ADMINISTRATOR: frozenset(Right)}
)

# Without a user: what a browser needs to log in, and what a load balancer asks.
PUBLIC: Final = re.compile(r"/login|/health|/static/[^/]+")
# With a user, whatever the role: this is about himself.
OWN: Final = re.compile(r"/logout|/session/active")
# Path of what writes -> the right that it asks for.
WRITING: Final[tuple[tuple[re.Pattern[str], Right], ...]] = (
    (OWN, Right.READ),
    (re.compile(r"/api/study/[^/]+/(?:claim|release|finish)|/api/claims/next"), Right.CLAIM),
    (re.compile(r"/api(?:/v1)?/requeue"), Right.REQUEUE),
    (re.compile(r"/api/v1/studies/[^/]+/(?:claim|finish)"), Right.CLAIM),
    # Ordering (POST of /ups-rs/workitems) is for administrators; what is there is for readers, as on the page. To
    # request the cancellation of what is being read, too: what nobody reads yet needs CALL_OFF, which the API looks at
    (re.compile(r"/ups-rs/workitems/[^/]+(?:/(?:state|cancelrequest|subscribers/[^/]+(?:/suspend)?))?"), Right.CLAIM),
)
READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1, safe methods


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks; `request.user` of every handler."""

    name: str
    role: Role

    def may(self, right: Right) -> bool:
        """Whether the role has the right."""
        return right in RIGHTS[self.role]


LOCAL: Final = User(name="local", role=Role.ADMINISTRATOR)  # without any configured user, on loopback alone


def needed(method: str, path: str) -> Right | None:
    """The right that a request asks for, None if it needs no user."""
    if PUBLIC.fullmatch(path):
        return None
    if method in READING_METHODS:
        return Right.READ
    return next((right for pattern, right in WRITING if pattern.fullmatch(path)), Right.ADMINISTER)

"""How often somebody may guess: leaking buckets in a table of fixed size, so that no flood of attempts fills memory.

Every attempt is a drop; drops leak away at a steady rate; where a bucket is full the attempt waits. A key falls into
its bucket by a keyed hash, so that nobody can choose whose bucket he fills; two keys may share one (one in 65,536),
which makes the limit stricter for both, never looser.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from array import array
from dataclasses import dataclass
from typing import Final

SLOTS: Final = 65_536
_MULTIPLE: Final = 1e-9  # of a drop: what floating point leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many attempts at once, and one more each `every_s` seconds."""

    at_once: int
    every_s: float


class Buckets:
    """One bucket a key, and what is in it; `now` in seconds by any clock that does not go back."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._secret = secrets.token_bytes(16)
        self._levels = array("d", bytes(8 * SLOTS))  # drops at the time below
        self._times = array("d", bytes(8 * SLOTS))

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until there is room for an attempt; 0 where there is some."""
        over = self._level(self._slot(key), now) + 1 - self._limit.at_once
        return over * self._limit.every_s if over > _MULTIPLE else 0.0

    def add(self, key: str, now: float) -> None:
        """An attempt is made."""
        self._change(key, now, 1.0)

    def take_back(self, key: str, now: float) -> None:
        """The attempt was none: it succeeded."""
        self._change(key, now, -1.0)

    def _change(self, key: str, now: float, by: float) -> None:
        slot = self._slot(key)
        self._levels[slot] = max(0.0, self._level(slot, now) + by)
        self._times[slot] = now

    def _level(self, slot: int, now: float) -> float:
        return max(0.0, self._levels[slot] - max(0.0, now - self._times[slot]) / self._limit.every_s)

    def _slot(self, key: str) -> int:
        digest = hashlib.blake2b(key.encode(errors="replace"), key=self._secret, digest_size=4).digest()
        return int.from_bytes(digest, "big") % SLOTS


# A user at one place mistypes; many behind one address (a proxy, a ward) mistype; many places guess at one user.
PAIR: Final = Limit(at_once=5, every_s=30.0)
ADDRESS: Final = Limit(at_once=20, every_s=10.0)
USER: Final = Limit(at_once=10, every_s=60.0)


class Throttle:
    """The three limits on log-ins together."""

    def __init__(self) -> None:
        self._pairs, self._addresses, self._users = Buckets(PAIR), Buckets(ADDRESS), Buckets(USER)

    def wait_s(self, user: str, address: str, now: float, *, was_here: bool) -> float:
        """Seconds until this user may try from this address; 0 for at once.

        Who has logged in from there before (`was_here`) is not kept out by what others try elsewhere in his name.
        """
        place = _place(address)
        waits = [self._pairs.wait_s(f"{user}\0{place}", now), self._addresses.wait_s(place, now)]
        if not was_here:
            waits.append(self._users.wait_s(user, now))
        return max(waits)

    def add(self, user: str, address: str, now: float) -> None:
        """An attempt begins; before its end is known, so that many at once do not slip through."""
        place = _place(address)
        self._pairs.add(f"{user}\0{place}", now)
        self._addresses.add(place, now)
        self._users.add(user, now)

    def succeeded(self, user: str, address: str, now: float) -> None:
        """The attempt was the right one."""
        place = _place(address)
        self._pairs.take_back(f"{user}\0{place}", now)
        self._addresses.take_back(place, now)
        self._users.take_back(user, now)


def _place(address: str) -> str:
    """An IPv4 address, or the network that one IPv6 host can choose its addresses from (RFC 4291: a /64)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address

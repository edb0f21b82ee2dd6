"""From where a request comes, and what a trusted proxy says of it. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node.config.web import STATION_PREFIX

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from triage_node.config import WebSection

LONGEST_NAME = 64
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Spoofed(Exception):
    """What the proxy says cannot be trusted; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is at the other end."""

    address: str  # of the browser, as far as it is known
    by_proxy: bool  # a trusted proxy asks on somebody's behalf
    loopback: bool  # the connection comes from this machine
    user: str | None  # whom the proxy names


def networks(rules: WebSection) -> tuple[Network, ...]:
    """The trusted proxies."""
    return tuple(ipaddress.ip_network(address, strict=False) for address in rules.proxy_addresses)


def caller(peer: str, headers: Headers, proxies: tuple[Network, ...], header: str) -> Caller:
    """Read `peer` (the address of the connection) and, only where that is a trusted proxy, its headers.

    Raises Spoofed where the proxy names two users (then it has added to what the browser sent, not overwritten it), or
    one whose name cannot be a name.
    """
    address = _address(peer)
    if address is None:
        return Caller(address=peer, by_proxy=False, loopback=False, user=None)
    if not _within(address, proxies):
        return Caller(address=str(address), by_proxy=False, loopback=address.is_loopback, user=None)
    names = headers.getlist(header)
    if len(names) > 1:
        raise Spoofed(f"the proxy passes {len(names)} headers {header}: it must overwrite what the browser sends")
    return Caller(
        address=_forwarded(headers.getlist("x-forwarded-for"), proxies) or str(address),
        by_proxy=True,
        loopback=address.is_loopback,
        user=_user(names[0]) if names else None,
    )


def _user(value: str) -> str | None:
    """The name in a header, which HTTP takes for Latin-1 and proxies write as UTF-8; None where it is empty."""
    with contextlib.suppress(UnicodeError):
        value = value.encode("latin-1").decode()
    name = value.strip()
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise Spoofed(
            f"the proxy names a user of more than {LONGEST_NAME} characters, or of signs that cannot be shown"
        )
    if name.startswith(STATION_PREFIX):
        raise Spoofed(f'the proxy names a user whose name begins with "{STATION_PREFIX}", as those of stations do')
    return name or None


def _forwarded(lines: list[str], proxies: tuple[Network, ...]) -> str | None:
    """The last address that no trusted proxy has: what stands before it was sent by whoever is there."""
    for entry in reversed([entry.strip() for line in lines for entry in line.split(",")]):
        address = _address(entry)
        if address is None:
            return None
        if not _within(address, proxies):
            return str(address)
    return None


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, proxies: tuple[Network, ...]) -> bool:
    return any(address in network for network in proxies if network.version == address.version)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address

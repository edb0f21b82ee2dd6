"""Who gets an association: peers by AE title and address, as the configuration names them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triage_node.config import Peer


def is_peer(peers: Iterable[Peer], calling_ae_title: str, address: str) -> bool:
    """Whether one of the configured peers has this AE title and this address."""
    try:
        peer_address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(peer_address, ipaddress.IPv6Address) and peer_address.ipv4_mapped:
        peer_address = peer_address.ipv4_mapped
    return any(
        peer.ae_title in ("*", calling_ae_title.strip())
        and (peer.address == "*" or peer_address in ipaddress.ip_network(peer.address, strict=False))
        for peer in peers
    )

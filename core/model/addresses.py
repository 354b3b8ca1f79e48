"""Whom an address stands for, when callers are counted by it."""

import functools
import ipaddress
from typing import Final

ADDRESSES_KNOWN_MAX: Final = 4_096
NOBODY: Final = "nobody"
"""Whoever has no address: they share one name, because an empty one would mean no limit."""


@functools.lru_cache(ADDRESSES_KNOWN_MAX)
def network(host: str) -> str:
    """Return the address, of IPv6 its /64: one subscriber has all of that."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return NOBODY
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))

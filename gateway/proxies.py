"""Who is really calling: what a proxy says about its client, believed only from the proxies we were told of.

granian has a wrapper for this, too. Ours differs where an attacker looks: one header is read, the one the proxies are
known to write, since another that they only pass on is the caller's own; what is no address never becomes one; a
port is not part of a client; and trust in everybody cannot be asked for.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors.exceptions import Misconfigured

HOPS_MAX: Final = 32
HOPS_REMEMBERED_MAX: Final = 4_096
FORWARDED: Final = "forwarded"
SCHEMES: Final = frozenset({"http", "https"})
_PAIR: Final = re.compile(r'\s*([a-z]+)=("[^"]*"|[^";\s]*)\s*', re.IGNORECASE)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class TrustedProxies:
    """Rewrites `client` and `scheme` of requests that come from a trusted peer.

    The client is the right-most hop that is not itself trusted: everything left of it is hearsay.
    """

    def __init__(self, app: ASGIApp, *, networks: Sequence[Network], header: str) -> None:
        self._app = app
        self._networks = networks
        self._header = header.encode()
        # Reading an address takes longer than the rest together, and the same few come again and again.
        self._hop = lru_cache(HOPS_REMEMBERED_MAX)(self._read_hop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client") and self._hop(scope["client"][0])[1]:
            self._rewrite(scope)
        await self._app(scope, receive, send)

    def _rewrite(self, scope: Scope) -> None:
        said = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == self._header)
        hops = said.split(",")[-HOPS_MAX:] if said else []
        scheme = ""
        for hop in reversed(hops):
            pairs = _pairs(hop) if self._header == FORWARDED.encode() else {"for": hop}
            address, trusted = self._hop(pairs.get("for", ""))
            if not address:
                break  # Whoever wrote this knows no better; the hop before it is the last we can name.
            scope["client"] = (address, 0)
            scheme = pairs.get("proto", "")
            if not trusted:
                break
        if self._header != FORWARDED.encode():
            scheme = _last(scope, b"x-forwarded-proto")
        if scheme.lower() in SCHEMES:
            scope["scheme"] = scheme.lower()

    def _read_hop(self, text: str) -> tuple[str, bool]:
        """Return the address, or nothing, and whether it is trusted."""
        address = address_of(text)
        if address is None:
            return "", False
        return str(address), any(address in network for network in self._networks)


def networks_of(trusted: Iterable[str]) -> tuple[Network, ...]:
    """Return the addresses and CIDRs of the setting.

    Raises:
        Misconfigured: one is neither, or means everybody.
    """
    networks = []
    for text in trusted:
        try:
            network = ip_network(text)
        except ValueError as e:
            raise Misconfigured(f"{text!r} is no address and no CIDR of a proxy", code="BAD_PROXY") from e
        if network.prefixlen == 0:
            raise Misconfigured(f"{text!r} would let everybody name their own address", code="BAD_PROXY")
        networks.append(network)
    return tuple(networks)


def address_of(text: str) -> Address | None:
    """Return the address in `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1` or `"[2001:db8::1]:4711"`, or None."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _pairs(element: str) -> dict[str, str]:
    """Return the parameters of one element of Forwarded; nothing when any part of it is none. Source: RFC 7239."""
    found = [_PAIR.fullmatch(part) for part in element.split(";")]
    return {pair[1].lower(): pair[2].strip('"') for pair in found if pair} if all(found) else {}


def _last(scope: Scope, name: bytes) -> str:
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return values[-1].rpartition(",")[2].strip() if values else ""

"""How often one address may connect here, how often show a credential that is none, how often show none at all.

An address is known only once the upgrade is done, so whoever comes too often is closed then, before a byte of it is
read. Behind a TLS proxy everybody has the proxy's address: there the limit is the proxy's to keep.
"""

from collections import Counter, OrderedDict
from typing import Final

from picows import WSTransport

from bridge.allowance import Allowance
from core.model.addresses import NOBODY, network
from core.settings import BridgeSettings
from core.telemetry import metrics

PEERS_MAX: Final = 10_000
"""Beyond this the address longest not seen is forgotten, which gives it a minute's worth of connects."""
MINUTE_S: Final = 60.0


class Peers:
    """The allowances of every address seen lately."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._connects: OrderedDict[str, Allowance] = OrderedDict()
        self._failures: OrderedDict[str, Allowance] = OrderedDict()
        self._unknown: dict[int, str] = {}
        self._unknown_by_address: Counter[str] = Counter()

    def admit(self, transport: WSTransport, at_s: float) -> bool:
        """Count a connect, and tell whether it may stay. at_s: a monotonic clock's."""
        if self._settings.behind_tls_proxy:
            return True
        address = _address(transport)
        failures = self._failures.get(address)
        # In this order: who may not come in for its failures, or for those it has, has not used up a connect.
        admitted = (
            (failures is None or failures.left(at_s) >= 1)
            and self._unknown_by_address[address] < self._settings.unknown_by_address_max
            and _of(self._connects, address, self._settings.connects_per_minute_max).take(at_s)
        )
        if admitted:
            self._unknown[id(transport)] = address
            self._unknown_by_address[address] += 1
        else:
            metrics.BRIDGE_CONNECTS_REFUSED.inc()
        return admitted

    def note_known(self, transport: WSTransport | None) -> None:
        """Count a connection no more among those that have not shown who they are: it has, or it is gone."""
        address = self._unknown.pop(id(transport), None)
        if address is not None:
            self._unknown_by_address[address] -= 1
            if not self._unknown_by_address[address]:
                del self._unknown_by_address[address]

    def note_failure(self, transport: WSTransport | None, at_s: float) -> None:
        """Count a credential that was refused."""
        if transport is not None and not self._settings.behind_tls_proxy:
            _of(self._failures, _address(transport), self._settings.failures_per_minute_max).take(at_s)


def _of(allowances: OrderedDict[str, Allowance], address: str, per_minute: int) -> Allowance:
    allowance = allowances.get(address)
    if allowance is None:
        allowance = allowances[address] = Allowance(burst=per_minute, per_s=per_minute / MINUTE_S)
        if len(allowances) > PEERS_MAX:
            allowances.popitem(last=False)
    allowances.move_to_end(address)
    return allowance


def _address(transport: WSTransport) -> str:
    peer = transport.underlying_transport.get_extra_info("peername")
    return network(peer[0]) if peer else NOBODY
